//! The tables of a comparison.

use std::collections::BTreeSet;

use super::samples::Samples;
use super::{Change, Key, Level, Row};
use crate::report::{Cell, Sheet};
use crate::trace::schema::GraphKey;

/// Rows of each table, where all tables are printed as text.
pub(super) const ROWS_SHOWN: usize = 20;

const INTERVAL: &str = "Low and High: the 95 % interval of the change, for all rows of the table together, by a rank \
                        test on the medians of up to 16 stretches of each recording. Per step: what the change makes \
                        up of a step, over all steps.";

/// A table of at most so many rows.
pub(super) fn rows(level: Level, rows: &[Row], rows_max: usize) -> Sheet {
    let keys: &[&'static str] = match level {
        Level::Step => &["Graphs"],
        Level::Graph => &["Graph"],
        Level::Op => &["Graph", "Op"],
        Level::Layer => &["Graph", "Layer"],
        Level::Node => &["Graph", "Node", "Layer", "Op", "Kernel"],
    };
    let numbers = [
        "Count (base)",
        "Count (new)",
        "Med base (us)",
        "Med new (us)",
        "Delta (us)",
        "Delta (%)",
        "Low (us)",
        "High (us)",
        "Per step (us)",
        "Change",
    ];
    let mut notes = vec![meaning(level).to_owned()];
    // Once, where all tables are printed.
    if level == Level::Step || rows_max == usize::MAX {
        notes.push(INTERVAL.into());
    }
    let too_few = rows.iter().filter(|row| row.change() == Change::TooFew).count();
    if too_few > 0 {
        notes.push(format!("{too_few} of {} rows have too few executions for an interval.", rows.len()));
    }
    if rows.len() > rows_max {
        notes.push(format!("{} more rows: --by {}.", rows.len() - rows_max, level.as_str()));
    }
    Sheet {
        name: level.as_str(),
        columns: keys.iter().copied().chain(numbers).collect(),
        rows: rows.iter().take(rows_max).map(|row| cells(level, row)).collect(),
        notes,
    }
}

fn meaning(level: Level) -> &'static str {
    match level {
        Level::Step => "Wall time of accounted steps, by the graphs that they replayed.",
        Level::Graph | Level::Op | Level::Layer => {
            "Exclusive time of the nodes, summed up for each replay of the graph."
        }
        Level::Node => "Exclusive time of the node in each replay of its graph.",
    }
}

fn cells(level: Level, row: &Row) -> Vec<Cell> {
    let mut cells = vec![Cell::Text(row.key.graphs())];
    if level == Level::Node {
        cells.push(Cell::int(row.key.ordinal.map(u64::from)));
    }
    if matches!(level, Level::Node | Level::Layer) {
        cells.push(layer_cell(&row.key));
    }
    if matches!(level, Level::Node | Level::Op) {
        cells.push(row.key.op.map_or(Cell::Missing, |op| Cell::Text(op.to_string())));
    }
    if level == Level::Node {
        cells.push(row.kernel.clone().map_or(Cell::Missing, Cell::Text));
    }
    let shift = &row.shift;
    let us = |ns: f64| Cell::Real(ns / 1e3, 3);
    let (low, high) = shift.interval_ns.unzip();
    cells.extend([
        Cell::Int(row.counts[0]),
        Cell::Int(row.counts[1]),
        us(shift.base_ns),
        us(shift.new_ns),
        us(shift.delta_ns()),
        Cell::real(shift.percent(shift.delta_ns()), 2),
        low.map_or(Cell::Missing, us),
        high.map_or(Cell::Missing, us),
        us(row.per_step_ns),
        Cell::Text(word(row.change()).into()),
    ]);
    cells
}

/// Outside of layers there is no number.
fn layer_cell(key: &Key) -> Cell {
    Cell::int(key.layer.and_then(|layer| u64::try_from(layer).ok()))
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Slower => "slower",
        Change::Faster => "faster",
        Change::None => "none",
        Change::TooFew => "too few",
    }
}

/// A row as a sentence's part.
pub(super) fn sentence(row: &Row) -> String {
    let shift = &row.shift;
    let percent = shift.percent(shift.delta_ns()).map_or_else(String::new, |percent| format!(" ({percent:+.1} %)"));
    let (low, high) = shift.interval_ns.unwrap_or_default();
    format!(
        "{} takes {:.3} us, and took {:.3} us{percent}, interval {:+.3} to {:+.3} us",
        row.key,
        shift.new_ns / 1e3,
        shift.base_ns / 1e3,
        low / 1e3,
        high / 1e3
    )
}

/// The kernel of both, or the one and the other with their variants.
pub(super) fn kernels(base: Option<&(String, String)>, new: Option<&(String, String)>) -> Option<String> {
    let (base, new) = (base?, new?);
    Some(if base == new { base.0.clone() } else { format!("{} ({}) -> {} ({})", base.0, base.1, new.0, new.1) })
}

/// Graphs, and nodes of graphs that both have, which one of the two has.
pub(super) fn only_in_one(nodes: &[Samples; 2]) -> Sheet {
    let graphs = nodes.each_ref().map(|nodes| nodes.by_key.keys().map(graph_of).collect::<BTreeSet<_>>());
    let mut rows = Vec::new();
    for (at, name) in ["base", "new"].into_iter().enumerate() {
        let (own, other) = (&nodes[at].by_key, &nodes[1 - at].by_key);
        for graph in graphs[at].difference(&graphs[1 - at]) {
            let executions = own.iter().filter(|(key, _)| graph_of(key) == *graph).map(|(_, found)| found.ns.len());
            let count = executions.max().unwrap_or(0) as u64;
            let missing = [Cell::Missing, Cell::Missing, Cell::Missing, Cell::Missing];
            let cells = [Cell::Text(name.into()), Cell::Text(graph.map_or_else(String::new, |key| key.to_string()))];
            rows.push(cells.into_iter().chain(missing).chain([Cell::Int(count)]).collect());
        }
        let is_new = |key: &Key| !other.contains_key(key) && graphs[1 - at].contains(&graph_of(key));
        for (key, executions) in own.iter().filter(|(key, _)| is_new(key)) {
            rows.push(vec![
                Cell::Text(name.into()),
                Cell::Text(key.graphs()),
                Cell::int(key.ordinal.map(u64::from)),
                layer_cell(key),
                key.op.map_or(Cell::Missing, |op| Cell::Text(op.to_string())),
                executions.kernel.as_ref().map_or(Cell::Missing, |(kernel, _)| Cell::Text(kernel.clone())),
                Cell::Int(executions.ns.len() as u64),
            ]);
        }
    }
    let note = match rows.is_empty() {
        true => "Both have the same graphs and nodes.",
        false => "A row without a node is a graph that the other recording did not replay.",
    };
    Sheet {
        name: "only_in_one",
        columns: vec!["In", "Graph", "Node", "Layer", "Op", "Kernel", "Count"],
        rows,
        notes: vec![note.into()],
    }
}

fn graph_of(key: &Key) -> Option<GraphKey> {
    key.graphs.first().copied()
}
