//! The recorder when its disk is full, slow, or its file small.

use std::io::Read;
use std::os::fd::OwnedFd;

use super::*;
use crate::trace::schema::{Cost, GraphKey, GraphKind, NodeInfo, NodeSources, Op, Phase, Place};
use crate::trace::session::ExpectedGraph;
use crate::trace::spool::Block;

const NODES: usize = 100;

fn table() -> GraphTable {
    let node = NodeInfo {
        kernel: "k".into(),
        choice: "c".into(),
        barriers: 1,
        place: Place { layer: 0, op: Op::MlpUp },
        cost: Cost::default(),
        launch: None,
    };
    GraphTable { id: 1, key: GraphKey { kind: GraphKind::ForwardDecode, bucket: 1 }, nodes: vec![node; NODES] }
}

fn header() -> SpoolHeader {
    SpoolHeader {
        id: "1".into(),
        toggle_seed: None,
        ring: None,
        window: Default::default(),
        granularity: Default::default(),
        session: SessionHeader::default(),
        graphs: vec![table()],
    }
}

fn launch(file: File, max_bytes: u64) -> Recorder {
    let header = header();
    let bytes = spool::file_header(&header).expect("a header");
    Recorder::launch(&header, None, PathBuf::from("unused"), file, &bytes, max_bytes).expect("a recorder")
}

fn replay(recorder: &mut Recorder, replay: u64) {
    let record = ReplayRecord {
        replay,
        step: replay,
        graph: 1,
        sources: NodeSources::STAMPS,
        launch_start_ns: 1,
        launch_end_ns: 2,
    };
    recorder.replay(&record, &[NodeStamp { start_ns: 3, end_ns: 4, wait_ns: 0 }; NODES]);
}

fn expected(replays: u64) -> Expected {
    let nodes = replays * NODES as u64;
    Expected {
        graphs: vec![ExpectedGraph { graph: 1, replays, traced_replays: replays, nodes, ..ExpectedGraph::default() }],
    }
}

/// A file whose writes wait for someone to read them.
fn blocked_file() -> (File, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (File::from(OwnedFd::from(writer)), reader)
}

#[test]
fn a_slow_disk_drops_whole_records_and_counts_them() {
    let (file, mut reader) = blocked_file();
    let mut recorder = launch(file, u64::MAX);
    let replays = 2 * (BLOCKS * BLOCK_BYTES / (24 * NODES)) as u64;
    (1..=replays).for_each(|number| replay(&mut recorder, number));
    recorder.span(&HostSpan { phase: Phase::Emit, step: 1, start_ns: 1, end_ns: 2 });
    assert_eq!(recorder.sink.dropped.spans, 1, "the queue is full");
    let drain = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    let summary = recorder.stop(expected(replays)).expect("a summary");
    assert!(summary.dropped > 0 && summary.received > 0, "{summary:?}");
    assert_eq!(summary.received + summary.dropped, summary.expected, "{summary:?}");
    assert_eq!(summary.replays + summary.dropped_records.replays, replays, "{summary:?}");
    assert!(!summary.is_complete());

    let bytes = drain.join().expect("the reader").expect("bytes");
    let mut spool = spool::Reader::new(std::io::Cursor::new(&bytes)).expect("a spool");
    let mut nodes = 0;
    while let Some(record) = spool.read().expect("whole blocks") {
        if let spool::Record::Nodes { stamps, .. } = record {
            nodes += stamps.len() as u64;
        }
    }
    assert!(!spool.truncated());
    assert_eq!(nodes, summary.received, "the file holds what the summary says");
}

#[test]
fn a_full_disk_ends_the_recording_and_is_said() {
    assert_full_disk_is_said(None, Block::new());
    assert_full_disk_is_said(Some(Ring::new(2)), Block::with_seam());
}

fn assert_full_disk_is_said(ring: Option<Ring>, mut block: Block) {
    // /dev/full takes an open and refuses every write, the header's too: so the header goes elsewhere.
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let (home, empty) = sync_channel(BLOCKS);
    let (sender, messages) = sync_channel(BLOCKS);
    let room = Arc::new(Room::new(0, u64::MAX));
    let writer = Writer::new((full, Path::new("/dev/full")), 0, ring, Arc::clone(&room), Arc::default());
    let record = ReplayRecord {
        replay: 1,
        step: 1,
        graph: 1,
        sources: NodeSources::STAMPS,
        launch_start_ns: 1,
        launch_end_ns: 2,
    };
    assert!(block.push(&record));
    sender.try_send(Message::Block(block, home)).expect("room");
    sender.try_send(Message::Close(Box::default())).expect("room");
    let end = writer.run(&messages);
    assert!(!room.take(1), "the engine's thread is told");
    assert_eq!(end.lost.replays, 1);
    assert_eq!(end.error.and_then(|error| error.raw_os_error()), Some(libc::ENOSPC));
    assert!(empty.try_recv().is_ok(), "the block comes back all the same");
}

#[test]
fn a_disk_that_fails_later_is_in_the_summary() {
    let (file, reader) = blocked_file();
    let mut recorder = launch(file, u64::MAX);
    // Nobody reads any more: the next write fails with a broken pipe.
    drop(reader);
    let replays = 200;
    (1..=replays).for_each(|number| replay(&mut recorder, number));
    let summary = recorder.stop(expected(replays)).expect("a summary");
    assert!(summary.write_error.is_some(), "{summary:?}");
    assert!(!summary.is_complete());
    assert_eq!((summary.received, summary.dropped), (0, summary.expected), "{summary:?}");
    assert_eq!(summary.dropped_records.replays, replays);
}

#[test]
fn the_coin_is_fair_and_the_step_decides_it() {
    let (file, _reader) = blocked_file();
    let mut recorder = launch(file, u64::MAX);
    assert!((0..100).all(|step| recorder.wants_step(StepId(step)) == NodeSources::STAMPS), "untoggled: every step");
    recorder.toggle_seed = Some(42);
    let tosses: Vec<bool> = (0..4000).map(|step| recorder.wants_step(StepId(step)).any()).collect();
    let again: Vec<bool> = (0..4000).map(|step| recorder.wants_step(StepId(step)).any()).collect();
    assert_eq!(tosses, again);
    // Six standard deviations of 4000 fair tosses are 190.
    let heads = tosses.iter().filter(|toss| **toss).count();
    assert!((1810..=2190).contains(&heads), "{heads} of 4000");
    let changes = tosses.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!((1810..=2190).contains(&changes), "{changes} changes in 4000");
}
