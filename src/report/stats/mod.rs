//! The tables of a recording.

mod completeness;
mod dominates;
mod durations;
mod gpu_trace;
pub(super) mod nodes;
mod ranges;
mod requests;
mod sources;
mod steps;
mod tally;

use std::io;

pub use self::dominates::dominates;
pub(super) use self::requests::node_ns_by_step;
pub(super) use self::sources::Comparison;
pub use self::sources::SourceComparison;
use super::sheet::{self, Printed};
use super::{Format, Report, Sheet};

/// A table of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Node times by kernel, with the columns of `nsys stats --report cuda_gpu_kern_sum`.
    KernSum,
    /// Calls of the driver by function, with the columns of `nsys stats --report cuda_api_sum`.
    ApiSum,
    /// Copies and fills by kind, with the columns of `nsys stats --report cuda_gpu_mem_time_sum`.
    MemTimeSum,
    /// Every node and copy, with the columns of `nsys stats --report cuda_gpu_trace`.
    GpuTrace,
    /// Named stretches of the engine's thread and of the device, with the columns of `nsys stats --report nvtx_sum`.
    NvtxSum,
    /// Node times by layer and op, against the device's roofs.
    NodeSum,
    /// Node times by op.
    OpSum,
    /// Node times by layer.
    LayerSum,
    /// Steps by what they did.
    StepSum,
    /// Requests: where each one's time went.
    RequestSum,
    /// Where the steps' time went.
    Account,
    /// Whether every node time is there.
    Completeness,
    /// Node times by layer and op, by both sources.
    SourceSum,
    /// What recording cost.
    Perturbation,
}

impl Table {
    /// Every table, in the order in which they are printed.
    pub const ALL: [Table; 14] = [
        Table::KernSum,
        Table::ApiSum,
        Table::MemTimeSum,
        Table::GpuTrace,
        Table::NvtxSum,
        Table::NodeSum,
        Table::OpSum,
        Table::LayerSum,
        Table::StepSum,
        Table::RequestSum,
        Table::Account,
        Table::Completeness,
        Table::SourceSum,
        Table::Perturbation,
    ];

    /// Those that are printed where none is named: a row for every node and copy is too much then.
    pub fn usual() -> Vec<Table> {
        Table::ALL.into_iter().filter(|table| *table != Table::GpuTrace).collect()
    }

    /// The table's name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::KernSum => "cuda_gpu_kern_sum",
            Table::ApiSum => "cuda_api_sum",
            Table::MemTimeSum => "cuda_gpu_mem_time_sum",
            Table::GpuTrace => "cuda_gpu_trace",
            Table::NvtxSum => "nvtx_sum",
            Table::NodeSum => "node_sum",
            Table::OpSum => "op_sum",
            Table::LayerSum => "layer_sum",
            Table::StepSum => "step_sum",
            Table::RequestSum => "request_sum",
            Table::Account => "account",
            Table::Completeness => "completeness",
            Table::SourceSum => "source_sum",
            Table::Perturbation => "perturbation",
        }
    }

    /// The table of a recording, all its rows in memory.
    pub fn of(self, report: &Report) -> Sheet {
        match self {
            Table::KernSum => durations::kern_sum(self.as_str(), report),
            Table::ApiSum => durations::api_sum(self.as_str(), report),
            Table::MemTimeSum => durations::mem_time_sum(self.as_str(), report),
            Table::GpuTrace => gpu_trace::gpu_trace(self.as_str(), report).into_sheet(),
            Table::NvtxSum => ranges::nvtx_sum(self.as_str(), report),
            Table::NodeSum => nodes::node_sum(self.as_str(), report),
            Table::OpSum => nodes::op_sum(self.as_str(), report),
            Table::LayerSum => nodes::layer_sum(self.as_str(), report),
            Table::StepSum => steps::step_sum(self.as_str(), report),
            Table::RequestSum => requests::request_sum(self.as_str(), report),
            Table::Account => steps::account(self.as_str(), report),
            Table::Completeness => completeness::completeness(self.as_str(), report),
            Table::SourceSum => sources::source_sum(self.as_str(), report),
            Table::Perturbation => steps::perturbation(self.as_str(), report),
        }
    }
}

impl std::str::FromStr for Table {
    type Err = UnknownTable;

    fn from_str(word: &str) -> Result<Table, UnknownTable> {
        Table::ALL.into_iter().find(|table| table.as_str() == word).ok_or(UnknownTable)
    }
}

/// Not a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tables are {}", Table::ALL.map(Table::as_str).join(", "))]
pub struct UnknownTable;

/// Prints tables one after the other. No more than one of them is in memory, and of `cuda_gpu_trace` one row at a time.
pub fn write(report: &Report, tables: &[Table], format: Format, out: &mut impl io::Write) -> io::Result<()> {
    sheet::write(printed(report, tables), format, out)
}

/// Tables as they are printed, each made when its turn comes.
pub(super) fn printed<'a>(report: &'a Report, tables: &[Table]) -> impl ExactSizeIterator<Item = Printed<'a>> {
    tables.iter().map(|table| match table {
        Table::GpuTrace => Printed::Listing(gpu_trace::gpu_trace(table.as_str(), report)),
        _ => Printed::Sheet(table.of(report)),
    })
}

/// `part` of `whole` in percent.
fn percent(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| 100.0 * part / whole)
}

/// A sum that stops at the largest number: times may be anything in a file that others wrote.
pub(super) fn sum(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(0, u64::saturating_add)
}
