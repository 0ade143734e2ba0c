//! The parts of `cargo xtask test`, in the order of running: quick ones first.

use std::process::Command;

use super::{Check, Outcome, Part, acceptance, cuda_serve, isa, merged, page};
use crate::process::output;
use crate::{tools, tree};

/// Cases of each random test under `--full`; proptest's own number is 256.
const RANDOM_CASES: &str = "4096";
/// How long recordings are changed, and templates made, at random.
const FUZZ_SECONDS: &str = "60";
/// Parts that measure nothing, next to each other in the list: they run at the same time.
pub(super) const SIDE_BY_SIDE: [&str; 4] = ["aarch64", "spool-fuzz", "template-fuzz", "test-random"];
/// Where there are random tests.
const RANDOM_TESTS: [&str; 9] =
    ["-p", "vitrum", "--lib", "--test", "text", "--test", "weights", "--features", "profiling"];
/// Each is built alone: together, every dependency would be built once more, with the features that all want of it.
const PACKAGES: [&str; 3] = ["vitrum", TOOLS[0], TOOLS[1]];
const TOOLS: [&str; 2] = ["xtask", "softcuda"];
/// Tests of what the recorder is part of, or else absent from: they run without it, too.
const WITHOUT_RECORDER: [&str; 6] = ["bench_latency", "cuda_device", "device", "engine", "http", "serve"];
/// How tests are built: with the dependencies of the release build, which are most of what there is to compile, and
/// vitrum itself with assertions, as in a debug build.
const TEST_PROFILE: [&str; 7] = [
    "--release",
    "--config",
    "profile.release.package.vitrum.opt-level=2",
    "--config",
    "profile.release.package.vitrum.debug-assertions=true",
    "--config",
    "profile.release.package.vitrum.overflow-checks=true",
];
const AARCH64: &str = "aarch64-unknown-linux-gnu";

/// Every part with its check.
pub(super) fn all(full: bool) -> Vec<(&'static str, Check)> {
    let mut parts: Vec<(&'static str, Check)> = vec![
        ("fmt", fmt),
        ("features", |part| this(part, &["features", "--check"])),
        ("bindings", |part| this(part, &["bindings", "--check"])),
        // Before all that builds: it installs the compiler, and builds embed the kernels from then on.
        ("cuda-kernels", if full { |part| this(part, &["kernels", "--all"]) } else { |part| this(part, &["kernels"]) }),
        ("clippy", |part| PACKAGES.iter().try_fold(Outcome::passed(""), |_, name| clippy(part, &["-p", *name]))),
        ("clippy-profiling", |part| clippy(part, &["-p", "vitrum", "--features", "profiling"])),
        ("build", build),
        ("model", model),
        // xtask's dependencies are those of this program.
        ("test-tools", |part| cargo_tests(part, &[vec!["-p", TOOLS[0]], optimised(&["-p", TOOLS[1]])], None)),
        ("test", |part| cargo_tests(part, &[optimised(&["-p", "vitrum", "--features", "profiling"])], None)),
        // Part `test` goes over every instruction set that this machine has; these say which it has not.
        ("isa-avx2", |_| Ok(isa::avx2())),
        ("isa-avx512", |_| Ok(isa::avx512())),
        ("isa-avx512bf16", |_| Ok(isa::avx512bf16())),
        ("test-no-recorder", test_without_recorder),
        ("profile-serve", acceptance::profile_serve),
        ("trace-lint", acceptance::lint),
        ("trace-complete", acceptance::complete),
        ("trace-perfetto", acceptance::perfetto),
        ("report-page", page::page),
        ("cuda-serve", cuda_serve::cuda_serve),
        ("cuda-perfetto", cuda_serve::perfetto),
        ("merge", merged::merge),
        ("merge-perfetto", merged::perfetto),
    ];
    if full {
        // While the binary is there that the parts before it ran: builds of tests put their own in its place.
        parts.push(("attack", |part| this(part, &["attack"])));
    }
    parts.push(("verify-off", |part| this(part, &["verify-off"])));
    if full {
        parts.extend([
            ("trace-hta", acceptance::hta as Check),
            ("trace-nsys", acceptance::nsys),
            ("cuda-hta", cuda_serve::hta),
            ("merge-hta", merged::hta),
            ("aarch64", aarch64),
            ("spool-fuzz", |part| fuzz(part, "spool_fuzz", " files, ")),
            ("template-fuzz", |part| fuzz(part, "template_fuzz", " templates: ")),
            ("test-random", |part| cargo_tests(part, &[optimised(&RANDOM_TESTS)], Some(RANDOM_CASES))),
        ]);
    }
    parts
}

fn fmt(part: &Part) -> Result<Outcome, String> {
    part.run("cargo fmt", tree::cargo(&["fmt", "--all", "--check"]))?;
    Ok(Outcome::passed(""))
}

fn clippy(part: &Part, which: &[&str]) -> Result<Outcome, String> {
    let args = [&["clippy", "--all-targets"], which, &["--", "-D", "warnings"]].concat();
    part.run("cargo clippy", tree::cargo(&args))?;
    Ok(Outcome::passed(""))
}

/// Another task of this program.
fn this(part: &Part, args: &[&str]) -> Result<Outcome, String> {
    let mut command = tree::this_program().map_err(|error| error.to_string())?;
    command.args(args);
    let text = part.run(&format!("cargo xtask {}", args.join(" ")), command)?;
    Ok(Outcome::passed(text.trim_end().lines().last().unwrap_or_default()))
}

