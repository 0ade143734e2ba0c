//! `vitrum profile start | stop | status | sessions`: drives the recordings of a running server, which lives on.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use comfy_table::{Table, presets};
use hyper::Method;
use serde_json::{Map, Value, json};

use crate::bench::ClientError;
use crate::bench::remote::ask;
use crate::cli::CommandResult;
use crate::console;
use crate::trace::session::{Granularity, Keep};
use crate::trace::window::Stage;

/// How often a recording is looked at that is waited for.
const POLL: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
pub(in crate::cli) struct Remote {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Print the server's answer, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct StartArgs {
    #[command(flatten)]
    remote: Remote,
    /// What the names of its files begin with: letters, digits, `-`, `_` and `.`
    #[arg(long)]
    prefix: Option<String>,
    /// Leave out the steps of the first SECONDS
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    delay: Option<f64>,
    /// End after SECONDS of recording
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<f64>,
    /// Leave out so many steps (vLLM: delay_iterations)
    #[arg(long, value_name = "STEPS")]
    skip: Option<u64>,
    /// Then leave out so many steps whose nodes are timed (vLLM: warmup_iterations)
    #[arg(long, value_name = "STEPS")]
    warmup: Option<u64>,
    /// Leave out steps with lower numbers, counted from the server's start (SGLang: start_step)
    #[arg(long, value_name = "STEP")]
    start_step: Option<u64>,
    /// End after so many steps, 0 is no end; with --stage, so many of each (vLLM: max_iterations, SGLang: num_steps)
    #[arg(long)]
    steps: Option<u64>,
    /// Only steps of this stage; may be repeated (SGLang: profile_stages)
    #[arg(long, value_enum)]
    stage: Vec<Stage>,
    /// Only steps that replay this graph, such as forward.decode.8; may be repeated (`vitrum graph` names them)
    #[arg(long)]
    graph: Vec<String>,
    /// Only steps of the request with this X-Request-Id; the recording ends with it
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// What a record is of: every node, or a whole graph [default: as the server was started]
    #[arg(long, value_enum)]
    graph_trace: Option<Granularity>,
    /// The most bytes of the recording, at most the server's own limit
    #[arg(long)]
    max_bytes: Option<u64>,
    /// What is kept of a recording that is longer [default: as the server was started]
    #[arg(long, value_enum)]
    keep: Option<Keep>,
    /// Record each step with probability 1/2, to measure what recording costs
    #[arg(long)]
    toggle: bool,
    /// Wait until it has ended by itself and its files are complete
    #[arg(long)]
    wait: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct StopArgs {
    #[command(flatten)]
    remote: Remote,
    /// The recording [default: whichever runs]
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Do not wait until its files are complete: `status` says when they are
    #[arg(long)]
    no_wait: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    remote: Remote,
    /// The recording [default: the last one started]
    #[arg(long, value_name = "ID")]
    session: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SessionsArgs {
    #[command(flatten)]
    remote: Remote,
}

pub(in crate::cli) fn start(args: &StartArgs) -> CommandResult {
    let started = args.remote.ask(Method::POST, "/start_profile", Some(&args.body()))?;
    let id = text(&started, "id").to_owned();
    if !args.wait {
        return args.remote.print(&started, || format!("{id}  recording into {}\n", text(&started, "spool")));
    }
    console::note(&format!("{id}  recording into {}", text(&started, "spool")));
    let path = format!("/profile/sessions/{id}");
    loop {
        let session = args.remote.ask(Method::GET, &path, None)?;
        if is_settled(&session) {
            args.remote.print(&session, || describe(&session))?;
            return check(&session);
        }
        sleep(POLL);
    }
}

pub(in crate::cli) fn stop(args: &StopArgs) -> CommandResult {
    let mut body = Map::new();
    body.extend(args.session.as_ref().map(|id| ("id".to_owned(), json!(id))));
    body.extend(args.no_wait.then(|| ("no_wait".to_owned(), json!(true))));
    let answer = args.remote.ask(Method::POST, "/stop_profile", Some(&body.into()))?;
    if args.no_wait {
        return args.remote.print(&answer, || describe(&answer));
    }
    args.remote.print(&answer, || {
        let files: String = list(&answer, "files").map(|file| format!("{file}\n")).collect();
        format!("{}\n{files}", counts(&answer))
    })?;
    check(&answer)
}

pub(in crate::cli) fn status(args: &StatusArgs) -> CommandResult {
    let session = match &args.session {
        Some(id) if id.bytes().all(|byte| byte.is_ascii_digit()) => {
            args.remote.ask(Method::GET, &format!("/profile/sessions/{id}"), None)?
        }
        Some(id) => return Err(format!("--session {id:?} is no id of a recording, which is a number").into()),
        None => {
            let list = args.remote.ask(Method::GET, "/profile/sessions", None)?;
            list["sessions"].get(0).cloned().ok_or("nothing was recorded on this server yet")?
        }
    };
    args.remote.print(&session, || describe(&session))
}

pub(in crate::cli) fn sessions(args: &SessionsArgs) -> CommandResult {
    let answer = args.remote.ask(Method::GET, "/profile/sessions", None)?;
    args.remote.print(&answer, || {
        let sessions = answer["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["id", "state", "steps", "nodes", "bytes", "left", "spool"]);
        for session in sessions {
            let number = |name: &str| session[name].as_u64().unwrap_or(0).to_string();
            table.add_row([
                text(session, "id").to_owned(),
                text(session, "state").to_owned(),
                number("steps"),
                number("nodes"),
                number("bytes"),
                left(session).unwrap_or_else(|| "-".into()),
                text(session, "spool").to_owned(),
            ]);
        }
        if sessions.is_empty() { "nothing was recorded on this server yet\n".into() } else { format!("{table}\n") }
    })
}

impl Remote {
    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        ask(&self.url, method, path, body)
    }

    fn print(&self, answer: &Value, words: impl FnOnce() -> String) -> CommandResult {
        console::print(&if self.json { format!("{answer:#}\n") } else { words() });
        Ok(())
    }
}

impl StartArgs {
    fn body(&self) -> Value {
        let fields = [
            ("profile_prefix", self.prefix.clone().map(Value::from)),
            ("delay_seconds", self.delay.map(Value::from)),
            ("duration_seconds", self.duration.map(Value::from)),
            ("delay_iterations", self.skip.map(Value::from)),
            ("warmup_iterations", self.warmup.map(Value::from)),
            ("start_step", self.start_step.map(Value::from)),
            ("num_steps", self.steps.map(Value::from)),
            ("profile_stages", (!self.stage.is_empty()).then(|| json!(self.stage))),
            ("graphs", (!self.graph.is_empty()).then(|| self.graph.clone().into())),
            ("request_id", self.request.clone().map(Value::from)),
            ("graph_trace", self.graph_trace.map(|granularity| json!(granularity))),
            ("max_bytes", self.max_bytes.map(Value::from)),
            ("keep", self.keep.map(|keep| json!(keep))),
            ("toggle", self.toggle.then_some(Value::from(true))),
        ];
        let given = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?)));
        given.collect::<Map<_, _>>().into()
    }
}

