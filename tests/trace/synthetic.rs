//! Sessions whose every nanosecond is known: a model of the engine's loop on a simulated clock.

use std::path::Path;
use std::time::Duration;

use vitrum::request::StepId;
use vitrum::trace::record::Recorder;
use vitrum::trace::schema::{
    CopyStamp, Cost, GraphKey, GraphKind, GraphTable, HostSpan, LinearCost, MemberRecord, NodeInfo, NodeSources,
    NodeStamp, Op, Phase, Place, ReplayRecord, RequestMoment, RequestRecord, StepCopies, StepRecord, StepSizes,
};
use vitrum::trace::session::{
    ClockAnchor, Expected, ExpectedGraph, SessionDevice, SessionHeader, SessionOptions, SessionPeaks, SessionSources,
};

/// Where the simulated clock starts. Nothing may depend on it being small.
pub(crate) const START_NS: u64 = 86_400_000_000_123;

/// How long the parts of a step's loop iteration take.
pub(crate) const PHASES_NS: [(Phase, u64); 4] =
    [(Phase::Receive, 1_001), (Phase::Schedule, 5_003), (Phase::Upload, 2_007), (Phase::Replay, 4_009)];
/// From the submission's return to the device's upload.
pub(crate) const LAUNCH_GAP_NS: u64 = 1_503;
/// Between two nodes of a graph.
pub(crate) const NODE_GAP_NS: u64 = 37;
/// Between the two graphs.
pub(crate) const GRAPH_GAP_NS: u64 = 511;
/// The upload, and the download.
pub(crate) const COPIES_NS: [u64; 2] = [701, 303];
/// Between the upload and the first node, and between the last node and the download.
pub(crate) const COPY_GAP_NS: u64 = 97;
/// From the download's end to the host's having the tokens.
pub(crate) const READ_NS: u64 = 3_001;
/// Applying and emitting.
pub(crate) const APPLY_NS: u64 = 6_007;
/// See [`APPLY_NS`].
pub(crate) const EMIT_NS: u64 = 7_001;
/// Between two iterations.
pub(crate) const LOOP_NS: u64 = 203;

/// What to simulate.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Layers of the model, of five nodes each.
    pub(crate) layers: i32,
    /// Steps.
    pub(crate) steps: u64,
    /// The first step's number.
    pub(crate) first_step: u64,
    /// Each node begins this much before the one before it ends, instead of [`NODE_GAP_NS`] after it.
    pub(crate) overlap_ns: u64,
    /// Recorded steps take this much longer, in thousandths.
    pub(crate) traced_cost_permille: u64,
    /// Real time to rest after every 64 steps: simulated time is faster than any disk.
    pub(crate) rest: Duration,
    /// A graph's number, one of its nodes, and by how much it takes longer.
    pub(crate) longer: Option<(u32, u64, u64)>,
    /// The graphs' bucket.
    pub(crate) bucket: u32,
    /// Names of the kernels, if not their ops' names.
    pub(crate) kernel: Option<String>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            layers: 4,
            steps: 50,
            first_step: 10,
            overlap_ns: 0,
            traced_cost_permille: 0,
            rest: Duration::ZERO,
            longer: None,
            bucket: 8,
            kernel: None,
        }
    }
}

impl Plan {
    /// Nodes of the forward graph.
    pub(crate) fn forward_nodes(&self) -> u64 {
        1 + 5 * self.layers as u64
    }

    /// Nodes of a step.
    pub(crate) fn step_nodes(&self) -> u64 {
        self.forward_nodes() + 2
    }

