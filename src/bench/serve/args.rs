//! The flags of `vitrum bench serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

/// Loads a running server and reports throughput and latency.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// How to ask: completions, or chat completions
    #[arg(long, value_enum, default_value_t = Backend::Openai)]
    pub(super) backend: Backend,
    /// The server, e.g. http://127.0.0.1:8000, in place of --host and --port
    #[arg(long)]
    pub(super) base_url: Option<String>,
    /// The server's address
    #[arg(long, default_value = "127.0.0.1")]
    pub(super) host: String,
    /// The server's port
    #[arg(long, default_value_t = 8000)]
    pub(super) port: u16,
    /// The path to POST to [default: the backend's]
    #[arg(long)]
    pub(super) endpoint: Option<String>,
    /// The model [default: the server's first]
    #[arg(long)]
    pub(super) model: Option<String>,
    /// The model's name in requests [default: that of --model]
    #[arg(long)]
    pub(super) served_model_name: Option<String>,
    /// A header for every request
    #[arg(long, value_name = "NAME=VALUE", num_args = 1..)]
    pub(super) header: Vec<String>,

    /// Where prompts come from
    #[arg(long, value_enum, default_value_t = Dataset::Random)]
    pub(super) dataset_name: Dataset,
    /// Tokens of a prompt, --random-prefix-len not counted
    #[arg(long, default_value_t = 1024, conflicts_with = "input_len")]
    pub(super) random_input_len: usize,
    /// Tokens to ask for
    #[arg(long, default_value_t = 128, conflicts_with = "output_len")]
    pub(super) random_output_len: usize,
    /// The same as --random-input-len
    #[arg(long)]
    pub(super) input_len: Option<usize>,
    /// The same as --random-output-len
    #[arg(long)]
    pub(super) output_len: Option<usize>,
    /// Draw lengths from len·(1 − r) to len·(1 + r); 0 ≤ r < 1
    #[arg(long, default_value_t = 0.0)]
    pub(super) random_range_ratio: f64,
    /// Tokens that every prompt begins with
    #[arg(long, default_value_t = 0)]
    pub(super) random_prefix_len: usize,
    /// Send prompts as token ids: lengths are exact, and the server does not tokenise (completions only)
    #[arg(long)]
    pub(super) prompt_token_ids: bool,
    /// Requests
    #[arg(long, default_value_t = 1000)]
    pub(super) num_prompts: usize,
    /// Of prompts, lengths and arrival times
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,

    /// Requests per second; inf sends all at once
    #[arg(long, default_value_t = f64::INFINITY)]
    pub(super) request_rate: f64,
    /// Shape of the gamma distribution of arrival intervals: 1 is a Poisson process, inf a clock
    #[arg(long, default_value_t = 1.0)]
    pub(super) burstiness: f64,
    /// The most requests under way at once [default: no limit]
    #[arg(long)]
    pub(super) max_concurrency: Option<usize>,
    /// Requests before the measured ones
    #[arg(long, default_value_t = 0)]
    pub(super) num_warmups: usize,
    /// Wait this long for a first answer; 0 does not ask
    #[arg(long, default_value_t = 0)]
    pub(super) ready_check_timeout_sec: u64,
    /// Record the run: POST /start_profile before it and /stop_profile after it
    #[arg(long)]
    pub(super) profile: bool,

    /// Go on past end-of-sequence tokens; always so with random prompts, as in vLLM
    #[arg(long)]
    pub(super) ignore_eos: bool,
    /// Sampling temperature [default: the server's]
    #[arg(long)]
    pub(super) temperature: Option<f64>,
    /// Nucleus sampling [default: the server's]
    #[arg(long)]
    pub(super) top_p: Option<f64>,
    /// Top-k sampling [default: the server's]
    #[arg(long)]
    pub(super) top_k: Option<i64>,
    /// Log probabilities per token (completions only)
    #[arg(long)]
    pub(super) logprobs: Option<u32>,
    /// More members for every request's body
    #[arg(long, value_name = "JSON", value_parser = parse_object)]
    pub(super) extra_body: Option<Object>,

    /// Which of ttft, tpot, itl, e2el, client_queue_time, e2el_including_client_queue to report
    #[arg(long, value_delimiter = ',', default_value = "ttft,tpot,itl")]
    pub(super) percentile_metrics: Vec<MetricName>,
    /// Percentiles to report
    #[arg(long, value_delimiter = ',', default_value = "99", value_parser = parse_percentile)]
    pub(super) metric_percentiles: Vec<f64>,
    /// Count requests that meet all of these: ttft, tpot, e2el, in milliseconds
    #[arg(long, value_name = "METRIC:MS", num_args = 1.., value_parser = parse_goal)]
    pub(super) goodput: Vec<Goal>,

    /// Write a JSON file
    #[arg(long)]
    pub(super) save_result: bool,
    /// Keep what is known of each request in the JSON file
    #[arg(long)]
    pub(super) save_detailed: bool,
    /// Folder of the JSON file [default: the current one]
    #[arg(long)]
    pub(super) result_dir: Option<PathBuf>,
    /// Name of the JSON file [default: LABEL-RATEqps[-concurrencyN]-MODEL-DATE.json]
    #[arg(long)]
    pub(super) result_filename: Option<String>,
    /// Members for the JSON file
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., value_parser = parse_pair)]
    pub(super) metadata: Vec<(String, String)>,
    /// Begins the JSON file's name [default: the backend's]
    #[arg(long)]
    pub(super) label: Option<String>,
    /// No progress bar
    #[arg(long)]
    pub(super) disable_tqdm: bool,
}

/// The API that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    /// Completions
    Vllm,
    /// Completions
    Openai,
    /// Chat completions
    OpenaiChat,
}

impl Backend {
    pub(super) fn is_chat(self) -> bool {
        self == Backend::OpenaiChat
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Backend::Vllm => "vllm",
            Backend::Openai => "openai",
            Backend::OpenaiChat => "openai-chat",
        }
    }
}

/// Where prompts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Dataset {
    /// Random tokens
    Random,
}

/// A latency that is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum MetricName {
    /// Time to the first token
    Ttft,
    /// Time per output token after the first
    Tpot,
    /// Time between tokens
    Itl,
    /// A request from sending to its last token
    E2el,
    /// Waiting for --max-concurrency
    ClientQueueTime,
    /// Both together
    E2elIncludingClientQueue,
}

/// A request is good if `metric` is at most `limit_ms`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Goal {
    pub(super) metric: MetricName,
    pub(super) limit_ms: f64,
}

/// A JSON object.
#[derive(Clone, Debug)]
pub(super) struct Object(pub(super) Map<String, Value>);

// clap shows these words after "invalid value '…' for '--flag': ".
fn parse_object(text: &str) -> Result<Object, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(Object(members)),
        Ok(_) => Err("not a JSON object".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_percentile(text: &str) -> Result<f64, String> {
    text.trim().parse().ok().filter(|value| (0.0..=100.0).contains(value)).ok_or("not a number from 0 to 100".into())
}

fn parse_goal(text: &str) -> Result<Goal, String> {
    let (name, limit) = text.split_once(':').ok_or("not METRIC:MILLISECONDS")?;
    let metric = match name {
        "ttft" => MetricName::Ttft,
        "tpot" => MetricName::Tpot,
        "e2el" => MetricName::E2el,
        _ => return Err(format!("{name} is none of ttft, tpot, e2el")),
    };
    let limit_ms = limit.parse().ok().filter(|value: &f64| *value >= 0.0).ok_or("the limit is not a number from 0")?;
    Ok(Goal { metric, limit_ms })
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("not KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
