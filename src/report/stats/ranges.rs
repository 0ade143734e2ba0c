//! `nvtx_sum`: stretches that have a name, of the engine's thread and of the device, in the columns of nsys.

use super::durations::{Durations, Extra, sheet};
use crate::report::{DeviceRange, Report, Sheet};

/// What nsys calls a stretch that begins and ends on one thread, inside of others or beside them.
const STYLE: &str = "PushPop";

/// Host phases and iterations of the engine's thread; layers and steps of the device.
pub(super) fn nvtx_sum(name: &'static str, report: &Report) -> Sheet {
    let recording = &report.recording;
    let layers = DeviceRange::layers(recording, &recording.replays);
    let mut numbers: Vec<u64> = layers.iter().filter_map(|range| range.layer).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let names: Vec<String> = numbers.iter().map(|layer| format!("layer {layer}")).collect();
    let mut durations = Durations::new();
    for span in &recording.spans {
        durations.entry(span.phase.as_str()).or_default().push(span.end_ns.saturating_sub(span.start_ns));
    }
    for step in &recording.steps {
        durations.entry("ProfilerStep#*").or_default().push(step.end_ns.saturating_sub(step.start_ns));
    }
    for range in &layers {
        let Some(at) = range.layer.and_then(|layer| numbers.binary_search(&layer).ok()) else { continue };
        durations.entry(&names[at]).or_default().push(range.end_ns - range.start_ns);
    }
    for range in DeviceRange::steps(recording, &recording.replays) {
        durations.entry("step *").or_default().push(range.end_ns - range.start_ns);
    }
    let notes = vec![
        "Names are the trace's, with * for the number of a step. Ranges nest: phases in iterations (ProfilerStep), \
         layers in steps of the device."
            .into(),
    ];
    sheet(name, ("Instances", "Range"), durations, Extra { style: Some(STYLE), notes })
}
