//! Two recordings, compared node by node: what takes longer, by how much, and whether that is more than noise.

mod alike;
mod samples;
mod sheets;
mod shift;

use thiserror::Error;

pub use self::alike::Property;
use self::samples::Samples;
pub use self::samples::{Key, Level, UnknownLevel};
pub use self::shift::Shift;
use super::sheet::{self, Printed};
use super::{Format, Report, Sheet};

/// Two recordings.
#[derive(Debug)]
pub struct Diff<'a> {
    base: &'a Report,
    new: &'a Report,
    /// What they are of.
    pub properties: Vec<Property>,
    /// What has to be said before any number.
    pub warnings: Vec<String>,
}

/// What both recordings have, compared.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is.
    pub key: Key,
    /// Executions in the one, and in the other.
    pub counts: [u64; 2],
    /// Their medians, and the interval of what lies between.
    pub shift: Shift,
    /// What the change makes up of a step of the second recording.
    pub per_step_ns: f64,
    /// Its kernel, or the one and the other.
    pub kernel: Option<String>,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// All of its interval is above 0.
    Slower,
    /// All of its interval is below 0.
    Faster,
    /// Its interval holds 0.
    None,
    /// Too few executions to say.
    TooFew,
}

impl Row {
    /// Whether it is more than noise.
    pub fn change(&self) -> Change {
        match self.shift.interval_ns {
            None => Change::TooFew,
            Some((low, _)) if low > 0.0 => Change::Slower,
            Some((_, high)) if high < 0.0 => Change::Faster,
            Some(_) => Change::None,
        }
    }

    /// By how many percent it is slower at least: the interval's lower end.
    fn slower_percent(&self) -> Option<f64> {
        let (low, _) = self.shift.interval_ns?;
        (low > 0.0).then(|| self.shift.percent(low).unwrap_or(f64::INFINITY))
    }
}

/// Why a limit is not kept.
#[derive(Debug, Error)]
pub enum LimitError {
    /// Something is slower.
    #[error("slower by more than {percent} %: {}", what.join("; "))]
    Slower {
        /// The limit.
        percent: f64,
        /// What is slower, by how much.
        what: Vec<String>,
    },
    /// A limit on times that are of different things says nothing.
    #[error("no limit can be kept, because the recordings are not alike: {}", what.join(", "))]
    Unlike {
        /// The properties that differ.
        what: Vec<&'static str>,
    },
    /// Nothing was compared.
    #[error("no limit can be kept, because no {level} was executed often enough in both recordings")]
    Nothing {
        /// Ops or steps.
        level: &'static str,
    },
}

impl<'a> Diff<'a> {
    /// Looks at what the two are of.
    pub fn new(base: &'a Report, new: &'a Report) -> Diff<'a> {
        let properties = alike::properties(base, new);
        let warnings = alike::warnings(&properties, base, new);
        Diff { base, new, properties, warnings }
    }

    /// What both have, the largest change first: by the time that it makes up in a step. What was executed too rarely
    /// comes last.
    pub fn rows(&self, level: Level) -> Vec<Row> {
        let (base, new) = (Samples::of(self.base, level), Samples::of(self.new, level));
        let common = base.by_key.iter().filter_map(|(key, base)| Some((key, base, new.by_key.get(key)?)));
        let common: Vec<_> = common.collect();
        let tested = common.iter().filter(|(_, one, other)| shift::is_tested(&one.ns, &other.ns)).count();
        let row = |(key, one, other): (&Key, &samples::Executions, &samples::Executions)| {
            let shift = Shift::of(&one.ns, &other.ns, tested);
            Row {
                key: key.clone(),
                counts: [one.ns.len() as u64, other.ns.len() as u64],
                per_step_ns: shift.delta_ns() * other.ns.len() as f64 / new.steps.max(1) as f64,
                shift,
                kernel: sheets::kernels(one.kernel.as_ref(), other.kernel.as_ref()),
            }
        };
        let mut rows: Vec<Row> = common.into_iter().map(row).collect();
        let order = |row: &Row| (row.change() != Change::TooFew, row.per_step_ns.abs());
        rows.sort_by(|one, other| {
            let (one, other) = (order(one), order(other));
            other.0.cmp(&one.0).then(other.1.total_cmp(&one.1))
        });
        rows
    }

    /// Whether no op and no step is slower than by so many percent, with what the interval leaves open in its favour.
    pub fn check(&self, percent: f64) -> Result<(), LimitError> {
        let unlike: Vec<_> =
            self.properties.iter().filter(|property| property.is_unlike()).map(|property| property.what).collect();
        if !unlike.is_empty() {
            return Err(LimitError::Unlike { what: unlike });
        }
        let mut what = Vec::new();
        for level in [Level::Step, Level::Op] {
            let rows = self.rows(level);
            if rows.iter().all(|row| row.shift.interval_ns.is_none()) {
                return Err(LimitError::Nothing { level: level.as_str() });
            }
            let slower = rows.iter().filter(|row| row.slower_percent().is_some_and(|slower| slower > percent));
            what.extend(slower.map(sheets::sentence));
        }
        if what.is_empty() { Ok(()) } else { Err(LimitError::Slower { percent, what }) }
    }

    /// One table, or all of them; as text, all of them are cut to what a reader looks at.
    pub fn print(&self, level: Option<Level>, format: Format) -> String {
        let sheets: Vec<Sheet> = match level {
            Some(level) => vec![sheets::rows(level, &self.rows(level), usize::MAX)],
            None => self.sheets(if format == Format::Text { sheets::ROWS_SHOWN } else { usize::MAX }),
        };
        sheet::print(sheets.into_iter().map(Printed::Sheet), format)
    }

    fn sheets(&self, rows_max: usize) -> Vec<Sheet> {
        let mut all = vec![alike::sheet(&self.properties, &self.warnings)];
        all.extend(Level::ALL.map(|level| sheets::rows(level, &self.rows(level), rows_max)));
        let nodes = [self.base, self.new].map(|report| Samples::of(report, Level::Node));
        all.push(sheets::only_in_one(&nodes));
        all
    }
}
