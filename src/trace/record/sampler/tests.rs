//! What enters the histograms, what is left out, and that readers and the engine's thread do not disturb each other.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::trace::sample::{GraphSample, SampleRow};
use crate::trace::schema::{Cost, LinearCost, NodeInfo, Place};

const SIZES: StepSizes = StepSizes { tokens: 2, seqs: 2, logit_rows: 2, kv_tokens: 40, qk_pairs: 40 };

/// Of a step: the second node begins before the first ends, and the fourth lies within the third.
const STAMPS_NS: [(u64, u64); 6] =
    [(1_000, 3_000), (2_500, 6_000), (6_100, 8_100), (7_000, 8_000), (9_000, 19_000), (19_000, 20_000)];
const EXCLUSIVE_US: [f64; 6] = [2.0, 3.0, 2.0, 0.0, 10.0, 1.0];

fn tables() -> [GraphTable; 2] {
    let node = |layer: i32, op: Op| NodeInfo {
        kernel: format!("{op}_kernel"),
        choice: "c".into(),
        barriers: 1,
        place: Place { layer, op },
        cost: Cost {
            bytes: LinearCost { constant: 1_000.0, tokens: 500.0, ..LinearCost::default() },
            flops: LinearCost::default(),
        },
        launch: None,
    };
    let forward = vec![node(-1, Op::Embed), node(0, Op::MlpUp), node(0, Op::MlpDown), node(1, Op::MlpUp)];
    let key = |kind| GraphKey { kind, bucket: 8 };
    [
        GraphTable { id: 1, key: key(GraphKind::ForwardDecode), nodes: forward },
        GraphTable { id: 2, key: key(GraphKind::SamplePlain), nodes: vec![node(-1, Op::LmHead), node(-1, Op::Sample)] },
    ]
}

struct Play {
    sampler: Sampler,
    samples: Samples,
    tables: [GraphTable; 2],
    step: u64,
}

impl Play {
    fn new(every: u32) -> Play {
        let sampler = Sampler::start(NonZeroU32::new(every).unwrap(), 5).unwrap();
        Play { samples: sampler.samples(), sampler, tables: tables(), step: 0 }
    }

    /// A step, whose stamps are `ns` if it has any; gives what was to time it.
    fn step(&mut self, by_recording: Option<NodeSources>, ns: &[(u64, u64)]) -> NodeSources {
        let sources = self.sampler.decide(by_recording);
        let id = StepId(self.step);
        self.sampler.submitted(id, sources, (SIZES, 0), self.tables.each_ref().map(Some));
        let stamp = |(start_ns, end_ns): &(u64, u64)| NodeStamp { start_ns: *start_ns, end_ns: *end_ns, wait_ns: 0 };
        let stamps: Vec<NodeStamp> = ns.iter().filter(|_| sources.stamps).map(stamp).collect();
        self.step += 1;
        self.sampler.finished(id, &stamps, 1_000_000 * self.step);
        sources
    }

    fn steps(&mut self, count: u64, by_recording: Option<NodeSources>) {
        for _ in 0..count {
            self.step(by_recording, &STAMPS_NS);
        }
    }

    fn totals(&self) -> (u64, u64, u64) {
        let SampleTotals { steps, sampled, left_out } = self.samples.totals();
        (steps, sampled, left_out)
    }
}

fn graphs(reading: &SampleReading) -> [&GraphSample; 2] {
    let [forward, sample] = &reading.graphs[..] else { panic!("{reading:?}") };
    [forward, sample]
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 0.01 * expected + 0.016, "{found} is not {expected}");
}

#[test]
fn a_step_in_n_is_entered_with_exclusive_times() {
    let mut play = Play::new(4);
    let timed = (0..400).filter(|_| play.step(None, &STAMPS_NS).stamps).count();
    assert_eq!((timed, play.totals()), (100, (400, 100, 0)));
    let reading = play.samples.read(By::Node, None);
    assert_eq!((reading.every, reading.steps, reading.sampled, reading.left_out), (4, 400, 100, 0));
    let [forward, sample] = graphs(&reading);
    assert_eq!((forward.replays, sample.replays), (100, 100));
    near(forward.times.p50_us, 7.1);
    near(sample.times.p50_us, 11.0);
    let rows: Vec<&SampleRow> = forward.nodes.iter().chain(&sample.nodes).collect();
    for (row, expected) in rows.iter().zip(EXCLUSIVE_US) {
        assert_eq!((row.count, row.nodes), (100, 1), "{row:?}");
        near(row.times.p50_us, expected);
        assert_eq!(row.times.mean_us, expected, "{row:?}");
    }
    let kernels: Vec<_> = rows.iter().map(|row| row.kernel.as_deref().unwrap()).collect();
    assert_eq!(kernels[4..], ["lm_head_kernel", "sample_kernel"]);
    assert_eq!(rows.iter().map(|row| row.ordinal.unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 0, 1]);
}

