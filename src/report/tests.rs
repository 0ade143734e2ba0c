//! A spool that is whole may still say anything: no record makes a report panic.

use proptest::prelude::*;

use super::merge::AlignedBy;
use super::*;
use crate::trace::activity::{
    Activity, CallActivity, CopyActivity, CopyKind, DriverCall, NodeActivity, OverheadActivity, OverheadKind,
};
use crate::trace::schema::{
    CopyStamp, Cost, GraphKey, GraphKind, GraphTable, HostSpan, LaunchFacts, LinearCost, MemberRecord, NodeInfo,
    NodeSources, NodeStamp, Op, Phase, Place, ReplayRecord, RequestMoment, RequestRecord, StepCopies, StepRecord,
    StepSizes,
};
use crate::trace::session::{
    ClockAnchor, Closing, Counts, Expected, ExpectedGraph, Overwritten, RecordedGraph, SessionHeader,
};
use crate::trace::spool::{Block, Reader, Seam, SpoolHeader, closing_block, file_header};

/// Small numbers, so that records meet each other; and the largest.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..12, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

#[derive(Clone, Debug)]
enum Any {
    Step(StepRecord),
    Member(MemberRecord),
    Span(HostSpan),
    Request(RequestRecord),
    Replay(ReplayRecord, Vec<NodeStamp>),
    Seen(Activity),
    /// A replay with its call, and nodes of it.
    Launch(ReplayRecord, CallActivity, Vec<NodeActivity>),
}

fn any_record() -> impl Strategy<Value = Any> {
    let numbers = prop::collection::vec(number(), 16);
    (0..11, numbers, any::<bool>()).prop_map(|(kind, n, traced)| match kind {
        0 => Any::Step(StepRecord {
            step: n[0],
            start_ns: n[1],
            end_ns: n[2],
            done_ns: n[3],
            sizes: StepSizes { tokens: n[4], seqs: n[5], logit_rows: n[6], kv_tokens: n[7], qk_pairs: n[8] },
            prefill_tokens: n[9],
            traced,
            copies: StepCopies {
                upload: CopyStamp { start_ns: n[10], end_ns: n[11], bytes: n[12] },
                download: CopyStamp { start_ns: n[13], end_ns: n[14], bytes: n[15] },
            },
        }),
        1 => Any::Member(MemberRecord {
            step: n[0],
            request: n[1],
            tokens: n[2] as u32,
            prefill_tokens: n[3] as u32,
            kv_len: n[4] as u32,
        }),
        2 => Any::Span(HostSpan { phase: Phase::ALL[(n[0] % 7) as usize], step: n[1], start_ns: n[2], end_ns: n[3] }),
        3 => Any::Request(RequestRecord {
            request: n[0],
            moment: RequestMoment::ALL[(n[1] % 6) as usize],
            at_ns: n[2],
            tokens: n[3] as u32,
        }),
        5..=8 => Any::Seen(any_activity(kind, &n)),
        9..=10 => any_launch(&n, traced),
        _ => {
            let replay = ReplayRecord {
                replay: n[0],
                step: n[1],
                graph: (n[2] % 3) as u32,
                sources: NodeSources { stamps: traced, activity: n[14] % 2 == 1 },
                launch_start_ns: n[3],
                launch_end_ns: n[4],
            };
            let stamp = |at: usize| NodeStamp { start_ns: n[at], end_ns: n[at + 1], wait_ns: n[at + 2] };
            Any::Replay(replay, vec![stamp(5), stamp(8), stamp(11)])
        }
    })
}

