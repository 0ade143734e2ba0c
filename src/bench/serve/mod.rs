//! `vitrum bench serve`: loads a server over HTTP and measures throughput, time to first token and time between tokens.
//!
//! It runs on one thread, so that on a small machine it takes little from the server beside it. A token's time is the
//! moment at which the piece of the body that carries it arrived, read before the piece is parsed.

mod args;
mod load;
mod metrics;
mod output;
mod prompts;
mod request;
mod rng;
mod sse;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::Method;
use hyper::body::Bytes;
use serde::Deserialize;
use thiserror::Error;

pub use self::args::ServeArgs;
use self::load::{Target, Traffic};
use self::metrics::Metrics;
pub use self::request::Failure;
use self::request::{Outcome, PreparedRequest};
pub use self::sse::SseError;
use super::client::{self, ClientError};
use crate::console;

/// How long to wait between two questions whether the server is ready.
const READY_POLL: Duration = Duration::from_millis(200);

/// Why a benchmark gave no figures.
#[derive(Debug, Error)]
pub enum ServeBenchError {
    /// A flag's value that does not fit.
    #[error("{flag} is {value}, and has to be {expected}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The server did not answer a question beside the load.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server has no model.
    #[error("/v1/models names no model: give --model")]
    NoModel,
    /// The server did not become ready.
    #[error("no answer within {seconds} s (--ready-check-timeout-sec): {last}")]
    NotReady {
        /// The limit.
        seconds: u64,
        /// What came instead.
        last: Failure,
    },
    /// Recording could not be started or stopped.
    #[error("the server does not record (--profile): {source}")]
    Profile {
        /// Its answer.
        source: ClientError,
    },
    /// No request was completed.
    #[error("all {count} requests failed")]
    AllFailed {
        /// How many.
        count: usize,
    },
    /// Standard output or the runtime.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The JSON file.
    #[error("could not write {}: {source}", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
}

/// Runs the benchmark and prints its result on standard output.
pub fn run(args: &ServeArgs) -> Result<(), ServeBenchError> {
    check(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(benchmark(args))
}

async fn benchmark(args: &ServeArgs) -> Result<(), ServeBenchError> {
    let base_url = args.base_url.clone().unwrap_or_else(|| host_url(&args.host, args.port));
    let target = Target {
        client: Arc::new(client::Client::new(&base_url, &args.header)?),
        path: args.endpoint.as_deref().unwrap_or(default_endpoint(args)).into(),
    };
    let model = match &args.model {
        Some(model) => model.clone(),
        None => first_model(&target.client).await?,
    };
    let requests = requests(&target.client, &model, args).await?;
    warm_up(&target, &requests, args).await?;

    console::print("Starting main benchmark run...\n");
    if args.profile {
        profile(&target.client, "/start_profile").await?;
        console::print("Profiler started\n");
    }
    let traffic = traffic(args);
    console::print(&format!("Traffic request rate: {}\n", traffic.request_rate));
    console::print(&format!("Burstiness factor: {} ({})\n", traffic.burstiness, distribution(traffic.burstiness)));
    console::print(&format!(
        "Maximum request concurrency: {}\n",
        args.max_concurrency.map_or("None".into(), |limit| limit.to_string())
    ));
    let bar = load::progress(requests.len(), args.disable_tqdm);
    let (outcomes, duration) = load::run(&target, requests, &traffic, &bar).await;
    bar.finish_and_clear();

    let metrics = Metrics::new(&outcomes, duration.as_secs_f64(), &args.goodput);
    let mut block = Vec::new();
    output::print_failures(&mut block, &outcomes)?;
    output::print(&mut block, &metrics, args)?;
    console::print(&String::from_utf8_lossy(&block));
    if args.profile {
        profile(&target.client, "/stop_profile").await?;
        console::print("Profiler stopped\n");
    }
    if args.save_result {
        save(args, &model, &metrics, &outcomes)?;
    }
    if metrics.completed == 0 {
        return Err(ServeBenchError::AllFailed { count: outcomes.len() });
    }
    Ok(())
}

/// Refuses what the flags' types let through.
fn check(args: &ServeArgs) -> Result<(), ServeBenchError> {
    let refuse =
        |flag, value: &dyn ToString, expected| Err(ServeBenchError::Flag { flag, value: value.to_string(), expected });
    if args.num_prompts == 0 {
        return refuse("--num-prompts", &args.num_prompts, "at least 1");
    }
    if args.max_concurrency == Some(0) {
        return refuse("--max-concurrency", &0, "at least 1");
    }
    if !(0.0..1.0).contains(&args.random_range_ratio) {
        return refuse("--random-range-ratio", &args.random_range_ratio, "from 0 to below 1");
    }
    for (flag, value) in [("--request-rate", args.request_rate), ("--burstiness", args.burstiness)] {
        if value.is_nan() || value <= 0.0 {
            return refuse(flag, &value, "above 0");
        }
    }
    if args.backend.is_chat() && args.prompt_token_ids {
        return refuse("--prompt-token-ids", &true, "left out with --backend openai-chat: chat takes text");
    }
    if args.backend.is_chat() && args.logprobs.is_some() {
        return refuse("--logprobs", &args.logprobs.unwrap_or(0), "left out with --backend openai-chat");
    }
    match &args.endpoint {
        Some(path)
            if args.backend.is_chat() != path.ends_with("chat/completions") || !path.ends_with("completions") =>
        {
            refuse("--endpoint", path, "a path that ends in the backend's completions or chat/completions")
        }
        _ => Ok(()),
    }
}

fn host_url(host: &str, port: u16) -> String {
    if host.contains(':') { format!("http://[{host}]:{port}") } else { format!("http://{host}:{port}") }
}

fn default_endpoint(args: &ServeArgs) -> &'static str {
    if args.backend.is_chat() { "/v1/chat/completions" } else { "/v1/completions" }
}

