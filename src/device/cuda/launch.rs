//! How each node is launched: kernel, grid, block and shared memory, by op, formats and the graph's bucket.
//!
//! The names are those of csrc/*.cu: `norm_qkv_int8x2_t16` reads activations as int8x2 and has blocks of up to 16 rows.
//! Which line is chosen changes no bit of a result.

use crate::device::KernelParams;
use crate::device::params::*;
use crate::formats::WeightFormat;

/// Threads of every block but those that say otherwise: 8 warps.
const THREADS: u32 = 256;

/// Threads of a block of `sample`, which has one row.
const SAMPLE_THREADS: u32 = 1024;

/// Rows of activations that a block of a linear kernel takes, by the graph's bucket: the first line that is not below
/// it. With few rows the weights are what is read, and every block reads its own once; with many, the rows would be
/// read again by every block.
const LINEAR_ROWS: [(u32, u32); 4] = [(8, 8), (16, 16), (32, 32), (u32::MAX, 64)];

/// The most of them if they are int8x2: a thread has no registers for more.
const LINEAR_ROWS_MAX_INT8X2: u32 = 32;

/// Outputs of a warp of a linear kernel: two of mma's tiles. A sliced block's warps share them.
const LINEAR_OUTPUTS: u32 = 32;

/// Buckets above this may have wide blocks, in which every warp has outputs of its own.
const LINEAR_SLICED_BUCKET_MAX: u32 = 64;

/// Blocks of outputs of a wide block.
const LINEAR_WIDE_WARPS: u32 = 8;

