//! The trace, made of windows as small as can be: the same events as of one window that is the whole recording.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use vitrum::report::{self, Export, ReportError, Windows, chrome, export};
use vitrum::trace::record::Recorder;
use vitrum::trace::schema::{
    CopyStamp, HostSpan, MemberRecord, NodeSources, NodeStamp, Phase, ReplayRecord, RequestMoment, RequestRecord,
    StepCopies, StepRecord, StepSizes,
};
use vitrum::trace::session::{Expected, ExpectedGraph, Keep, SessionOptions};
use vitrum::trace::spool::Reader;

use super::library::{Library, record_seen};
use super::sources::{ALONE, BOTH};
use super::synthetic::{Plan, START_NS, header, options};
use super::trace_json::ns;
use super::{cut, folder, record, record_with};

static NEVER: AtomicBool = AtomicBool::new(false);

fn trace(spool: &Path, records: u64) -> (Value, chrome::Summary) {
    let reader = Reader::open(spool).expect("a spool");
    let windows = Windows::new(spool, reader, records, &NEVER).expect("a survey");
    let (json, summary) = chrome::write_json(windows, "a trace", Vec::new()).expect("a trace");
    (serde_json::from_slice(&json).expect("JSON"), summary)
}

/// How often there is each event.
fn events(trace: &Value) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in trace["traceEvents"].as_array().expect("events") {
        *counts.entry(event.to_string()).or_default() += 1;
    }
    counts
}

/// What readers impose on events.
fn check_lanes(trace: &Value, what: &str) {
    let events = trace["traceEvents"].as_array().expect("events");
    assert_eq!(events[0]["ph"], "M", "{what}");
    let mut lanes: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let (start_ns, open) =
            (ns(&event["ts"]), lanes.entry(format!("{} {}", event["pid"], event["tid"])).or_default());
        let end_ns = start_ns + ns(&event["dur"]);
        let before_ns = open.last().map_or(0, |(start_ns, _)| *start_ns);
        assert!(start_ns >= before_ns || event["cat"] == "request", "{what}: {event} behind {before_ns}");
        open.push((start_ns, end_ns));
    }
    for (lane, slices) in &mut lanes {
        slices.sort_by_key(|(start_ns, end_ns)| (*start_ns, std::cmp::Reverse(*end_ns)));
        let mut open: Vec<u64> = Vec::new();
        for (start_ns, end_ns) in slices {
            open.retain(|end| end > start_ns);
            assert!(open.iter().all(|end| *end_ns <= *end), "{what}: {lane}: {start_ns} to {end_ns} overlaps partly");
            open.push(*end_ns);
        }
    }
}

/// Steps whose device work reaches behind the begin of the next one, and requests that come, go, and are preempted.
struct Pipeline {
    recorder: Recorder,
    expected: Expected,
    nodes: [usize; 2],
    device_ns: u64,
    replay: u64,
}

const ITERATION_NS: u64 = 10_000;

impl Pipeline {
    fn record(name: &str, steps: u64) -> PathBuf {
        let graphs = Plan { layers: 1, ..Plan::default() }.graphs();
        let recorder = Recorder::start(&options(&folder(name)), &header(), &graphs.each_ref()).expect("a recorder");
        let expected = [1, 2].map(|graph| ExpectedGraph { graph, ..ExpectedGraph::default() }).to_vec();
        let mut pipeline = Pipeline {
            recorder,
            expected: Expected { graphs: expected },
            nodes: graphs.each_ref().map(|graph| graph.nodes.len()),
            device_ns: START_NS,
            replay: 0,
        };
        for step in 0..=steps {
            if step < steps {
                pipeline.submit(step);
            }
            if step > 0 {
                pipeline.read(step - 1);
            }
        }
        let summary = pipeline.recorder.stop(pipeline.expected).expect("a summary");
        assert!(summary.is_complete(), "{summary:?}");
        summary.path
    }

