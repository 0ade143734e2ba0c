//! `cargo xtask soak`: takes every barrier, fence, wait for copies and wait for the kernel before out of the kernels,
//! one at a time, and sees whether a test of the kernel notices. A dependency wait is also moved to the kernel's end.
//!
//! The tests are built once. For each site one kernel file is compiled for the host and linked with all the others as
//! they are, and the tests of that kernel run on the result. A site that no test misses has to be in soak/escapes.txt
//! with the reason, and no other may be there. This takes minutes: it is run by hand, after changes to kernels, to
//! their tests or to the emulation.

mod escapes;
mod library;
mod sites;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Group;
use crate::tree;
use library::Built;
use sites::Site;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only sites in this file of csrc, like sample.cu or common/product.cuh
    #[arg(long, value_name = "FILE")]
    only: Option<PathBuf>,
    /// Name the sites and stop
    #[arg(long)]
    list: bool,
    /// Sites at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    jobs: u16,
}

/// For each kernel file: the test program, and which of its tests are run. Headers are tried in this order.
const TESTS: [(&str, &str, &str); 9] = [
    ("embed.cu", "cuda_embed", ""),
    ("linear_residual.cu", "cuda_linear", "residual::"),
    ("norm_qkv.cu", "cuda_linear", "norm_qkv::"),
    ("norm_gate_up.cu", "cuda_linear", "norm::"),
    ("norm_lm_head.cu", "cuda_linear", "norm::"),
    ("qk_norm.cu", "families", "a_cuda_device"),
    ("norm_residual.cu", "families", "a_cuda_device"),
    ("attention.cu", "cuda_attention", ""),
    ("sample.cu", "cuda_sample", ""),
];
const CAUGHT_PERCENT_MIN: usize = 95;
/// A changed kernel may run for so many times as long as the unchanged one, and at least for so long.
const TIME_FACTOR: u32 = 10;
const TIME_MIN: Duration = Duration::from_secs(60);
const UNCHANGED_TIME_MAX: Duration = Duration::from_secs(1800);

/// What became of a site.
struct Outcome {
    site: Site,
    /// How it was noticed.
    caught: Option<String>,
    time: Duration,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let csrc = tree::root().join("csrc");
    let mut sites = sites::find_all(&csrc)?;
    let known = escapes::known()?;
    if let Some(escape) = escapes::without_site(&known, &sites).first() {
        return Err(format!("escapes.txt: there is no site {}", escape.id).into());
    }
    if let Some(only) = &args.only {
        sites.retain(|site| site.file == *only);
    }
    if sites.is_empty() {
        return Err(format!("no site in {}", args.only.as_deref().unwrap_or(&csrc).display()).into());
    }
    if args.list {
        sites.iter().for_each(|site| println!("{}:{}  {}  ({})", site.file.display(), site.line, site.id, site.kind));
        return Ok(());
    }
    let start = Instant::now();
    let kernels = kernels_by_file(&csrc)?;
    let programs = ["cuda_attention", "cuda_embed", "cuda_linear", "cuda_sample"];
    let soak = Soak { built: Built::tests(&programs)?, csrc, kernels, limits: Mutex::default() };
    let outcomes = soak.run_all(&sites, usize::from(args.jobs))?;
    report(&outcomes, &known, args.only.is_some(), start.elapsed())
}

/// For each file of csrc, the kernel files that include it and have sites of their own tests.
fn kernels_by_file(csrc: &Path) -> io::Result<BTreeMap<PathBuf, Vec<usize>>> {
    let mut kernels: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for (index, (kernel, _, _)) in TESTS.iter().enumerate() {
        for file in sites::includes(csrc, Path::new(kernel))? {
            kernels.entry(file).or_default().push(index);
        }
    }
    Ok(kernels)
}

struct Soak {
    built: Built,
    csrc: PathBuf,
    /// Indices in [`TESTS`] of those that include a file.
    kernels: BTreeMap<PathBuf, Vec<usize>>,
    /// How long the tests of an unchanged kernel may take at most, by its index.
    limits: Mutex<BTreeMap<usize, Duration>>,
}

impl Soak {
    /// Removes each site in turn, `jobs` at a time.
    fn run_all(&self, sites: &[Site], jobs: usize) -> Result<Vec<Outcome>, String> {
        let needed = self.needed(sites);
        in_parallel(jobs, needed.len(), |folder, i| self.run_unchanged(needed[i], folder))?;
        in_parallel(jobs, sites.len(), |folder, i| {
            let (site, start) = (&sites[i], Instant::now());
            let caught = self.remove(site, folder).map_err(|error| format!("{}: {error}", site.id))?;
            eprintln!("{:>3} of {}  {}  {}", i + 1, sites.len(), site.id, caught.as_deref().unwrap_or("ESCAPED"));
            Ok(Outcome { site: site.clone(), caught, time: start.elapsed() })
        })
    }

