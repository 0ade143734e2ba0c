//! The words of sampled node times: what is read of a server that times one step in N for as long as it runs. Pure
//! data, always compiled; the sampler that fills it is the recorder's ([`super::record`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::schema::{GraphKey, GraphKind, Op};

/// Upper ends of the buckets of [`NodeTimeSeries`], in nanoseconds: from 1 µs to 1 s. What is longer has a bucket more.
pub const SERIES_BOUNDS_NS: [u64; 13] = [
    1_000,
    3_000,
    10_000,
    30_000,
    100_000,
    300_000,
    1_000_000,
    3_000_000,
    10_000_000,
    30_000_000,
    100_000_000,
    300_000_000,
    1_000_000_000,
];

/// What a row of a reading is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// One node of a graph.
    #[default]
    Node,
    /// The nodes of a layer; −1: those outside of layers.
    Layer,
    /// The nodes of an op, in all layers.
    Op,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            By::Node => "node",
            By::Layer => "layer",
            By::Op => "op",
        })
    }
}

/// Not one of the words for [`By`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("rows are by node, layer or op")]
pub struct UnknownBy;

impl FromStr for By {
    type Err = UnknownBy;

    fn from_str(word: &str) -> Result<By, UnknownBy> {
        match word {
            "node" => Ok(By::Node),
            "layer" => Ok(By::Layer),
            "op" => Ok(By::Op),
            _ => Err(UnknownBy),
        }
    }
}

/// Everything that was sampled since the start, or since the last reset. Each graph is read at one moment; two graphs
/// are read at two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleReading {
    /// One step in so many is timed.
    pub every: u32,
    /// Steps that the engine has submitted.
    pub steps: u64,
    /// Those of them whose node times are in here.
    pub sampled: u64,
    /// Those that were to be timed and are not in here: somebody was reading, a recording had them without stamps,
    /// times were none, or there is no room for their graph.
    pub left_out: u64,
    /// In seconds of the Unix clock.
    pub since: u64,
    /// What timing a step costs; `None` if too few steps could be compared.
    pub cost: Option<SampleCost>,
    /// In the order of capture.
    pub graphs: Vec<GraphSample>,
}

/// What timing a step costs, by steps of this server: a timed step and the one behind it, against two steps before and
/// two after that were not timed, all of the same sizes and back to back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleCost {
    /// What a timed step takes of an untimed one's time: the median.
    pub ratio: f64,
    /// Lower end of its 95 % interval.
    pub ratio_low: f64,
    /// Upper end.
    pub ratio_high: f64,
    /// Timed steps that were compared.
    pub pairs: u64,
}

/// A graph's sampled replays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphSample {
    /// Its name.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub graph: GraphKey,
    /// Replays that were sampled.
    pub replays: u64,
    /// From the first node's begin to the last one's end.
    #[serde(flatten)]
    pub times: Times,
    /// In the order of the graph, by what was asked for.
    pub nodes: Vec<SampleRow>,
}

/// A distribution, in microseconds. Values of a bucket 1 % wide are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Mean; exact.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// Nine in ten are no longer.
    pub p90_us: f64,
    /// Ninety-nine in a hundred are no longer.
    pub p99_us: f64,
    /// The longest; exact.
    pub max_us: f64,
}

/// The times of one node, or of all nodes of a layer or an op. They are exclusive: what overlaps an earlier node of the
/// step counts once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRow {
    /// Its index in the graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u32>,
    /// Its layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<i32>,
    /// Its op.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
    /// Its kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Nodes of the graph that are in this row.
    pub nodes: u32,
    /// Times of nodes.
    pub count: u64,
    /// Of a node.
    #[serde(flatten)]
    pub times: Times,
    /// The medians of its nodes, summed: what they take of one replay.
    pub replay_us: f64,
    /// The least bytes that its nodes move in a replay, averaged over the sampled ones, over [`SampleRow::replay_us`].
    pub gb_s: Option<f64>,
    /// In percent of the read peak of the level that the step's bytes come from; `None` if the device was not measured.
    pub read_peak_percent: Option<f64>,
}

/// The times of an op's nodes in graphs of one kind, in buckets, since the start. A reset does not touch them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeTimeSeries {
    /// The op.
    pub op: Op,
    /// The kind of graph.
    pub kind: GraphKind,
    /// Times up to each of [`SERIES_BOUNDS_NS`] and above the bucket before, and at the end those above all.
    pub buckets: [u64; SERIES_BOUNDS_NS.len() + 1],
    /// Their sum.
    pub sum_ns: u64,
}

/// Counts since the start of the process, which no reset touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleTotals {
    /// Steps submitted.
    pub steps: u64,
    /// Steps whose node times were taken.
    pub sampled: u64,
    /// Steps that were to be timed, and were not taken.
    pub left_out: u64,
}

fn as_text<S: Serializer>(key: &GraphKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GraphKey, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_json_and_back() {
        let times = Times { mean_us: 1.5, p50_us: 1.25, p90_us: 2.0, p99_us: 3.0, max_us: 4.0 };
        let row = SampleRow {
            ordinal: Some(3),
            layer: Some(-1),
            op: Some(Op::LmHead),
            kernel: Some("a \"kernel\"\n".into()),
            nodes: 1,
            count: 7,
            times,
            replay_us: 1.25,
            gb_s: Some(0.5),
            read_peak_percent: None,
        };
        let by_op = SampleRow { ordinal: None, layer: None, kernel: None, ..row.clone() };
        let graph = GraphKey { kind: GraphKind::SamplePlain, bucket: 8 };
        let reading = SampleReading {
            every: 64,
            steps: 640,
            sampled: 9,
            left_out: 1,
            since: 1_768_000_000,
            cost: Some(SampleCost { ratio: 1.01, ratio_low: 1.0, ratio_high: 1.02, pairs: 20 }),
            graphs: vec![GraphSample { graph, replays: 7, times, nodes: vec![row, by_op] }],
        };
        let json = serde_json::to_value(&reading).expect("numbers and words");
        assert_eq!(json["graphs"][0]["graph"], "sample.plain.8");
        assert_eq!(json["graphs"][0]["nodes"][0]["p99_us"], 3.0);
        assert_eq!(json["graphs"][0]["nodes"][0]["op"], "lm_head");
        assert!(json["graphs"][0]["nodes"][1].get("layer").is_none(), "{json:#}");
        assert_eq!(serde_json::from_value::<SampleReading>(json).expect("as it was written"), reading);
    }
}