    fn begin(step: u64) -> u64 {
        START_NS + ITERATION_NS * step
    }

    fn moment(&mut self, request: u64, moment: RequestMoment, at_ns: u64) {
        self.recorder.request(&RequestRecord { request, moment, at_ns, tokens: 3 });
    }

    /// A request for every third step: it comes, with a name or none, runs for seven steps, and in between it may have
    /// to wait. Request 1000 is there all the time, and 1001 from before.
    fn submit(&mut self, step: u64) {
        let begin_ns = Pipeline::begin(step);
        let (request, age) = (step / 3, step % 3);
        if age == 0 {
            self.recorder.name(request, if request % 2 == 0 { "odd \"name\"" } else { "" });
            // It came while the engine was busy with the step before.
            self.moment(request, RequestMoment::Queued, (begin_ns - 700).max(START_NS));
            self.moment(request, RequestMoment::Scheduled, begin_ns + 50);
        }
        let mut running = vec![request, 1000];
        if request >= 1 && age == 1 && request % 4 == 1 {
            self.moment(request, RequestMoment::Preempted, begin_ns + 60);
            running.remove(0);
        }
        running.extend((request >= 1).then(|| request - 1));
        for request in running {
            let member = MemberRecord { step, request, tokens: 1, prefill_tokens: 0, kv_len: step as u32 };
            self.recorder.member(&member);
        }
        for (phase, from, to) in [(Phase::Receive, 0, 100), (Phase::Schedule, 100, 900), (Phase::Replay, 900, 2000)] {
            self.recorder.span(&HostSpan { phase, step, start_ns: begin_ns + from, end_ns: begin_ns + to });
        }
    }

    /// Its device work takes as long as an iteration, and so ends behind the next one's begin.
    fn read(&mut self, step: u64) {
        let begin_ns = Pipeline::begin(step);
        let now_ns = begin_ns + ITERATION_NS;
        let device_ns = self.device_ns.max(begin_ns + 2500);
        self.recorder.span(&HostSpan { phase: Phase::Download, step, start_ns: now_ns + 2000, end_ns: now_ns + 4000 });
        let copy = |start_ns| CopyStamp { start_ns, end_ns: start_ns + 40, bytes: 64 };
        let count = (self.nodes[0] + self.nodes[1]) as u64;
        let node_ns = (ITERATION_NS - 400) / count;
        let done_ns = device_ns + 100 + count * node_ns + 200;
        self.recorder.step(&StepRecord {
            step,
            start_ns: begin_ns,
            end_ns: begin_ns + 9000,
            done_ns,
            sizes: StepSizes { tokens: 2, seqs: 2, logit_rows: 2, kv_tokens: step, qk_pairs: step },
            prefill_tokens: 0,
            traced: true,
            copies: StepCopies { upload: copy(device_ns), download: copy(done_ns - 100) },
        });
        let mut at_ns = device_ns + 100;
        for graph in [1_u32, 2] {
            self.replay += 1;
            let launch_start_ns = begin_ns + 900 + 500 * u64::from(graph - 1);
            let sources = NodeSources { stamps: true, activity: false };
            let (replay, launch_end_ns) = (self.replay, launch_start_ns + 400);
            let record = ReplayRecord { replay, step, graph, sources, launch_start_ns, launch_end_ns };
            let nodes = self.nodes[graph as usize - 1];
            let stamps: Vec<NodeStamp> = (0..nodes as u64)
                // Each begins a little before the one ahead of it has ended.
                .map(|node| NodeStamp {
                    start_ns: at_ns + node * node_ns,
                    end_ns: at_ns + (node + 1) * node_ns + 9,
                    wait_ns: 1,
                })
                .collect();
            at_ns += nodes as u64 * node_ns;
            let expected = &mut self.expected.graphs[graph as usize - 1];
            expected.replays += 1;
            expected.traced_replays += 1;
            expected.nodes += nodes as u64;
            self.recorder.replay(&record, &stamps);
        }
        self.device_ns = done_ns;
        if step % 3 == 2 && step >= 5 {
            self.moment(step / 3 - 1, RequestMoment::Finished, now_ns + 5000);
        }
    }
}

