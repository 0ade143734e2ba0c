//! `vitrum doctor` as a command: on this machine's CPU, and on the software driver and the software
//! CUPTI of tests/softcuda.

mod support;

use std::process::Command;

use serde_json::Value;
use support::server::Ended;
use support::software_gpu::{finished, on_softcuda};
use support::temp::TempDir;

const MACHINE: [&str; 5] = ["machine", "driver", "gpu", "embedded kernels", LIBRARY];

/// The driver's profiling library.
const LIBRARY: &str = if cfg!(feature = "profiling") { "CUPTI" } else { "profiling library" };

/// What is checked on each device.
const DEVICE: [&str; 14] = [
    "peaks",
    "kernel embed",
    "kernel norm_qkv",
    "kernel linear_residual",
    "kernel norm_gate_up",
    "kernel norm_lm_head",
    "kernel qk_norm",
    "kernel norm_residual",
    "kernel attention",
    "kernel sample",
    "tiny model: logits and tokens",
    "tiny model: same bits",
    "tiny model: stamps",
    "real model: tokens",
];

const QUESTIONS: [&str; 5] = [
    "clock: how fine",
    "node boundary: cost",
    "programmatic edges: overlap",
    "empty block: cost",
    "a step, and what stamps add",
];

/// What is asked about CUPTI, in builds that can use it.
const CUPTI_QUESTIONS: &[&str] = &[
    "CUPTI: cost while idle",
    "CUPTI: cost of a node",
    "CUPTI: overlap of nodes",
    "CUPTI: nodes of its records",
    "CUPTI: cost afterwards",
];

/// All that is asked.
fn questions() -> Vec<&'static str> {
    let cupti = if cfg!(feature = "profiling") { CUPTI_QUESTIONS } else { &[] };
    [&QUESTIONS, cupti].concat()
}

/// With an empty cache: a model that happens to be there is not for these tests.
fn doctor(cache: &TempDir, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrum"));
    command.arg("doctor").args(flags).env("VITRUM_CACHE_DIR", cache.path()).env_remove("LD_LIBRARY_PATH");
    command
}

fn report(ended: &Ended) -> Value {
    let Ended { stdout, stderr, .. } = ended;
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}:\n{stdout}\n{stderr}"))
}

fn check<'a>(report: &'a Value, list: &str, name: &str) -> &'a Value {
    let found = report[list].as_array().and_then(|all| all.iter().find(|check| check["name"] == name));
    found.unwrap_or_else(|| panic!("{name}: {report:#}"))
}

fn figure(report: &Value, list: &str, name: &str, figure: &str) -> f64 {
    let check = check(report, list, name);
    check["figures"][figure].as_f64().unwrap_or_else(|| panic!("{figure}: {check:#}"))
}

/// Its checks as (name, device, outcome).
fn checks<'a>(report: &'a Value, list: &str) -> Vec<(&'a str, &'a str, &'a str)> {
    let checks = report[list].as_array().expect("a list");
    let word = |check: &'a Value, key: &str| check[key].as_str().expect("a word");
    checks.iter().map(|check| (word(check, "name"), word(check, "device"), word(check, "outcome"))).collect()
}

/// What is not run, and why not: without the feature nodes have no stamps, and there is no model.
fn expected(name: &str) -> &'static str {
    match name {
        "tiny model: stamps" | LIBRARY if !cfg!(feature = "profiling") => "not_run",
        "real model: tokens" => "not_run",
        _ => "passed",
    }
}

#[test]
fn the_cpu_passes_and_a_gpu_that_is_not_there_is_not_run() {
    let cache = TempDir::new();
    let output = finished(doctor(&cache, &["--device", "cpu", "--json"]));
    assert!(output.code == Some(0), "{}", &output.stderr);
    let report = report(&output);
    assert_eq!(report["software"], false);
    let want: Vec<_> = MACHINE[..1].iter().chain(&DEVICE).map(|name| (*name, "cpu", expected(name))).collect();
    assert_eq!(checks(&report, "checks"), want, "{report:#}");
    assert_eq!(report["questions"].as_array().map(Vec::len), Some(0));
    for check in report["checks"].as_array().expect("a list") {
        let kernel = check["name"].as_str().is_some_and(|name| name.starts_with("kernel"));
        let cases = check["figures"]["cases"].as_f64();
        assert!(!kernel || cases.is_some_and(|cases| cases >= 3.0), "{check:#}");
    }
}

