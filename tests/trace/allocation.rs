//! After its start the recorder allocates nothing on the thread that records, nor does the sampler.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::num::NonZeroU32;

use vitrum::request::StepId;
use vitrum::trace::record::{Recorder, Sampler};
use vitrum::trace::sample::SampleTotals;
use vitrum::trace::schema::{HostSpan, NodeSources, NodeStamp, Phase, ReplayRecord, StepSizes};
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

#[test]
fn sampling_allocates_nothing() {
    const STEPS: u64 = 5000;
    let plan = Plan { layers: 32, ..Plan::default() };
    let graphs = plan.graphs();
    let mut sampler = Sampler::start(NonZeroU32::new(2).expect("2"), 1).expect("a sampler");
    graphs.iter().for_each(|graph| sampler.know(graph));
    // Begins fall, so that nodes are sorted.
    let stamp = |i| NodeStamp { start_ns: 9_999_999 - 7 * i, end_ns: 10_000_000 + 1_000_003 * i, wait_ns: 0 };
    let stamps: Vec<NodeStamp> = (0..plan.step_nodes()).map(stamp).collect();
    ALLOCATIONS.set(Some(0));
    for step in 0..STEPS {
        let sources = sampler.decide(None);
        sampler.submitted(StepId(step), sources, (StepSizes::default(), 0), graphs.each_ref().map(Some));
        let stamps = if sources.stamps { &stamps[..] } else { &[] };
        sampler.finished(StepId(step), stamps, 1_000_000 * step);
    }
    let allocations = ALLOCATIONS.take();
    assert_eq!(allocations, Some(0));
    let expected = SampleTotals { steps: STEPS, sampled: STEPS / 2, left_out: 0 };
    assert_eq!(sampler.samples().totals(), expected);
}
