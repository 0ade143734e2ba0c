//! The bodies of POST /start_profile and POST /stop_profile.
//!
//! Fields have the names that others gave them: `delay_iterations`, `wait_iterations`, `warmup_iterations`,
//! `active_iterations` and `max_iterations` are vLLM's, `start_step`, `num_steps`, `profile_by_stage`, `profile_stages`
//! and `profile_prefix` SGLang's.

use super::fields::{Fields, invalid};
use super::neutral::{self, Neutral};
use crate::http::error::ApiError;
use crate::trace::schema::GraphKey;
use crate::trace::session::{Granularity, Keep, is_prefix};
use crate::trace::window::{Stage, Window};

/// The most steps that a field may name.
const STEPS_MAX: i64 = 1_000_000_000_000;
/// The most seconds: a year.
const SECONDS_MAX: f32 = 366.0 * 86_400.0;
/// The shortest duration.
const SECONDS_MIN: f32 = 0.001;
/// Iterations recorded where others are waited for and no number is given, as in vLLM's configuration.
const ACTIVE_DEFAULT: u64 = 5;
/// The most graphs that may be named: the engine looks for each step's among them.
const GRAPHS_MAX: usize = 256;
/// The longest name of a request, as in its header.
const REQUEST_ID_BYTES_MAX: usize = 255;

/// How to record, and which steps.
#[derive(Debug, Default)]
pub(crate) struct StartProfileRequest {
    /// What the file names begin with.
    pub(crate) prefix: Option<String>,
    /// Record each step with probability 1/2, so that the recording's own cost can be measured.
    pub(crate) toggle: bool,
    /// What a record is of.
    pub(crate) granularity: Option<Granularity>,
    /// The most bytes of the spool.
    pub(crate) max_bytes: Option<u64>,
    /// What is kept if they are too few.
    pub(crate) keep: Option<Keep>,
    /// Which steps.
    pub(crate) window: Window,
}

/// Which recording to stop, and when to answer.
#[derive(Debug, Default)]
pub(crate) struct StopProfileRequest {
    /// The recording; whichever runs if there is no id.
    pub(crate) id: Option<String>,
    /// Answer before the files are complete.
    pub(crate) no_wait: bool,
}

impl StartProfileRequest {
    /// Parses a body, which may be empty.
    pub(crate) fn parse(body: &[u8], bytes_max: u64) -> Result<StartProfileRequest, ApiError> {
        let Some(mut fields) = fields(body)? else { return Ok(StartProfileRequest::default()) };
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let request = StartProfileRequest {
            prefix: prefix(&mut fields)?,
            toggle: fields.flag("toggle")?,
            granularity: fields.get("graph_trace", "\"node\" or \"graph\"")?,
            max_bytes: fields.whole("max_bytes", 1..=bytes_max)?.map(|bytes| bytes as u64),
            keep: fields.get("keep", "\"first\" or \"last\"")?,
            window: window(&mut fields)?,
        };
        finish(fields, &[neutral::PROFILE])?;
        Ok(request)
    }
}

impl StopProfileRequest {
    /// Parses a body, which may be empty.
    pub(crate) fn parse(body: &[u8]) -> Result<StopProfileRequest, ApiError> {
        let Some(mut fields) = fields(body)? else { return Ok(StopProfileRequest::default()) };
        let request = StopProfileRequest { id: fields.text("id")?, no_wait: fields.flag("no_wait")? };
        finish(fields, &[])?;
        Ok(request)
    }
}

fn window(fields: &mut Fields<'_>) -> Result<Window, ApiError> {
    let delay = steps(fields, "delay_iterations")?.unwrap_or(0);
    let wait = steps(fields, "wait_iterations")?.unwrap_or(0);
    let warmup = steps(fields, "warmup_iterations")?.unwrap_or(0);
    Ok(Window {
        delay_ns: seconds(fields, "delay_seconds", 0.0)?.unwrap_or(0),
        skip_steps: delay + wait,
        warmup_steps: warmup,
        first_step: steps(fields, "start_step")?,
        duration_ns: seconds(fields, "duration_seconds", SECONDS_MIN)?,
        steps_max: steps_max(fields, wait + warmup > 0)?,
        stages: stages(fields)?,
        graphs: graphs(fields)?,
        request: request_id(fields)?,
    })
}

