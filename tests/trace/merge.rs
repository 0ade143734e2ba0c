//! Several recordings in one trace: each is in it as it is alone, moved by what the trace says, and by nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use vitrum::report;
use vitrum::report::merge::{MergeError, merge};
use vitrum::trace::session::{SessionHeader, SessionOptions};

use super::acceptance::assert_passes;
use super::library::record_seen;
use super::sources::BOTH;
use super::synthetic::{Plan, START_NS, header, options};
use super::trace_json::parse;
use super::{cut, folder, record, record_as, record_with};

const MS: u64 = 1_000_000;

/// A server on another machine: 5 ms after the moment of the first one's anchor, its clock reads a second more.
fn other_machine() -> SessionHeader {
    let mut other = header();
    other.pid = 1;
    other.model = "a \"model\"\n\u{7f}".into();
    other.clock.unix_ns += 5 * MS;
    other.clock.monotonic_ns += 1000 * MS;
    (other.clock.error_ns, other.clock.boot_id) = (Some(12), Some("another boot".into()));
    other
}

fn merged(name: &str, files: &[PathBuf]) -> (Value, PathBuf) {
    let out = folder(name).join("all.pt.trace.json.gz");
    let merged = merge(files, Some(&out)).expect("a trace");
    assert_eq!((merged.path.as_path(), &merged.incomplete), (out.as_path(), &Vec::new()));
    (parse(&out), out)
}

fn alone(spool: &Path) -> Value {
    parse(&report::render(spool).expect("a trace").files[0])
}

/// Times as nanoseconds.
fn whole(us: &Value) -> i64 {
    (us.as_f64().expect("a number") * 1000.0).round() as i64
}

/// An event of a merged trace as the trace of its recording alone has it.
fn moved_back(event: &Value, entry: &Value, pids: &BTreeMap<u64, u64>) -> Value {
    let placed = &entry["merged"];
    let number = |key: &str| placed[key].as_i64().unwrap_or_else(|| panic!("no {key}: {placed}"));
    let mut event = event.clone();
    let back = |value: &mut Value, by: i64| {
        if let Some(number) = value.as_i64() {
            *value = json!(number - by);
        }
    };
    event["pid"] = json!(pids[&event["pid"].as_u64().expect("a pid")]);
    if event["ph"] == "M" {
        // Names and places are the merged trace's own.
        event["args"] = json!(event["args"].as_object().expect("args").keys().collect::<Vec<_>>());
        return event;
    }
    let moved_ns = number("start_ns");
    let ts_ns = whole(&event["ts"]) - moved_ns;
    event["ts"] = json!(ts_ns);
    if event["args"]["lib_start_us"].is_number() {
        event["args"]["lib_start_us"] = json!(whole(&event["args"]["lib_start_us"]) - moved_ns);
    }
    let correlation_offset = |value: &Value| {
        let is_call = value.as_u64().is_some_and(|id| id >= 1 << 32);
        if is_call { number("call_correlation_offset") - (1 << 32) } else { number("correlation_offset") }
    };
    if event["id"].is_number() {
        let by = correlation_offset(&event["id"]);
        back(&mut event["id"], by);
    }
    if event["args"]["correlation"].is_number() {
        let by = correlation_offset(&event["args"]["correlation"]);
        back(&mut event["args"]["correlation"], by);
    }
    if event["args"].is_object() {
        let graphs = number("graph_offset");
        let args = [("graph id", graphs), ("graph node id", graphs << 32), ("device", number("device"))];
        for (key, by) in args.into_iter().chain([("stream", number("stream") - 1)]) {
            if event["args"][key].is_number() {
                back(&mut event["args"][key], by);
            }
        }
    }
    event
}

/// The events of a recording's own trace, in the same words.
fn own(trace: &Value) -> Vec<Value> {
    let events = trace["traceEvents"].as_array().expect("events").iter();
    let own = |event: &Value| {
        let mut event = event.clone();
        if event["ph"] == "M" {
            event["args"] = json!(event["args"].as_object().expect("args").keys().collect::<Vec<_>>());
            return event;
        }
        event["ts"] = json!(whole(&event["ts"]));
        if event["args"]["lib_start_us"].is_number() {
            event["args"]["lib_start_us"] = json!(whole(&event["args"]["lib_start_us"]));
        }
        event
    };
    events.map(own).collect()
}

/// Pids in the merged file, with those that the recording has in its own.
fn pids_of(entry: &Value, pid: u32) -> BTreeMap<u64, u64> {
    let pids = &entry["merged"]["pids"];
    let alone = [("device", 0), ("host", u64::from(pid)), ("requests", 10_000_000), ("overheads", 11_000_000)];
    alone.map(|(name, own)| (pids[name].as_u64().expect("a pid"), own)).into()
}

