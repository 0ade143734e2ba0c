//! A spool that is whole may still say anything: no record makes a report panic.

use proptest::prelude::*;

use super::*;
use crate::trace::schema::{
    CopyStamp, Cost, GraphKey, GraphKind, GraphTable, HostSpan, LinearCost, MemberRecord, NodeInfo, NodeSources,
    NodeStamp, Op, Phase, Place, ReplayRecord, RequestMoment, RequestRecord, StepCopies, StepRecord, StepSizes,
};
use crate::trace::session::{
    ClockAnchor, Closing, Expected, ExpectedGraph, SessionDevice, SessionHeader, SessionSources,
};
use crate::trace::spool::{Block, Reader, SpoolHeader, closing_block, file_header};

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
}

fn any_record() -> impl Strategy<Value = Any> {
    let numbers = prop::collection::vec(number(), 16);
    (0..5, numbers, any::<bool>()).prop_map(|(kind, n, traced)| match kind {
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
        _ => {
            let replay = ReplayRecord {
                replay: n[0],
                step: n[1],
                graph: (n[2] % 3) as u32,
                sources: NodeSources { stamps: traced, activity: false },
                launch_start_ns: n[3],
                launch_end_ns: n[4],
            };
            let stamp = |at: usize| NodeStamp { start_ns: n[at], end_ns: n[at + 1], wait_ns: n[at + 2] };
            Any::Replay(replay, vec![stamp(5), stamp(8), stamp(11)])
        }
    })
}

fn header(toggled: bool) -> SpoolHeader {
    let cost = LinearCost { constant: 1e300, kv_tokens: -1.0, ..LinearCost::default() };
    let node = |layer| NodeInfo {
        kernel: "k".into(),
        choice: "c".into(),
        barriers: 1,
        place: Place { layer, op: Op::MlpUp },
        cost: Cost { bytes: cost, flops: cost },
        launch: None,
    };
    let key = GraphKey { kind: GraphKind::ForwardDecode, bucket: 1 };
    let session = SessionHeader {
        version: String::new(),
        model: String::new(),
        device: SessionDevice { name: String::new(), kind: String::new(), isa: String::new(), workers: 0 },
        peaks: None,
        pid: 0,
        engine_tid: 0,
        clock: ClockAnchor { unix_ns: 0, monotonic_ns: u64::MAX },
        sources: SessionSources::default(),
    };
    let graphs = vec![GraphTable { id: 1, key, nodes: vec![node(-1), node(0), node(i32::MIN)] }];
    SpoolHeader { id: "1".into(), toggle_seed: toggled.then_some(1), session, graphs }
}

fn spool(records: &[Any], toggled: bool, expected: ExpectedGraph) -> Vec<u8> {
    let mut bytes = file_header(&header(toggled)).expect("a header");
    let mut block = Block::new();
    for record in records {
        assert!(match record {
            Any::Step(step) => block.push(step),
            Any::Member(member) => block.push(member),
            Any::Span(span) => block.push(span),
            Any::Request(request) => block.push(request),
            Any::Replay(replay, stamps) => {
                block.push(replay) && block.push_stamps(replay.replay, 0, stamps) == stamps.len()
            }
        });
    }
    bytes.extend_from_slice(block.seal(0));
    let closing = Closing { expected: Expected { graphs: vec![expected, expected] }, ..Closing::default() };
    bytes.extend_from_slice(&closing_block(1, &closing).expect("the counts"));
    bytes
}

proptest! {
    #[test]
    fn no_record_makes_a_report_panic(
        records in prop::collection::vec(any_record(), 1..60),
        toggled: bool,
        counts in prop::collection::vec(number(), 3),
    ) {
        let expected =
            ExpectedGraph { graph: 1, replays: counts[0], traced_replays: counts[1], nodes: counts[2], ..ExpectedGraph::default() };
        let bytes = spool(&records, toggled, expected);
        let mut reader = Reader::new(&bytes[..]).expect("a spool");
        let report = Report::new(Recording::read(&mut reader).expect("records"));
        for step in &report.account.steps {
            let parts: u128 = step.parts.named().iter().map(|(_, ns)| u128::from(*ns)).sum();
            prop_assert_eq!(parts, u128::from(step.parts.wall_ns));
        }
        for table in Table::ALL {
            for format in [Format::Text, Format::Csv, Format::Json] {
                prop_assert!(!sheet::print(&[table.of(&report)], format).is_empty());
            }
        }
        prop_assert!(dominates(&report).ends_with('.'));
        let json = chrome::write_json(&report, "any", Vec::new()).expect("a trace");
        serde_json::from_slice::<serde_json::Value>(&json).expect("JSON");
    }
}
