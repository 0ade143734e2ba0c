//! A model's way onto its device, under a progress bar.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::{self, Engine, EngineOptions, StartError};
use crate::model::Checkpoint;

/// Before that, no bar is seen: small models are there by then.
const PATIENCE: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_millis(50);

/// Starts an engine. A bar on stderr, if that is a terminal, shows how much of the weights was packed.
pub(super) fn start_engine(checkpoint: &Checkpoint, options: &EngineOptions) -> Result<Engine, StartError> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let bar = scope.spawn(|| show(checkpoint, &is_over));
        let _end = End { is_over: &is_over, bar: bar.thread() };
        engine::start(checkpoint, options)
    })
}

/// Ends the bar, however the start ended: the scope waits for it.
struct End<'a> {
    is_over: &'a AtomicBool,
    bar: &'a Thread,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.bar.unpark();
    }
}

fn show(checkpoint: &Checkpoint, is_over: &AtomicBool) {
    let start = Instant::now();
    let mut bar: Option<ProgressBar> = None;
    while !is_over.load(Ordering::Relaxed) {
        if start.elapsed() > PATIENCE {
            bar.get_or_insert_with(|| new_bar(checkpoint.bytes())).set_position(checkpoint.packed_bytes());
        }
        thread::park_timeout(EVERY);
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Hidden where stderr is no terminal.
fn new_bar(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("loading [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
