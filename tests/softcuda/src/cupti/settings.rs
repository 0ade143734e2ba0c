//! What the environment asks for, and the count of calls.

use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::status::{self, Answer, Refusal};
use crate::driver::say;

pub(super) struct Settings {
    pub(super) kernel_version: u32,
    pub(super) is_taken: bool,
    /// Kernels that have times; then come those that have none.
    pub(super) valid_kernels: u64,
    /// 0: none is dropped.
    pub(super) drop_every: u64,
    /// The file that says at each cuptiGetVersion which call fails.
    fail_file: Option<String>,
}

enum Fail {
    None,
    /// The call of this number, from 1.
    Number(u64, c_int),
    Name(String, c_int),
}

struct Calls {
    count: u64,
    fail: Fail,
}

static CALLS: Mutex<Calls> = Mutex::new(Calls { count: 0, fail: Fail::None });

fn calls() -> MutexGuard<'static, Calls> {
    CALLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

pub(super) fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let text = |name: &str| std::env::var(format!("SOFTCUDA_CUPTI{name}")).ok();
        let count = |name: &str, otherwise: u64| text(name).map_or(otherwise, |text| number(&text));
        let fail = text("_FAIL_CALL");
        let fail_file = fail.as_ref().and_then(|text| text.strip_prefix('@').map(str::to_owned));
        if let Some(text) = fail.filter(|_| fail_file.is_none()) {
            calls().fail = fail_call(&text);
        }
        let kernel_version = count("", 10);
        assert!((9..=13).contains(&kernel_version), "softcuda: no version {kernel_version} of kernel records");
        Settings {
            kernel_version: kernel_version as u32,
            is_taken: count("_TAKEN", 0) != 0,
            valid_kernels: count("_INVALID_AFTER", u64::MAX),
            drop_every: count("_DROP_EVERY", 0),
            fail_file,
        }
    })
}

impl Settings {
    /// The version that CUPTI says.
    pub(super) fn version(&self) -> u32 {
        match self.kernel_version {
            9 => 28,
            10 => 130_001,
            11 => 130_100,
            12 => 130_300,
            _ => 130_400,
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("softcuda: not a number: {text:?}"))
}

fn fail_call(text: &str) -> Fail {
    let (call, status) = text.split_once(':').map_or((text, None), |(call, status)| (call, Some(status)));
    let status = status.map_or(status::UNKNOWN, |status| number(status) as c_int);
    if call.starts_with("cupti") { Fail::Name(call.to_owned(), status) } else { Fail::Number(number(call), status) }
}

/// At cuptiGetVersion, before it is counted: the file's word on the calls from here on.
pub(super) fn begin() {
    if let Some(path) = &settings().fail_file {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("softcuda: {path}: {error}"));
        *calls() = Calls { count: 0, fail: fail_call(text.trim()) };
    }
}

/// Counts a call; an error if it is the one to fail.
pub(super) fn count_call(name: &str) -> Answer {
    settings();
    {
        let mut calls = calls();
        calls.count += 1;
        if let Fail::Number(number, status) = calls.fail
            && number == calls.count
        {
            return Err(Refusal::quiet(status));
        }
    }
    fail_by_name(name)
}

/// An error if calls of this name fail.
pub(super) fn fail_by_name(name: &str) -> Answer {
    settings();
    match &calls().fail {
        Fail::Name(failing, status) if failing == name => Err(Refusal::quiet(*status)),
        _ => Ok(()),
    }
}

/// At the end of the process: how many calls there were, if that was asked for.
pub(super) fn report_calls() {
    let calls = calls();
    if matches!(calls.fail, Fail::Number(0, _)) {
        say(&format!("{} cupti calls", calls.count));
    }
}
