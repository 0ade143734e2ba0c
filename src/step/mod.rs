//! A step: from a batch of rows to two captured graphs and back to tokens.
//!
//! [`StepRunner`] owns the device, the packed model, the step's buffers at fixed addresses and the captured graphs.
//! The engine fills a [`StepBatch`], submits it, and waits for its tokens; how many rows a graph was captured for is
//! decided here ([`buckets`]) and nowhere else.

pub mod batch;
pub mod buckets;
mod buffers;
mod graphs;

use std::sync::Arc;

use thiserror::Error;

pub use self::batch::{RowTokens, Rows, StepBatch};
use self::buffers::StepBuffers;
use self::graphs::GraphCache;
use crate::device::{
    Activations, Completion, Device, DeviceError, DeviceInfo, DevicePeaks, Download, GraphId, STAGING_BYTES,
    Submission, Ticket,
};
use crate::kernels::params::{LogprobRow, PAGE_TOKENS};
use crate::model::{Checkpoint, KvFormat, Model, ModelError};
use crate::request::TokenId;
use crate::trace::schema::{CallTimes, GraphKey, GraphTable, NodeSources, NodeStamp, StepCopies, StepSizes};

/// The sizes that a runner's memory is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Rows of one step.
    pub max_tokens: usize,
    /// Sequences of one step, and slots.
    pub max_seqs: usize,
    /// The longest sequence.
    pub max_model_len: usize,
    /// KV pages in all.
    pub kv_pages: usize,
}

impl StepLimits {
    /// KV pages of the longest sequence.
    pub fn pages_per_seq(&self) -> usize {
        self.max_model_len.div_ceil(PAGE_TOKENS as usize)
    }
}

/// How numbers are kept while a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// How linear layers read their input.
    pub activations: Activations,
    /// How keys and values are kept.
    pub kv: KvFormat,
}

/// Why a runner could not be made.
#[derive(Debug, Error)]
pub enum StepError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model does not fit the engine.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A full step would not fit the staging memory.
    #[error(
        "{max_seqs} sequences of up to {max_model_len} tokens take {bytes} bytes of inputs a step, at most {limit}: \
         lower --max-num-seqs, --max-num-batched-tokens or --max-model-len"
    )]
    InputsTooLarge {
        /// Sequences of one step.
        max_seqs: usize,
        /// The longest sequence.
        max_model_len: usize,
        /// What a full step uploads.
        bytes: usize,
        /// [`STAGING_BYTES`].
        limit: usize,
    },
}

/// A step under way.
#[derive(Debug)]
pub struct SubmittedStep {
    ticket: Ticket,
    /// The forward graph and, if any row draws a token, the sample graph.
    pub graphs: [Option<GraphId>; 2],
    /// The step's sizes.
    pub sizes: StepSizes,
    /// What times its nodes.
    pub sources: NodeSources,
    logit_rows: usize,
}

/// A finished step.
#[derive(Debug)]
pub struct FinishedStep<'a> {
    data: &'a [u8],
    logit_rows: usize,
    /// Node times of all its graphs, in order of replay and node; empty unless stamped.
    pub stamps: &'a [NodeStamp],
    /// When the device copied its inputs and tokens; zero unless stamped.
    pub copies: StepCopies,
    /// The calls that launched its graphs, in order; empty where the device has no such calls.
    pub launches: &'a [CallTimes],
}

impl FinishedStep<'_> {
    /// The token that row `row` drew, in the order in which rows with a draw were pushed.
    pub fn token(&self, row: usize) -> TokenId {
        TokenId(crate::device::read_pod(&self.data[row * size_of::<u32>()..]))
    }

    /// The log probabilities of row `row`; only if a row of the batch asked for them.
    pub fn logprobs(&self, row: usize) -> LogprobRow {
        let offset = self.logit_rows * size_of::<u32>() + row * size_of::<LogprobRow>();
        crate::device::read_pod(&self.data[offset..])
    }
}

/// Runs steps of one model on one device.
#[derive(Debug)]
pub struct StepRunner {
    device: Device,
    model: Model,
    buffers: StepBuffers,
    graphs: GraphCache,
    batch: StepBatch,
    limits: StepLimits,
}