/// Recordings of every kind, with whether they come apart. Those with activity have all steps in front of all else.
fn recordings() -> Vec<(String, PathBuf, bool)> {
    let plan = Plan { layers: 2, steps: 60, ..Plan::default() };
    let whole = record("windows-whole", &Plan { steps: 300, ..Plan::default() }).path;
    let half = whole.with_extension("cut.vtr");
    cut(&whole, |bytes| bytes / 2, &half);
    let with = |name: &str, edit: &dyn Fn(&mut SessionOptions)| {
        let mut options = options(&folder(name));
        edit(&mut options);
        let plan = Plan { steps: 900, rest: Duration::from_millis(2), ..plan.clone() };
        record_with(&plan, &options).path
    };
    let seen = |name: &str, library: Library, overlap_ns| {
        record_seen(name, &Plan { overlap_ns, ..plan.clone() }, library, |_| {})
    };
    let late = record_seen("windows-late", &plan, BOTH, |said| said.activity.reverse());
    let rotated = record_seen("windows-mixed", &plan, ALONE, |said| {
        let third = said.activity.len() / 3;
        said.activity.rotate_left(third);
    });
    let ring = |options: &mut SessionOptions| (options.keep, options.max_bytes) = (Keep::Last, 300_000);
    let toggled = |options: &mut SessionOptions| options.toggle = true;
    let all = [
        ("plain", whole.clone(), true),
        ("cut off", half, true),
        ("overlapping", record("windows-overlap", &Plan { overlap_ns: 1, ..plan.clone() }).path, true),
        ("a ring", with("windows-ring", &ring), true),
        ("toggled", with("windows-toggled", &toggled), true),
        ("pipelined", Pipeline::record("windows-pipelined", 400), true),
        ("seen: both sources", seen("windows-both", BOTH, 500), true),
        ("seen: the library alone", seen("windows-alone", ALONE, 500), true),
        ("seen: overlap shown", seen("windows-shown", Library { hides_overlap: false, ..BOTH }, 500), true),
        ("seen: activity backwards", late, true),
        ("seen: activity in another order", rotated, true),
        ("empty", record("windows-empty", &Plan { steps: 0, ..plan.clone() }).path, false),
        ("one step", record("windows-one", &Plan { steps: 1, ..plan }).path, false),
    ];
    all.map(|(name, path, is_apart)| (name.to_owned(), path, is_apart)).to_vec()
}

#[test]
fn windows_make_the_same_events_as_the_whole() {
    for (name, spool, is_apart) in recordings() {
        let (mut whole, summary) = trace(&spool, u64::MAX);
        assert_eq!((summary.windows, summary.late), (1, 0), "{name}");
        check_lanes(&whole, &name);
        for records in if name.starts_with("seen") { [1, 10] } else { [20, 400] } {
            let (mut parts, summary) = trace(&spool, records);
            assert!(!is_apart || summary.windows >= 4, "{name}: {} windows", summary.windows);
            assert_eq!(summary.late, 0, "{name}");
            check_lanes(&parts, &name);
            let (own, all) = (events(&parts), events(&whole));
            let differs = own.iter().find(|(event, count)| all.get(*event) != Some(count));
            assert_eq!(differs, None, "{name}: not so in one window");
            assert_eq!(own.values().sum::<u64>(), all.values().sum::<u64>(), "{name}");
            [&mut parts, &mut whole].into_iter().for_each(|trace| _ = trace["vitrum"]["rendered"].take());
            assert_eq!(parts["vitrum"], whole["vitrum"], "{name}");
        }
    }
}

