//! The driver's profiling library: whether it is there, and questions about what it costs and what its records say.
//!
//! Chains of nodes that take 0, 1 and 3 µs are replayed: before the library was ever switched on, in turn with
//! processes that have none; idle and while it records, in turn; after it was switched off, in turn with others again.

mod answers;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::overheads::median;
use super::{Doctor, Finding, Found, open};
use crate::device::cuda::{self, CHAIN_SPINS_NS, ChainRun, ChainTimes, Chains, CudaDevice, RecordedRun};
use crate::device::{Device, DeviceChoice};
use crate::trace::record::{ACTIVITY_NAME, ENABLED};

/// How often something is measured.
#[derive(Clone, Copy)]
struct Repeats {
    /// Idle runs, and as many that are recorded, in turn.
    pairs: usize,
    /// Measurements in this process, and as many in others, in turn.
    rounds: usize,
    /// Runs of such a measurement, of which the median counts.
    runs: usize,
}

impl Repeats {
    /// What software that stands for a GPU takes says nothing, however often it is measured.
    fn on(is_software: bool) -> Repeats {
        match is_software {
            true => Repeats { pairs: 2, rounds: 1, runs: 1 },
            false => Repeats { pairs: 7, rounds: 3, runs: 5 },
        }
    }
}

/// What the questions are about, in the order in which they have to be asked.
const QUESTIONS: [&str; 5] =
    ["cost while idle", "cost of a node", "overlap of nodes", "nodes of its records", "cost afterwards"];

/// The library's name and version, or a sentence why it cannot be used. To be asked before the driver is initialised.
pub(super) fn prepare(toolkits: &[PathBuf]) -> Result<String, String> {
    cuda::prepare_activity(toolkits)
}

/// Says what came of that.
pub(super) fn check(doctor: &mut Doctor, library: &Result<String, String>) {
    doctor.check(ACTIVITY_NAME, DeviceChoice::Cuda, || match library {
        Ok(name) => Finding::of(name, vec![]),
        Err(reason) => Finding::absent(reason),
    });
}

/// Asks all questions, in builds that have a recorder.
pub(super) fn ask(doctor: &mut Doctor, library: &Result<String, String>, program: &Path) {
    if !ENABLED {
        return;
    }
    let repeats = Repeats::on(doctor.software);
    let names = QUESTIONS.map(|about| format!("{ACTIVITY_NAME}: {about}"));
    if library.is_err() {
        for name in &names {
            doctor.ask(name, || not_answered(&format!("see {ACTIVITY_NAME} above")));
        }
        return;
    }
    let [idle, cost, overlap, records, afterwards] = &names;
    let (mut device, mut chains, mut before) = (None, None, None);
    doctor.ask(idle, || {
        let chains = chains.insert(device.insert(open_gpu()?).chains()?);
        answers::idle(before.insert(Sides::measure(chains, program, repeats)?))
    });
    let (Some(mut chains), Some(before)) = (chains, before) else { return };
    let mut pairs = None;
    doctor.ask(cost, || match pairs.insert(Pairs::measure(&mut chains, repeats.pairs)?) {
        Ok(pairs) => answers::cost(pairs),
        Err(reason) => not_answered(reason),
    });
    let Some(pairs) = pairs else { return };
    let of_pairs = |answer: fn(&Pairs) -> Found| pairs.as_ref().map_or_else(|reason| not_answered(reason), answer);
    doctor.ask(overlap, || of_pairs(answers::overlap));
    doctor.ask(records, || of_pairs(answers::records));
    doctor.ask(afterwards, || match &pairs {
        Ok(_) => answers::afterwards(&before, &Sides::measure(&mut chains, program, repeats)?),
        Err(reason) => not_answered(reason),
    });
}

fn not_answered(reason: &str) -> Found {
    Finding::absent(format!("not answered: {reason}"))
}

fn open_gpu() -> Result<Box<CudaDevice>, Box<dyn Error>> {
    match open(DeviceChoice::Cuda)? {
        Device::Cuda(device) => Ok(device),
        other => Err(format!("{} was opened", other.info().kind).into()),
    }
}

/// What the chains take in a process that has not prepared the profiling library.
pub fn measure_chains() -> Result<ChainRun, Box<dyn Error>> {
    let is_software = super::is_software(&cuda::describe()?);
    settled(&mut open_gpu()?.chains()?, Repeats::on(is_software).runs)
}

fn settled(chains: &mut Chains<'_>, runs: usize) -> Result<ChainRun, Box<dyn Error>> {
    let runs = (0..runs).map(|_| chains.run()).collect::<Result<Vec<_>, _>>()?;
    Ok(middle(&runs))
}

