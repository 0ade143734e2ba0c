//! Kernels: what a node of a step's graph does, in shapes, parameters, cost, a scalar reference in f64, and code.
//!
//! **To add an op**: its folder here and its `csrc/<op>.cu`, under one noun; its parameters in `csrc/params.h`; and its
//! line in [`kernels!`]. If linear layers read its result, `next_rows.rs` says so; a place of its own in tables is an
//! `Op` of `src/trace/schema.rs`. The folder has
//! - `mod.rs`: a struct of shapes and addresses, whose `node` asserts that they fit together and makes the node with
//!   its cost; `check`, what every device's kernel trusts in; and the reference, naive on purpose: it is what the
//!   kernels are tested against;
//! - `cpu.rs`: the CPU's kernel and the choice of its variant;
//! - `cuda.rs`: how the kernel of csrc is launched, and what it asks for besides.
//!
//! What several kernels share: [`cpu`] (workers, prepared rows, products), [`cuda`] (launches, rows), [`linear`] (costs
//! and references of products), `check.rs`. What sizes a model may have is asked of [`sizes`], before there is a node.
//! Nothing here knows a device: devices run what is here.

pub mod attention;
mod check;
pub mod cpu;
pub mod cuda;
pub mod embed;
pub mod linear;
pub mod linear_residual;
mod next_rows;
pub mod norm_gate_up;
pub mod norm_lm_head;
pub mod norm_qkv;
pub mod norm_residual;
#[rustfmt::skip] // generated, and compared byte by byte with what the generator writes
pub mod params;
mod pointer;
pub mod qk_norm;
pub mod rows;
pub mod sample;
pub mod sizes;

pub use self::check::Wrong;
pub(crate) use self::check::{Check, Checker};
pub use self::next_rows::link;
use self::params::*;
pub use self::pointer::DevicePtr;
use crate::isa::IsaChoice;
use crate::trace::schema::{Cost, Place};

/// A node of a graph to capture: a kernel, its parameters, where it stands and what it costs.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The kernel and its parameters.
    pub params: KernelParams,
    /// Layer and op.
    pub place: Place,
    /// Bytes and operations.
    pub cost: Cost,
}

/// Makes of the list of kernels their parameters' enum, their names, and the four ways into a kernel's own code.
macro_rules! kernels {
    ($($(#[$doc:meta])* $Kernel:ident($Params:ident), $module:ident;)*) => {
        /// The parameters of one kernel launch, by kernel.
        #[derive(Clone, Copy, Debug)]
        pub enum KernelParams {
            $($(#[$doc])* $Kernel($Params),)*
        }

        impl KernelParams {
            /// Every kernel's name.
            pub const NAMES: [&str; [$(stringify!($module)),*].len()] = [$(stringify!($module)),*];

            /// The kernel's name: that of its folder, of its file in csrc, and of what is in it.
            pub fn name(&self) -> &'static str {
                match self {
                    $(KernelParams::$Kernel(_) => stringify!($module),)*
                }
            }

            /// Checks what the kernels of every device trust in.
            pub(crate) fn check(&self, checker: &Checker<'_>) -> Check {
                match self {
                    $(KernelParams::$Kernel(params) => $module::check(checker, params),)*
                }
            }

            /// Checks what CUDA's kernel asks for besides.
            pub(crate) fn check_for_cuda(&self, checker: &Checker<'_>) -> Check {
                match self {
                    $(KernelParams::$Kernel(params) => $module::cuda::check(checker, params),)*
                }
            }

            /// The variant of the CPU's kernel for a graph of this bucket.
            pub fn choose_for_cpu(&self, bucket: u32, isa: IsaChoice) -> cpu::Choice {
                match self {
                    $(KernelParams::$Kernel(params) => $module::cpu::choose(params, bucket, isa),)*
                }
            }

            /// The launch of CUDA's kernel in a graph of this bucket, on a GPU with so many multiprocessors.
            pub(crate) fn launch_on_cuda(&self, bucket: u32, multiprocessors: u32) -> cuda::Launch {
                match self {
                    $(KernelParams::$Kernel(params) => $module::cuda::launch(params, bucket, multiprocessors),)*
                }
            }

            /// The bytes that the kernel takes by value.
            pub(crate) fn as_ptr(&self) -> *const std::ffi::c_void {
                match self {
                    $(KernelParams::$Kernel(params) => std::ptr::from_ref(params).cast(),)*
                }
            }
        }
    };
}

// The list: a kernel's noun, its parameters in csrc/params.h, its folder.
kernels! {
    /// Token embedding.
    Embed(EmbedParams), embed;
    /// Norm, q/k/v projections, rotary embedding, KV write.
    NormQkv(NormQkvParams), norm_qkv;
    /// Norm of queries and keys, rotary embedding, KV write of keys.
    QkNorm(QkNormParams), qk_norm;
    /// Attention over the paged cache.
    Attention(AttentionParams), attention;
    /// Projection added to the residual stream.
    LinearResidual(LinearResidualParams), linear_residual;
    /// Norm behind a projection, added to the residual stream.
    NormResidual(NormResidualParams), norm_residual;
    /// Norm, gate and up projections, SiLU.
    NormGateUp(NormGateUpParams), norm_gate_up;
    /// Final norm and vocabulary projection.
    NormLmHead(NormLmHeadParams), norm_lm_head;
    /// Drawing tokens.
    Sample(SampleParams), sample;
}
