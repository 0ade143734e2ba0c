//! `vitrum doctor`: what this machine has, whether its devices compute the right thing, and how fast they can be.
//!
//! A check passes, fails, or is not run for a reason that is said. Kernels are compared with the scalar references of
//! `crate::kernels`, one node at a time ([`bench`], [`linear`], [`attention`], [`sample`]: the tests of the kernels use
//! these cases, too, in more shapes); a small model with random weights goes over all of a step (`model`). Questions
//! are no checks: what using a GPU costs is measured, and there is no right answer (`overheads`), nor to what the
//! driver's profiling library costs (`activity`).

mod activity;
pub mod attention;
pub mod bench;
mod kernels;
pub mod linear;
mod machine;
mod model;
pub mod norms;
mod overheads;
pub mod sample;

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

pub use self::activity::measure_chains;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::device::cuda;
use crate::device::{Device, DeviceChoice, DeviceError, DeviceOptions};

/// What to examine.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// The CPU, the GPU, or with `Auto` the CPU and the GPU if there is one.
    pub choice: DeviceChoice,
    /// A model whose tokens are compared.
    pub model: ModelChoice,
    /// See what there is and ask the questions, but check no peaks, kernels and models.
    pub questions_only: bool,
    /// CUDA toolkits, in which the driver's profiling library may lie.
    pub toolkits: Vec<PathBuf>,
    /// This program, which measures without that library in a process of its own.
    pub program: PathBuf,
}

/// The model with real weights.
#[derive(Clone, Debug)]
pub enum ModelChoice {
    /// This file, whatever it takes.
    Named(PathBuf),
    /// This file, but not in software that stands for a GPU: that takes many minutes.
    Found(PathBuf),
    /// None, for this reason.
    Absent(String),
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it has to be.
    Passed,
    /// Not as it has to be.
    Failed,
    /// It could not be looked at: not a pass.
    NotRun,
}

/// Numbers by names that carry their units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(pub Vec<(&'static str, f64)>);

/// A check, or a question, with what came of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// `cpu` or `cuda`.
    pub device: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, or why it failed or was not run.
    pub note: String,
    /// The numbers in the note.
    pub figures: Figures,
    /// Software stood for the GPU: its numbers are not a GPU's.
    pub software: bool,
    /// How long it took.
    pub seconds: f64,
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    note: String,
    figures: Figures,
    /// It could not be looked at.
    is_absent: bool,
}

/// Everything that was found.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    /// Of vitrum.
    pub version: &'static str,
    /// Whether nodes can be stamped: a build with feature `profiling`.
    pub profiling: bool,
    /// Software stands for the GPU.
    pub software: bool,
    /// In the order in which they ran.
    pub checks: Vec<Check>,
    /// What was measured without a right answer.
    pub questions: Vec<Check>,
}

impl Report {
    /// Names of what failed, each with its device.
    pub fn failed(&self) -> Vec<String> {
        let all = self.checks.iter().chain(&self.questions);
        all.filter(|check| check.outcome == Outcome::Failed)
            .map(|check| format!("{} ({})", check.name, check.device))
            .collect()
    }
}

/// What a check function gives; an error is a failure, in its words.
type Found = Result<Finding, Box<dyn Error>>;

impl Finding {
    fn of(note: impl Into<String>, figures: Vec<(&'static str, f64)>) -> Found {
        Ok(Finding { note: note.into(), figures: Figures(figures), is_absent: false })
    }

    fn absent(reason: impl Into<String>) -> Found {
        Ok(Finding { note: reason.into(), figures: Figures::default(), is_absent: true })
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

/// Examines this machine.
pub fn examine(options: &DoctorOptions) -> Report {
    let mut doctor = Doctor { checks: Vec::new(), questions: Vec::new(), software: false };
    machine::check_cpu(&mut doctor);
    let gpu_wanted = options.choice != DeviceChoice::Cpu;
    // Before anything initialises the driver.
    let library = gpu_wanted.then(|| activity::prepare(&options.toolkits));
    let gpu = match options.choice {
        DeviceChoice::Cpu => None,
        choice => machine::check_gpu(&mut doctor, choice == DeviceChoice::Cuda),
    };
    library.iter().for_each(|library| activity::check(&mut doctor, library));
    let mut reference = model::Reference::default();
    let cpu_wanted = options.choice != DeviceChoice::Cuda;
    let devices = [cpu_wanted.then_some(DeviceChoice::Cpu), gpu.is_some().then_some(DeviceChoice::Cuda)];
    for choice in devices.into_iter().flatten().filter(|_| !options.questions_only) {
        doctor.check("peaks", choice, || machine::peaks(choice));
        kernels::check(&mut doctor, choice);
        model::check(&mut doctor, choice, &mut reference);
        model::check_real(&mut doctor, choice, &options.model);
    }
    if gpu.is_some() {
        overheads::ask(&mut doctor);
        library.iter().for_each(|library| activity::ask(&mut doctor, library, &options.program));
    }
    let Doctor { checks, questions, software } = doctor;
    let profiling = crate::trace::record::ENABLED;
    Report { version: env!("CARGO_PKG_VERSION"), profiling, software, checks, questions }
}

/// The report that is being written.
struct Doctor {
    checks: Vec<Check>,
    questions: Vec<Check>,
    /// The GPU is software.
    software: bool,
}

impl Doctor {
    fn check(&mut self, name: &str, choice: DeviceChoice, run: impl FnOnce() -> Found) {
        let check = self.run(name, choice, run);
        self.checks.push(check);
    }

    fn ask(&mut self, name: &str, run: impl FnOnce() -> Found) {
        let check = self.run(name, DeviceChoice::Cuda, run);
        self.questions.push(check);
    }

    fn run(&self, name: &str, choice: DeviceChoice, run: impl FnOnce() -> Found) -> Check {
        let begin = Instant::now();
        let found = run();
        let seconds = begin.elapsed().as_secs_f64();
        let (outcome, note, figures) = match found {
            Ok(Finding { note, figures, is_absent: false }) => (Outcome::Passed, note, figures),
            Ok(Finding { note, figures, is_absent: true }) => (Outcome::NotRun, note, figures),
            Err(error) => (Outcome::Failed, error.to_string(), Figures::default()),
        };
        let is_cuda = choice == DeviceChoice::Cuda;
        let device = if is_cuda { "cuda" } else { "cpu" };
        tracing::debug!("{name} ({device}): {outcome:?} in {seconds:.2} s: {note}");
        let name = name.to_owned();
        Check { name, device, outcome, note, figures, software: is_cuda && self.software, seconds }
    }
}

/// Opens a device as commands do.
fn open(choice: DeviceChoice) -> Result<Device, DeviceError> {
    Device::open(&DeviceOptions { choice, threads: None, isa: None, delay: None, activity: false })
}

/// Software that stands for a GPU says so in its name.
fn is_software(gpu: &cuda::GpuDescription) -> bool {
    gpu.name.contains("softcuda")
}