#[test]
fn rows_are_nodes_layers_or_ops_and_know_their_bytes() {
    let mut play = Play::new(1);
    play.steps(10, None);
    let by_op = play.samples.read(By::Op, None);
    let [forward, _] = graphs(&by_op);
    let ops: Vec<_> = forward.nodes.iter().map(|row| (row.op.unwrap().as_str(), row.nodes, row.count)).collect();
    assert_eq!(ops, [("embed", 1, 10), ("mlp.up", 2, 20), ("mlp.down", 1, 10)]);
    let up = &forward.nodes[1];
    assert_eq!((up.ordinal, up.layer, up.kernel.as_ref()), (None, None, None));
    near(up.replay_us, 3.0); // layer 0's takes it all: layer 1's is within another node
    // 1000 bytes and 500 a token, of two nodes, in 3 µs.
    near(up.gb_s.unwrap(), 4_000.0 / 3_000.0);
    assert_eq!(up.read_peak_percent, None, "not measured yet");
    play.sampler.set_peaks(SessionPeaks {
        memory_gb_s: 10.0,
        cache_gb_s: 40.0,
        cache_bytes: 11_999,
        float_gflop_s: 0.0,
        int8_gop_s: 0.0,
    });
    // Six nodes move 12,000 bytes: more than the cache holds.
    let by_layer = play.samples.read(By::Layer, Some(play.tables[0].key));
    let [forward] = &by_layer.graphs[..] else { panic!("{by_layer:?}") };
    let layers: Vec<_> = forward.nodes.iter().map(|row| (row.layer.unwrap(), row.nodes)).collect();
    assert_eq!(layers, [(-1, 1), (0, 2), (1, 1)]);
    near(forward.nodes[0].read_peak_percent.unwrap(), 10.0);
    assert_eq!((forward.nodes[2].gb_s, forward.nodes[2].read_peak_percent), (None, None), "it took no time");
    let unknown = GraphKey { kind: GraphKind::ForwardMixed, bucket: 1 };
    assert!(play.samples.read(By::Node, Some(unknown)).graphs.is_empty());
}

#[test]
fn what_cannot_be_entered_is_left_out_whole_and_counted() {
    let mut play = Play::new(1);
    play.step(None, &STAMPS_NS);
    // Times that are none, and fewer than there are nodes.
    let mut bad = STAMPS_NS;
    bad[4] = (0, 0);
    play.step(None, &bad);
    play.step(None, &STAMPS_NS[..5]);
    play.step(None, &[]);
    assert_eq!(play.totals(), (4, 1, 3));
    // Somebody reads one of the step's graphs: the other one is not entered, either.
    let graphs = play.sampler.shared.graphs().clone();
    let reading = graphs[1].lock();
    play.step(None, &STAMPS_NS);
    drop(reading);
    assert_eq!(play.totals(), (5, 1, 4));
    assert!(play.samples.read(By::Node, None).graphs.iter().all(|graph| graph.replays == 1));
    play.step(None, &STAMPS_NS);
    assert_eq!(play.totals(), (6, 2, 4));
}

#[test]
fn a_recording_decides_what_times_its_steps() {
    let mut play = Play::new(1);
    let activity = NodeSources { stamps: false, activity: true };
    for wanted in [NodeSources::NONE, activity] {
        assert_eq!(play.step(Some(wanted), &STAMPS_NS), wanted);
    }
    assert_eq!(play.totals(), (2, 0, 2));
    assert_eq!(play.step(Some(NodeSources::STAMPS), &STAMPS_NS), NodeSources::STAMPS);
    assert_eq!(play.totals(), (3, 1, 2), "its stamps are used");
    // A step that is not chosen has the recording's stamps, which are not used: the sample stays even.
    let mut play = Play::new(8);
    play.steps(800, Some(NodeSources::STAMPS));
    assert_eq!(play.totals(), (800, 100, 0));
}

