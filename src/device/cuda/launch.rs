//! How each node is launched: kernel, grid, block and shared memory, by op, formats and the graph's bucket.
//!
//! The names are those of csrc/*.cu: `norm_qkv_int8x2_t16` reads activations as int8x2 and has blocks of up to 16 rows.
//! Which line is chosen changes no bit of a result.

use super::context::Gpu;
use crate::device::params::*;
use crate::device::{KernelParams, WeightFormat};

/// Threads of every block but those that say otherwise: 8 warps.
const THREADS: u32 = 256;

/// Threads of a block of `sample`, which has one row.
const SAMPLE_THREADS: u32 = 1024;

/// Shared memory that the driver takes for itself in every block.
const BLOCK_SHARED_RESERVED: u32 = 1 << 10;

/// Rows of activations that a block of a linear kernel takes, by the graph's bucket: the first line that is not below
/// it. With few rows the weights are what is read, and every block reads its own once; with many, the rows would be
/// read again by every block.
const LINEAR_ROWS: [(u32, u32); 4] = [(8, 8), (16, 16), (32, 32), (u32::MAX, 64)];

/// The most of them if they are int8x2: a thread has no registers for more.
const LINEAR_ROWS_MAX_INT8X2: u32 = 32;

/// Outputs of a block of a linear kernel: two of mma's tiles.
const LINEAR_OUTPUTS: u32 = 32;

/// A launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) kernel: String,
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    /// Dynamic shared memory of a block.
    pub(super) shared_bytes: u32,
    /// The weights' formats, for tables.
    pub(super) formats: String,
}

impl std::fmt::Display for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [x, y, z] = self.grid;
        write!(f, "{}, grid {x} x {y} x {z}, {} threads", self.kernel, self.threads)?;
        if self.shared_bytes > 0 { write!(f, ", {} bytes of shared memory", self.shared_bytes) } else { Ok(()) }
    }
}

impl Launch {
    /// Reads the GPU's clock: csrc/device_clock.cu.
    pub(super) fn clock() -> Launch {
        Launch::of("device_clock".into(), [1, 1, 1], 1)
    }

    pub(super) fn of(kernel: String, grid: [u32; 3], threads: u32) -> Launch {
        Launch { kernel, grid, threads, shared_bytes: 0, formats: String::new() }
    }

    /// The launch in words, for `vitrum graph` and traces.
    pub(super) fn choice(&self) -> String {
        let [x, y, z] = self.grid;
        let formats = if self.formats.is_empty() { String::new() } else { format!("{}; ", self.formats) };
        let shared =
            if self.shared_bytes == 0 { String::new() } else { format!(", {} bytes shared", self.shared_bytes) };
        format!("{formats}grid {x} x {y} x {z}, {} threads{shared}", self.threads)
    }
}

/// The launch of a node in a graph with this bucket.
pub(super) fn choose(params: &KernelParams, bucket: u32, gpu: &Gpu) -> Launch {
    match params {
        KernelParams::Embed(_) => Launch::of("embed".into(), [bucket, 1, 1], THREADS),
        KernelParams::NormQkv(p) => linear("norm_qkv", &[p.wq, p.wk, p.wv], bucket),
        KernelParams::Attention(p) => attention(p, gpu),
        KernelParams::LinearResidual(p) => linear("linear_residual", &[p.weight], bucket),
        // A block has the same outputs of gate and up.
        KernelParams::NormGateUp(p) => {
            Launch { formats: formats(&[p.gate, p.up]), ..linear("norm_gate_up", &[p.gate], bucket) }
        }
        KernelParams::NormLmHead(p) => linear("norm_lm_head", &[p.weight], bucket),
        KernelParams::Sample(_) => Launch::of("sample".into(), [bucket, 1, 1], SAMPLE_THREADS),
    }
}