/// The medians of runs.
fn middle(runs: &[ChainRun]) -> ChainRun {
    std::array::from_fn(|chain| {
        let of = |value: fn(&ChainTimes) -> f64| median(runs.iter().map(|run| value(&run[chain])).collect());
        ChainTimes {
            node_ns: of(|times| times.node_ns),
            replay_ns: of(|times| times.replay_ns),
            overlap_ns: of(|times| times.overlap_ns),
        }
    })
}

/// What the chains take in this process, and in others that have no profiling library, measured in turn.
struct Sides {
    own: Vec<ChainRun>,
    /// As many, or why there are none.
    others: Result<Vec<ChainRun>, String>,
}

impl Sides {
    fn measure(chains: &mut Chains<'_>, program: &Path, repeats: Repeats) -> Result<Sides, Box<dyn Error>> {
        let Repeats { rounds, runs, .. } = repeats;
        let mut sides = Sides { own: Vec::with_capacity(rounds), others: Ok(Vec::with_capacity(rounds)) };
        for _ in 0..rounds {
            sides.own.push(settled(chains, runs)?);
            if let Ok(others) = &mut sides.others {
                match other_process(program) {
                    Ok(run) => others.push(run),
                    Err(reason) => sides.others = Err(reason),
                }
            }
        }
        Ok(sides)
    }

    /// By how much this process differs from the others, in nanoseconds of a node of each chain: the medians of pairs.
    fn difference_ns(&self) -> Result<[f64; CHAIN_SPINS_NS.len()], &str> {
        let others = self.others.as_ref().map_err(String::as_str)?;
        Ok(std::array::from_fn(|chain| {
            let pairs = self.own.iter().zip(others);
            median(pairs.map(|(own, other)| own[chain].node_ns - other[chain].node_ns).collect())
        }))
    }
}

/// Has another process of this program measure; an error is a sentence.
fn other_process(program: &Path) -> Result<ChainRun, String> {
    let failed = |why: String| format!("a process without {ACTIVITY_NAME}: {why}");
    let mut command = Command::new(program);
    command.args(["doctor", "--measure-chains"]).env("VITRUM_LOG", "warn");
    let output = command.output().map_err(|error| failed(format!("{}: {error}", program.display())))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last = said.lines().last().unwrap_or_default();
        return Err(failed(format!("{}: {last}", output.status)));
    }
    said.lines().for_each(|line| tracing::warn!("{line}"));
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

/// Runs that were measured in turn: idle, and recorded.
struct Pairs {
    idle: Vec<ChainRun>,
    recorded: Vec<RecordedRun>,
}

impl Pairs {
    /// The inner error: why nothing can be recorded.
    fn measure(chains: &mut Chains<'_>, count: usize) -> Result<Result<Pairs, String>, Box<dyn Error>> {
        let mut pairs = Pairs { idle: Vec::with_capacity(count), recorded: Vec::with_capacity(count) };
        for _ in 0..count {
            pairs.idle.push(chains.run()?);
            match chains.run_recorded()? {
                Ok(run) => pairs.recorded.push(run),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        Ok(Ok(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(node_ns: f64) -> ChainRun {
        [ChainTimes { node_ns, replay_ns: 2.0 * node_ns, overlap_ns: 1.0 }; CHAIN_SPINS_NS.len()]
    }

    #[test]
    fn a_difference_is_that_of_pairs() {
        let sides =
            Sides { own: [100.0, 200.0, 300.0].map(run).to_vec(), others: Ok([90.0, 195.0, 250.0].map(run).to_vec()) };
        assert_eq!(sides.difference_ns(), Ok([10.0; 3]), "of 10, 5 and 50");
        assert_eq!(middle(&sides.own), run(200.0));
        let alone = Sides { own: sides.own, others: Err("why".into()) };
        assert_eq!(alone.difference_ns(), Err("why"));
        let found = answers::idle(&alone).expect("an answer");
        assert!(found.is_absent && found.note == "not answered: why", "{found:?}");
        // What is left of it in this process is known all the same.
        let found = answers::afterwards(&alone, &alone).expect("an answer");
        assert!(!found.is_absent && found.note.ends_with("(+0 / +0 / +0)"), "{found:?}");
    }

    #[test]
    fn a_process_that_cannot_be_run_is_a_sentence() {
        let reason = other_process(Path::new("no such program")).expect_err("no answer");
        assert!(reason.contains("no such program: "), "{reason}");
    }
}