#[test]
fn each_recording_is_there_as_it_is_alone() {
    let plan = Plan { overlap_ns: 500, ..Plan::default() };
    let files = [
        record_seen("merge-seen", &plan, BOTH, |_| {}),
        record_as(&other_machine(), &Plan { steps: 7, ..Plan::default() }, &options(&folder("merge-other"))).path,
        record_seen("merge-again", &Plan::default(), BOTH, |_| {}),
        record_with(&plan, &SessionOptions { toggle: true, ..options(&folder("merge-toggled")) }).path,
    ];
    let (trace, path) = merged("merge-all", &files);
    let entries = trace["vitrum"]["recordings"].as_array().expect("a list");
    assert_eq!(entries.len(), files.len());
    let events = trace["traceEvents"].as_array().expect("events");
    let mut found = 0;
    for (entry, file) in entries.iter().zip(&files) {
        let own_trace = alone(file);
        assert_eq!(entry["recording"], own_trace["vitrum"]["recording"]);
        for key in ["completeness", "account", "graphs", "window", "sources", "source_comparison", "toggled"] {
            assert_eq!(entry[key], own_trace["vitrum"][key], "{key}");
        }
        let pids = pids_of(entry, entry["merged"]["process"].as_u64().expect("a pid") as u32);
        let is_its = |event: &&Value| pids.contains_key(&event["pid"].as_u64().expect("a pid"));
        let mut moved: Vec<String> =
            events.iter().filter(is_its).map(|event| moved_back(event, entry, &pids)).map(|e| e.to_string()).collect();
        let mut expected: Vec<String> = own(&own_trace).iter().map(Value::to_string).collect();
        moved.sort_unstable();
        expected.sort_unstable();
        found += moved.len();
        let different = moved.iter().zip(&expected).find(|(one, other)| one != other);
        assert_eq!(different, None, "{}", file.display());
        assert_eq!(moved.len(), expected.len());
    }
    assert_eq!(found, events.len(), "every event is one recording's");
    assert_passes("lint_trace.py", &[&path]);
}

