//! Kernels that are chained by programmatic edges. A device may begin a kernel while the one ahead of it runs. Here,
//! the first block of the kernel runs up to its `pdl_wait` before the one ahead has begun its own work: so what it
//! reads too early is not there yet, every time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::arena::DEVICE;
use super::modules::Call;
use super::settings::settings;
use super::status::{self, Answer, Refusal};
use crate::cupti::{self, Origin};
use crate::emulate::Launch;

/// A kernel of which the first block waits for the kernel ahead.
struct Held {
    go: Sender<()>,
    thread: JoinHandle<Answer>,
}

/// Runs kernels, each but the first chained to the one ahead of it. In records each begins when the one ahead of it has
/// ended.
pub(super) fn run(calls: &[(Arc<Call>, Origin)]) -> Answer {
    let mut current: Option<Held> = None;
    let mut answer = Ok(());
    for (index, (call, origin)) in calls.iter().enumerate() {
        let next = calls.get(index + 1).filter(|_| answer.is_ok()).map(|(next, _)| hold(next.clone()));
        let ran = cupti::traced(*origin, call.activity(), || match current.take() {
            Some(held) => finish(held),
            None => launch(call, None),
        });
        answer = answer.and(ran);
        current = next;
        if answer.is_err() {
            break;
        }
    }
    // After a failure the next kernel is let go, so that its thread ends; what it does counts no more.
    if let Some(held) = current {
        let _ = finish(held);
    }
    answer
}

/// Starts a kernel; returns when its first block waits for its predecessor, or the kernel has failed before.
fn hold(call: Arc<Call>) -> Held {
    let (go, may_go) = channel();
    let (reached, is_held) = channel();
    let thread = std::thread::spawn(move || wait_at_edge(&call, &reached, &may_go));
    // An error here means that the thread has ended without waiting.
    let _ = is_held.recv();
    Held { go, thread }
}

fn wait_at_edge(call: &Call, reached: &Sender<()>, may_go: &Receiver<()>) -> Answer {
    let mut wait = || {
        let _ = reached.send(());
        let _ = may_go.recv();
    };
    launch(call, Some(&mut wait))
}

fn finish(held: Held) -> Answer {
    let _ = held.go.send(());
    drop(held.go);
    held.thread.join().unwrap_or_else(|_| Err(Refusal::new(status::UNKNOWN, "softcuda panicked in a kernel")))
}

fn launch(call: &Call, predecessor: Option<&mut dyn FnMut()>) -> Answer {
    let params: Vec<&[u8]> = call.params.iter().map(Vec::as_slice).collect();
    let launched = call.library.launch(Launch {
        kernel: &call.kernel,
        grid: call.grid,
        block: call.block,
        shared_bytes: call.shared_bytes,
        params: &params,
        mode: settings().mode,
        chained: call.chained,
        predecessor: predecessor.map(|end| end as &mut dyn FnMut()),
        is_memory: Some(&|addr, bytes| DEVICE.holds(addr, bytes)),
    });
    launched.map_err(|why| {
        let is_access = why.contains("access to") || why.contains("device memory");
        Refusal::new(if is_access { status::ILLEGAL_ADDRESS } else { status::LAUNCH_FAILED }, why)
    })
}