/// A number that JSON has: no infinity.
fn seconds(word: &str) -> Result<f64, String> {
    match word.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(seconds),
        _ => Err("a number of seconds, at least 0".into()),
    }
}

/// A recording in words.
fn describe(session: &Value) -> String {
    let mut words = format!("{}  {}", text(session, "id"), text(session, "state"));
    words += &format!(", {} steps, {} node times", session["steps"], session["nodes"]);
    words += &format!(", {} bytes of {}", session["bytes"], text(session, "spool"));
    if let Some(left) = left(session) {
        words += &format!(", {left} left");
    }
    if session["full"] == true {
        words += ", FULL: what comes now is left out";
    }
    if session["complete"] == false {
        words += ", INCOMPLETE";
    }
    if let Some(error) = session["error"].as_str() {
        words += &format!(": {error}");
    }
    let files: String = list(session, "files").map(|file| format!("{file}\n")).collect();
    format!("{words}\n{files}")
}

/// What a recording came to, in words.
fn counts(stopped: &Value) -> String {
    let of = |name: &str| stopped[name].as_u64().unwrap_or(0);
    let mut words =
        format!("{}  {} steps, {} of {} node times", text(stopped, "id"), of("steps"), of("received"), of("expected"));
    match &stopped["overwritten"] {
        Value::Object(overwritten) => {
            let from = overwritten["whole_from_step"].as_u64().unwrap_or(0);
            words += &format!(", whole from step {from} on: what was before it was overwritten");
        }
        _ if stopped["limit_reached"] == true => words += ", the limit of its file was reached",
        _ => {}
    }
    if let Some(error) = stopped["write_error"].as_str() {
        words += &format!(", its file could not be written to its end: {error}");
    }
    words
}

/// What is left of its window.
fn left(session: &Value) -> Option<String> {
    let seconds = session["seconds_left"].as_f64().map(|seconds| format!("{seconds:.1} s"));
    let steps = session["steps_left"].as_u64().map(|steps| format!("{steps} steps"));
    match (seconds, steps) {
        (Some(seconds), Some(steps)) => Some(format!("{seconds} or {steps}")),
        (seconds, steps) => seconds.or(steps),
    }
}

fn is_settled(session: &Value) -> bool {
    matches!(text(session, "state"), "ready" | "failed")
}

/// A shortfall is an error, after what there is has been printed.
fn check(session: &Value) -> CommandResult {
    match session["complete"].as_bool() {
        Some(true) => Ok(()),
        _ => Err(format!("recording {} is not complete", text(session, "id")).into()),
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("?")
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    value[field].as_array().into_iter().flatten().filter_map(Value::as_str)
}
