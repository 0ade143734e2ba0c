//! What the environment asks for, and the count of calls.

use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::status::{self, Answer, Refusal};
use crate::emulate::{Copies, Mode, Order};

pub(super) struct Settings {
    /// The call that fails, from 1, and how.
    fail_call: Option<(u64, c_int)>,
    pub(super) mode: Mode,
    pub(super) memory_bytes: u64,
}

static CALLS: AtomicU64 = AtomicU64::new(0);

pub(super) fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let text = |name: &str| std::env::var(name).ok();
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("softcuda: not a number: {text:?}"));
        let fail_call = text("SOFTCUDA_FAIL_CALL").map(|text| match text.split_once(':') {
            Some((call, status)) => (number(call), number(status) as c_int),
            None => (number(&text), status::UNKNOWN),
        });
        let mode = text("SOFTCUDA_MODE").map_or(Mode::ALL[2], |text| mode(&text));
        let memory_bytes = text("SOFTCUDA_MEMORY_BYTES").map_or(2 << 30, |text| number(&text));
        Settings { fail_call, mode, memory_bytes }
    })
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
    let call = 1 + CALLS.fetch_add(1, Relaxed);
    match settings().fail_call {
        Some((fail, status)) if fail == call => {
            Err(Refusal::quiet(status, format!("call {call} ({name}) fails on request")))
        }
        _ => Ok(()),
    }
}

/// At the end of the process: how many calls there were, if that was asked for.
pub(super) fn report_calls() {
    if settings().fail_call.is_some_and(|(call, _)| call == 0) {
        status::say(&format!("{} calls", CALLS.load(Relaxed)));
    }
}