/// Without a driver it is said why there is none, and that is a failure if a GPU is asked for.
#[test]
fn a_gpu_that_is_asked_for_has_to_be_there() {
    let cache = TempDir::new();
    // A library that is no driver, first on the path of the loader.
    std::fs::write(cache.path().join("libcuda.so"), "no library").expect("a temporary file");
    std::fs::write(cache.path().join("libcuda.so.1"), "no library").expect("a temporary file");
    let mut command = doctor(&cache, &["--device", "cuda"]);
    command.env("LD_LIBRARY_PATH", cache.path());
    let output = finished(command);
    let (said, error) = (&output.stdout, &output.stderr);
    assert!(output.code != Some(0), "{said}");
    assert!(said.contains("FAILED") && said.contains("libcuda was not found"), "{said}");
    assert!(error.contains("driver (cuda)") && error.contains("gpu (cuda)"), "{error}");
}

#[test]
fn flags_that_name_nothing_are_refused() {
    let cache = TempDir::new();
    for (model, words) in [("smollm2", "is not in"), ("nothing.gguf", "nothing.gguf is neither")] {
        let output = finished(doctor(&cache, &["--device", "cpu", "--model", model]));
        let error = &output.stderr;
        assert!(output.code != Some(0) && error.contains("--model: ") && error.contains(words), "{error}");
    }
}

#[test]
fn all_passes_on_the_software_driver_and_its_numbers_are_marked() {
    let cache = TempDir::new();
    let output = finished(on_softcuda(doctor(&cache, &["--device", "cuda", "--json"])));
    let error = &output.stderr;
    let report = report(&output);
    assert!(output.code == Some(0), "{error}\n{report:#}");
    assert!(!error.contains("softcuda:"), "the software driver was misused: {error}");
    assert_eq!(report["software"], true);
    assert_eq!(report["profiling"], cfg!(feature = "profiling"));
    let cpu = [("machine", "cpu", "passed")];
    let cuda = MACHINE[1..].iter().chain(&DEVICE).map(|name| (*name, "cuda", expected(name)));
    assert_eq!(checks(&report, "checks"), cpu.into_iter().chain(cuda).collect::<Vec<_>>(), "{report:#}");
    let want: Vec<_> = questions().into_iter().map(|name| (name, "cuda", "passed")).collect();
    assert_eq!(checks(&report, "questions"), want, "{report:#}");
    for check in report["checks"].as_array().into_iter().chain(report["questions"].as_array()).flatten() {
        assert_eq!(check["software"], check["device"] == "cuda", "{check:#}");
        let figures = check["figures"].as_object().expect("an object");
        assert!(figures.values().all(|value| value.as_f64().is_some_and(f64::is_finite)), "{check:#}");
    }
    let of = |list: &str, name: &str, name_of: &str| figure(&report, list, name, name_of);
    for figure in ["memory_gb_s", "cache_gb_s", "copy_gb_s", "float_gflop_s", "int8_gop_s"] {
        assert!(of("checks", "peaks", figure) > 0.0, "{figure}");
    }
    // Nine pairings of weights and activations; four numbers of rows, three shapes, and one with wide blocks.
    assert_eq!(of("checks", "kernel linear_residual", "cases"), 9.0 * 13.0);
    assert_eq!(of("checks", "kernel attention", "cases"), 8.0);
    assert_eq!(of("checks", "tiny model: logits and tokens", "tokens"), 36.0);
    assert!(of("questions", "clock: how fine", "steps") > 0.0);
    assert!(of("questions", "a step, and what stamps add", "nodes") > 10.0);
    assert!(of("questions", "empty block: cost", "block_ns") > 0.0);
    assert!(of("questions", "node boundary: cost", "boundary_ns") > 0.0);
    // Over a full edge no block begins early; over no edge one is behind its wait early.
    let overlap = |figure| of("questions", "programmatic edges: overlap", figure);
    assert!(overlap("overlap_full_edges_ns") <= 0.0);
    assert!(overlap("gap_ns") >= 0.0 && overlap("gap_full_edges_ns") >= 0.0);
    #[cfg(feature = "profiling")]
    cupti::assert_answers(&report, "CUPTI 13.0 (130001)", false);
}

