//! The spool against cuts, damage and any bytes at all.

mod ring;

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::trace::schema::{
    CopyStamp, Cost, GraphKey, GraphKind, HostSpan, MemberRecord, NodeInfo, NodeSources, NodeStamp, Op, Phase, Place,
    ReplayRecord, RequestMoment, RequestRecord, StepCopies, StepRecord, StepSizes,
};
use crate::trace::session::{ClockAnchor, Closing, RecordedGraph, SessionDevice, SessionSources};

fn table(id: u32, nodes: usize) -> GraphTable {
    let node = |layer| NodeInfo {
        kernel: format!("kernel_{layer}"),
        choice: "portable".into(),
        barriers: 1,
        place: Place { layer, op: Op::MlpUp },
        cost: Cost::default(),
        launch: None,
    };
    let nodes = (0..nodes as i32).map(node).collect();
    GraphTable { id, key: GraphKey { kind: GraphKind::ForwardDecode, bucket: 8 }, nodes }
}

fn header() -> SpoolHeader {
    let session = SessionHeader {
        version: "0.1.0".into(),
        model: "a \"model\"".into(),
        device: SessionDevice { name: "CPU".into(), kind: "cpu".into(), isa: "portable".into(), workers: 2 },
        peaks: None,
        pid: 7,
        engine_tid: 8,
        clock: ClockAnchor {
            unix_ns: 1_700_000_000_000_000_000,
            monotonic_ns: 5,
            error_ns: Some(40),
            boot_id: Some("a boot".into()),
        },
        sources: SessionSources::default(),
    };
    SpoolHeader {
        id: "17".into(),
        toggle_seed: Some(3),
        ring: None,
        window: Default::default(),
        granularity: Default::default(),
        session,
        graphs: vec![table(1, 2)],
    }
}

fn copy(base: u64) -> CopyStamp {
    CopyStamp { start_ns: base + 1, end_ns: base + 2, bytes: base + 3 }
}

fn fill(block: &mut Block, base: u64) {
    let sizes = StepSizes { tokens: base, seqs: 2, logit_rows: 3, kv_tokens: 4, qk_pairs: 5 };
    let times = (base + 1, base + 2);
    assert!(block.push(&StepRecord {
        step: base,
        start_ns: times.0,
        end_ns: times.1,
        done_ns: base + 3,
        sizes,
        prefill_tokens: 6,
        traced: true,
        copies: StepCopies { upload: copy(base), download: copy(base + 7) },
    }));
    assert!(block.push(&MemberRecord { step: base, request: 1, tokens: 2, prefill_tokens: 3, kv_len: 4 }));
    assert!(block.push(&HostSpan { phase: Phase::Emit, step: base, start_ns: times.0, end_ns: times.1 }));
    assert!(block.push(&RequestRecord { request: 9, moment: RequestMoment::Aborted, at_ns: base, tokens: 7 }));
    let replay = ReplayRecord {
        replay: base,
        step: base,
        graph: 1,
        sources: NodeSources::STAMPS,
        launch_start_ns: base,
        launch_end_ns: times.0,
    };
    assert!(block.push(&replay));
    let stamps = [1, 2].map(|at| NodeStamp { start_ns: base + at, end_ns: base + at + 1, wait_ns: at });
    assert_eq!(block.push_stamps(base, 0, &stamps), 2);
}

/// A whole spool, and where its blocks begin (and the last one ends).
fn spool() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = file_header(&header()).expect("a header");
    let mut borders = vec![bytes.len()];
    let mut append = |block: &[u8]| {
        bytes.extend_from_slice(block);
        borders.push(bytes.len());
    };
    let mut block = Block::new();
    for sequence in 0..3 {
        fill(&mut block, 100 * u64::from(sequence + 1));
        append(block.seal(sequence));
        block.clear();
    }
    append(&graph_block(3, &table(2, 5)).expect("a table"));
    append(&closing_block(4, &Closing { limit_reached: true, ..Closing::default() }).expect("the counts"));
    (bytes, borders)
}

/// Every record as text, and whether the spool was truncated.
fn read_all(bytes: &[u8]) -> Result<(Vec<String>, bool), SpoolError> {
    let mut reader = Reader::new(Cursor::new(bytes))?;
    let mut records = Vec::new();
    while let Some(record) = reader.read()? {
        records.push(format!("{record:?}"));
    }
    assert!(reader.read()?.is_none(), "the end stays the end");
    Ok((records, reader.truncated()))
}

#[test]
fn reads_what_was_written() {
    let (bytes, _) = spool();
    assert_eq!(Reader::new(Cursor::new(&bytes)).expect("a spool").header(), &header());
    let (records, truncated) = read_all(&bytes).expect("a spool");
    assert!(!truncated);
    assert_eq!(records.len(), 3 * 6 + 2);
    assert_eq!(records[1], "Member(MemberRecord { step: 100, request: 1, tokens: 2, prefill_tokens: 3, kv_len: 4 })");
    assert_eq!(records[2], "Span(HostSpan { phase: Emit, step: 100, start_ns: 101, end_ns: 102 })");
    assert!(records[0].contains("qk_pairs: 5 }, prefill_tokens: 6, traced: true"), "{}", records[0]);
    assert!(records[3].contains("moment: Aborted, at_ns: 100, tokens: 7"), "{}", records[3]);
    assert!(records[17].contains("NodeStamp { start_ns: 302, end_ns: 303, wait_ns: 2 }"), "{}", records[17]);
    assert!(records[18].contains("kernel_4"), "{}", records[18]);
}

