//! What fails of CUPTI costs the profile, never the serving.

use std::time::Duration;

use vitrum::device::{DeviceChoice, DeviceOptions, cuda};
use vitrum::report::Report;
use vitrum::trace::session::{SessionOptions, SpoolSummary, TraceSource};

use super::sources::{FEW_BYTES, broken, run};
use super::support::software_gpu::{child, finished};
use super::support::temp::TempDir;
use super::support::tiny_engine::device_options;
use super::{FOLDER, child_without_driver, folder, record, serve, session, start, toolkit};

/// The file in which CUPTI reads which call is to fail, and how many calls there are.
const FAIL_FILE: &str = "VITRUM_TEST_FAIL_FILE";
const CALLS: &str = "VITRUM_TEST_CALLS";

/// Every function that is called.
const FUNCTIONS: [&str; 12] = [
    "cuptiGetVersion",
    "cuptiActivitySetAttribute",
    "cuptiSetThreadIdType",
    "cuptiActivityRegisterTimestampCallback",
    "cuptiActivityRegisterCallbacks",
    "cuptiActivityEnable",
    "cuptiActivityDisable",
    "cuptiActivityFlushAll",
    "cuptiActivityGetNextRecord",
    "cuptiActivityGetNumDroppedRecords",
    "cuptiGetGraphNodeId",
    "cuptiGetGraphExecId",
];

/// What can be relied on, whatever fails: the stamps are there, and what is wrong with the rest is said.
fn assert_stamps_are_there(summary: &SpoolSummary) {
    assert!(summary.is_complete() && summary.received > 50, "{summary:#?}");
    assert_eq!(summary.sources.asked, TraceSource::Both);
}

/// Why CUPTI's records are not there, or not all of them.
fn said(summary: &SpoolSummary) -> Option<String> {
    let counts = summary.activity.as_ref();
    let errors = counts.map(|counts| counts.errors.join("; ")).filter(|errors| !errors.is_empty());
    summary.sources.absent.clone().or(errors)
}

#[test]
#[ignore = "run by a test"]
fn child_one_recording_by_both() {
    let (engine, folder) = (start(), folder());
    let (summary, answers) = record(&engine, &folder, TraceSource::Both);
    assert!(answers == serve(&engine), "serving goes on");
    engine.shutdown();
    assert_stamps_are_there(&summary);
    let files = std::fs::read_dir(&folder).expect("the folder").flatten().map(|entry| entry.path());
    let recordings: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "vtr")).collect();
    assert_eq!(recordings, std::slice::from_ref(&summary.path), "nothing is left of one that could not begin");
    eprintln!("== used {:?}; said {:?}", summary.sources.used, said(&summary));
}

/// NVIDIA's own library, of the compiler's packages, on a machine that may have no driver: it is found, says its
/// version, and refuses in words or works; it ends nothing.
#[test]
fn the_real_library_is_found_and_answers() {
    let ended = finished(child_without_driver("faults::child_the_real_library"));
    assert!(ended.code == Some(0), "{}{}", ended.stdout, ended.stderr);
    let first = ended.stderr.lines().find(|line| line.starts_with("== ")).expect("an answer");
    assert!(first.starts_with("== CUPTI 13.0 (130001): "), "{}", ended.stderr);
}

#[test]
#[ignore = "run by the test of its name"]
fn child_the_real_library() {
    let toolkit = toolkit();
    match cuda::prepare_activity(std::slice::from_ref(&toolkit)) {
        Ok(library) => eprintln!("== {library}: prepared"),
        Err(reason) => eprintln!("== {reason}"),
    }
    let options = DeviceOptions { choice: DeviceChoice::Cuda, activity: true, ..device_options() };
    match vitrum::device::Device::open(&options) {
        Ok(device) => eprintln!("== {}", device.info().name),
        Err(error) => eprintln!("== {error}"),
    }
}

#[test]
fn a_tool_that_holds_cupti_leaves_stamps() {
    let text = run("faults::child_one_recording_by_both", &[("SOFTCUDA_CUPTI_TAKEN", "1")]);
    let expected = "== used Stamps; said Some(\"another tool holds CUPTI";
    assert!(text.contains(expected) && broken(&text).is_empty(), "{text}");
}

#[test]
fn a_machine_without_cupti_leaves_stamps() {
    let dir = TempDir::new();
    let mut command = child("faults::child_one_recording_by_both");
    command.env("LD_LIBRARY_PATH", softcuda::driver_dir()).env(FOLDER, dir.path()).env(FEW_BYTES.0, FEW_BYTES.1);
    let ended = finished(command);
    let expected =
        "== used Stamps; said Some(\"there is no CUPTI: no libcupti.so.13, .12 or libcupti.so on the loader's";
    assert!(ended.code == Some(0) && ended.stderr.contains(expected), "{}", ended.stderr);
}