/// A linear kernel, whose grid has the blocks of outputs of one weight after the other.
fn linear(op: &str, weights: &[WeightRef], bucket: u32) -> Launch {
    let line = LINEAR_ROWS.iter().find(|(bucket_max, _)| bucket <= *bucket_max);
    let rows = line.expect("the last line takes every bucket").1;
    let (activations, rows) = match weights[0].activations {
        ACTIVATIONS_INT8 => ("int8", rows),
        ACTIVATIONS_INT8X2 => ("int8x2", rows.min(LINEAR_ROWS_MAX_INT8X2)),
        _ => ("bf16", rows),
    };
    let blocks = weights.iter().map(|weight| weight.rows.div_ceil(LINEAR_OUTPUTS)).sum();
    let launch = Launch::of(format!("{op}_{activations}_t{rows}"), [blocks, bucket.div_ceil(rows), 1], THREADS);
    Launch { formats: formats(weights), ..launch }
}

/// Attention: the blocks that the GPU holds at once take pieces of the work list in turn.
fn attention(p: &AttentionParams, gpu: &Gpu) -> Launch {
    let shared_bytes = ATTENTION_SHARED_FIXED + p.head_dim * ATTENTION_SHARED_PER_DIM;
    let held = gpu.multiprocessor_shared_bytes / (shared_bytes + BLOCK_SHARED_RESERVED);
    let blocks = gpu.multiprocessors * held.max(1);
    Launch { shared_bytes, ..Launch::of(format!("attention_f16_d{}", p.head_dim), [blocks, 1, 1], THREADS) }
}

