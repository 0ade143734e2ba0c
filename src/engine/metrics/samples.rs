//! Sampled node times among the metrics: how many steps, and a histogram for each op in each kind of graph. What the
//! sampler counted is put in words when it is asked for; the engine's thread has no part in it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::trace::record::Samples;
use crate::trace::sample::{NodeTimeSeries, SERIES_BOUNDS_NS};

/// Gives what was sampled to whoever scrapes.
#[derive(Debug)]
pub(super) struct SampleCollector {
    samples: Samples,
}

impl SampleCollector {
    pub(super) fn new(samples: Samples) -> SampleCollector {
        SampleCollector { samples }
    }
}

impl Collector for SampleCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let totals = self.samples.totals();
        let mut counter = |name, help, value| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        counter("vitrum:sampled_steps", "Steps whose node times were sampled", totals.sampled)?;
        counter("vitrum:sample_left_out", "Steps that were to be sampled and were not", totals.left_out)?;
        let help = "Exclusive time of a node, in sampled steps";
        let mut family = encoder.encode_descriptor("vitrum:node_time_seconds", help, None, MetricType::Histogram)?;
        for series in self.samples.series() {
            let labels = NodeLabel { op: series.op.as_str(), graph_kind: series.kind.as_str() };
            let (buckets, count) = buckets(&series);
            let sum_s = series.sum_ns as f64 / 1e9;
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum_s, count, &buckets, None)?;
        }
        Ok(())
    }
}

/// Upper ends in seconds with their counts, and the count of all.
fn buckets(series: &NodeTimeSeries) -> (Vec<(f64, u64)>, u64) {
    let ends = SERIES_BOUNDS_NS.iter().map(|ns| *ns as f64 / 1e9).chain([f64::MAX]);
    (ends.zip(series.buckets).collect(), series.buckets.iter().sum())
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    op: &'static str,
    graph_kind: &'static str,
}
