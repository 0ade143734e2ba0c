//! Where a recording stands in a file: its moments, its processes, its numbers. In a file of one recording they are the
//! recording's own as far as readers allow; in a file of several all of them are moved apart.

use serde::Serialize;

use super::model::Survey;
use super::{Alignment, Call, Recording};
use crate::trace::schema::GraphTable;

/// The stream of all nodes of one recording, and the tid of its lane. HTA wants it above 0.
pub(super) const STREAM: u64 = 1;
/// The one context.
pub(super) const CONTEXT: u64 = 1;
/// The device's number in a file of one recording.
pub(super) const DEVICE: u64 = 0;
/// The pid of the requests' lanes, above any pid of the operating system (at most 2²²).
const REQUESTS_PID: u64 = 10_000_000;
/// The pid of what the driver's profiling library took for itself.
const OVERHEADS_PID: u64 = 11_000_000;
/// Added to the device's pid if the engine's process has that pid.
const PID_OFFSET: u64 = 20_000_000;
/// The pids of several recordings: each has the next ten. Perfetto holds 32 bits of a pid.
const MERGED_PIDS: u64 = 30_000_000;
const MERGED_PIDS_STEP: u64 = 10;
/// Added to the profiling library's correlations where they are not a replay's, once for each recording up to this one:
/// replays stay below.
const CALL_CORRELATIONS: u64 = 1 << 32;

/// Where things stand in the file.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The moment that is 0 in the file, on the recording's clock. Before that clock's begin, maybe.
    pub(super) zero_ns: i128,
    /// The recording's first and last moment, on its clock.
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) pids: Pids,
    pub(super) engine_tid: u64,
    /// The device's number.
    pub(super) device: u64,
    pub(super) stream: u64,
    /// Set if there are other recordings in the file.
    pub(super) among: Option<Among>,
    /// Added to the numbers of replays, wrapping.
    correlation_offset: u64,
    call_correlations: u64,
    graph_offset: u64,
}

/// The processes of a recording in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// Its nodes, layers and steps.
    pub device: u64,
    /// The engine's process.
    pub host: u64,
    /// Its requests.
    pub requests: u64,
    /// What the driver's profiling library took for itself.
    pub overheads: u64,
}

/// What is there to say of a recording that is not alone.
#[derive(Clone, Debug)]
pub(super) struct Among {
    /// Which it is, from 0.
    pub(super) index: u64,
    /// Whose it is, in the names of its processes.
    pub(super) owner: String,
    pub(super) alignment: Alignment,
}

/// Where a recording stands in a merged file, for readers that want its own numbers back.
#[derive(Clone, Debug, Serialize)]
pub struct Placement {
    /// The engine's process, as the operating system numbered it.
    pub process: u32,
    /// Its processes in the file.
    pub pids: Pids,
    /// Its device's number in the file.
    pub device: u64,
    /// The stream of its nodes in the file.
    pub stream: u64,
    /// A replay's correlation less the replay's number.
    pub correlation_offset: i64,
    /// A call's correlation, where it is no replay's, less what the driver's profiling library numbered it.
    pub call_correlation_offset: u64,
    /// A graph's id less the graph's number.
    pub graph_offset: u64,
    /// Its first moment in the file.
    pub start_ns: u64,
    /// Its last moment in the file.
    pub end_ns: u64,
    /// How its clock was put on the first recording's.
    pub clock: Alignment,
}

impl Layout {
    /// Of a file with nothing else in it.
    pub(super) fn alone(recording: &Recording) -> Layout {
        let (start_ns, end_ns) = recording.span();
        let host = u64::from(recording.header.session.pid);
        let device = DEVICE;
        Layout {
            zero_ns: start_ns.into(),
            start_ns,
            end_ns,
            pids: Pids {
                device: if host == device { device + PID_OFFSET } else { device },
                host,
                requests: REQUESTS_PID,
                overheads: OVERHEADS_PID,
            },
            engine_tid: u64::from(recording.header.session.engine_tid),
            device,
            stream: STREAM,
            among: None,
            correlation_offset: 0,
            call_correlations: CALL_CORRELATIONS,
            graph_offset: 0,
        }
    }

