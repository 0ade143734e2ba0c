//! Weight formats: how the values of a matrix are stored in files, and how each device's kernels hold them.
//!
//! A format is one file here and one in `csrc/formats` with its line in `table.cuh`, a module and a line of the table
//! below, and a number in csrc/params.h. Its file says
//! - what its blocks are, what they decode to, and what containers call it: `Format` in format.rs;
//! - how the CPU's kernels hold it, and multiply with it in registers: cpu.rs;
//! - how CUDA's kernels hold it, if they do: cuda.rs.
//!
//! What several formats share stands in quantised.rs, nibbles.rs and floats.rs. Nothing here allocates device memory or
//! knows a device: that is `device`'s, and so is the choice of how rows of activations are read.

mod bf16;
pub(crate) mod cpu;
pub mod cuda;
mod f16;
mod f32;
mod floats;
mod format;
mod nibbles;
mod q4_0;
mod q4_1;
mod q8_0;
mod quantised;
pub(crate) mod random;
#[cfg(test)]
mod tests;

use self::cpu::{CpuFormat, Multiply, PackedRow};
use self::format::Format;
use crate::isa::Isa;

/// Makes of the table the enum [`WeightFormat`], and the three ways from one of its values to the format's own code.
macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $module:ident;)*) => {
        /// How the values of a weight matrix are stored, in GGUF's and safetensors' encodings.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum WeightFormat {
            $($(#[$doc])* $name = $number,)*
        }

        impl WeightFormat {
            /// Every format, in the order of their numbers.
            pub const ALL: [WeightFormat; [$($number),*].len()] = [$(WeightFormat::$name),*];

            fn own(self) -> &'static dyn Format {
                match self {
                    $(WeightFormat::$name => &$module::$name,)*
                }
            }

            /// Reads a row of a matrix that was packed for the CPU back.
            ///
            /// # Safety
            /// See [`CpuFormat::unpack_row`].
            #[inline(always)]
            pub(crate) unsafe fn unpack_row(self, row: &PackedRow) {
                match self {
                    $(WeightFormat::$name => {
                        // SAFETY: the caller's.
                        unsafe { $module::$name::unpack_row(row) }
                    })*
                }
            }

            /// Multiplies with a matrix that was packed for the CPU.
            ///
            /// # Safety
            /// See [`CpuFormat::multiply`].
            #[inline(always)]
            pub(crate) unsafe fn multiply<I: Isa>(self, product: &impl Multiply, bf16: bool) {
                match self {
                    $(WeightFormat::$name => {
                        // SAFETY: the caller's.
                        unsafe { $module::$name::multiply::<I>(product, bf16) }
                    })*
                }
            }
        }
    };
}

// The table: a format's number is that of VITRUM_FORMAT_* in csrc/params.h; its file is that of the module.
formats! {
    /// IEEE single precision.
    F32 = 0, f32;
    /// IEEE half precision.
    F16 = 1, f16;
    /// bfloat16.
    Bf16 = 2, bf16;
    /// Blocks of 32: f16 scale d, 32 × i8; value = d·q.
    Q8_0 = 3, q8_0;
    /// Blocks of 32: f16 scale d, 16 bytes of nibbles (low: values 0..16, high: 16..32); value = d·(q − 8).
    Q4_0 = 4, q4_0;
    /// Blocks of 32: f16 scale d, f16 minimum m, 16 bytes of nibbles; value = d·q + m.
    Q4_1 = 5, q4_1;
}