    /// The kernels that have any of the sites.
    fn needed(&self, sites: &[Site]) -> Vec<usize> {
        let has = |index: &usize, site: &Site| self.kernels.get(&site.file).is_some_and(|all| all.contains(index));
        (0..TESTS.len()).filter(|index| sites.iter().any(|site| has(index, site))).collect()
    }

    /// Runs a kernel's tests on the kernel as it is: they have to pass, and show how long they take.
    fn run_unchanged(&self, index: usize, folder: &Path) -> Result<(), String> {
        let (kernel, program, filter) = TESTS[index];
        let text = read(&self.csrc.join(kernel))?;
        let library = self.built.changed(folder, Path::new(kernel), &text, Path::new(kernel))?;
        let start = Instant::now();
        if let Some(how) = self.test(program, filter, &library, UNCHANGED_TIME_MAX)? {
            return Err(format!("{program} {filter}: fails on the kernels as they are: {how}"));
        }
        let time = start.elapsed();
        eprintln!("{kernel}: {program} {filter} passes in {:.1} s", time.as_secs_f64());
        self.limits.lock().expect("no holder panics").insert(index, TIME_MIN.max(time * TIME_FACTOR));
        Ok(())
    }

    /// Runs the tests of all kernels that have the site, until one notices that it is gone; says which.
    fn remove(&self, site: &Site, folder: &Path) -> Result<Option<String>, String> {
        let text = site.mutated(&read(&self.csrc.join(&site.file))?);
        let none = Vec::new();
        for &index in self.kernels.get(&site.file).unwrap_or(&none) {
            let (kernel, program, filter) = TESTS[index];
            let limit = self.limits.lock().expect("no holder panics")[&index];
            let library = self.built.changed(folder, &site.file, &text, Path::new(kernel))?;
            if let Some(how) = self.test(program, filter, &library, limit)? {
                return Ok(Some(how));
            }
        }
        Ok(None)
    }

    /// Runs tests on a library of kernels until one fails. What that was, or `None` if all pass.
    fn test(&self, program: &str, filter: &str, library: &Path, limit: Duration) -> Result<Option<String>, String> {
        let mut command = Command::new(self.built.program(program));
        command.args(["--test-threads=1", filter].iter().filter(|argument| !argument.is_empty()));
        command.env("SOFTCUDA_KERNELS", library).env("RUST_BACKTRACE", "0").current_dir(tree::root());
        let could_not = |error: io::Error| format!("{program}: {error}");
        let mut group = Group::spawn(command, io::sink()).map_err(could_not)?;
        enum Line {
            Failed(String),
            Passed(usize),
        }
        let wanted = |line: &str| {
            if let Some(count) = line.strip_prefix("test result: ok. ") {
                return Some(Line::Passed(count.split(' ').next()?.parse().ok()?));
            }
            let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
            Some(Line::Failed(name.to_owned()))
        };
        let start = Instant::now();
        match group.line(limit, wanted, |_| {}) {
            Some(Line::Failed(name)) => Ok(Some(format!("{program} {name}"))),
            Some(Line::Passed(0)) => Err(format!("{program} has no test {filter}")),
            Some(Line::Passed(_)) => Ok(None),
            None if start.elapsed() >= limit => Ok(Some(format!("{program}: not over in {} s", limit.as_secs()))),
            None => Ok(Some(format!("{program}: {}", group.wait().map_err(could_not)?))),
        }
    }
}

