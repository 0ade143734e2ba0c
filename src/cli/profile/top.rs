//! `vitrum profile top`: where a running server's time goes, by what it samples.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use hyper::Method;

use crate::bench::ClientError;
use crate::bench::remote::ask;
use crate::cli::CommandResult;
use crate::console;
use crate::report::{Cell, Sheet};
use crate::trace::sample::{By, GraphSample, SampleReading, SampleRow};
use crate::trace::schema::GraphKey;

#[derive(Args, Debug)]
pub(in crate::cli) struct TopArgs {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// What a row is: an op, a layer or a node
    #[arg(long, default_value = "op")]
    by: By,
    /// This graph only, as `vitrum graph` names them: forward.decode.8
    #[arg(long)]
    graph: Option<GraphKey>,
    /// The most rows of a graph [default: all]
    #[arg(long)]
    rows: Option<usize>,
    /// Have the server forget what it sampled so far
    #[arg(long)]
    reset: bool,
    /// Print again every so many seconds, until the server or the reader ends
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
}

const PATH: &str = "/profile/nodes";
const RESET_PATH: &str = "/profile/nodes/reset";
/// Moves to the upper left corner of a terminal and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(args: &TopArgs) -> CommandResult {
    if args.reset {
        ask(&args.url, Method::POST, RESET_PATH, None)?;
    }
    let clear = if args.watch.is_some() && std::io::stdout().is_terminal() { CLEAR } else { "" };
    loop {
        console::print(&(clear.to_owned() + &text(&read(args)?, args)));
        let Some(seconds) = args.watch.filter(|_| !console::stdout_is_closed()) else { return Ok(()) };
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn read(args: &TopArgs) -> Result<SampleReading, ClientError> {
    let graph = args.graph.map_or(String::new(), |graph| format!("&graph={graph}"));
    let answer = ask(&args.url, Method::GET, &format!("{PATH}?by={}{graph}", args.by), None)?;
    serde_json::from_value(answer).map_err(|source| ClientError::Json { path: PATH.into(), source })
}

fn text(reading: &SampleReading, args: &TopArgs) -> String {
    let SampleReading { every, steps, sampled, left_out, .. } = reading;
    let mut text = format!("{sampled} of {steps} steps sampled, one in {every}; {left_out} left out\n");
    text += &match reading.cost {
        Some(cost) => format!(
            "A sampled step takes {:.4} times as long as its neighbours ({:.4} to {:.4}, {} compared).\n",
            cost.ratio, cost.ratio_low, cost.ratio_high, cost.pairs
        ),
        None => "What sampling costs is not known: too few steps could be compared.\n".to_owned(),
    };
    let mut graphs: Vec<&GraphSample> = reading.graphs.iter().filter(|graph| graph.replays > 0).collect();
    graphs.sort_by(|a, b| total_us(b).total_cmp(&total_us(a)));
    for graph in graphs {
        let GraphSample { graph: key, replays, times, .. } = graph;
        text += &format!(
            "\n{key}: {replays} replays; p50 {:.1} us, p90 {:.1}, p99 {:.1}, max {:.1}\n",
            times.p50_us, times.p90_us, times.p99_us, times.max_us
        );
        text += &sheet(graph, args).to_text();
    }
    text
}

fn total_us(graph: &GraphSample) -> f64 {
    graph.replays as f64 * graph.times.mean_us
}

/// Ops and nodes with the longest first, layers in their order.
fn sheet(graph: &GraphSample, args: &TopArgs) -> Sheet {
    let mut rows: Vec<&SampleRow> = graph.nodes.iter().collect();
    if args.by != By::Layer {
        rows.sort_by(|a, b| b.replay_us.total_cmp(&a.replay_us));
    }
    let (name, keys): (&str, &[&str]) = match args.by {
        By::Node => ("by node", &["Node", "Layer", "Op", "Kernel"]),
        By::Layer => ("by layer", &["Layer", "Nodes"]),
        By::Op => ("by op", &["Op", "Nodes"]),
    };
    const NUMBERS: [&str; 9] =
        ["Replay (us)", "Time (%)", "Avg (us)", "p50 (us)", "p90 (us)", "p99 (us)", "Max (us)", "GB/s", "Peak (%)"];
    let whole_us: f64 = rows.iter().map(|row| row.replay_us).sum();
    let shown = args.rows.unwrap_or(usize::MAX);
    let left_out = rows.len().saturating_sub(shown);
    Sheet {
        name,
        columns: keys.iter().copied().chain(NUMBERS).collect(),
        rows: rows.iter().take(shown).map(|row| cells(row, args.by, whole_us)).collect(),
        notes: if left_out > 0 { vec![format!("and {left_out} rows more")] } else { Vec::new() },
    }
}

fn cells(row: &SampleRow, by: By, whole_us: f64) -> Vec<Cell> {
    let layer = row.layer.and_then(|layer| u64::try_from(layer).ok());
    let word = |word: Option<&str>| word.map_or(Cell::Missing, |word| Cell::Text(word.to_owned()));
    let op = word(row.op.map(|op| op.as_str()));
    let nodes = Cell::Int(row.nodes.into());
    let mut cells = match by {
        By::Node => vec![Cell::int(row.ordinal.map(u64::from)), Cell::int(layer), op, word(row.kernel.as_deref())],
        By::Layer => vec![Cell::int(layer), nodes],
        By::Op => vec![op, nodes],
    };
    let share = (whole_us > 0.0).then(|| 100.0 * row.replay_us / whole_us);
    let times = row.times;
    cells.extend([Cell::Real(row.replay_us, 1), Cell::real(share, 1)]);
    cells.extend([times.mean_us, times.p50_us, times.p90_us, times.p99_us, times.max_us].map(|us| Cell::Real(us, 1)));
    cells.extend([Cell::real(row.gb_s, 2), Cell::real(row.read_peak_percent, 1)]);
    cells
}