fn any_activity(kind: i32, n: &[u64]) -> Activity {
    let (correlation, start_ns, end_ns) = ((n[0] % 4) as u32, n[1], n[2]);
    match kind {
        5 => {
            let (graph, ordinal) = ((n[3] % 3) as u32, (n[4] % 5) as u32);
            Activity::Node(NodeActivity { correlation, graph, ordinal, start_ns, end_ns })
        }
        6 => Activity::Copy(CopyActivity {
            kind: CopyKind::ALL[(n[3] % 5) as usize],
            correlation,
            start_ns,
            end_ns,
            bytes: n[4],
        }),
        7 => Activity::Call(CallActivity {
            // Mostly launches: nothing of a node is known without one.
            call: DriverCall::ALL[(n[3] % 12 / 6 * (n[3] % 7)) as usize],
            correlation,
            thread: n[4] as u32,
            status: (n[5] % 2) as u32,
            start_ns,
            end_ns,
        }),
        _ => Activity::Overhead(OverheadActivity { kind: OverheadKind::ALL[(n[3] % 7) as usize], start_ns, end_ns }),
    }
}

fn any_launch(n: &[u64], stamps: bool) -> Any {
    let replay = ReplayRecord {
        replay: n[0],
        step: n[1],
        graph: 1,
        sources: NodeSources { stamps, activity: true },
        launch_start_ns: n[2],
        launch_end_ns: n[2].saturating_add(n[3]),
    };
    let call = CallActivity {
        call: DriverCall::GraphLaunch,
        correlation: n[4] as u32,
        thread: 0,
        status: 0,
        start_ns: n[2].max(1),
        end_ns: n[2].max(1).saturating_add(n[3] / 2),
    };
    let node = |at: usize| NodeActivity {
        correlation: call.correlation,
        graph: 1,
        ordinal: (n[at] % 4) as u32,
        start_ns: n[at + 1],
        end_ns: n[at + 1].saturating_add(n[at + 2]),
    };
    Any::Launch(replay, call, vec![node(5), node(8), node(11)])
}

fn header(toggled: bool, size: u32) -> SpoolHeader {
    let cost = LinearCost { constant: 1e300, kv_tokens: -1.0, ..LinearCost::default() };
    let node = |layer| NodeInfo {
        kernel: "k".into(),
        choice: "c".into(),
        barriers: 1,
        place: Place { layer, op: Op::MlpUp },
        cost: Cost { bytes: cost, flops: cost },
        launch: Some(LaunchFacts {
            grid: [size; 3],
            block: [size; 3],
            registers: size,
            static_shared_bytes: size,
            dynamic_shared_bytes: size,
            blocks_held: size,
            multiprocessors: 0,
            threads_max: 0,
        }),
    };
    let key = GraphKey { kind: GraphKind::ForwardDecode, bucket: 1 };
    let clock = ClockAnchor { monotonic_ns: u64::MAX, ..ClockAnchor::default() };
    let session = SessionHeader { clock, ..SessionHeader::default() };
    let graphs = vec![GraphTable { id: 1, key, nodes: vec![node(-1), node(0), node(i32::MIN)] }];
    SpoolHeader {
        id: "1".into(),
        toggle_seed: toggled.then_some(1),
        ring: None,
        window: Default::default(),
        granularity: Default::default(),
        session,
        graphs,
    }
}

fn stamp_of(node: &NodeActivity) -> NodeStamp {
    NodeStamp { start_ns: node.start_ns, end_ns: node.end_ns, wait_ns: 0 }
}