/// Each function fails from the first call to the last.
#[test]
fn a_function_that_always_fails_costs_the_profile_alone() {
    for function in FUNCTIONS {
        let text = run("faults::child_one_recording_by_both", &[("SOFTCUDA_CUPTI_FAIL_CALL", function)]);
        let outcome = text.lines().find(|line| line.starts_with("== used")).expect("an outcome");
        assert!(outcome.contains(function), "{function}: {outcome}");
    }
}

/// Each call of a run fails in turn.
#[test]
fn a_call_that_fails_costs_the_profile_alone() {
    let counted = run("faults::child_one_recording_by_both", &[("SOFTCUDA_CUPTI_FAIL_CALL", "0")]);
    let calls = counted.lines().find_map(|line| line.strip_prefix("softcuda: ")?.strip_suffix(" cupti calls"));
    let calls = calls.unwrap_or_else(|| panic!("it says how many calls there were: {counted}"));
    let folder = TempDir::new();
    let file = folder.write("fail", "0");
    let fail = format!("@{}", file.display());
    let file = file.to_str().expect("UTF-8");
    let variables = [("SOFTCUDA_CUPTI_FAIL_CALL", fail.as_str()), (FAIL_FILE, file), (CALLS, calls)];
    let text = run("faults::child_each_call_fails_in_turn", &variables);
    let outcomes: Vec<&str> = text.lines().filter(|line| line.starts_with("== call")).collect();
    let silent: Vec<_> = outcomes.iter().filter(|outcome| outcome.contains("said None")).collect();
    // A buffer is asked for once more than there is one, and a run has calls that another has not.
    assert!(outcomes.len() >= 60 && silent.len() <= outcomes.len() / 20, "{outcomes:#?}");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_each_call_fails_in_turn() {
    let variable = |name| std::env::var(name).expect("the parent gives it");
    let (file, calls) = (variable(FAIL_FILE), variable(CALLS));
    for call in 1..=calls.parse::<u64>().expect("a number") {
        std::fs::write(&file, call.to_string()).expect("a file of the test");
        let engine = start();
        let (summary, answers) = record(&engine, &folder(), TraceSource::Both);
        assert!(answers == serve(&engine), "call {call}: serving goes on");
        engine.shutdown();
        assert_stamps_are_there(&summary);
        eprintln!("== call {call}: used {:?}; said {:?}", summary.sources.used, said(&summary));
    }
}

#[test]
fn times_that_are_none_are_counted_and_stamps_go_on() {
    let text = run("faults::child_times_that_are_none", &[("SOFTCUDA_CUPTI_INVALID_AFTER", "100")]);
    assert_eq!(broken(&text), Vec::<&str>::new());
}

#[test]
#[ignore = "run by a test"]
fn child_times_that_are_none() {
    let engine = start();
    let profile = engine.start_profile(session(&folder(), TraceSource::Activity)).expect("a recording");
    (0..5).for_each(|_| drop(serve(&engine)));
    // A buffer is handed over while nothing is under way, and what is wrong is seen.
    std::thread::sleep(Duration::from_millis(2500));
    (0..3).for_each(|_| drop(serve(&engine)));
    let summary = profile.stop().expect("the recording ends");
    engine.shutdown();
    let counts = summary.activity.as_ref().expect("counts");
    let reason = counts.given_up.as_ref().expect("it is given up");
    assert!(reason.contains(" nodes had no times") && counts.invalid > 64 && counts.nodes == 100, "{counts:?}");
    assert!(!summary.is_complete() && summary.invalid == counts.invalid, "{summary:#?}");
    // From there on there are stamps.
    let stamped = summary.received - counts.nodes;
    assert!(stamped > 50 && summary.expected > summary.activity_expected, "{summary:#?}");
    assert_eq!(summary.expected - summary.activity_expected, stamped, "every later node has a stamp: {summary:#?}");
}

/// What CUPTI cannot do from some point on is seen, and stamps go on: by CUPTI alone, too.
#[test]
fn a_function_that_always_fails_leaves_stamps_beside_no_others() {
    for function in ["cuptiGetGraphNodeId", "cuptiActivityGetNextRecord", "cuptiActivityFlushAll"] {
        run("faults::child_by_cupti_alone", &[("SOFTCUDA_CUPTI_FAIL_CALL", function)]);
    }
}

#[test]
#[ignore = "run by a test"]
fn child_by_cupti_alone() {
    let engine = start();
    let profile = engine.start_profile(session(&folder(), TraceSource::Activity)).expect("a recording");
    serve(&engine);
    std::thread::sleep(Duration::from_millis(2500));
    serve(&engine);
    let summary = profile.stop().expect("the recording ends");
    engine.shutdown();
    let counts = summary.activity.as_ref().expect("counts");
    assert!(!counts.errors.is_empty() && !summary.is_complete(), "{summary:#?}");
    let stamped = summary.expected - summary.activity_expected;
    assert!(stamped > 50 && summary.received >= stamped, "what came later has stamps: {summary:#?}");
}

/// A file that is full: what is in it is counted, and the rest.
#[test]
fn a_full_file_is_counted() {
    let text = run("faults::child_a_full_file", &[]);
    assert_eq!(broken(&text), Vec::<&str>::new());
}

#[test]
#[ignore = "run by a test"]
fn child_a_full_file() {
    let engine = start();
    let options = SessionOptions { max_bytes: 200 << 10, ..session(&folder(), TraceSource::Activity) };
    let profile = engine.start_profile(options).expect("a recording");
    (0..120).for_each(|_| drop(serve(&engine)));
    let summary = profile.stop().expect("the recording ends");
    engine.shutdown();
    assert!(summary.limit_reached && !summary.is_complete(), "{summary:#?}");
    assert!(summary.received < summary.expected && summary.dropped > 0, "{summary:#?}");
    let report = Report::load(&summary.path).expect("a recording");
    assert!(report.completeness.received <= summary.received, "{:#?}\n{summary:#?}", report.completeness);
}

/// An engine that ends while it records leaves nothing enabled, and a whole file.
#[test]
fn an_engine_that_ends_ends_its_recording() {
    let text = run("faults::child_an_engine_that_ends", &[]);
    assert_eq!(broken(&text), Vec::<&str>::new());
}

#[test]
#[ignore = "run by a test"]
fn child_an_engine_that_ends() {
    let engine = start();
    let profile = engine.start_profile(session(&folder(), TraceSource::Activity)).expect("a recording");
    serve(&engine);
    engine.shutdown();
    let report = Report::load(&profile.started().path).expect("a recording");
    assert!(report.completeness.complete && report.completeness.received > 50, "{:#?}", report.completeness);
}

/// The driver does not say what was captured: the graph is whole all the same, and its nodes are stamped.
#[test]
fn a_capture_that_is_not_explained_leaves_stamps() {
    let counted = run("faults::child_one_recording_by_both", &[("SOFTCUDA_FAIL_CALL", "0")]);
    let calls = counted.lines().find_map(|line| line.strip_prefix("softcuda: ")?.strip_suffix(" calls"));
    let calls: u64 = calls.and_then(|calls| calls.parse().ok()).unwrap_or_else(|| panic!("{counted}"));
    // Captures are in the second half of a run. Other calls that fail end the engine, in words.
    let explained = (calls / 2..calls).find(|call| {
        let dir = TempDir::new();
        let mut command = child("faults::child_one_recording_by_both");
        command.env(FOLDER, dir.path()).env(FEW_BYTES.0, FEW_BYTES.1).env("SOFTCUDA_FAIL_CALL", call.to_string());
        let ended = finished(command);
        let said = ended.stderr.lines().find(|line| line.starts_with("== used"));
        ended.code == Some(0) && said.is_some_and(|said| said.contains("cuStreamGetCaptureInfo_v3"))
    });
    assert!(explained.is_some(), "no call of {calls} was one that asks about a capture");
}

#[test]
fn records_that_cupti_drops_are_counted() {
    let text = run("faults::child_dropped_records", &[("SOFTCUDA_CUPTI_DROP_EVERY", "10")]);
    assert_eq!(broken(&text), Vec::<&str>::new());
}

#[test]
#[ignore = "run by a test"]
fn child_dropped_records() {
    let engine = start();
    let (summary, _) = record(&engine, &folder(), TraceSource::Activity);
    engine.shutdown();
    let counts = summary.activity.as_ref().expect("counts");
    assert_eq!(counts.dropped, summary.expected / 10, "{summary:#?}");
    assert_eq!(counts.nodes, summary.expected - counts.dropped, "{summary:#?}");
    assert!(!summary.is_complete(), "{summary:#?}");
}

/// Nothing is left of a session: the software CUPTI says so at the end if a kind is enabled, or a buffer is not back.
#[test]
fn sessions_leave_nothing_behind() {
    let text = run("faults::child_many_sessions", &[]);
    assert_eq!(broken(&text), Vec::<&str>::new());
}

#[test]
#[ignore = "run by a test"]
fn child_many_sessions() {
    let engine = start();
    for number in 0..12 {
        let (summary, _) = record(&engine, &folder(), TraceSource::Both);
        assert!(
            summary.activity.as_ref().is_some_and(|counts| counts.nodes == summary.expected),
            "{number}: {summary:#?}"
        );
    }
    // Recordings that cannot be started leave nothing enabled either: for want of a folder, and of room in the file.
    let nowhere = session(&folder().join("missing"), TraceSource::Both);
    assert!(engine.start_profile(nowhere).is_err());
    for _ in 0..10 {
        let small = SessionOptions { max_bytes: 1000, ..session(&folder(), TraceSource::Both) };
        let refused = engine.start_profile(small).expect_err("no room").to_string();
        assert!(refused.contains("a recording needs at least"), "{refused}");
    }
    let (summary, _) = record(&engine, &folder(), TraceSource::Both);
    assert!(summary.activity.is_some_and(|counts| counts.nodes == summary.expected), "it can be started again");
    serve(&engine);
    engine.shutdown();
}