/// The binary that the parts after this one run.
fn build(part: &Part) -> Result<Outcome, String> {
    let args = ["build", "--release", "-p", "vitrum", "--bin", "vitrum", "--features", "profiling"];
    part.run("cargo build", tree::cargo(&args))?;
    Ok(Outcome::passed(""))
}

/// Fetches the model that tests and benchmarks run, and has it say something.
fn model(part: &Part) -> Result<Outcome, String> {
    let mut command = Command::new(tree::vitrum());
    command.args(["generate", "smollm2", "-p", "The capital of France is", "--max-tokens", "8", "--temperature", "0"]);
    let text = part.run("vitrum generate", command)?;
    if !text.contains("Paris") {
        return Err(format!("the model does not say that the capital of France is Paris:\n{text}"));
    }
    Ok(Outcome::passed(""))
}

/// Several runs of cargo's tests, the tests of all counted.
fn cargo_tests(part: &Part, runs: &[Vec<&str>], random_cases: Option<&str>) -> Result<Outcome, String> {
    let (mut passed, mut ignored) = (0, 0);
    for which in runs {
        let mut command = tree::cargo(&[&["test", "--no-fail-fast"], which.as_slice()].concat());
        if let Some(cases) = random_cases {
            command.env("PROPTEST_CASES", cases);
        }
        let counted = counts(&part.run("cargo test", command)?);
        (passed, ignored) = (passed + counted.0, ignored + counted.1);
    }
    if passed == 0 {
        return Err("cargo test ran no test".into());
    }
    let ignored_note = if ignored > 0 { format!(", {ignored} ignored") } else { String::new() };
    Ok(Outcome::Passed { count: passed, note: format!("{passed} tests{ignored_note}") })
}

/// A test of random input, for longer than among the other tests. It says what it tried in a line with these words.
fn fuzz(part: &Part, test: &str, words: &str) -> Result<Outcome, String> {
    let which = ["-p", "vitrum", "--features", "profiling", "--test", test, "--", "--nocapture"];
    let mut command = tree::cargo(&[&["test"], &optimised(&which)[..]].concat());
    command.env("VITRUM_FUZZ_SECONDS", FUZZ_SECONDS);
    let text = part.run("cargo test", command)?;
    let said = text.lines().find(|line| line.contains(words)).ok_or("the test did not say what it read")?;
    Ok(Outcome::passed(said.trim()))
}

/// The library without the recorder, from outside.
fn test_without_recorder(part: &Part) -> Result<Outcome, String> {
    let tests = WITHOUT_RECORDER.iter().flat_map(|test| ["--test", test]);
    let which: Vec<&str> = ["-p", "vitrum"].into_iter().chain(tests).collect();
    cargo_tests(part, &[optimised(&which)], None)
}

/// Arguments of a build that shares its dependencies with the release build.
fn optimised<'a>(which: &[&'a str]) -> Vec<&'a str> {
    TEST_PROFILE.iter().chain(which).copied().collect()
}

/// Passed and ignored tests, of lines like `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn counts(text: &str) -> (usize, usize) {
    let lines = || text.lines().filter_map(|line| line.trim().strip_prefix("test result: "));
    let count = |line: &str, word: &str| -> usize {
        let item = line.split([';', '.']).find(|item| item.trim().ends_with(word));
        item.and_then(|item| item.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
    };
    (lines().map(|line| count(line, "passed")).sum(), lines().map(|line| count(line, "ignored")).sum())
}

/// Type-checks for the other common server processor, where its standard library can be had.
fn aarch64(part: &Part) -> Result<Outcome, String> {
    let installed = || {
        let mut ask = Command::new("rustc");
        let folder = output("rustc", ask.args(["--print", "target-libdir", "--target", AARCH64])).unwrap_or_default();
        !folder.is_empty() && std::path::Path::new(folder.trim()).exists()
    };
    if !installed() {
        let mut add = Command::new("rustup");
        add.args(["target", "add", AARCH64]);
        if let Err(error) = output("rustup target add", &mut add) {
            let reason = error.lines().last().unwrap_or_default().to_owned();
            return Ok(Outcome::NotRun { reason: format!("its standard library is not installed: {reason}") });
        }
    }
    let mut check = tree::cargo(&["check", "-p", "vitrum", "--lib", "--bins", "--target", AARCH64]);
    // SQLite's C, and that of ring, would need a compiler for that processor; nothing is linked here.
    check.env("LIBSQLITE3_SYS_USE_PKG_CONFIG", "1");
    check.env("CC_aarch64_unknown_linux_gnu", "true").env("AR_aarch64_unknown_linux_gnu", "true");
    part.run("cargo check", check)?;
    Ok(Outcome::passed(""))
}

/// A command with a Python of an environment that has these packages.
pub(super) fn python(environment: &str, packages: &[&str]) -> Result<Command, String> {
    let mut command = Command::new(tools::python(environment, packages)?);
    command.current_dir(tree::root());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn cargo_tests_are_counted() {
        let text = "running 3 tests\n\
                    test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.20s\n";
        assert_eq!(counts(text), (15, 1));
        assert_eq!(counts("error: could not compile"), (0, 0));
    }
}
