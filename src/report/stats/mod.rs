//! The tables of a recording.

mod dominates;
mod nodes;
mod steps;

pub use self::dominates::dominates;
use super::{Report, Sheet};

/// A table of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Node times by kernel, with the columns of `nsys stats --report cuda_gpu_kern_sum`.
    KernSum,
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
    /// What recording cost.
    Perturbation,
}

impl Table {
    /// Every table, in the order in which they are printed.
    pub const ALL: [Table; 8] = [
        Table::KernSum,
        Table::NodeSum,
        Table::OpSum,
        Table::LayerSum,
        Table::StepSum,
        Table::Account,
        Table::Completeness,
        Table::Perturbation,
    ];

    /// The table's name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::KernSum => "cuda_gpu_kern_sum",
            Table::NodeSum => "node_sum",
            Table::OpSum => "op_sum",
            Table::LayerSum => "layer_sum",
            Table::StepSum => "step_sum",
            Table::Account => "account",
            Table::Completeness => "completeness",
            Table::Perturbation => "perturbation",
        }
    }

    /// The table of a recording.
    pub fn of(self, report: &Report) -> Sheet {
        match self {
            Table::KernSum => nodes::kern_sum(self.as_str(), report),
            Table::NodeSum => nodes::node_sum(self.as_str(), report),
            Table::OpSum => nodes::op_sum(self.as_str(), report),
            Table::LayerSum => nodes::layer_sum(self.as_str(), report),
            Table::StepSum => steps::step_sum(self.as_str(), report),
            Table::Account => steps::account(self.as_str(), report),
            Table::Completeness => steps::completeness(self.as_str(), report),
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
#[error("the tables are cuda_gpu_kern_sum, node_sum, op_sum, layer_sum, step_sum, account, completeness, perturbation")]
pub struct UnknownTable;

/// `part` of `whole` in percent.
fn percent(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| 100.0 * part / whole)
}

/// A sum that stops at the largest number: times may be anything in a file that others wrote.
fn sum(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(0, u64::saturating_add)
}
