//! What the engine counts while it serves, under vLLM's names so that routers and dashboards read it.
//!
//! The engine's thread calls the methods: atomics and short uncontended locks, no allocation (but for the first replay
//! of a graph). The server calls [`EngineMetrics::encode`].

mod buckets;
mod exposition;
mod samples;

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use self::buckets::{ITL_FINE_SECONDS, ITL_SECONDS, REQUEST_SECONDS, REQUEST_TOKENS, STEP_TOKENS, TTFT_SECONDS};
use self::samples::SampleCollector;
use crate::request::FinishReason;
use crate::trace::record::Samples;
use crate::trace::schema::GraphKey;

/// The engine's counters, gauges and histograms.
#[derive(Debug)]
pub struct EngineMetrics {
    registry: Registry,
    received: Counter,
    running: Gauge,
    waiting: Gauge,
    kv_usage: Gauge<f64, AtomicU64>,
    preemptions: Counter,
    prompt_tokens: Counter,
    generation_tokens: Counter,
    iteration_tokens: Histogram,
    ttft: Histogram,
    itl: Histogram,
    itl_fine: Histogram,
    finished: [Counter; FINISH_REASONS.len()],
    request: RequestHistograms,
    replays: Family<GraphLabel, Counter>,
}

/// A request that has ended, for [`EngineMetrics::on_finish`].
#[derive(Clone, Copy, Debug)]
pub struct FinishedRequest {
    /// Why it ended.
    pub reason: FinishReason,
    /// From its arrival to its first step.
    pub queue: Duration,
    /// From its first step to its first token.
    pub prefill: Duration,
    /// From its first token to its last.
    pub decode: Duration,
    /// From its arrival to its end.
    pub e2e: Duration,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub generation_tokens: u32,
    /// Tokens that it was allowed to generate.
    pub max_tokens: u32,
}

/// The sizes of the KV cache, which `vllm:cache_config_info` states.
#[derive(Clone, Copy, Debug)]
pub struct CacheSizes {
    /// Tokens in a page.
    pub page_tokens: usize,
    /// Pages.
    pub pages: usize,
}

impl EngineMetrics {
    /// Metrics that begin at 0; every line is labelled with the name that the model is served under.
    pub fn new(model_name: &str, cache: CacheSizes) -> EngineMetrics {
        let labels = [("model_name", exposition::escape(model_name)), ("engine", "0".to_owned())];
        let mut registry = Registry::with_labels(labels.map(|(name, value)| (name.into(), value.into())).into_iter());
        let r = &mut registry;
        let sizes = Family::<CacheLabel, Gauge>::default();
        sizes.get_or_create(&CacheLabel { block_size: cache.page_tokens, num_gpu_blocks: cache.pages }).set(1);
        r.register("vllm:cache_config_info", "Sizes of the KV cache, as labels", sizes);
        let successes = Family::<ReasonLabel, Counter>::default();
        add(r, "vllm:request_success", "Requests ended, by reason", successes.clone());
        EngineMetrics {
            received: add(r, "vitrum:requests_received", "Requests that arrived at the engine", Counter::default()),
            running: add(
                r,
                "vllm:num_requests_running",
                "Requests that have pages",
                Gauge::<i64, AtomicI64>::default(),
            ),
            waiting: add(r, "vllm:num_requests_waiting", "Requests that wait for pages", Gauge::default()),
            kv_usage: add(r, "vllm:kv_cache_usage_perc", "Part of the KV pages in use, 0 to 1", Gauge::default()),
            preemptions: add(r, "vllm:num_preemptions", "Requests whose pages were taken away", Counter::default()),
            prompt_tokens: add(r, "vllm:prompt_tokens", "Prompt tokens computed", Counter::default()),
            generation_tokens: add(r, "vllm:generation_tokens", "Tokens generated", Counter::default()),
            iteration_tokens: add(r, "vllm:iteration_tokens_total", "Tokens of a step", histogram(&STEP_TOKENS)),
            ttft: add(r, "vllm:time_to_first_token_seconds", "Arrival to first token", histogram(&TTFT_SECONDS)),
            itl: add(r, "vllm:inter_token_latency_seconds", "Token to next token", histogram(&ITL_SECONDS)),
            itl_fine: add(
                r,
                "vitrum:inter_token_latency_seconds",
                "Token to next token, from 50 us",
                histogram(&ITL_FINE_SECONDS),
            ),
            finished: FINISH_REASONS.map(|reason| successes.get_or_create_owned(&ReasonLabel::of(reason))),
            request: RequestHistograms::new(r),
            replays: add(r, "vitrum:graph_replays", "Replays of each captured graph", Family::default()),
            registry,
        }
    }

    /// With the node times that an engine samples, if it does.
    pub(super) fn with_samples(mut self, samples: Option<Samples>) -> EngineMetrics {
        if let Some(samples) = samples {
            self.registry.register_collector(Box::new(SampleCollector::new(samples)));
        }
        self
    }