#[test]
fn a_cut_reads_up_to_the_last_whole_block() {
    let (bytes, borders) = spool();
    let (whole, _) = read_all(&bytes).expect("a spool");
    let header_bytes = borders[0];
    for cut in 0..bytes.len() {
        let read = read_all(&bytes[..cut]);
        if cut < header_bytes {
            assert!(
                matches!(read, Err(SpoolError::HeaderCut { .. } | SpoolError::NotASpool)),
                "cut at {cut}: {read:?}"
            );
            continue;
        }
        let (records, truncated) = read.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let whole_blocks = borders.iter().filter(|border| **border <= cut).count() - 1;
        let expected = [0, 6, 12, 18, 19, 20][whole_blocks];
        assert_eq!(records, whole[..expected], "cut at {cut}");
        assert!(truncated, "cut at {cut}");
    }
}

#[test]
fn a_file_that_is_no_ring_says_nothing_of_rings() {
    let closing = Closing { graphs: vec![RecordedGraph::default()], ..Closing::default() };
    let bytes = [file_header(&header()).expect("a header"), closing_block(0, &closing).expect("the counts")].concat();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("activity_invalid") && !text.contains("overwritten") && !text.contains("\"ring"), "{text}");
    assert!(read_all(&bytes).is_ok());
}

#[test]
fn damage_is_an_error_with_its_offset() {
    let (bytes, borders) = spool();
    for at in borders[0]..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let block_at = borders[borders.iter().filter(|border| **border <= at).count() - 1] as u64;
        match read_all(&damaged) {
            Err(SpoolError::Damaged { offset, .. }) => assert_eq!(offset, block_at, "damaged at {at}"),
            other => panic!("damaged at {at}: {other:?}"),
        }
    }
}

#[test]
fn other_versions_and_files_are_refused() {
    let (mut bytes, borders) = spool();
    assert!(matches!(read_all(b"PK\x03\x04"), Err(SpoolError::NotASpool)));
    assert!(matches!(read_all(b""), Err(SpoolError::NotASpool)));
    bytes.push(0);
    assert!(matches!(read_all(&bytes), Err(SpoolError::Damaged { damage: Damage::Trailing, .. })));
    let swapped = [&bytes[..borders[0]], &bytes[borders[1]..borders[2]]].concat();
    let out_of_order = read_all(&swapped);
    assert!(
        matches!(out_of_order, Err(SpoolError::Damaged { damage: Damage::Sequence { expected: 0, found: 1 }, .. })),
        "{out_of_order:?}"
    );
    bytes[MAGIC.len()] = VERSION as u8 + 1;
    assert!(matches!(read_all(&bytes), Err(SpoolError::Version { found }) if found == VERSION + 1));
}

#[test]
fn a_full_block_takes_no_more_and_a_run_goes_on_in_the_next() {
    let mut block = Block::new();
    let span = HostSpan { phase: Phase::Upload, step: 1, start_ns: 2, end_ns: 3 };
    let mut pushed = 0;
    while block.push(&span) {
        pushed += 1;
    }
    assert_eq!(block.counts().spans, pushed);
    assert!(block.len() <= BLOCK_BYTES);
    block.clear();
    let stamps = vec![NodeStamp { start_ns: 1, end_ns: 2, wait_ns: 0 }; 5000];
    let first = block.push_stamps(1, 0, &stamps);
    assert!(first > 2000 && first < 5000, "{first} node times in a block");
    assert_eq!(block.push_stamps(1, first as u32, &stamps[first..]), 0);
    assert_eq!(block.counts().nodes, first as u64);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn no_bytes_behind_a_header_make_the_reader_panic(
        tail in prop::collection::vec(any::<u8>(), 0..2048), keep in 0usize..2000,
    ) {
        let (bytes, borders) = spool();
        let mut mixed = bytes[..borders[0] + keep.min(bytes.len() - borders[0])].to_vec();
        mixed.extend_from_slice(&tail);
        let _ = read_all(&mixed);
    }

    #[test]
    fn no_payload_makes_the_reader_panic(payload in prop::collection::vec(any::<u8>(), 1..512), kind in 1u32..4) {
        // Right by its checksums, so that the records' decoder sees it.
        let mut bytes = file_header(&header()).expect("a header");
        let mut block = BLOCK_MAGIC.to_vec();
        for word in [kind, 0, payload.len() as u32, crc32(&payload)] {
            block.extend_from_slice(&word.to_le_bytes());
        }
        block.extend_from_slice(&crc32(&block).to_le_bytes());
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&payload);
        let _ = read_all(&bytes);
    }
}