    /// The model's two graphs.
    pub(crate) fn graphs(&self) -> [GraphTable; 2] {
        let node = |layer: i32, op: Op| NodeInfo {
            kernel: self.kernel.clone().unwrap_or_else(|| format!("{}_q4_avx2", op.as_str().replace('.', "_"))),
            choice: "q4_1, avx2".into(),
            barriers: 1,
            place: Place { layer, op },
            cost: Cost {
                bytes: LinearCost { constant: 40_000.0, tokens: 100.0, ..LinearCost::default() },
                flops: LinearCost { tokens: 80_000.0, ..LinearCost::default() },
            },
            launch: None,
        };
        let layer = |layer| [Op::AttnQkv, Op::AttnCore, Op::AttnOut, Op::MlpUp, Op::MlpDown].map(|op| node(layer, op));
        let forward = std::iter::once(node(-1, Op::Embed)).chain((0..self.layers).flat_map(layer)).collect();
        let sample = vec![node(-1, Op::LmHead), node(-1, Op::Sample)];
        let key = |kind| GraphKey { kind, bucket: self.bucket };
        [
            GraphTable { id: 1, key: key(GraphKind::ForwardDecode), nodes: forward },
            GraphTable { id: 2, key: key(GraphKind::SamplePlain), nodes: sample },
        ]
    }

    /// How long the node at an ordinal takes in an unrecorded step.
    pub(crate) fn node_ns(&self, graph: u32, ordinal: u64) -> u64 {
        let longer = self.longer.filter(|(of, at, _)| (*of, *at) == (graph, ordinal));
        2_000 + 17 * ordinal + if graph == 2 { 9_000 } else { 0 } + longer.map_or(0, |(.., ns)| ns)
    }
}

/// Options for a folder.
pub(crate) fn options(dir: &Path) -> SessionOptions {
    SessionOptions { prefix: "synthetic".into(), max_bytes: 1 << 30, ..SessionOptions::new(dir) }
}

/// The session's header.
pub(crate) fn header() -> SessionHeader {
    SessionHeader {
        version: "0.1.0".into(),
        model: "synthetic".into(),
        device: SessionDevice { name: "A CPU".into(), kind: "cpu".into(), isa: "avx2".into(), workers: 2 },
        peaks: Some(SessionPeaks {
            memory_gb_s: 20.0,
            cache_gb_s: 80.0,
            cache_bytes: 16 << 20,
            float_gflop_s: 100.0,
            int8_gop_s: 300.0,
        }),
        pid: 4242,
        engine_tid: 4243,
        clock: ClockAnchor {
            unix_ns: 1_768_000_000_000_000_000,
            monotonic_ns: START_NS - 1_000_000,
            error_ns: Some(30),
            boot_id: Some("a boot".into()),
        },
        sources: SessionSources::default(),
    }
}

/// Plays a plan into a recorder; two requests run all the time. Returns the engine's own count.
pub(crate) fn play(plan: &Plan, recorder: &mut Recorder) -> Expected {
    let mut play = Play { plan, graphs: plan.graphs(), now_ns: START_NS, replay: 0, expected: Expected::default() };
    for graph in [1, 2] {
        play.expected.graphs.push(ExpectedGraph { graph, ..ExpectedGraph::default() });
    }
    for request in [1, 2] {
        play.moment(recorder, request, RequestMoment::Queued, 12);
    }
    for step in plan.first_step..plan.first_step + plan.steps {
        play.step(recorder, step);
        if step % 64 == 0 && !plan.rest.is_zero() {
            std::thread::sleep(plan.rest);
        }
    }
    play.moment(recorder, 1, RequestMoment::Finished, plan.steps as u32);
    play.expected
}

/// A copy at a moment, which moves on; not measured unless traced.
fn copy(now_ns: &mut u64, ns: u64, traced: bool) -> CopyStamp {
    let start_ns = *now_ns;
    *now_ns += ns;
    if traced { CopyStamp { start_ns, end_ns: *now_ns, bytes: 1000 + ns } } else { CopyStamp::default() }
}

struct Play<'a> {
    plan: &'a Plan,
    graphs: [GraphTable; 2],
    now_ns: u64,
    replay: u64,
    expected: Expected,
}