/// A launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) kernel: String,
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    /// Dynamic shared memory of a block.
    pub(super) shared_bytes: u32,
    /// The blocks take their work in turn: the grid is [`Launch::fill`]ed with as many as the GPU holds at once.
    pub(super) is_persistent: bool,
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
        Launch { kernel, grid, threads, shared_bytes: 0, is_persistent: false, formats: String::new() }
    }

    /// The grid of a persistent launch on a GPU whose multiprocessors hold so many of its blocks each. One more block
    /// would begin when another has ended, with nothing left to do; one fewer leaves a multiprocessor's room unused.
    pub(super) fn fill(&mut self, multiprocessors: u32, held: u32) {
        // A block that no multiprocessor holds fails when it is launched, with the driver's word for why.
        self.grid = [multiprocessors * held.max(1), 1, 1];
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

/// The launch of a node in a graph with this bucket, on a GPU with so many multiprocessors.
pub(super) fn choose(params: &KernelParams, bucket: u32, multiprocessors: u32) -> Launch {
    match params {
        KernelParams::Embed(_) => Launch::of("embed".into(), [bucket, 1, 1], THREADS),
        KernelParams::NormQkv(p) => linear("norm_qkv", &[p.wq, p.wk, p.wv], bucket, multiprocessors),
        KernelParams::Attention(p) => attention(p),
        KernelParams::LinearResidual(p) => linear("linear_residual", &[p.weight], bucket, multiprocessors),
        // A block has the same outputs of gate and up.
        KernelParams::NormGateUp(p) => {
            Launch { formats: formats(&[p.gate, p.up]), ..linear("norm_gate_up", &[p.gate], bucket, multiprocessors) }
        }
        KernelParams::NormLmHead(p) => linear("norm_lm_head", &[p.weight], bucket, multiprocessors),
        KernelParams::Sample(_) => Launch::of("sample".into(), [bucket, 1, 1], SAMPLE_THREADS),
    }
}

/// A linear kernel, whose grid has the blocks of outputs of one weight after the other: sliced blocks, or wide ones
/// where there are rows enough and every multiprocessor has one.
fn linear(op: &str, weights: &[WeightRef], bucket: u32, multiprocessors: u32) -> Launch {
    let blocks: u32 = weights.iter().map(|weight| weight.rows.div_ceil(LINEAR_OUTPUTS)).sum();
    let form = match weights[0].activations {
        ACTIVATIONS_INT8 => "int8",
        ACTIVATIONS_INT8X2 => "int8x2",
        _ => "bf16",
    };
    let formats = formats(weights);
    let rows = wide_rows(op, form);
    let grid = [blocks.div_ceil(LINEAR_WIDE_WARPS), bucket.div_ceil(rows), 1];
    if bucket > LINEAR_SLICED_BUCKET_MAX && grid[0] * grid[1] >= multiprocessors {
        let launch = Launch::of(format!("{op}_{form}_w{rows}"), grid, THREADS);
        return Launch { formats, shared_bytes: LINEAR_WIDE_SHARED, ..launch };
    }
    let line = LINEAR_ROWS.iter().find(|(bucket_max, _)| bucket <= *bucket_max);
    let rows = line.expect("the last line takes every bucket").1;
    let rows = if form == "int8x2" { rows.min(LINEAR_ROWS_MAX_INT8X2) } else { rows };
    Launch { formats, ..Launch::of(format!("{op}_{form}_t{rows}"), [blocks, bucket.div_ceil(rows), 1], THREADS) }
}

/// Rows of activations of a wide block.
fn wide_rows(op: &str, form: &str) -> u32 {
    // gate·up keeps the gates in the room of half of the sums.
    if op == "norm_gate_up" || form == "int8x2" { 32 } else { 64 }
}

/// Attention: the blocks that the GPU holds at once take pieces of the work list in turn.
fn attention(p: &AttentionParams) -> Launch {
    let shared_bytes = ATTENTION_SHARED_FIXED + p.head_dim * ATTENTION_SHARED_PER_DIM;
    let launch = Launch::of(format!("attention_f16_d{}", p.head_dim), [1, 1, 1], THREADS);
    Launch { shared_bytes, is_persistent: true, ..launch }
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
                .map(|dim| KernelParams::Attention(AttentionParams { head_dim: dim as u32, ..Default::default() })),
        );
        nodes
    }

    /// Every kernel that the table can choose, the one that reads the clock, and those that measure.
    fn chosen() -> BTreeSet<String> {
        let of = |params: &KernelParams| -> Vec<String> {
            let few_or_many =
                |shift: u32| [1, 1000].map(|multiprocessors| choose(params, 1 << shift, multiprocessors).kernel);
            (0..10).flat_map(few_or_many).collect()
        };
        let others = measure::KERNELS.map(str::to_owned).into_iter().chain([Launch::clock().kernel]);
        nodes().iter().flat_map(of).chain(others).collect()
    }

    /// Every kernel that csrc defines, by its macros.
    fn defined() -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("csrc");
        let entry = fs::read_to_string(folder.join("common/entry.cuh")).expect("csrc/common/entry.cuh");
        // What stands between the parentheses of a macro's uses.
        let uses = |text: &str, name: &str| -> Vec<Vec<String>> {
            let lines = text.lines().filter(|line| !line.contains("#define"));
            let inside = |line: &str| Some(line.split_once(&format!("{name}("))?.1.split(')').next()?.to_owned());
            let words = |inside: String| inside.split(',').map(|word| word.trim().to_owned()).collect();
            lines.filter_map(inside).map(words).collect()
        };
        let forms: Vec<String> = uses(&entry, "LINEAR_SLICED_FORM").iter().map(|words| words[2].clone()).collect();
        // Of a form, or of every one: (form, tokens) of `LINEAR_SLICED(op, Params, form, FORM, 8)`.
        let sliced: Vec<(String, String)> =
            uses(&entry, "LINEAR_SLICED").iter().map(|words| (words[2].clone(), words[4].clone())).collect();
        assert_eq!((forms.len(), sliced.len()), (3, 5), "the macros of csrc/common/entry.cuh");
        let sliced_forms = |form: &str| -> Vec<String> {
            let of_form = |(of, tokens): &(String, String)| (of == "form" || of == form).then(|| format!("t{tokens}"));
            sliced.iter().filter_map(of_form).collect()
        };
        let mut names = BTreeSet::new();
        for file in fs::read_dir(folder).expect("csrc").map(|file| file.expect("a file").path()) {
            if file.extension().is_none_or(|end| end != "cu") {
                continue;
            }
            let text = fs::read_to_string(&file).expect("a text");
            let before = names.len();
            for (op, form) in uses(&text, "LINEAR_SLICED_KERNELS").iter().flat_map(|words| {
                let op = words[0].clone();
                forms.iter().map(move |form| (op.clone(), form))
            }) {
                names.extend(sliced_forms(form).iter().map(|tokens| format!("{op}_{form}_{tokens}")));
            }
            for words in uses(&text, "LINEAR_WIDE_KERNELS") {
                let tokens = |form: &str| if form == "int8x2" { &words[3] } else { &words[2] };
                names.extend(forms.iter().map(|form| format!("{}_{form}_w{}", words[0], tokens(form))));
            }
            names.extend(uses(&text, "ATTENTION").iter().map(|words| format!("attention_f16_d{}", words[0])));
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
        let grid = |params: &KernelParams, bucket| {
            let launch = choose(params, bucket, 4);
            (launch.kernel, launch.grid)
        };
        let (bf16, int8) = (qkv(FORMAT_BF16, ACTIVATIONS_BF16), qkv(FORMAT_Q4_0, ACTIVATIONS_INT8));
        assert_eq!(grid(&bf16, 1), ("norm_qkv_bf16_t8".into(), [3 + 2 + 2, 1, 1]), "40 rows are two blocks");
        assert_eq!(grid(&bf16, 48), ("norm_qkv_bf16_t64".into(), [7, 1, 1]));
        assert_eq!(grid(&int8, 200), ("norm_qkv_int8_w64".into(), [1, 4, 1]), "four blocks: one a multiprocessor");
        assert_eq!(choose(&int8, 200, 5).grid, [7, 4, 1], "wide ones would leave a multiprocessor idle");
        assert_eq!(grid(&KernelParams::Sample(SampleParams::default()), 12), ("sample".into(), [12, 1, 1]));
        let head_dim_64 = KernelParams::Attention(AttentionParams { head_dim: 64, ..Default::default() });
        let mut launch = choose(&head_dim_64, 4, 132);
        assert_eq!((launch.is_persistent, launch.shared_bytes), (true, 38272 + 64 * 1152));
        launch.fill(132, 0);
        assert_eq!(launch.grid, [132, 1, 1], "the driver says why it does not fit");
        launch.fill(132, 2);
        assert_eq!(
            launch.to_string(),
            "attention_f16_d64, grid 264 x 1 x 1, 256 threads, 112000 bytes of shared memory"
        );
    }
}
