//! What a run's outcomes amount to, with vLLM's definitions.

use super::args::{Goal, MetricName};
use super::request::Outcome;
use crate::bench::stats::Sample;

/// The figures of a run. Samples are in milliseconds and hold completed requests only.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) duration_s: f64,
    pub(super) completed: usize,
    pub(super) failed: usize,
    pub(super) total_input: usize,
    pub(super) total_output: usize,
    /// Requests per second that met every goal, if there is one.
    pub(super) goodput: Option<f64>,
    /// Tokens in the best second.
    pub(super) peak_output_per_s: usize,
    pub(super) peak_concurrent: usize,
    pub(super) ttft_ms: Sample,
    pub(super) tpot_ms: Sample,
    pub(super) itl_ms: Sample,
    pub(super) e2el_ms: Sample,
    pub(super) queue_ms: Sample,
    pub(super) e2el_with_queue_ms: Sample,
}

impl Metrics {
    pub(super) fn new(outcomes: &[Outcome], duration_s: f64, goals: &[Goal]) -> Metrics {
        let done: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.failure.is_none()).collect();
        let sample = |value: &dyn Fn(&Outcome) -> f64| Sample::new(done.iter().map(|o| 1e3 * value(o)).collect());
        let good = done.iter().filter(|outcome| goals.iter().all(|goal| meets(outcome, goal))).count();
        Metrics {
            duration_s,
            completed: done.len(),
            failed: outcomes.len() - done.len(),
            total_input: done.iter().map(|outcome| outcome.prompt_tokens).sum(),
            total_output: done.iter().map(|outcome| outcome.output_tokens).sum(),
            goodput: (!goals.is_empty()).then(|| good as f64 / duration_s),
            peak_output_per_s: peak_output_per_s(&done),
            peak_concurrent: peak_concurrent(&done),
            ttft_ms: sample(&|outcome| outcome.ttft_s),
            tpot_ms: Sample::new(done.iter().filter_map(|outcome| tpot_s(outcome)).map(|tpot| 1e3 * tpot).collect()),
            itl_ms: Sample::new(done.iter().flat_map(|outcome| &outcome.itls_s).map(|itl| 1e3 * itl).collect()),
            e2el_ms: sample(&|outcome| outcome.latency_s),
            queue_ms: sample(&|outcome| outcome.queue_s),
            e2el_with_queue_ms: sample(&|outcome| outcome.latency_s + outcome.queue_s),
        }
    }

    pub(super) fn request_throughput(&self) -> f64 {
        self.completed as f64 / self.duration_s
    }

    pub(super) fn output_throughput(&self) -> f64 {
        self.total_output as f64 / self.duration_s
    }

    pub(super) fn total_throughput(&self) -> f64 {
        (self.total_input + self.total_output) as f64 / self.duration_s
    }
}

/// Time per output token after the first; none for an answer of one token.
fn tpot_s(outcome: &Outcome) -> Option<f64> {
    (outcome.output_tokens > 1).then(|| (outcome.latency_s - outcome.ttft_s) / (outcome.output_tokens - 1) as f64)
}

fn meets(outcome: &Outcome, goal: &Goal) -> bool {
    let value_s = match goal.metric {
        MetricName::Ttft => outcome.ttft_s,
        MetricName::Tpot => tpot_s(outcome).unwrap_or(0.0),
        MetricName::E2el => outcome.latency_s,
        other => unreachable!("{other:?} is no goal: parse_goal refuses it"),
    };
    value_s * 1e3 <= goal.limit_ms
}

/// Tokens counted in whole seconds from the first request's start.
fn peak_output_per_s(done: &[&Outcome]) -> usize {
    let origin_s = done.iter().map(|outcome| outcome.start_s).fold(f64::INFINITY, f64::min);
    let mut seconds: Vec<usize> = Vec::new();
    for outcome in done {
        let mut time_s = outcome.start_s - origin_s + outcome.ttft_s;
        for step_s in std::iter::once(0.0).chain(outcome.itls_s.iter().copied()) {
            time_s += step_s;
            let second = time_s as usize;
            if second >= seconds.len() {
                seconds.resize(second + 1, 0);
            }
            seconds[second] += 1;
        }
    }
    seconds.into_iter().max().unwrap_or(0)
}

/// The most requests under way at one moment; one that ends as another starts does not overlap it.
fn peak_concurrent(done: &[&Outcome]) -> usize {
    let mut events: Vec<(f64, i32)> =
        done.iter().flat_map(|o| [(o.start_s, 1), (o.start_s + o.latency_s, -1)]).collect();
    events.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let (mut now, mut peak) = (0, 0);
    for (_, change) in events {
        now += change;
        peak = peak.max(now);
    }
    peak as usize
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::serve::request::Failure;

    /// Two requests of three and one tokens, and one that failed.
    pub(in super::super) fn outcomes() -> Vec<Outcome> {
        let first = Outcome {
            start_s: 0.0,
            queue_s: 0.5,
            ttft_s: 0.1,
            itls_s: vec![0.9, 1.0],
            latency_s: 2.0,
            prompt_tokens: 10,
            output_tokens: 3,
            text: "abc".into(),
            failure: None,
        };
        let second = Outcome {
            start_s: 1.0,
            ttft_s: 0.2,
            latency_s: 0.2,
            prompt_tokens: 5,
            output_tokens: 1,
            ..Outcome::default()
        };
        let third = Outcome { prompt_tokens: 7, failure: Some(Failure::NoToken), ..Outcome::default() };
        vec![first, second, third]
    }

    #[test]
    fn definitions() {
        let goals =
            [Goal { metric: MetricName::Ttft, limit_ms: 150.0 }, Goal { metric: MetricName::E2el, limit_ms: 2e3 }];
        let metrics = Metrics::new(&outcomes(), 4.0, &goals);
        assert_eq!((metrics.completed, metrics.failed), (2, 1));
        assert_eq!((metrics.total_input, metrics.total_output), (15, 4));
        assert_eq!((metrics.request_throughput(), metrics.total_throughput()), (0.5, 4.75));
        assert_eq!(metrics.goodput, Some(0.25));
        assert!((metrics.tpot_ms.mean() - 950.0).abs() < 1e-9, "one-token answers have no time per token");
        assert!((metrics.ttft_ms.mean() - 150.0).abs() < 1e-9);
        assert_eq!((metrics.peak_output_per_s, metrics.peak_concurrent), (2, 2));
    }

    #[test]
    fn all_failed() {
        let failed = vec![Outcome { failure: Some(Failure::NoToken), ..Outcome::default() }];
        let metrics = Metrics::new(&failed, 1.0, &[]);
        assert_eq!((metrics.completed, metrics.failed, metrics.peak_output_per_s, metrics.goodput), (0, 1, 0, None));
    }
}