/// A call of the driver that fails makes the check fail that it is part of, and no other.
#[test]
fn what_fails_is_named_and_the_rest_is_still_checked() {
    let cache = TempDir::new();
    let mut command = on_softcuda(doctor(&cache, &["--device", "cuda", "--json"]));
    command.env("SOFTCUDA_FAIL_CALL", "4000");
    let output = finished(command);
    let (error, report) = (&output.stderr, report(&output));
    let all: Vec<_> = [checks(&report, "checks"), checks(&report, "questions")].concat();
    let failed: Vec<_> = all.iter().filter(|(_, _, outcome)| *outcome == "failed").collect();
    assert_eq!(failed.len(), 1, "{report:#}");
    let (name, device, _) = failed[0];
    assert_eq!(output.code, Some(1), "{error}");
    assert!(error.contains(&format!("error: 1 failed: {name} ({device})")), "{error}");
    assert_eq!(*device, "cuda");
    let note = report["checks"].as_array().into_iter().flatten().find(|check| check["outcome"] == "failed");
    let note = note.and_then(|check| check["note"].as_str()).expect("a check that failed says why");
    assert!(note.contains("CUDA_ERROR_UNKNOWN") && note.contains("cu"), "{note}");
    assert_eq!(all.len(), 1 + MACHINE[1..].len() + DEVICE.len() + questions().len(), "{report:#}");
}

/// Without the recorder it is said that there is none, and nothing about CUPTI is asked.
#[cfg(not(feature = "profiling"))]
#[test]
fn a_build_without_the_recorder_says_so() {
    let cache = TempDir::new();
    let output = finished(on_softcuda(doctor(&cache, &["--device", "cuda", "--questions", "--json"])));
    let report = report(&output);
    assert!(output.code == Some(0), "{}\n{report:#}", output.stderr);
    let note = check(&report, "checks", LIBRARY)["note"].as_str().expect("a note");
    assert!(note.contains("--features profiling"), "{note}");
}

#[cfg(feature = "profiling")]
mod cupti {
    use super::*;

    /// The questions alone, with these variables.
    fn asked(library_dir: std::path::PathBuf, variables: &[(&str, &str)]) -> Value {
        let cache = TempDir::new();
        let mut command = on_softcuda(doctor(&cache, &["--device", "cuda", "--questions", "--json"]));
        command.env("LD_LIBRARY_PATH", library_dir).envs(variables.iter().copied());
        // No toolkit, in which another CUPTI may lie.
        command.env("CUDA_HOME", cache.path());
        let output = finished(command);
        let report = report(&output);
        assert!(output.code == Some(0), "{}\n{report:#}", output.stderr);
        assert!(!output.stderr.contains("softcuda:"), "CUPTI was misused: {}", output.stderr);
        let cpu = [("machine", "cpu", "passed")];
        let row = check(&report, "checks", LIBRARY)["outcome"].as_str().expect("an outcome");
        let cuda = MACHINE[1..].iter().map(|name| (*name, "cuda", if *name == LIBRARY { row } else { "passed" }));
        assert_eq!(checks(&report, "checks"), cpu.into_iter().chain(cuda).collect::<Vec<_>>(), "{report:#}");
        assert_eq!(checks(&report, "questions").len(), questions().len(), "{report:#}");
        report
    }