#[test]
fn graphs_beyond_the_limit_are_left_out() {
    let mut play = Play::new(1);
    play.step(None, &STAMPS_NS);
    let node = play.tables[0].nodes[0].clone();
    let large = GraphTable { id: 3, nodes: vec![node; NODES_MAX], ..play.tables[0].clone() };
    play.tables[0] = large;
    play.step(None, &STAMPS_NS);
    assert_eq!(play.totals(), (2, 1, 1));
    assert_eq!(play.samples.read(By::Op, None).graphs.len(), 2);
}

#[test]
fn a_reset_empties_histograms_and_no_series() {
    let mut play = Play::new(1);
    play.steps(200, None);
    let before = play.samples.series();
    let since = play.samples.reset();
    let reading = play.samples.read(By::Node, None);
    assert_eq!((reading.steps, reading.sampled, reading.left_out, reading.since), (0, 0, 0, since));
    for graph in &reading.graphs {
        assert_eq!((graph.replays, graph.times), (0, Default::default()));
        assert!(graph.nodes.iter().all(|row| row.count == 0 && row.gb_s.is_none()), "{graph:?}");
    }
    play.step(None, &STAMPS_NS);
    let reading = play.samples.read(By::Node, None);
    assert_eq!((reading.steps, reading.sampled), (1, 1));
    near(reading.graphs[0].nodes[1].times.p50_us, 3.0);
    let after = play.samples.series();
    assert_eq!(before.len(), 5, "{before:?}");
    for (before, after) in before.iter().zip(&after) {
        let count = |series: &NodeTimeSeries| series.buckets.iter().sum::<u64>();
        assert_eq!(count(after), count(before) / 200 * 201, "{after:?}");
        assert_eq!(after.sum_ns, before.sum_ns / 200 * 201);
    }
    // 10 µs is in the bucket up to 10 µs.
    let lm_head = after.iter().find(|series| series.op == Op::LmHead).unwrap();
    assert_eq!((lm_head.kind, lm_head.buckets[2], lm_head.sum_ns), (GraphKind::SamplePlain, 201, 2_010_000));
}

#[test]
fn steps_that_were_not_read_in_order_are_passed_over() {
    let mut play = Play::new(1);
    let tables = play.tables.clone();
    for id in 0..20 {
        let sources = play.sampler.decide(None);
        play.sampler.submitted(StepId(id), sources, (SIZES, 0), tables.each_ref().map(Some));
    }
    play.sampler.finished(StepId(3), &[], 1); // forgotten: more were under way than there ever are
    play.sampler.finished(StepId(99), &[], 2); // never submitted
    assert_eq!(play.totals(), (20, 0, 0));
    play.step = 20;
    play.step(None, &STAMPS_NS);
    assert_eq!(play.totals(), (21, 1, 0));
}

#[test]
fn readers_and_the_engine_do_not_disturb_each_other() {
    const STEPS: u64 = 20_000;
    let mut play = Play::new(1);
    play.step(None, &STAMPS_NS);
    let (samples, is_over) = (play.samples.clone(), AtomicBool::new(false));
    let read = || {
        let (mut last, mut count) = (0, 0_u64);
        loop {
            let reading = samples.read(By::Node, None);
            assert!(reading.sampled >= last, "{} after {last}", reading.sampled);
            last = reading.sampled;
            for graph in &reading.graphs {
                assert!(graph.nodes.iter().all(|row| row.count == graph.replays), "a graph is read at one moment");
            }
            count += 1;
            if is_over.load(Ordering::Acquire) {
                return count;
            }
        }
    };
    let readings = std::thread::scope(|scope| {
        let reader = scope.spawn(read);
        play.steps(STEPS - 1, None);
        is_over.store(true, Ordering::Release);
        reader.join().unwrap()
    });
    assert!(readings > 0);
    let (steps, sampled, left_out) = play.totals();
    assert_eq!((steps, sampled + left_out), (STEPS, STEPS));
    assert!(play.samples.read(By::Op, None).graphs.iter().all(|graph| graph.replays == sampled));
}
