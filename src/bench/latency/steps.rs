//! Decode steps: how long one takes, what it moves, and how near that is to the device's read peak.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::Sample;
use crate::engine::StepDone;

/// Measured decode steps, of the largest batch that ran.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DecodeSteps {
    /// Sequences of each.
    seqs: u64,
    /// From the end of the step before to their own, in milliseconds.
    times_ms: Sample,
    /// The least bytes that each moves.
    bytes: Sample,
}

impl DecodeSteps {
    /// Of the steps of several batches, each batch's in order; `None` if there was no decode step behind another step.
    pub(super) fn of<'a>(batches: impl IntoIterator<Item = &'a [StepDone]>) -> Option<DecodeSteps> {
        let pairs = batches.into_iter().flat_map(|steps| steps.windows(2));
        let decode: Vec<_> = pairs.filter(|pair| pair[1].is_decode && pair[1].id.0 == pair[0].id.0 + 1).collect();
        let seqs = decode.iter().map(|pair| pair[1].sizes.seqs).max()?;
        let (mut times_ms, mut bytes) = (Vec::new(), Vec::new());
        for pair in decode.iter().filter(|pair| pair[1].sizes.seqs == seqs) {
            times_ms.push(pair[1].done_ns.saturating_sub(pair[0].done_ns) as f64 / 1e6);
            bytes.push(pair[1].bytes);
        }
        Some(DecodeSteps { seqs, times_ms: Sample::new(times_ms), bytes: Sample::new(bytes) })
    }

    pub(super) fn median_ms(&self) -> f64 {
        self.times_ms.median()
    }

    /// Bytes that the median step moves at least, over the time of the median step.
    fn gb_s(&self) -> Option<f64> {
        (self.median_ms() > 0.0).then(|| self.bytes.median() / (self.median_ms() * 1e6))
    }

    fn peak_percent(&self, peak_gb_s: Option<f64>) -> Option<f64> {
        Some(100.0 * self.gb_s()? / peak_gb_s?)
    }

    pub(super) fn print(&self, peak_gb_s: Option<f64>, out: &mut dyn Write) -> io::Result<()> {
        let (seqs, count, bytes) = (self.seqs, self.times_ms.count(), self.bytes.median());
        writeln!(out, "Median decode step: {:.4} ms (batch of {seqs}, {count} measured)", self.median_ms())?;
        writeln!(out, "Bytes a decode step moves at least: {bytes:.0}")?;
        if let Some(gb_s) = self.gb_s() {
            writeln!(out, "Decode bandwidth: {gb_s:.2} GB/s")?;
        }
        match (peak_gb_s, self.peak_percent(peak_gb_s)) {
            (Some(peak_gb_s), Some(percent)) => {
                writeln!(out, "Share of the read peak: {percent:.1} % (measured on this device: {peak_gb_s:.1} GB/s)")
            }
            _ => writeln!(out, "Share of the read peak: not known (this device's peak is not measured)"),
        }
    }

    pub(super) fn json(&self, peak_gb_s: Option<f64>) -> Value {
        json!({
            "batch_size": self.seqs,
            "steps": self.times_ms.count(),
            "step_ms_median": self.median_ms(),
            "step_ms_p10": self.times_ms.percentile(10.0),
            "step_ms_p90": self.times_ms.percentile(90.0),
            "bytes_per_step": self.bytes.median(),
            "gb_s": self.gb_s(),
            "read_peak_gb_s": peak_gb_s,
            "read_peak_percent": self.peak_percent(peak_gb_s),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::StepId;
    use crate::trace::schema::StepSizes;

    fn step(id: u64, done_ms: u64, seqs: u64, is_decode: bool, bytes: f64) -> StepDone {
        let sizes = StepSizes { seqs, ..StepSizes::default() };
        StepDone { id: StepId(id), done_ns: done_ms * 1_000_000, sizes, is_decode, bytes }
    }

    #[test]
    fn decode_steps_of_the_largest_batch_count() {
        let first = [
            step(0, 100, 2, false, 9e9), // the prompts
            step(1, 104, 2, true, 8e6),
            step(2, 107, 2, true, 8e6),
            step(3, 108, 1, true, 5e6), // one request is left
            step(5, 150, 2, true, 8e6), // one before it is not there
        ];
        // The first step of a batch has none before it, even where numbers go on.
        let second = [step(6, 900, 2, true, 8e6), step(7, 902, 2, true, 8e6)];
        let steps = DecodeSteps::of([&first[..], &second]).unwrap();
        assert_eq!((steps.seqs, steps.times_ms.count(), steps.median_ms()), (2, 3, 3.0));
        let expected = json!({
            "batch_size": 2, "steps": 3, "step_ms_median": 3.0, "step_ms_p10": 2.2, "step_ms_p90": 3.8,
            "bytes_per_step": 8e6, "gb_s": 8.0 / 3.0, "read_peak_gb_s": 8.0, "read_peak_percent": 100.0 / 3.0,
        });
        let found = steps.json(Some(8.0));
        for (key, value) in expected.as_object().unwrap() {
            let (value, found) = (value.as_f64().unwrap(), found[key].as_f64().unwrap());
            assert!((value - found).abs() < 1e-9, "{key}: {found} is not {value}");
        }
        assert_eq!(found.as_object().unwrap().len(), 9);
    }

    #[test]
    fn a_peak_that_is_not_measured_is_no_number() {
        let steps = DecodeSteps::of([&[step(0, 1, 1, false, 0.0), step(1, 5, 1, true, 2e6)][..]]).unwrap();
        let found = steps.json(None);
        assert_eq!(
            (&found["gb_s"], &found["read_peak_gb_s"], &found["read_peak_percent"]),
            (&json!(0.5), &json!(null), &json!(null))
        );
        let mut out = Vec::new();
        steps.print(None, &mut out).unwrap();
        let expected = "Median decode step: 4.0000 ms (batch of 1, 1 measured)\n\
                        Bytes a decode step moves at least: 2000000\nDecode bandwidth: 0.50 GB/s\n\
                        Share of the read peak: not known (this device's peak is not measured)\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn prompts_alone_have_no_decode_step() {
        assert_eq!(DecodeSteps::of([&[step(0, 1, 1, false, 0.0), step(1, 2, 1, false, 0.0)][..]]), None);
        assert_eq!(DecodeSteps::of([]), None);
    }
}
