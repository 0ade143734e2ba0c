//! libcuda in software: the calls of the CUDA driver that vitrum makes, with the C ABI and the rules of the driver.
//!
//! A process finds it as `libcuda.so` if [`crate::library_dir`] comes first on its LD_LIBRARY_PATH. There is one
//! device, "vitrum softcuda", of compute capability 9.0. What a driver refuses is refused, with the driver's status;
//! what makes a kernel fail on a device makes it fail here, and then every later call fails, as on a device. Each of
//! these says why in a line on standard error that begins with `softcuda:`; a process without such a line has kept the
//! rules.
//!
//! Modelled: handles of each kind and their lifetime; memory in a range of its own, each allocation ending where memory
//! ends, not there any more once freed; streams that work on threads of their own, so that what is not waited for has
//! not happened; pinned memory that copies read and write late; capture with what invalidates it, and how far it has
//! come; linear graphs of kernels, copies and fills; programmatic edges, where the first block of a kernel runs up to
//! its wait before the kernel ahead of it has begun. Kernels: real cubins are read for names, parameters and limits;
//! the code that runs is the one compiled for the host, which has to take the same parameters.
//!
//! A call's contract, where it has one of memory that it reads or writes, is that of the driver's function of its name.
//!
//! Absent: the null stream, several devices, contexts besides the primary one, graphs that branch, JIT compilation of
//! PTX, and time.
//!
//! For tests, by the environment, read at `cuInit`:
//! - `SOFTCUDA_FAIL_CALL=k`: the k-th call fails with CUDA_ERROR_UNKNOWN and does nothing; `k:status` with that status.
//!   0 fails none and says at the end of the process how many calls there were. A status with which a device stays
//!   failed (700, 719) makes every later call fail, too. `@FILE`: the same is read from the file at each `cuInit`, from
//!   which on calls are counted anew.
//! - `SOFTCUDA_MODE`: `early` or `late` copies, then `-round-robin` or `-greedy`; `late-round-robin` if not given.
//! - `SOFTCUDA_MEMORY_BYTES`: the device's memory, 2 GiB if not given.
//! - `SOFTCUDA_SHARED_BYTES`: the shared memory that the device says a block may have, 227 KiB if not given.
//!
//! Images besides cubins, so that tests of the driver need no nvcc: the text `softcuda` is a module of all kernels of
//! csrc, `softcuda probes` one of this crate's own kernels.

mod arena;
mod capture;
mod capture_info;
mod chain;
mod context_calls;
mod graph_calls;
mod graphs;
mod handles;
mod memory_calls;
mod modules;
// The arithmetic that `cargo xtask kernels` prints.
#[path = "../../../../xtask/src/kernels/occupancy.rs"]
mod occupancy;
mod settings;
mod state;
mod status;
mod stream_calls;
mod streams;

use std::ffi::c_int;
use std::panic::AssertUnwindSafe;

pub(crate) use self::graphs::{Unknown, executable_id, graph_id, node_id};
use self::state::Driver;
pub(crate) use self::status::say;
use self::status::{Answer, Refusal};
use crate::cupti;

/// One call of the driver: counted, failed on request, and refused with a word on standard error.
///
/// The driver's state is locked for the whole call, waits included: threads of streams never take it. The call's own
/// record is written before and after that, since it may call the program back.
fn call(name: &'static str, needs: Needs, body: impl FnOnce(&mut Driver) -> Answer) -> c_int {
    let traced = cupti::begin_call(name);
    let answered = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut driver = state::lock();
        settings::count_call(name)?;
        driver.check(needs)?;
        body(&mut driver)
    }));
    let answer = answered.unwrap_or_else(|_| Err(Refusal::new(status::UNKNOWN, "softcuda panicked")));
    let status = match answer {
        Ok(()) => status::SUCCESS,
        Err(refusal) => {
            refusal.report(name);
            refusal.status
        }
    };
    if let Some(traced) = traced {
        traced.end(status);
    }
    status
}

/// What has to be there before a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Initialised,
    /// A context that is current on the thread and has not failed.
    Context,
}

/// Writes what a call returns through a pointer.
///
/// # Safety
/// `to` is null, or may be written.
unsafe fn give<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(Refusal::new(status::INVALID_VALUE, "a null pointer for the result"));
    }
    // SAFETY: by this function's contract.
    unsafe { to.write(value) };
    Ok(())
}