fn formats(weights: &[WeightRef]) -> String {
    let mut formats: Vec<_> =
        weights.iter().map(|weight| WeightFormat::from_u32(weight.format).map_or("?", WeightFormat::as_str)).collect();
    formats.dedup();
    formats.join("+")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::super::{images, measure, validate};
    use super::*;

    fn weight(rows: u32, format: u32, activations: u32) -> WeightRef {
        WeightRef { data: 4096, rows, cols: 96, format, activations }
    }

    fn qkv(format: u32, activations: u32) -> KernelParams {
        let [wq, wk] = [96, 40].map(|rows| weight(rows, format, activations));
        KernelParams::NormQkv(NormQkvParams { wq, wk, wv: wk, ..Default::default() })
    }

    /// One node for every kernel of the table, in every form.
    fn nodes() -> Vec<KernelParams> {
        let mut nodes = vec![KernelParams::Embed(Default::default()), KernelParams::Sample(Default::default())];
        for (format, activations) in
            [(FORMAT_BF16, ACTIVATIONS_BF16), (FORMAT_Q4_1, ACTIVATIONS_INT8), (FORMAT_Q8_0, ACTIVATIONS_INT8X2)]
        {
            let weight = weight(96, format, activations);
            nodes.extend([
                qkv(format, activations),
                KernelParams::LinearResidual(LinearResidualParams { weight, ..Default::default() }),
                KernelParams::NormGateUp(NormGateUpParams { gate: weight, up: weight, ..Default::default() }),
                KernelParams::NormLmHead(NormLmHeadParams { weight, ..Default::default() }),
            ]);
        }
        nodes.extend(
            validate::HEAD_DIMS
                .map(|head_dim| KernelParams::Attention(AttentionParams { head_dim, ..Default::default() })),
        );
        nodes
    }

    /// Every kernel that the table can choose, the one that reads the clock, and those that measure.
    fn chosen() -> BTreeSet<String> {
        let gpu = Gpu::for_tests(90);
        let of =
            |params: &KernelParams| (0..10).map(|shift| choose(params, 1 << shift, &gpu).kernel).collect::<Vec<_>>();
        let others = measure::KERNELS.map(str::to_owned).into_iter().chain([Launch::clock().kernel]);
        nodes().iter().flat_map(of).chain(others).collect()
    }

    /// Every kernel that csrc defines, by its macros.
    fn defined() -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("csrc");
        let entry = fs::read_to_string(folder.join("common/entry.cuh")).expect("csrc/common/entry.cuh");
        let between = |text: &str, begin: &str, end: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.contains("#define"));
            lines.filter_map(|line| Some(line.split_once(begin)?.1.split(end).next()?.trim().to_owned())).collect()
        };
        let forms = between(&entry, "LINEAR_KERNELS_OF(op, Params, ", ",");
        let tokens = between(&entry, "LINEAR_KERNEL(op, Params, form, FORM, ", ")");
        // Beside those, single ones: `LINEAR_KERNEL(op, Params, bf16, VITRUM_ACTIVATIONS_BF16, 64)`.
        let single = |form: &str| -> Vec<String> {
            let begin = format!("LINEAR_KERNEL(op, Params, {form}, VITRUM_ACTIVATIONS_{}, ", form.to_uppercase());
            between(&entry, &begin, ")")
        };
        let singles: usize = forms.iter().map(|form| single(form).len()).sum();
        assert_eq!((forms.len(), tokens.len(), singles), (3, 3, 2), "the macros of csrc/common/entry.cuh");
        let mut names = BTreeSet::new();
        for file in fs::read_dir(folder).expect("csrc").map(|file| file.expect("a file").path()) {
            if file.extension().is_none_or(|end| end != "cu") {
                continue;
            }
            let text = fs::read_to_string(&file).expect("a text");
            let before = names.len();
            for op in between(&text, "LINEAR_KERNELS(", ",") {
                let of_form = |form: &String| -> Vec<String> {
                    tokens.iter().cloned().chain(single(form)).map(|t| format!("{op}_{form}_t{t}")).collect()
                };
                names.extend(forms.iter().flat_map(of_form));
            }
            names.extend(between(&text, "ATTENTION(", ")").iter().map(|dim| format!("attention_f16_d{dim}")));
            for definition in text.split("VITRUM_KERNEL").skip(1).filter(|_| !text.contains("#define ATTENTION")) {
                // The name stands before the parameters, which may begin on the next line.
                let words = definition.split_whitespace().collect::<Vec<_>>().join(" ").replace("( const", "(const");
                let head = words.split("(const").next().unwrap_or_default();
                names.extend(head.split(' ').next_back().map(str::to_owned));
            }
            assert!(names.len() > before, "{} defines no kernel", file.display());
        }
        names
    }

    #[test]
    fn the_table_has_every_kernel_of_csrc_and_no_other() {
        assert_eq!(chosen(), defined());
    }

    /// Of each architecture, in an ELF file as the name of a section, in PTX as an entry.
    #[test]
    fn what_is_embedded_has_every_kernel_of_the_table() {
        let archs: BTreeSet<&str> = images::IMAGES.iter().map(|image| image.arch).collect();
        for arch in archs {
            let of_arch = images::IMAGES.iter().filter(|image| image.arch == arch);
            let text: String = of_arch.map(|image| String::from_utf8_lossy(image.bytes)).collect();
            let has = |kernel: &String| {
                text.contains(&format!(".text.{kernel}\0")) || text.contains(&format!(".entry {kernel}("))
            };
            let missing: Vec<String> = chosen().into_iter().filter(|kernel| !has(kernel)).collect();
            assert!(missing.is_empty(), "{arch}: {missing:?}");
        }
    }

    #[test]
    fn grids_hold_all_outputs_and_all_rows() {
        let gpu = Gpu::for_tests(90);
        let grid = |params: &KernelParams, bucket| {
            let launch = choose(params, bucket, &gpu);
            (launch.kernel, launch.grid)
        };
        let (bf16, int8) = (qkv(FORMAT_BF16, ACTIVATIONS_BF16), qkv(FORMAT_Q4_0, ACTIVATIONS_INT8));
        assert_eq!(grid(&bf16, 1), ("norm_qkv_bf16_t8".into(), [3 + 2 + 2, 1, 1]), "40 rows are two blocks");
        assert_eq!(grid(&bf16, 48), ("norm_qkv_bf16_t64".into(), [7, 1, 1]));
        assert_eq!(grid(&int8, 200), ("norm_qkv_int8_t64".into(), [7, 4, 1]));
        assert_eq!(grid(&KernelParams::Sample(SampleParams::default()), 12), ("sample".into(), [12, 1, 1]));
        let head_dim_64 = KernelParams::Attention(AttentionParams { head_dim: 64, ..Default::default() });
        let launch = choose(&head_dim_64, 4, &gpu);
        assert_eq!((launch.grid, launch.shared_bytes), ([2, 1, 1], 38272 + 64 * 1152), "two fit at once");
        assert_eq!(launch.to_string(), "attention_f16_d64, grid 2 x 1 x 1, 256 threads, 112000 bytes of shared memory");
    }
}