fn traffic(args: &ServeArgs) -> Traffic {
    Traffic {
        request_rate: args.request_rate,
        burstiness: args.burstiness,
        max_concurrency: args.max_concurrency,
        seed: args.seed,
    }
}

fn distribution(burstiness: f64) -> &'static str {
    if burstiness == 1.0 { "Poisson process" } else { "Gamma distribution" }
}

async fn first_model(client: &client::Client) -> Result<String, ServeBenchError> {
    #[derive(Deserialize)]
    struct Models {
        data: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        id: String,
    }
    console::print("Model not specified, fetching first model from server...\n");
    let models: Models = client.get("/v1/models").await?;
    models.data.into_iter().next().map(|model| model.id).ok_or(ServeBenchError::NoModel)
}

/// Makes the prompts and serialises every request.
async fn requests(
    client: &client::Client,
    model: &str,
    args: &ServeArgs,
) -> Result<Vec<PreparedRequest>, ServeBenchError> {
    let prompts = prompts::random(client, model, args).await?;
    if prompts.inexact > 0 {
        console::print(&format!(
            "WARNING: {} of {} prompts have not the length drawn for them\n",
            prompts.inexact, args.num_prompts
        ));
    }
    let common = request::common_body(args, args.served_model_name.as_deref().unwrap_or(model));
    // Ids of two runs against one server differ.
    let run = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u32);
    let prepare =
        |(index, prompt)| request::prepare(&common, prompt, args.backend.is_chat(), format!("bench-{run:08x}-{index}"));
    Ok(prompts.prompts.iter().enumerate().map(prepare).collect())
}

/// Waits until the server answers, and sends the warm-up requests.
async fn warm_up(target: &Target, requests: &[PreparedRequest], args: &ServeArgs) -> Result<(), ServeBenchError> {
    let test = &requests[0];
    let timeout = Duration::from_secs(args.ready_check_timeout_sec);
    let start = Instant::now();
    while !timeout.is_zero() {
        let outcome = request::run(&target.client, &target.path, test, Instant::now()).await;
        match outcome.failure {
            None => break,
            Some(last) if start.elapsed() >= timeout => {
                return Err(ServeBenchError::NotReady { seconds: args.ready_check_timeout_sec, last });
            }
            Some(_) => tokio::time::sleep(READY_POLL).await,
        }
    }
    if args.num_warmups > 0 {
        console::print(&format!("Warming up with {} requests...\n", args.num_warmups));
        let warmups = vec![test.clone(); args.num_warmups];
        let traffic = Traffic { request_rate: f64::INFINITY, ..traffic(args) };
        load::run(target, warmups, &traffic, &load::progress(0, true)).await;
        console::print("Warmup run completed.\n");
    }
    Ok(())
}

async fn profile(client: &client::Client, path: &str) -> Result<(), ServeBenchError> {
    client.text(Method::POST, path, Bytes::new()).await.map_err(|source| ServeBenchError::Profile { source })?;
    Ok(())
}

fn save(args: &ServeArgs, model: &str, metrics: &Metrics, outcomes: &[Outcome]) -> Result<(), ServeBenchError> {
    let date = output::date_of(SystemTime::now());
    let path = output::path(args, model, &date);
    let json = output::json(&output::Heading { model, date: &date }, metrics, outcomes, args);
    let write = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(&path, serde_json::to_vec(&json)?)
    };
    write().map_err(|source| ServeBenchError::Save { path: path.clone(), source })
}

#[cfg(test)]
mod tests;
