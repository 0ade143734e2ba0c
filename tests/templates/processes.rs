//! What Linux says of the processes that this one has started.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use vitrum::text::WORKER_COMMAND;

/// The workers that this process has started with this limit of memory, and that have not ended. Tests that run beside
/// each other tell theirs by it.
pub(crate) fn workers(memory_bytes: u64) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let own = Some(u64::from(std::process::id()));
    processes.filter(|pid| status(*pid, "PPid:") == own && has_limit(*pid, memory_bytes)).collect()
}

/// One that has ended has no command line, and one that has not begun has its parent's.
fn has_limit(pid: u32, memory_bytes: u64) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut args = line.split(|byte| *byte == 0);
    args.nth(1) == Some(WORKER_COMMAND.as_bytes()) && args.next() == Some(memory_bytes.to_string().as_bytes())
}

/// The first number of a line of a process's status. One that has ended has no memory.
fn status(pid: u32, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|found| found.strip_prefix(line))?.split_whitespace().next()?.parse().ok()
}

/// Looks at this process's memory and its workers', again and again, until it is dropped.
pub(crate) struct Watch {
    own_kib: Arc<AtomicU64>,
    child_kib: Arc<AtomicU64>,
    workers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(memory_bytes: u64) -> Watch {
        let (own_kib, child_kib, count, stop) = Default::default();
        let mut watch = Watch { own_kib, child_kib, workers: count, stop, thread: None };
        let [own, child, count] = [&watch.own_kib, &watch.child_kib, &watch.workers].map(Arc::clone);
        let (stop, this) = (watch.stop.clone(), std::process::id());
        watch.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let found = workers(memory_bytes);
                count.fetch_max(found.len() as u64, Ordering::Relaxed);
                for kib in found.into_iter().filter_map(|pid| status(pid, "VmHWM:")) {
                    child.fetch_max(kib, Ordering::Relaxed);
                }
                own.fetch_max(status(this, "VmHWM:").unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        }));
        watch
    }

    /// The most that this process has held, ever.
    pub(crate) fn own_mib(&self) -> u64 {
        self.own_kib.load(Ordering::Relaxed) >> 10
    }

    /// The most that one of its workers was seen to have held.
    pub(crate) fn child_mib(&self) -> u64 {
        self.child_kib.load(Ordering::Relaxed) >> 10
    }

    /// The most workers that were seen at a time.
    pub(crate) fn workers(&self) -> u64 {
        self.workers.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
