//! What the tests of random input share: for how long and from where on, numbers, memory, what is kept of a failure.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A run of cases, numbered by their seeds. `VITRUM_FUZZ_SECONDS` says for how long it goes, `VITRUM_FUZZ_SEED` where
/// it begins.
pub(crate) struct Run {
    begin: Instant,
    seconds: u64,
    least: u64,
    first: u64,
    next: u64,
}

impl Run {
    /// At least so many cases, however slow the machine is.
    pub(crate) fn asked(seconds_default: u64, least: u64) -> Run {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
        let first = number("VITRUM_FUZZ_SEED").unwrap_or(1);
        let seconds = number("VITRUM_FUZZ_SECONDS").unwrap_or(seconds_default);
        Run { begin: Instant::now(), seconds, least, first, next: first }
    }

    /// The next case's seed.
    pub(crate) fn next(&mut self) -> Option<u64> {
        let goes_on = self.count() < self.least || self.begin.elapsed() < Duration::from_secs(self.seconds);
        self.next += u64::from(goes_on);
        goes_on.then(|| self.next - 1)
    }

    /// Cases so far.
    pub(crate) fn count(&self) -> u64 {
        self.next - self.first
    }
}

/// Xorshift64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn of_seed(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end
    }
}

/// Keeps what a case failed with.
pub(crate) fn save(name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).expect("the file");
    path
}

/// The most memory that this process has held.
pub(crate) fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}
