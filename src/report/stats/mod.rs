//! The tables of a recording.

mod completeness;
mod dominates;
mod durations;
pub(super) mod nodes;
mod sources;
mod steps;

pub use self::dominates::dominates;
pub use self::sources::SourceComparison;
use super::{Report, Sheet};

/// A table of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Node times by kernel, with the columns of `nsys stats --report cuda_gpu_kern_sum`.
    KernSum,
    /// Calls of the driver by function, with the columns of `nsys stats --report cuda_api_sum`.
    ApiSum,
    /// Copies and fills by kind, with the columns of `nsys stats --report cuda_gpu_mem_time_sum`.
    MemTimeSum,
    /// Node times by layer and op, against the device's roofs.
    NodeSum,
    /// Node times by op.
    OpSum,
    /// Node times by layer.
    LayerSum,
    /// Steps by what they did.
    StepSum,
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
    pub const ALL: [Table; 11] = [
        Table::KernSum,
        Table::ApiSum,
        Table::MemTimeSum,
        Table::NodeSum,
        Table::OpSum,
        Table::LayerSum,
        Table::StepSum,
        Table::Account,
        Table::Completeness,
        Table::SourceSum,
        Table::Perturbation,
    ];

    /// The table's name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::KernSum => "cuda_gpu_kern_sum",
            Table::ApiSum => "cuda_api_sum",
            Table::MemTimeSum => "cuda_gpu_mem_time_sum",
            Table::NodeSum => "node_sum",
            Table::OpSum => "op_sum",
            Table::LayerSum => "layer_sum",
            Table::StepSum => "step_sum",
            Table::Account => "account",
            Table::Completeness => "completeness",
            Table::SourceSum => "source_sum",
            Table::Perturbation => "perturbation",
        }
    }

    /// The table of a recording.
    pub fn of(self, report: &Report) -> Sheet {
        match self {
            Table::KernSum => durations::kern_sum(self.as_str(), report),
            Table::ApiSum => durations::api_sum(self.as_str(), report),
            Table::MemTimeSum => durations::mem_time_sum(self.as_str(), report),
            Table::NodeSum => nodes::node_sum(self.as_str(), report),
            Table::OpSum => nodes::op_sum(self.as_str(), report),
            Table::LayerSum => nodes::layer_sum(self.as_str(), report),
            Table::StepSum => steps::step_sum(self.as_str(), report),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the tables are cuda_gpu_kern_sum, cuda_api_sum, cuda_gpu_mem_time_sum, node_sum, op_sum, layer_sum, step_sum, \
     account, completeness, source_sum, perturbation"
)]
pub struct UnknownTable;

/// `part` of `whole` in percent.
fn percent(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| 100.0 * part / whole)
}

/// A sum that stops at the largest number: times may be anything in a file that others wrote.
pub(super) fn sum(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(0, u64::saturating_add)
}