    /// Of each recording in a file of several: what there is in each window of it, what there is in all, and how its
    /// clock is put on the first one's.
    pub(super) fn merged(recordings: &[(&Recording, &Survey, Alignment)]) -> Vec<Layout> {
        let start_ns = |recording: &Recording| i128::from(recording.span().0);
        let with_records = recordings.iter().filter(|(_, survey, _)| survey.moments.is_some());
        let starts_ns = with_records.map(|(recording, _, alignment)| start_ns(recording) + alignment.offset_ns);
        let fallback_ns = || recordings.first().map_or(0, |(recording, ..)| start_ns(recording));
        let zero_ns = starts_ns.min().unwrap_or_else(fallback_ns);
        let (mut correlation, mut graph_offset) = (1_u64, 0_u64);
        let mut layouts = Vec::new();
        for (index, (recording, survey, alignment)) in (0_u64..).zip(recordings) {
            let (first, last) = survey.replays.unwrap_or((0, 0));
            let pid = MERGED_PIDS + MERGED_PIDS_STEP * index;
            layouts.push(Layout {
                zero_ns: zero_ns - alignment.offset_ns,
                pids: Pids { device: pid, host: pid + 1, requests: pid + 2, overheads: pid + 3 },
                device: index,
                stream: STREAM + index,
                among: Some(Among { index, owner: owner(recording), alignment: alignment.clone() }),
                correlation_offset: correlation.wrapping_sub(first),
                call_correlations: CALL_CORRELATIONS.saturating_mul(index + 1),
                graph_offset,
                ..Layout::alone(recording)
            });
            correlation = correlation.saturating_add((last - first).saturating_add(1));
            graph_offset += recording.graphs.iter().map(|graph| u64::from(graph.id)).max().unwrap_or(0);
        }
        layouts
    }

    /// A moment of the recording's clock as the file says it.
    pub(super) fn at(&self, ns: u64) -> u64 {
        (i128::from(ns) - self.zero_ns).clamp(0, u64::MAX.into()) as u64
    }

    /// The correlation of a replay's launch, and of what the device did for it.
    pub(super) fn correlation(&self, replay: u64) -> u64 {
        replay.wrapping_add(self.correlation_offset)
    }

    /// The correlation of a call, and of what the device did for it.
    pub(super) fn call_correlation(&self, call: &Call, recording: &Recording) -> u64 {
        match call.replay {
            Some(replay) => self.correlation(recording.replays[replay as usize].record.replay),
            None => self.call_correlations.saturating_add(call.record.correlation.into()),
        }
    }

    /// The number of a graph, by its number in the recording.
    pub(super) fn graph_id(&self, id: u32) -> u64 {
        self.graph_offset + u64::from(id)
    }

    /// Kineto's `graph node id` is unique over all graphs: PyTorch's tools look nodes up by it alone.
    pub(super) fn graph_node_id(&self, graph: &GraphTable, ordinal: usize) -> u64 {
        self.graph_id(graph.id) << 32 | ordinal as u64
    }

    /// A process's name, with whose it is.
    pub(super) fn process_name(&self, name: &str) -> String {
        match &self.among {
            Some(among) => format!("{name} [{}]", among.owner),
            None => name.to_owned(),
        }
    }

    /// A process's place among all: those of one recording stand together.
    pub(super) fn process_order(&self, alone: u64, within: u64) -> u64 {
        self.among.as_ref().map_or(alone, |among| among.index * MERGED_PIDS_STEP + within)
    }

    /// `None` for a recording that is alone.
    pub(super) fn placement(&self, recording: &Recording) -> Option<Placement> {
        let among = self.among.as_ref()?;
        Some(Placement {
            process: recording.header.session.pid,
            pids: self.pids,
            device: self.device,
            stream: self.stream,
            correlation_offset: self.correlation_offset as i64,
            call_correlation_offset: self.call_correlations,
            graph_offset: self.graph_offset,
            start_ns: self.at(self.start_ns),
            end_ns: self.at(self.end_ns),
            clock: among.alignment.clone(),
        })
    }
}

fn owner(recording: &Recording) -> String {
    let session = &recording.header.session;
    format!("{}, pid {}, recording {}", session.model, session.pid, recording.header.id)
}