/// A ring's block has the seam.
fn spool(records: &[Any], header: &SpoolHeader, expected: ExpectedGraph, seam: &Seam) -> Vec<u8> {
    let mut bytes = file_header(header).expect("a header");
    let mut block = if header.ring.is_some() { Block::with_seam() } else { Block::new() };
    for record in records {
        assert!(match record {
            Any::Step(step) => block.push(step),
            Any::Member(member) => block.push(member),
            Any::Span(span) => block.push(span),
            Any::Request(request) => block.push(request),
            Any::Seen(Activity::Node(node)) => block.push(node),
            Any::Seen(Activity::Copy(copy)) => block.push(copy),
            Any::Seen(Activity::Call(call)) => block.push(call),
            Any::Seen(Activity::Overhead(overhead)) => block.push(overhead),
            Any::Launch(replay, call, nodes) => {
                let stamps: Vec<NodeStamp> = nodes.iter().map(stamp_of).filter(|_| replay.sources.stamps).collect();
                let pushed = block.push(replay) && block.push_stamps(replay.replay, 0, &stamps) == stamps.len();
                pushed && block.push(call) && nodes.iter().all(|node| block.push(node))
            }
            Any::Replay(replay, stamps) => {
                block.push(replay) && block.push_stamps(replay.replay, 0, stamps) == stamps.len()
            }
        });
    }
    bytes.extend_from_slice(if header.ring.is_some() { block.seal_in_place(0, seam) } else { block.seal(0) });
    let recorded = RecordedGraph {
        graph: 1,
        invalid: expected.activity,
        overwritten: expected.nodes,
        overwritten_replays: expected.replays,
        ..RecordedGraph::default()
    };
    let closing = Closing {
        expected: Expected { graphs: vec![expected, expected] },
        graphs: vec![recorded],
        overwritten: Some(Overwritten { records: seam.before, whole_from_step: expected.activity }),
        ..Closing::default()
    };
    bytes.extend_from_slice(&closing_block(1, &closing).expect("the counts"));
    bytes
}

proptest! {
    #[test]
    fn no_record_makes_a_report_panic(
        records in prop::collection::vec(any_record(), 1..60),
        toggled: bool,
        counts in prop::collection::vec(number(), 6),
        ring in prop::option::of(prop::collection::vec(number(), 4)),
    ) {
        let expected = ExpectedGraph {
            graph: 1,
            replays: counts[0],
            traced_replays: counts[1],
            nodes: counts[2],
            activity: counts[3],
            activity_only: counts[4],
        };
        let numbers = ring.clone().unwrap_or_else(|| vec![0; 4]);
        let before = Counts { steps: numbers[0], replays: numbers[1], nodes: numbers[2], ..Counts::default() };
        let seam = Seam { before, whole_from_step: numbers[3] };
        let header = SpoolHeader { ring: ring.map(|_| 2), ..header(toggled, counts[5] as u32) };
        let bytes = spool(&records, &header, expected, &seam);
        let mut reader = Reader::new(std::io::Cursor::new(&bytes)).expect("a spool");
        let report = Report::new(Recording::read(&mut reader).expect("records"));
        for step in &report.account.steps {
            let parts: u128 = step.parts.named().iter().map(|part| u128::from(part.ns)).sum();
            prop_assert_eq!(parts, u128::from(step.parts.wall_ns));
        }
        for table in Table::ALL {
            for format in [Format::Text, Format::Csv, Format::Json] {
                prop_assert!(!stats(&report, Some(table), format).is_empty());
            }
        }
        check_what_is_left(&report);
        check_seen(&report);
        let diff = diff::Diff::new(&report, &report);
        for row in diff::Level::ALL.iter().flat_map(|level| diff.rows(*level)) {
            prop_assert_eq!(row.shift.delta_ns(), 0.0);
            prop_assert!(matches!(row.change(), diff::Change::None | diff::Change::TooFew));
        }
        prop_assert!(!diff.print(None, Format::Csv).is_empty());
        prop_assert!(dominates(&report).ends_with('.'));
        check_traces(&bytes, &report);
        check_renders(&report);
    }
}

/// Of a ring nothing is left of steps that are not whole.
fn check_what_is_left(report: &Report) {
    let recording = &report.recording;
    if let Some(lost) = &recording.lost {
        assert!(lost.overwritten.records.total() > 0);
        let from = lost.overwritten.whole_from_step;
        assert!(recording.steps.iter().all(|step| step.step >= from));
        assert!(recording.replays.iter().all(|replay| replay.record.step >= from));
        assert!(recording.spans.iter().all(|span| span.step >= from));
    }
}