#[test]
fn the_pipelined_recording_has_what_it_is_for() {
    let (trace, summary) = trace(&Pipeline::record("windows-pipeline", 40), 1);
    assert!(summary.windows > 30, "{summary:?}");
    let events = trace["traceEvents"].as_array().expect("events");
    let behind = events.iter().filter(|event| event["cat"] == "kernel").filter(|event| {
        let next = event["args"]["step"].as_u64().expect("a step") + 1;
        ns(&event["ts"]) >= ITERATION_NS * next
    });
    assert!(behind.count() > 30, "work that is carried over");
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    assert!(named("preempted") > 2 && named("running") >= 1, "lives of every kind");
    assert!(events.iter().any(|event| event["args"]["request id"] == "odd \"name\""));
}

fn is_alone(dir: &Path) -> bool {
    fs::read_dir(dir).expect("the folder").count() == 1
}

#[test]
fn a_cancelled_render_leaves_no_file() {
    let spool = record("windows-cancelled", &Plan::default()).path;
    let (dir, out) = (spool.parent().expect("a folder"), spool.with_extension("json"));
    let cancel = AtomicBool::new(true);
    let early = Windows::open(&spool, &cancel).expect_err("it was cancelled before");
    assert!(matches!(early, ReportError::Cancelled { .. }), "{early}");
    cancel.store(false, Ordering::Relaxed);
    let windows = Windows::open(&spool, &cancel).expect("a survey");
    cancel.store(true, Ordering::Relaxed);
    let late = chrome::write(windows, &out).expect_err("it was cancelled since");
    assert!(matches!(late, ReportError::Cancelled { .. }), "{late}");
    assert!(is_alone(dir), "nothing but the recording");
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let dir = folder("windows-kinds");
    let [pipe, socket] = ["pipe.vtr", "socket.vtr"].map(|name| dir.join(name));
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let _socket = UnixListener::bind(&socket).expect("a socket");
    let kinds = [(pipe, "a pipe"), (socket, "a socket"), ("/dev/zero".into(), "a device"), (dir, "a folder")];
    for (path, kind) in kinds {
        let begin = Instant::now();
        for format in [Export::Chrome, Export::Speedscope] {
            let refused = export(&path, format, Some(Path::new("/dev/null"))).expect_err("a refusal").to_string();
            assert_eq!(refused, format!("{}: it is {kind}, and a recording is a regular file", path.display()));
        }
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

/// A server renders beside its recordings, where somebody may have put a pipe.
#[test]
fn what_is_rendered_beside_a_recording_goes_into_no_pipe() {
    let dir = folder("windows-pipe");
    let pipe = dir.join("a.pt.trace.json.gz");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let refused = report::render(&dir.join("a.vtr")).expect_err("a refusal").to_string();
    assert!(refused.contains("a.pt.trace.json.gz") && refused.contains("no regular file"), "{refused}");
}

/// The most memory that a process had, in KiB, when it has ended.
fn peak_kib(mut process: Child) -> u64 {
    let path = format!("/proc/{}/status", process.id());
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        if let Some(status) = process.try_wait().expect("it is this process's") {
            assert!(status.success());
            return peak;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_render_of_three_times_as_much_takes_no_more_memory() {
    let peaks = [300_000, 900_000].map(|nodes| {
        let plan = Plan { layers: 30, rest: Duration::from_millis(2), ..Plan::default() };
        let plan = Plan { steps: nodes / plan.step_nodes(), ..plan };
        let spool = record(&format!("windows-peak-{nodes}"), &plan).path;
        let mut command = Command::new(env!("CARGO_BIN_EXE_vitrum"));
        command.args(["profile", "export", "-o", "/dev/null"]).arg(&spool).stdout(Stdio::null());
        let peak = peak_kib(command.spawn().expect("it starts"));
        fs::remove_file(spool).expect("the recording");
        peak
    });
    println!("{peaks:?} KiB");
    // In memory as a whole, 600,000 node times more were 48 MB more.
    assert!(peaks[1] < peaks[0] + 8 * 1024, "{peaks:?} KiB");
    assert!(peaks[1] < 150 * 1024, "{peaks:?} KiB");
}