#[test]
fn clocks_are_put_on_the_first_ones_and_the_trace_says_how() {
    let first = record("merge-first", &Plan::default()).path;
    let other = record_as(&other_machine(), &Plan::default(), &options(&folder("merge-second"))).path;
    let mut neighbour = header();
    (neighbour.pid, neighbour.clock.unix_ns) = (77, neighbour.clock.unix_ns - 3_600_000 * MS);
    let neighbour = record_as(&neighbour, &Plan::default(), &options(&folder("merge-third"))).path;
    let (trace, _) = merged("merge-clocks", &[first.clone(), other.clone(), neighbour.clone()]);
    let placed = |at: usize| &trace["vitrum"]["recordings"][at]["merged"];
    // All begin at START_NS of their own clocks. The other machine's clock reads a second more at a moment that is 5 ms
    // later: what it calls the same is 995 ms earlier on the first one's.
    let clock = |by: &str, offset_ns: i64, error_ns: u64, differs_ns: i64| {
        let differs = ("wall_clock_differs_ns", json!(differs_ns));
        let all = [("by", json!(by)), ("offset_ns", json!(offset_ns)), ("error_ns", json!(error_ns)), differs];
        Value::Object(all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    };
    assert_eq!(placed(0)["clock"], clock("first", 0, 0, 0));
    assert_eq!(placed(1)["clock"], clock("wall_clock", -995 * MS as i64, 42, 0));
    assert_eq!(placed(2)["clock"], clock("same_boot", 0, 0, -3_600_000 * MS as i64));
    let starts = [0, 1, 2].map(|at| placed(at)["start_ns"].as_u64().expect("a time"));
    assert_eq!(starts, [995 * MS, 0, 995 * MS]);
    let base_ns = trace["baseTimeNanoseconds"].as_u64().expect("a base");
    assert_eq!(base_ns, 1_768_000_000_000_000_000 + MS - 995 * MS);

    let text = merge(&[first, other, neighbour], None).expect("a trace");
    assert!(text.path.to_string_lossy().ends_with(".merged.pt.trace.json.gz"), "{:?}", text.path);
    let text = text.sheet.to_text();
    for words in [
        "wall clock",
        "same boot",
        "-995000000",
        "42",
        "only as good as their synchronisation",
        "would lie -3600.000 s elsewhere",
        "no moment at which all of them recorded",
    ] {
        assert!(text.contains(words), "no {words}:\n{text}");
    }
}

#[test]
fn a_clock_that_begins_after_the_first_moment_is_merged() {
    let mut young = header();
    // Booted after the first recording's begin: its clock would be below 0 there.
    (young.clock.monotonic_ns, young.clock.boot_id) = (START_NS + 90_000_000 * MS, Some("another boot".into()));
    young.clock.unix_ns += 90_000_000 * MS - 5 * MS;
    let files =
        [record("merge-old", &Plan::default()).path, record_as(&young, &Plan::default(), &options(&folder("y"))).path];
    let (trace, _) = merged("merge-young", &files);
    let starts = [0, 1].map(|at| trace["vitrum"]["recordings"][at]["merged"]["start_ns"].as_u64().expect("a time"));
    assert_eq!(starts, [6 * MS, 0]);
}

#[test]
fn what_cannot_be_merged_is_refused_by_name() {
    let one = record("merge-one", &Plan::default()).path;
    let two = record("merge-two", &Plan::default()).path;
    let dir = folder("merge-refused");
    let copy = dir.join("a copy.vtr");
    std::fs::copy(&one, &copy).expect("a copy");
    let bad = dir.join("bad.vtr");
    std::fs::write(&bad, "no recording").expect("a file");
    let refused = |files: &[&PathBuf], out: Option<&Path>| {
        let files: Vec<PathBuf> = files.iter().map(|file| (*file).clone()).collect();
        merge(&files, out).expect_err("a refusal")
    };
    assert!(matches!(refused(&[], None), MergeError::TooFew { given: 0 }));
    assert!(matches!(refused(&[&one], None), MergeError::TooFew { given: 1 }));
    let twice = refused(&[&one, &two, &copy], None).to_string();
    assert!(twice.contains("a copy.vtr are the same recording: ") && twice.contains("of process 4242"), "{twice}");
    let unreadable = refused(&[&one, &bad], None);
    assert!(matches!(unreadable, MergeError::Report(_)) && unreadable.to_string().contains("bad.vtr: not a rec"));
    let missing = refused(&[&one, &dir.join("missing.vtr")], None).to_string();
    assert!(missing.contains("missing.vtr: cannot open"), "{missing}");
    let name = refused(&[&one, &two], Some(&dir.join("out.vtr"))).to_string();
    assert!(name.contains("out.vtr: the trace's name has to end in .json.gz"), "{name}");
    let unwritable = refused(&[&one, &two], Some(&dir.join("no folder/out.json.gz"))).to_string();
    assert!(unwritable.contains("no folder/out.json.gz"), "{unwritable}");
    assert_eq!(std::fs::read_dir(&dir).expect("the folder").count(), 2, "nothing half written");
}

#[test]
fn a_recording_is_not_overwritten_by_what_it_is_merged_into() {
    let (one, two) = (record("merge-over", &Plan::default()).path, record("merge-over-2", &Plan::default()).path);
    // By the name of a trace, and as the second of two.
    let named = folder("merge-over-named").join("two.json.gz");
    std::fs::rename(&two, &named).expect("a move");
    let before = std::fs::read(&named).expect("the recording");
    let ended = vitrum_merge(&[&one, &named, Path::new("-o"), &named]);
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("{} is the recording itself", named.display())), "{stderr}");
    assert_eq!(std::fs::read(&named).expect("the recording"), before);
}

fn vitrum_merge(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vitrum"))
        .args(["profile", "merge"])
        .args(arguments)
        .output()
        .expect("the binary runs")
}

#[test]
fn an_incomplete_or_empty_recording_is_merged_and_is_an_error() {
    let whole = record("merge-whole", &Plan::default()).path;
    let dir = folder("merge-cut");
    let (short, empty) = (dir.join("cut.vtr"), dir.join("empty.vtr"));
    cut(&record("merge-to-cut", &Plan::default()).path, |bytes| bytes - 1, &short);
    let nothing = record_with(&Plan { steps: 0, ..Plan::default() }, &options(&folder("merge-nothing"))).path;
    std::fs::rename(nothing, &empty).expect("a move");
    let ended = vitrum_merge(&[&whole, &short, &empty]);
    let (stdout, stderr) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cut.vtr: the recording was cut off") && !stderr.contains("empty.vtr"), "{stderr}");
    let path = stdout.trim_end().lines().last().expect("the file's name");
    let trace = parse(Path::new(path));
    let entries = trace["vitrum"]["recordings"].as_array().expect("a list");
    assert_eq!([0, 1, 2].map(|at| entries[at]["completeness"]["complete"] == true), [true, false, true]);
    let ended = vitrum_merge(&[&whole, &empty]);
    assert!(ended.status.success(), "{ended:?}");
    let ended = vitrum_merge(&[&whole]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("two recordings or more, and 1 was given"), "{ended:?}");
}