/// What the driver's profiling library saw names what is there.
fn check_seen(report: &Report) {
    let (recording, seen) = (&report.recording, &report.recording.seen);
    let launched: Vec<u32> = seen.calls.iter().filter_map(|call| call.replay).collect();
    assert!(launched.iter().all(|replay| recording.replays[*replay as usize].record.sources.activity));
    assert!((1..launched.len()).all(|at| !launched[..at].contains(&launched[at])), "a replay has one launch");
    for node in &seen.nodes {
        assert_eq!(seen.node(&recording.replays[node.replay as usize], node.ordinal), Some(node));
    }
}

/// The trace in windows as small as can be, and in one, alone and among others.
fn check_traces(bytes: &[u8], report: &Report) {
    static NEVER: AtomicBool = AtomicBool::new(false);
    let windows = |records| {
        let reader = Reader::new(std::io::Cursor::new(bytes)).expect("a spool");
        Windows::new(Path::new("any"), reader, records, &NEVER).expect("records")
    };
    for records in [1, WINDOW_RECORDS] {
        let (json, summary) = chrome::write_json(windows(records), "any", Vec::new()).expect("a trace");
        serde_json::from_slice::<serde_json::Value>(&json).expect("JSON");
        if summary.windows == 1 {
            assert_eq!(summary.nodes, report.recording.nodes.len() as u64);
            let [own, whole] = [&summary.completeness, &report.completeness];
            assert_eq!(serde_json::to_string(own).expect("JSON"), serde_json::to_string(whole).expect("JSON"));
            assert_eq!(summary.account.total, report.account.total);
        }
    }
    let clock =
        |offset_ns| Alignment { by: AlignedBy::WallClock, offset_ns, error_ns: None, wall_clock_differs_ns: offset_ns };
    let far_ns = 2 * i128::from(u64::MAX);
    let mut three = [0, far_ns, -far_ns].map(|offset_ns| (windows(1), clock(offset_ns)));
    let json = chrome::write_merged_json(&mut three, "any", Vec::new()).expect("a trace");
    serde_json::from_slice::<serde_json::Value>(&json).expect("JSON");
}

/// Every render is whole.
fn check_renders(report: &Report) {
    let few = html::Limits { nodes: 3, steps: 2, spans: 2, members: 2, requests: 1 };
    for limits in [html::Limits::default(), few] {
        assert!(html::page(report, &limits).expect("a page").ends_with("</html>\n"));
    }
    let json = speedscope::write_json(report, Vec::new()).expect("flame graphs");
    let flames = serde_json::from_slice::<serde_json::Value>(&json).expect("JSON");
    for profile in flames["profiles"].as_array().expect("profiles") {
        assert!(is_balanced(profile), "{profile}");
    }
    let mut database = rusqlite::Connection::open_in_memory().expect("memory");
    sqlite::fill(report, &mut database).expect("a database");
    let count = "SELECT count(*) FROM vitrum_nodes";
    let nodes: i64 = database.query_row(count, [], |row| row.get(0)).expect("a count");
    // Replays that have one number between them stand there once.
    let numbers: std::collections::BTreeSet<u64> =
        report.recording.replays.iter().map(|replay| replay.record.replay).collect();
    assert!(nodes == report.recording.nodes.len() as i64 || numbers.len() < report.recording.replays.len());
}

/// Whether what is opened is closed, the innermost first, in the order of time.
fn is_balanced(profile: &serde_json::Value) -> bool {
    let mut open = Vec::new();
    let mut at = 0;
    profile["events"].as_array().expect("events").iter().all(|event| {
        let now = event["at"].as_u64().expect("a time");
        let is_after = now >= at;
        at = now;
        let fits = match event["type"].as_str() {
            Some("O") => {
                open.push(&event["frame"]);
                true
            }
            _ => open.pop() == Some(&event["frame"]),
        };
        is_after && fits
    }) && open.is_empty()
}
