//! The run: requests sent at their arrival times, at most `--max-concurrency` at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::request::{self, Outcome, PreparedRequest};
use super::rng::Rng;
use crate::bench::client::Client;

/// A server, and where on it requests go.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) client: Arc<Client>,
    pub(super) path: Arc<str>,
}

/// When requests arrive and how many may be under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    pub(super) request_rate: f64,
    pub(super) burstiness: f64,
    pub(super) max_concurrency: Option<usize>,
    pub(super) seed: u64,
}

/// Arrival times in seconds since the run began. Scaled so that the last is exactly n / rate: seeds differ in the order
/// of intervals, not in the load.
pub(super) fn arrivals_s(count: usize, traffic: &Traffic) -> Vec<f64> {
    if traffic.request_rate.is_infinite() {
        return vec![0.0; count];
    }
    let mut rng = Rng::new(traffic.seed.wrapping_add(1)); // another stream than the prompts'
    let mut sum = 0.0;
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            sum += if traffic.burstiness.is_infinite() { 1.0 } else { rng.gamma(traffic.burstiness) };
            sum
        })
        .collect();
    let scale = count as f64 / traffic.request_rate / sum;
    times.iter_mut().for_each(|time| *time *= scale);
    times
}

/// Sends every request and returns what became of them, in their order, and how long it all took.
pub(super) async fn run(
    target: &Target,
    requests: Vec<PreparedRequest>,
    traffic: &Traffic,
    bar: &ProgressBar,
) -> (Vec<Outcome>, Duration) {
    let arrivals = arrivals_s(requests.len(), traffic);
    let permits = Arc::new(Semaphore::new(traffic.max_concurrency.unwrap_or(Semaphore::MAX_PERMITS)));
    let mut outcomes: Vec<Option<Outcome>> = requests.iter().map(|_| None).collect();
    let mut tasks = JoinSet::new();
    let run_start = Instant::now();
    for (index, (request, arrival_s)) in requests.into_iter().zip(arrivals).enumerate() {
        let arrival = run_start + Duration::from_secs_f64(arrival_s);
        if arrival > Instant::now() {
            tokio::time::sleep_until(arrival.into()).await;
        }
        let (target, permits, bar) = (target.clone(), Arc::clone(&permits), bar.clone());
        let arrived = Instant::now();
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await.expect("nobody closes the semaphore");
            let queue_s = arrived.elapsed().as_secs_f64();
            let outcome = request::run(&target.client, &target.path, &request, run_start).await;
            bar.inc(1);
            (index, Outcome { queue_s, ..outcome })
        });
    }
    while let Some(result) = tasks.join_next().await {
        let (index, outcome) = result.expect("a request's task neither panics nor is aborted");
        outcomes[index] = Some(outcome);
    }
    let duration = run_start.elapsed();
    (outcomes.into_iter().map(|outcome| outcome.expect("every task was joined")).collect(), duration)
}

/// A progress bar on stderr.
pub(super) fn progress(count: usize, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} requests, {elapsed}").expect("a valid template");
    ProgressBar::new(count as u64).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(request_rate: f64, burstiness: f64) -> Traffic {
        Traffic { request_rate, burstiness, max_concurrency: None, seed: 0 }
    }

    #[test]
    fn a_rate_is_kept_exactly() {
        for burstiness in [0.5, 1.0, 4.0, f64::INFINITY] {
            let times = arrivals_s(50, &traffic(10.0, burstiness));
            assert!((times[49] - 5.0).abs() < 1e-9, "burstiness {burstiness}: {}", times[49]);
            assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "burstiness {burstiness}");
        }
        let clock = arrivals_s(4, &traffic(2.0, f64::INFINITY));
        assert!(clock.iter().zip([0.5, 1.0, 1.5, 2.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{clock:?}");
    }

    #[test]
    fn no_rate_is_all_at_once() {
        assert_eq!(arrivals_s(3, &traffic(f64::INFINITY, 1.0)), [0.0; 3]);
    }
}