impl Play<'_> {
    fn moment(&self, recorder: &mut Recorder, request: u64, moment: RequestMoment, tokens: u32) {
        recorder.request(&RequestRecord { request, moment, at_ns: self.now_ns, tokens });
    }

    fn phase(&mut self, recorder: &mut Recorder, phase: Phase, step: u64, ns: u64) -> HostSpan {
        let span = HostSpan { phase, step, start_ns: self.now_ns, end_ns: self.now_ns + ns };
        recorder.span(&span);
        self.now_ns += ns;
        span
    }

    fn step(&mut self, recorder: &mut Recorder, step: u64) {
        let traced = recorder.wants_step(StepId(step)).any();
        let start_ns = self.now_ns;
        let mut launch = HostSpan { phase: Phase::Replay, step, start_ns, end_ns: start_ns };
        for (phase, ns) in PHASES_NS {
            launch = self.phase(recorder, phase, step, ns);
        }
        let mut device_ns = launch.end_ns + LAUNCH_GAP_NS;
        let upload = copy(&mut device_ns, COPIES_NS[0], traced);
        device_ns += COPY_GAP_NS;
        for at in 0..2 {
            device_ns += if at == 1 { GRAPH_GAP_NS } else { 0 };
            device_ns = self.replay(recorder, at, &launch, (step, traced), device_ns);
        }
        device_ns += COPY_GAP_NS;
        let download = copy(&mut device_ns, COPIES_NS[1], traced);
        let done_ns = device_ns + READ_NS;
        self.phase(recorder, Phase::Download, step, done_ns - launch.end_ns);
        self.phase(recorder, Phase::Apply, step, APPLY_NS);
        if step == self.plan.first_step {
            for request in [1, 2] {
                self.moment(recorder, request, RequestMoment::Scheduled, 0);
                self.moment(recorder, request, RequestMoment::FirstToken, 1);
            }
        }
        self.phase(recorder, Phase::Emit, step, EMIT_NS);
        for request in [1, 2] {
            recorder.member(&MemberRecord { step, request, tokens: 1, prefill_tokens: 0, kv_len: step as u32 });
        }
        let sizes = StepSizes { tokens: 2, seqs: 2, logit_rows: 2, kv_tokens: 2 * step, qk_pairs: 2 * step };
        recorder.step(&StepRecord {
            step,
            start_ns,
            end_ns: self.now_ns,
            done_ns,
            sizes,
            prefill_tokens: 0,
            traced,
            copies: StepCopies { upload, download },
        });
        self.now_ns += LOOP_NS;
    }

    /// Replays a graph from a moment on, and returns when it was done.
    fn replay(
        &mut self,
        recorder: &mut Recorder,
        at: usize,
        launch: &HostSpan,
        (step, traced): (u64, bool),
        mut now_ns: u64,
    ) -> u64 {
        self.replay += 1;
        let graph = self.graphs[at].id;
        let mut stamps = Vec::new();
        for ordinal in 0..self.graphs[at].nodes.len() as u64 {
            if ordinal > 0 {
                now_ns = if self.plan.overlap_ns > 0 { now_ns - self.plan.overlap_ns } else { now_ns + NODE_GAP_NS };
            }
            let ns = self.plan.node_ns(graph, ordinal);
            let cost_ns = if traced { ns * self.plan.traced_cost_permille / 1000 } else { 0 };
            stamps.push(NodeStamp { start_ns: now_ns, end_ns: now_ns + ns + cost_ns, wait_ns: 100 });
            now_ns += ns + cost_ns;
        }
        // Both graphs are submitted in one stretch: the first half of it, and the second.
        let middle_ns = launch.start_ns.midpoint(launch.end_ns);
        let (launch_start_ns, launch_end_ns) =
            if at == 0 { (launch.start_ns, middle_ns) } else { (middle_ns, launch.end_ns) };
        let sources = NodeSources { stamps: traced, activity: false };
        let record = ReplayRecord { replay: self.replay, step, graph, sources, launch_start_ns, launch_end_ns };
        let expected = &mut self.expected.graphs[at];
        expected.replays += 1;
        expected.traced_replays += u64::from(traced);
        expected.nodes += if traced { stamps.len() as u64 } else { 0 };
        recorder.replay(&record, if traced { &stamps } else { &[] });
        now_ns
    }
}