    /// A request arrived.
    pub fn request_received(&self) {
        self.received.inc();
    }

    /// How many requests wait and run now.
    pub fn set_queue(&self, waiting: usize, running: usize) {
        self.waiting.set(waiting as i64);
        self.running.set(running as i64);
    }

    /// The part of the KV pages in use, 0 to 1.
    pub fn set_kv_usage(&self, fraction: f64) {
        self.kv_usage.set(fraction);
    }

    /// A request's first token went out, this long after its arrival.
    pub fn on_first_token(&self, ttft: Duration) {
        self.ttft.observe(ttft.as_secs_f64());
    }

    /// A later token went out, this long after the one before it.
    pub fn on_token(&self, itl: Duration) {
        let seconds = itl.as_secs_f64();
        self.itl.observe(seconds);
        self.itl_fine.observe(seconds);
    }

    /// A request ended.
    pub fn on_finish(&self, request: &FinishedRequest) {
        self.finished[request.reason as usize].inc();
        self.request.observe(request);
    }

    /// A request's pages were taken away.
    pub fn preempted(&self) {
        self.preemptions.inc();
    }

    /// A step was done: so many prompt tokens went in, so many tokens were generated.
    pub fn step(&self, prompt_tokens: usize, generation_tokens: usize) {
        self.prompt_tokens.inc_by(prompt_tokens as u64);
        self.generation_tokens.inc_by(generation_tokens as u64);
        self.iteration_tokens.observe((prompt_tokens + generation_tokens) as f64);
    }

    /// A graph was replayed.
    pub fn replay(&self, graph: GraphKey) {
        self.replays.get_or_create(&GraphLabel { graph: GraphName(graph) }).inc();
    }

    /// Everything, in Prometheus' text format 0.0.4.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        exposition::encode(&self.registry)
    }
}

/// What is known of a request when it ends.
#[derive(Debug)]
struct RequestHistograms {
    e2e: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    inference: Histogram,
    time_per_output_token: Histogram,
    prompt_tokens: Histogram,
    generation_tokens: Histogram,
    max_tokens: Histogram,
}

impl RequestHistograms {
    fn new(r: &mut Registry) -> RequestHistograms {
        let mut seconds = |name, help| add(r, name, help, histogram(&REQUEST_SECONDS));
        RequestHistograms {
            e2e: seconds("vllm:e2e_request_latency_seconds", "Arrival to end"),
            queue: seconds("vllm:request_queue_time_seconds", "Arrival to first step"),
            prefill: seconds("vllm:request_prefill_time_seconds", "First step to first token"),
            decode: seconds("vllm:request_decode_time_seconds", "First token to last"),
            inference: seconds("vllm:request_inference_time_seconds", "First step to last token"),
            time_per_output_token: add(
                r,
                "vllm:request_time_per_output_token_seconds",
                "Decode time per token after the first",
                histogram(&ITL_SECONDS),
            ),
            prompt_tokens: add(r, "vllm:request_prompt_tokens", "Tokens of a prompt", histogram(&REQUEST_TOKENS)),
            generation_tokens: add(r, "vllm:request_generation_tokens", "Tokens generated", histogram(&REQUEST_TOKENS)),
            max_tokens: add(r, "vllm:request_params_max_tokens", "Tokens allowed", histogram(&REQUEST_TOKENS)),
        }
    }

    fn observe(&self, request: &FinishedRequest) {
        self.e2e.observe(request.e2e.as_secs_f64());
        self.queue.observe(request.queue.as_secs_f64());
        self.prefill.observe(request.prefill.as_secs_f64());
        self.decode.observe(request.decode.as_secs_f64());
        self.inference.observe((request.prefill + request.decode).as_secs_f64());
        if request.generation_tokens > 1 {
            let intervals = f64::from(request.generation_tokens - 1);
            self.time_per_output_token.observe(request.decode.as_secs_f64() / intervals);
        }
        self.prompt_tokens.observe(f64::from(request.prompt_tokens));
        self.generation_tokens.observe(f64::from(request.generation_tokens));
        self.max_tokens.observe(f64::from(request.max_tokens));
    }
}

fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn histogram(buckets: &[f64]) -> Histogram {
    Histogram::new(buckets.iter().copied())
}

/// In the order of [`FinishReason`], so that a reason is an index.
const FINISH_REASONS: [FinishReason; 3] = [FinishReason::Stop, FinishReason::Length, FinishReason::Abort];
const _: () = assert!(FinishReason::Abort as usize == FINISH_REASONS.len() - 1, "a reason is missing above");

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabel {
    block_size: usize,
    num_gpu_blocks: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    finished_reason: &'static str,
}

impl ReasonLabel {
    fn of(reason: FinishReason) -> ReasonLabel {
        ReasonLabel { finished_reason: reason.as_str() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GraphLabel {
    graph: GraphName,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GraphName(GraphKey);

impl EncodeLabelValue for GraphName {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        use fmt::Write;
        write!(encoder, "{}", self.0)
    }
}
