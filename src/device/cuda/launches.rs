//! The launches that kernels choose, against the kernels that csrc defines and those that are embedded.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{images, measure};
use crate::kernels::KernelParams;
use crate::kernels::cuda::Launch;
use crate::kernels::cuda::check::HEAD_DIMS;
use crate::kernels::params::*;

fn weight(rows: u32, format: u32, activations: u32) -> WeightRef {
    WeightRef { data: 4096.into(), rows, cols: 96, format, activations }
}

fn qkv(format: u32, activations: u32) -> KernelParams {
    let [wq, wk] = [96, 40].map(|rows| weight(rows, format, activations));
    KernelParams::NormQkv(NormQkvParams { wq, wk, wv: wk, ..Default::default() })
}

/// One node for every kernel of the table, in every form.
fn nodes() -> Vec<KernelParams> {
    let mut nodes = vec![
        KernelParams::Embed(Default::default()),
        KernelParams::QkNorm(Default::default()),
        KernelParams::NormResidual(Default::default()),
        KernelParams::Sample(Default::default()),
    ];
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
        HEAD_DIMS.map(|dim| KernelParams::Attention(AttentionParams { head_dim: dim as u32, ..Default::default() })),
    );
    nodes
}

/// Every kernel that the table can choose, the one that reads the clock, and those that measure.
fn chosen() -> BTreeSet<String> {
    let of = |params: &KernelParams| -> Vec<String> {
        let few_or_many =
            |shift: u32| [1, 1000].map(|multiprocessors| params.launch_on_cuda(1 << shift, multiprocessors).kernel);
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
        let launch = params.launch_on_cuda(bucket, 4);
        (launch.kernel, launch.grid)
    };
    let (bf16, int8) = (qkv(FORMAT_BF16, ACTIVATIONS_BF16), qkv(FORMAT_Q4_0, ACTIVATIONS_INT8));
    assert_eq!(grid(&bf16, 1), ("norm_qkv_bf16_t8".into(), [3 + 2 + 2, 1, 1]), "40 rows are two blocks");
    assert_eq!(grid(&bf16, 48), ("norm_qkv_bf16_t64".into(), [7, 1, 1]));
    assert_eq!(grid(&int8, 200), ("norm_qkv_int8_w64".into(), [1, 4, 1]), "four blocks: one a multiprocessor");
    assert_eq!(int8.launch_on_cuda(200, 5).grid, [7, 4, 1], "wide ones would leave a multiprocessor idle");
    assert_eq!(grid(&KernelParams::Sample(SampleParams::default()), 12), ("sample".into(), [12, 1, 1]));
    let head_dim_64 = KernelParams::Attention(AttentionParams { head_dim: 64, ..Default::default() });
    let mut launch = head_dim_64.launch_on_cuda(4, 132);
    assert_eq!((launch.is_persistent, launch.shared_bytes), (true, 38272 + 64 * 1152));
    launch.fill(132, 0);
    assert_eq!(launch.grid, [132, 1, 1], "the driver says why it does not fit");
    launch.fill(132, 2);
    assert_eq!(launch.to_string(), "attention_f16_d64, grid 264 x 1 x 1, 256 threads, 112000 bytes of shared memory");
}
