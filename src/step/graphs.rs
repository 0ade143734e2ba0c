//! The captured graphs: which a batch replays, captured when first needed. The only place where capture happens.

use super::StepLimits;
use super::batch::{StepBatch, forward_buckets, sample_buckets};
use super::buckets::bucket_for;
use super::buffers::StepBuffers;
use crate::device::{Device, DeviceError, GraphId};
use crate::kernels::Node;
use crate::model::Model;
use crate::trace::schema::{GraphKey, GraphKind};

#[derive(Debug)]
pub(super) struct GraphCache {
    forward_buckets: Vec<u32>,
    sample_buckets: Vec<u32>,
    /// In the order of capture.
    captured: Vec<(GraphKey, GraphId)>,
}

impl GraphCache {
    pub(super) fn new(limits: &StepLimits) -> GraphCache {
        GraphCache {
            forward_buckets: forward_buckets(limits),
            sample_buckets: sample_buckets(limits),
            captured: Vec::new(),
        }
    }

    /// The forward graph of a batch and, if a row draws a token, its sample graph.
    pub(super) fn keys(&self, batch: &StepBatch) -> [Option<GraphKey>; 2] {
        let sizes = batch.sizes();
        let forward = if batch.is_decode() { GraphKind::ForwardDecode } else { GraphKind::ForwardMixed };
        let sample = if batch.is_plain() { GraphKind::SamplePlain } else { GraphKind::SampleFull };
        let forward = GraphKey { kind: forward, bucket: bucket_for(&self.forward_buckets, sizes.tokens as usize) };
        let sample = GraphKey { kind: sample, bucket: bucket_for(&self.sample_buckets, batch.logit_rows()) };
        [Some(forward), (batch.logit_rows() > 0).then_some(sample)]
    }

    /// Every key that a batch can have.
    pub(super) fn all_keys(&self) -> Vec<GraphKey> {
        use GraphKind::*;
        let of = |kinds: [GraphKind; 2], buckets: &[u32]| -> Vec<GraphKey> {
            let pairs = kinds.into_iter().flat_map(|kind| buckets.iter().map(move |bucket| (kind, *bucket)));
            pairs.map(|(kind, bucket)| GraphKey { kind, bucket }).collect()
        };
        let mut keys = of([ForwardDecode, ForwardMixed], &self.forward_buckets);
        keys.extend(of([SamplePlain, SampleFull], &self.sample_buckets));
        keys
    }

    /// Checks that the device has kernels for the model: what it has none for is found at start, not in a request.
    pub(super) fn check(&self, device: &Device, model: &Model, buffers: &StepBuffers) -> Result<(), DeviceError> {
        self.all_keys().into_iter().try_for_each(|key| device.check(key, &nodes(key, model, buffers)))
    }

    pub(super) fn capture(
        &mut self,
        key: GraphKey,
        device: &mut Device,
        model: &Model,
        buffers: &StepBuffers,
    ) -> Result<GraphId, DeviceError> {
        if let Some((_, graph)) = self.captured.iter().find(|(captured, _)| *captured == key) {
            return Ok(*graph);
        }
        let graph = device.capture(key, &nodes(key, model, buffers))?;
        self.captured.push((key, graph));
        Ok(graph)
    }

    /// Every captured graph, in the order of capture.
    pub(super) fn captured(&self) -> impl Iterator<Item = GraphId> {
        self.captured.iter().map(|(_, graph)| *graph)
    }
}

fn nodes(key: GraphKey, model: &Model, buffers: &StepBuffers) -> Vec<Node> {
    match key.kind {
        GraphKind::ForwardDecode | GraphKind::ForwardMixed => model.nodes(&buffers.addresses).forward,
        GraphKind::SamplePlain | GraphKind::SampleFull => model.nodes(&buffers.addresses).sample,
    }
}