/// The number of recorded steps, by whichever of its names it is given; 0 is no limit.
fn steps_max(fields: &mut Fields<'_>, is_schedule: bool) -> Result<Option<u64>, ApiError> {
    const NAMES: [&str; 3] = ["max_iterations", "num_steps", "active_iterations"];
    let mut found: Option<(&'static str, u64)> = None;
    for name in NAMES {
        let Some(steps) = steps(fields, name)?.filter(|steps| *steps > 0) else { continue };
        match found {
            Some((second, known)) if known != steps => return Err(ApiError::Contradiction { first: name, second }),
            _ => found = Some((name, steps)),
        }
    }
    Ok(found.map(|(_, steps)| steps).or(is_schedule.then_some(ACTIVE_DEFAULT)))
}

fn steps(fields: &mut Fields<'_>, name: &'static str) -> Result<Option<u64>, ApiError> {
    Ok(fields.whole(name, 0..=STEPS_MAX)?.map(|steps| steps as u64))
}

fn seconds(fields: &mut Fields<'_>, name: &'static str, least: f32) -> Result<Option<u64>, ApiError> {
    let expected = if least > 0.0 { "seconds, from 0.001 to a year" } else { "seconds, from 0 to a year" };
    let seconds = fields.number(name, expected, |seconds| (least..=SECONDS_MAX).contains(&seconds))?;
    Ok(seconds.map(|seconds| (f64::from(seconds) * 1e9) as u64))
}

/// Prefill and decode, where it is not said which.
fn stages(fields: &mut Fields<'_>) -> Result<Vec<Stage>, ApiError> {
    const EXPECTED: &str = "a list of \"prefill\", \"decode\" and \"mixed\"";
    let by_stage: Option<bool> = fields.get("profile_by_stage", "true or false")?;
    let Some(raw) = fields.take("profile_stages") else {
        let stages = [Stage::Prefill, Stage::Decode];
        return Ok(if by_stage == Some(true) { stages.to_vec() } else { Vec::new() });
    };
    let mut stages: Vec<Stage> =
        serde_json::from_str(raw.get()).map_err(|_| invalid("profile_stages", EXPECTED, raw))?;
    if stages.is_empty() {
        return Err(invalid("profile_stages", EXPECTED, raw));
    }
    if by_stage == Some(false) {
        return Err(ApiError::Contradiction { first: "profile_by_stage", second: "profile_stages" });
    }
    stages.sort_by_key(|stage| *stage as u8);
    stages.dedup();
    Ok(stages)
}

fn graphs(fields: &mut Fields<'_>) -> Result<Vec<GraphKey>, ApiError> {
    const EXPECTED: &str = "a list of 1 to 256 names such as \"forward.decode.8\", as `vitrum graph` prints them";
    let Some(raw) = fields.take("graphs") else { return Ok(Vec::new()) };
    let names: Vec<String> = serde_json::from_str(raw.get()).map_err(|_| invalid("graphs", EXPECTED, raw))?;
    let keys: Option<Vec<GraphKey>> = names.iter().map(|name| name.parse().ok()).collect();
    let is_fit = |keys: &Vec<GraphKey>| (1..=GRAPHS_MAX).contains(&keys.len());
    let mut keys = keys.filter(is_fit).ok_or_else(|| invalid("graphs", EXPECTED, raw))?;
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

fn request_id(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    const EXPECTED: &str = "the X-Request-Id of a request, of 1 to 255 bytes";
    let Some(raw) = fields.take("request_id") else { return Ok(None) };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(id) if (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) => Ok(Some(id)),
        _ => Err(invalid("request_id", EXPECTED, raw)),
    }
}

fn fields(body: &[u8]) -> Result<Option<Fields<'_>>, ApiError> {
    if body.trim_ascii().is_empty() { Ok(None) } else { Fields::parse(body).map(Some) }
}

/// Refuses what is left of a body. Older `vllm bench serve` posts a whole generation request to these routes and means
/// nothing by it: the parameters of one are passed over.
fn finish(fields: Fields<'_>, neutral: &[&[Neutral]]) -> Result<(), ApiError> {
    const GENERATION: [&str; 2] = ["prompt", "messages"];
    if GENERATION.iter().any(|field| fields.has(field)) { Ok(()) } else { fields.finish(neutral) }
}

fn prefix(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    const EXPECTED: &str = "1 to 100 letters, digits, '-', '_' or '.', the first no '.'";
    let Some(raw) = fields.take("profile_prefix") else { return Ok(None) };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(prefix) if is_prefix(&prefix) => Ok(Some(prefix)),
        _ => Err(invalid("profile_prefix", EXPECTED, raw)),
    }
}
