//! After its start the recorder allocates nothing on the thread that records.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use vitrum::trace::record::Recorder;
use vitrum::trace::schema::{HostSpan, NodeSources, NodeStamp, Phase, ReplayRecord};
use vitrum::trace::session::{Expected, Keep, SessionOptions};

use super::folder;
use super::synthetic::{Plan, header, options};

thread_local! {
    /// Allocations of this thread; `None`: not counted.
    static ALLOCATIONS: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counter is a `Cell` without a destructor, so
// touching it neither allocates nor re-enters.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get().map(|count| count + 1));
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, and every pointer is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn recording_allocates_nothing() {
    assert_allocates_nothing(&options(&folder("allocation")));
}

#[test]
fn recording_into_a_ring_allocates_nothing() {
    let options = SessionOptions { keep: Keep::Last, max_bytes: 1 << 20, ..options(&folder("allocation-ring")) };
    assert_allocates_nothing(&options);
}

fn assert_allocates_nothing(options: &SessionOptions) {
    let plan = Plan { layers: 32, ..Plan::default() };
    let [graph, _] = plan.graphs();
    let mut recorder = Recorder::start(options, &header(), &[&graph]).expect("a recorder");
    let stamps = vec![NodeStamp { start_ns: 3, end_ns: 4, wait_ns: 0 }; graph.nodes.len()];
    ALLOCATIONS.set(Some(0));
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get(), Some(1), "the counter counts");
    ALLOCATIONS.set(Some(0));
    // More than all blocks hold, so blocks come back from the writer, or are missing: neither allocates.
    for replay in 1..=5000 {
        recorder.span(&HostSpan { phase: Phase::Emit, step: replay, start_ns: 1, end_ns: 2 });
        let record = ReplayRecord {
            replay,
            step: replay,
            graph: 1,
            sources: NodeSources::STAMPS,
            launch_start_ns: 1,
            launch_end_ns: 2,
        };
        recorder.replay(&record, &stamps);
    }
    let allocations = ALLOCATIONS.take();
    assert_eq!(allocations, Some(0));
    recorder.stop(Expected::default()).expect("a summary");
}