/// Calls `work` with a folder of the thread's own and each number below `count`, in `jobs` threads; what it returned,
/// in order, or an error. After an error no more begin.
fn in_parallel<T: Send>(
    jobs: usize,
    count: usize,
    work: impl Fn(&Path, usize) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work_on = |job: usize| -> Result<(), String> {
        let folder = tree::target().join("soak").join(job.to_string());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            let result = work(&folder, index).inspect_err(|_| next.store(count, Ordering::Relaxed))?;
            results.lock().expect("no holder panics").push((index, result));
        }
    };
    let work_on = &work_on;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|job| scope.spawn(move || work_on(job))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect::<Result<Vec<()>, _>>()
    })?;
    let mut results = results.into_inner().expect("no holder panicked");
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Prints what became of each site. An error if too few were caught or the table of escapes says otherwise.
fn report(outcomes: &[Outcome], known: &[escapes::Escape], part: bool, time: Duration) -> Result<(), Box<dyn Error>> {
    let mut wrong = Vec::new();
    for Outcome { site, caught, time } in outcomes {
        let place = format!("{}:{}", site.file.display(), site.line);
        let escape = known.iter().find(|escape| escape.id == site.id);
        let word = caught.as_deref().unwrap_or("ESCAPED");
        println!("{place:<24} {:<15} {:<24} {:>6.1} s  {word}", site.kind, site.id.function, time.as_secs_f64());
        match (caught, escape) {
            (None, Some(escape)) => println!("{:<24} {}", "", escape.reason),
            (None, None) => wrong.push(format!("{}: no test misses it, and escapes.txt does not say why", site.id)),
            (Some(_), Some(_)) => wrong.push(format!("{}: it is in escapes.txt, and caught", site.id)),
            (Some(_), None) => {}
        }
    }
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for Outcome { site, caught, .. } in outcomes {
        let (all, noticed) = kinds.entry(site.kind).or_default();
        (*all, *noticed) = (*all + 1, *noticed + usize::from(caught.is_some()));
    }
    println!();
    kinds.iter().for_each(|(kind, (all, caught))| println!("{kind:<15} {caught:>3} of {all} caught"));
    let caught = outcomes.iter().filter(|outcome| outcome.caught.is_some()).count();
    let percent = caught as f64 * 100.0 / outcomes.len() as f64;
    println!(
        "all             {caught:>3} of {} caught, {percent:.1} %, in {:.0} s",
        outcomes.len(),
        time.as_secs_f64()
    );
    if !part && caught * 100 < outcomes.len() * CAUGHT_PERCENT_MIN {
        wrong.push(format!("fewer than {CAUGHT_PERCENT_MIN} % are caught"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n       ").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_once_each_and_stops_at_an_error() {
        let squares = in_parallel(3, 20, |_, i| Ok(i * i)).expect("no error");
        assert_eq!(squares, (0..20).map(|i| i * i).collect::<Vec<_>>());
        let begun = AtomicUsize::new(0);
        let failed = in_parallel(1, 20, |_, i| {
            begun.fetch_add(1, Ordering::Relaxed);
            if i == 5 { Err("the sixth".to_owned()) } else { Ok(()) }
        });
        assert_eq!((failed, begun.into_inner()), (Err("the sixth".to_owned()), 6));
    }

    #[test]
    fn every_site_has_tests_or_a_reason() {
        let csrc = tree::root().join("csrc");
        let kernels = kernels_by_file(&csrc).expect("csrc");
        let known = escapes::known().expect("escapes.txt");
        let mut sites = sites::find_all(&csrc).expect("csrc");
        sites.retain(|site| !kernels.contains_key(&site.file) && known.iter().all(|escape| escape.id != site.id));
        assert!(sites.is_empty(), "{sites:?}");
    }

    fn outcome(call: &str, caught: Option<&str>) -> Outcome {
        let text = format!("__device__ void f() {{\n    {call}();\n}}\n");
        let site = sites::find(Path::new("a.cu"), &text).swap_remove(0);
        Outcome { site, caught: caught.map(str::to_owned), time: Duration::ZERO }
    }

    #[test]
    fn escapes_have_to_be_those_of_the_table() {
        let caught = || (0..19).map(|_| outcome("__syncwarp", Some("a test"))).collect::<Vec<_>>();
        let with = |last: Outcome| caught().into_iter().chain([last]).collect::<Vec<_>>();
        let row = |outcome: &Outcome| escapes::Escape { id: outcome.site.id.clone(), reason: "why" };
        let fence = outcome("__threadfence", None);
        let table = [row(&fence)];
        let fails = |outcomes: &[Outcome], known: &[escapes::Escape], word: &str| {
            let error = report(outcomes, known, false, Duration::ZERO).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        };
        assert!(report(&with(fence), &table, false, Duration::ZERO).is_ok());
        fails(&with(outcome("__threadfence", None)), &[], "does not say why");
        fails(&with(outcome("__threadfence", Some("a test"))), &table, "and caught");
        fails(
            &caught()[..1].iter().map(|_| outcome("__threadfence", None)).collect::<Vec<_>>(),
            &table,
            "fewer than 95 %",
        );
    }
}
