//! `vitrum graph`: the captured graphs that a step replays, as a table or as JSON.

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};

use super::CommandResult;
use super::engine_args::EngineArgs;
use crate::console;
use crate::device::Device;
use crate::step::{StepError, StepRunner};
use crate::trace::schema::{GraphKey, GraphKind, GraphTable, LinearCost, StepSizes};
use crate::weights::hub::Sources;

/// Prints captured graphs.
#[derive(Args, Debug)]
pub(super) struct GraphArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Row counts to capture for, each one of the engine's buckets [default: all]
    #[arg(long)]
    bucket: Vec<u32>,
    /// Which graphs [default: all]
    #[arg(long, value_enum)]
    kind: Vec<KindArg>,
    /// Print JSON: a list of graphs with their nodes
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    #[value(name = "forward.decode")]
    ForwardDecode,
    #[value(name = "forward.mixed")]
    ForwardMixed,
    #[value(name = "sample.plain")]
    SamplePlain,
    #[value(name = "sample.full")]
    SampleFull,
}

impl From<KindArg> for GraphKind {
    fn from(kind: KindArg) -> GraphKind {
        match kind {
            KindArg::ForwardDecode => GraphKind::ForwardDecode,
            KindArg::ForwardMixed => GraphKind::ForwardMixed,
            KindArg::SamplePlain => GraphKind::SamplePlain,
            KindArg::SampleFull => GraphKind::SampleFull,
        }
    }
}

pub(super) fn run(args: &GraphArgs, models: &Sources) -> CommandResult {
    let model = args.engine.load(models)?;
    let options = args.engine.options(&model, &args.engine.model)?;
    let device = Device::open(&options.device).map_err(StepError::from)?;
    let mut runner =
        StepRunner::open(device, &model.checkpoint, &options.limits, options.precision, options.kv_fraction)?;
    let keys = keys(args, &runner.all_keys())?;
    for key in keys {
        runner.capture(key)?;
    }
    let tables: Vec<&GraphTable> = runner.tables().into_iter().map(AsRef::as_ref).collect();
    let text = match args.json {
        true => serde_json::to_string_pretty(&tables)? + "\n",
        false => tables.iter().map(|table| format!("{}\n\n", as_text(table))).collect(),
    };
    console::print(&text);
    Ok(())
}

fn keys(args: &GraphArgs, all: &[GraphKey]) -> Result<Vec<GraphKey>, String> {
    if let Some(unknown) = args.bucket.iter().find(|bucket| all.iter().all(|key| key.bucket != **bucket)) {
        let mut buckets: Vec<u32> = all.iter().map(|key| key.bucket).collect();
        buckets.sort_unstable();
        buckets.dedup();
        return Err(format!("--bucket {unknown}: the engine's buckets are {buckets:?}"));
    }
    let kinds: Vec<GraphKind> = args.kind.iter().copied().map(GraphKind::from).collect();
    let wanted = |key: &&GraphKey| {
        (args.bucket.is_empty() || args.bucket.contains(&key.bucket)) && (kinds.is_empty() || kinds.contains(&key.kind))
    };
    Ok(all.iter().filter(wanted).copied().collect())
}

fn as_text(table: &GraphTable) -> String {
    let mut rows = Table::new();
    rows.load_preset(presets::NOTHING);
    rows.set_header(["#", "layer", "op", "kernel", "choice", "barriers", "MB", "MFLOP"]);
    // For a step that fills the bucket with sequences of one row and 256 KV positions each.
    let bucket = u64::from(table.key.bucket);
    let sizes =
        StepSizes { tokens: bucket, seqs: bucket, logit_rows: bucket, kv_tokens: bucket * 256, qk_pairs: bucket * 256 };
    let mega = |cost: &LinearCost| format!("{:.3}", cost.at(&sizes) / 1e6);
    for (ordinal, node) in table.nodes.iter().enumerate() {
        rows.add_row([
            ordinal.to_string(),
            node.place.layer.to_string(),
            node.place.op.to_string(),
            node.kernel.clone(),
            node.choice.clone(),
            node.barriers.to_string(),
            mega(&node.cost.bytes),
            mega(&node.cost.flops),
        ]);
    }
    for column in [0, 1, 5, 6, 7] {
        if let Some(column) = rows.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let barriers: u32 = table.nodes.iter().map(|node| node.barriers).sum();
    let sum = |cost: fn(&crate::trace::schema::Cost) -> &LinearCost| -> f64 {
        table.nodes.iter().map(|node| cost(&node.cost).at(&sizes)).sum::<f64>() / 1e6
    };
    format!(
        "{}: {} nodes, {barriers} barriers; with {bucket} rows of 256 KV positions: {:.1} MB, {:.1} MFLOP\n{rows}",
        table.key,
        table.nodes.len(),
        sum(|cost| &cost.bytes),
        sum(|cost| &cost.flops),
    )
}