    fn note<'a>(report: &'a Value, list: &str, name: &str) -> &'a str {
        check(report, list, name)["note"].as_str().expect("a note")
    }

    /// Of the questions about CUPTI those are not answered, and say this.
    fn assert_not_answered(report: &Value, not_answered: &[&str], words: &str) {
        for name in CUPTI_QUESTIONS {
            let (check, is_answered) = (check(report, "questions", name), !not_answered.contains(name));
            assert_eq!(check["outcome"], if is_answered { "passed" } else { "not_run" }, "{check:#}");
            let note = note(report, "questions", name);
            assert!(is_answered || (note.starts_with("not answered: ") && note.contains(words)), "{note}");
        }
    }

    /// All of a replay's nodes have been found: by the executable graph's id, and where records have it by the captured
    /// node's.
    pub(super) fn assert_answers(report: &Value, library: &str, has_source: bool) {
        assert_eq!(note(report, "checks", LIBRARY), library);
        let of = |name| figure(report, "questions", "CUPTI: nodes of its records", name);
        let nodes = of("activity_nodes");
        assert!(nodes > 1_500.0 && of("activity_replays") == nodes / 64.0, "{report:#}");
        for all in ["activity_records", "activity_found_by_executable"] {
            assert_eq!(of(all), nodes, "{all}");
        }
        assert_eq!(of("activity_found_by_captured"), if has_source { nodes } else { 0.0 });
        for none in ["activity_not_found", "activity_found_unchanged", "activity_untimed", "activity_dropped"] {
            assert_eq!(of(none), 0.0, "{none}");
        }
        for all in ["activity_replays_with_one_id", "activity_replays_with_id_of_launch", "activity_replays_whole"] {
            assert_eq!(of(all), of("activity_replays"), "{all}");
        }
        let of = |name, name_of| figure(report, "questions", name, name_of);
        assert!(of("CUPTI: cost of a node", "activity_recording_3us_ns") > 3_000.0);
        assert!(of("CUPTI: cost of a node", "activity_idle_replay_3us_us") > 64.0 * 3.0);
        assert!(of("CUPTI: cost while idle", "activity_without_3us_ns") > 3_000.0);
        // In software a node's record begins when the one ahead has ended.
        assert!(of("CUPTI: overlap of nodes", "activity_overlap_of_records_ns") <= 0.0);
        assert!(of("CUPTI: overlap of nodes", "activity_node_of_records_ns") > 3_000.0);
        for name in ["activity_before_0us_ns", "activity_after_0us_ns"] {
            assert!(of("CUPTI: cost afterwards", name) > 0.0, "{name}");
        }
    }

    #[test]
    fn nodes_are_found_by_each_id_that_newer_records_have() {
        let report = asked(softcuda::library_dir(), &[("SOFTCUDA_CUPTI", "13")]);
        assert_not_answered(&report, &[], "");
        assert_answers(&report, "CUPTI 13.4 (130400)", true);
    }

    #[test]
    fn records_that_are_missing_are_counted() {
        let report = asked(softcuda::library_dir(), &[("SOFTCUDA_CUPTI_DROP_EVERY", "300")]);
        let of = |name| figure(&report, "questions", "CUPTI: nodes of its records", name);
        let dropped = of("activity_dropped");
        assert!(dropped > 4.0 && of("activity_records") + dropped == of("activity_nodes"), "{report:#}");
        assert_eq!(of("activity_replays_whole") + dropped, of("activity_replays"));
        assert!(note(&report, "questions", "CUPTI: nodes of its records").ends_with(&format!("; {dropped} dropped")));
    }

    #[test]
    fn without_a_library_it_is_said_why() {
        let taken = [("SOFTCUDA_CUPTI_TAKEN", "1")];
        let cases = [
            (softcuda::library_dir(), &taken[..], "another tool holds CUPTI"),
            (softcuda::driver_dir(), &[], "there is no CUPTI: "),
        ];
        for (folder, variables, words) in cases {
            let report = asked(folder, variables);
            let row = check(&report, "checks", LIBRARY);
            assert!(row["outcome"] == "not_run" && note(&report, "checks", LIBRARY).starts_with(words), "{row:#}");
            assert_not_answered(&report, CUPTI_QUESTIONS, "see CUPTI above");
        }
    }

    /// What fails once it is used leaves what can be answered without.
    #[test]
    fn a_call_that_fails_leaves_the_other_answers() {
        for call in ["cuptiActivityEnable", "cuptiGetGraphNodeId", "cuptiActivityGetNextRecord"] {
            let report = asked(softcuda::library_dir(), &[("SOFTCUDA_CUPTI_FAIL_CALL", call)]);
            assert_eq!(note(&report, "checks", LIBRARY), "CUPTI 13.0 (130001)");
            assert_not_answered(&report, &CUPTI_QUESTIONS[1..], call);
        }
    }
}
