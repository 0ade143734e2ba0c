//! What the environment asks for, and the count of calls.

use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::modules::SHARED_BYTES_MAX;
use super::status::{self, Answer, Refusal};
use super::streams;
use crate::emulate::{Copies, Mode, Order};

pub(super) struct Settings {
    /// The file that says at each cuInit which call fails.
    fail_file: Option<String>,
    pub(super) mode: Mode,
    pub(super) memory_bytes: u64,
    /// What the device says of a block's shared memory.
    pub(super) shared_bytes_max: u64,
}

struct Calls {
    count: u64,
    /// The call that fails, from 1, and how.
    fail: Option<(u64, c_int)>,
}

static CALLS: Mutex<Calls> = Mutex::new(Calls { count: 0, fail: None });

fn calls() -> MutexGuard<'static, Calls> {
    CALLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

pub(super) fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let text = |name: &str| std::env::var(name).ok();
        let fail = text("SOFTCUDA_FAIL_CALL");
        let fail_file = fail.as_ref().and_then(|text| text.strip_prefix('@').map(str::to_owned));
        if fail_file.is_none() {
            calls().fail = fail.map(|text| fail_call(&text));
        }
        let mode = text("SOFTCUDA_MODE").map_or(Mode::ALL[2], |text| mode(&text));
        let memory_bytes = text("SOFTCUDA_MEMORY_BYTES").map_or(2 << 30, |text| number(&text));
        let shared_bytes_max = text("SOFTCUDA_SHARED_BYTES").map_or(SHARED_BYTES_MAX.into(), |text| number(&text));
        Settings { fail_file, mode, memory_bytes, shared_bytes_max }
    })
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("softcuda: not a number: {text:?}"))
}

fn fail_call(text: &str) -> (u64, c_int) {
    match text.split_once(':') {
        Some((call, status)) => (number(call), number(status) as c_int),
        None => (number(text), status::UNKNOWN),
    }
}

/// At cuInit, before it is counted: the file's word on the calls from here on.
pub(super) fn begin() {
    if let Some(path) = &settings().fail_file {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("softcuda: {path}: {error}"));
        *calls() = Calls { count: 0, fail: Some(fail_call(text.trim())) };
    }
}

fn mode(text: &str) -> Mode {
    let (copies, order) = text.split_once('-').unwrap_or((text, ""));
    let copies = match copies {
        "early" => Copies::Early,
        "late" => Copies::Late,
        _ => panic!("softcuda: no mode {text:?}"),
    };
    let order = match order {
        "round-robin" => Order::RoundRobin,
        "greedy" => Order::Greedy,
        _ => panic!("softcuda: no mode {text:?}"),
    };
    Mode { copies, order }
}

/// Counts a call; an error if it is the one to fail.
pub(super) fn count_call(name: &str) -> Answer {
    settings();
    let mut calls = calls();
    calls.count += 1;
    match calls.fail {
        Some((fail, status)) if fail == calls.count => {
            let refusal = Refusal::quiet(status, format!("call {fail} ({name}) fails on request"));
            if status::is_sticky(status) {
                streams::fail(refusal.clone());
            }
            Err(refusal)
        }
        _ => Ok(()),
    }
}

/// At the end of the process: how many calls there were, if that was asked for.
pub(super) fn report_calls() {
    let calls = calls();
    if calls.fail.is_some_and(|(call, _)| call == 0) {
        status::say(&format!("{} calls", calls.count));
    }
}