impl StepRunner {
    /// Packs the model's weights and allocates everything that steps within `limits` need. With `kv_fraction`, the KV
    /// cache gets at most that much of the memory that the device then has free, if the device can tell.
    pub fn open(
        mut device: Device,
        checkpoint: &Checkpoint,
        limits: &StepLimits,
        precision: Precision,
        kv_fraction: Option<f64>,
    ) -> Result<StepRunner, StepError> {
        let bytes = buffers::input_bytes(limits);
        if bytes > STAGING_BYTES {
            let (max_seqs, max_model_len) = (limits.max_seqs, limits.max_model_len);
            return Err(StepError::InputsTooLarge { max_seqs, max_model_len, bytes, limit: STAGING_BYTES });
        }
        let model = Model::load(&mut device, checkpoint, limits.max_model_len, precision.activations)?;
        let buffers = StepBuffers::allocate(&mut device, &model, limits, precision.kv, kv_fraction)?;
        let limits = StepLimits { kv_pages: buffers.kv_pages, ..*limits };
        let batch = StepBatch::with_limits(&limits, model.config().kv_heads, device.info().workers);
        let graphs = GraphCache::new(&limits);
        graphs.check(&device, &model, &buffers)?;
        Ok(StepRunner { device, model, buffers, graphs, batch, limits })
    }

    /// The sizes that its memory was made for: with the KV pages that there are.
    pub fn limits(&self) -> &StepLimits {
        &self.limits
    }

    /// The device.
    pub fn device_info(&self) -> &DeviceInfo {
        self.device.info()
    }

    /// Measures the device's roofs, with no step under way.
    pub fn measure_peaks(&mut self) -> Result<DevicePeaks, DeviceError> {
        self.device.measure_peaks()
    }

    /// Empties the batch, to be filled for the next step.
    pub fn start_batch(&mut self) -> &mut StepBatch {
        self.batch.clear();
        &mut self.batch
    }

    /// The batch that is being filled.
    pub fn batch(&mut self) -> &mut StepBatch {
        &mut self.batch
    }

    /// The sizes of the batch that is being filled.
    pub fn batch_sizes(&self) -> StepSizes {
        self.batch.sizes()
    }

    /// The key of the forward graph that the batch replays, and that of the sample graph.
    pub fn batch_keys(&self) -> [Option<GraphKey>; 2] {
        self.graphs.keys(&self.batch)
    }

    /// Captures the graph of a key if it was not yet.
    pub fn capture(&mut self, key: GraphKey) -> Result<GraphId, StepError> {
        Ok(self.graphs.capture(key, &mut self.device, &self.model, &self.buffers)?)
    }

    /// Every key that a batch can have.
    pub fn all_keys(&self) -> Vec<GraphKey> {
        self.graphs.all_keys()
    }

    /// Captures the graphs of every bucket.
    pub fn capture_all(&mut self) -> Result<(), StepError> {
        for key in self.all_keys() {
            self.capture(key)?;
        }
        Ok(())
    }

    /// Copies the batch to the device; the bytes are in flight when [`StepRunner::submit`] has been called.
    pub fn submit(&mut self, sources: NodeSources) -> Result<SubmittedStep, StepError> {
        self.batch.finish();
        let mut graphs = [None; 2];
        for (graph, key) in graphs.iter_mut().zip(self.graphs.keys(&self.batch)) {
            *graph = key.map(|key| self.capture(key)).transpose()?;
        }
        let uploads = self.buffers.uploads(&self.batch);
        let logit_rows = self.batch.logit_rows();
        let [tokens, logprobs] = self.buffers.downloads(&self.batch);
        let list: [GraphId; 2] = [graphs[0].unwrap_or(GraphId(0)), graphs[1].unwrap_or(GraphId(0))];
        let replayed: &[GraphId] = if graphs[1].is_some() { &list } else { &list[..1] };
        let downloads: &[Download] = if self.batch.wants_logprobs() { &[tokens, logprobs] } else { &[tokens] };
        let submission = Submission { uploads: &uploads, graphs: replayed, downloads, sources };
        let ticket = self.device.submit(&submission)?;
        Ok(SubmittedStep { ticket, graphs, sizes: self.batch.sizes(), sources, logit_rows })
    }

    /// Waits for a step, in the order of submission.
    pub fn wait(&mut self, step: SubmittedStep) -> Result<FinishedStep<'_>, DeviceError> {
        let Completion { data, stamps, copies, launches } = self.device.wait(step.ticket)?;
        Ok(FinishedStep { data, logit_rows: step.logit_rows, stamps, copies, launches })
    }

    /// The logits of the last finished step with draws, one row after the other: for tests, with no step under way.
    pub fn logits(&mut self, rows: usize) -> Vec<Vec<f32>> {
        self.buffers.logits(&mut self.device, rows)
    }

    /// What a captured graph consists of.
    pub fn graph(&self, id: GraphId) -> &Arc<GraphTable> {
        self.device.graph(id)
    }

    /// Every captured graph, in the order of capture.
    pub fn tables(&self) -> Vec<&Arc<GraphTable>> {
        self.graphs.captured().map(|graph| self.device.graph(graph)).collect()
    }
}
