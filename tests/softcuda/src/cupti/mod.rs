//! libcupti in software: the calls of CUPTI with which vitrum records what a GPU did when, with the C ABI and the rules
//! of CUPTI's activity API.
//!
//! A process finds it as `libcupti.so` if [`crate::library_dir`] comes first on its LD_LIBRARY_PATH. It is the same
//! file as libcuda, with one state. As the driver does, it says what a program does wrong in lines on standard error
//! that begin with `softcuda:`.
//!
//! Modelled: kinds of records (kernels, copies, fills, calls of the driver, overheads); one correlation number for each
//! call of the driver while a kind is enabled, which all records of what it launched have; numbers of graphs,
//! executable graphs and nodes; buffers that the program hands in and is given back, each calling thread's own and one
//! for the device; flushes; records that are dropped. A record of the device is begun when its work is, with start and
//! end 0, and is complete when the work has ended: kernels do not overlap in records, as they do not under CUPTI. What
//! was put on a stream before a kind was enabled, or is done after it was disabled, has no record.
//!
//! Absent: subscribers and callbacks besides the buffers', records of other kinds, graph-level traces, latencies, a
//! worker thread: full buffers whose records are complete are given back at once, so that a flush period changes
//! nothing.
//!
//! For tests, by the environment, read once:
//! - `SOFTCUDA_CUPTI`: the version of kernel records, 9 (CUDA 12.9), 10 (13.0), 11 (13.1), 12 (13.3) or 13 (13.4), 10
//!   if not given; the other kinds' records and the version that CUPTI says go with it.
//! - `SOFTCUDA_CUPTI_FAIL_CALL=k`: the k-th call fails with CUPTI_ERROR_UNKNOWN and does nothing; `k:status` with that
//!   status. 0 fails none and says at the end of the process how many calls there were. `name` or `name:status`: every
//!   call of that name fails. `@FILE`: the same is read from the file at each `cuptiGetVersion`, from which on calls
//!   are counted anew. Not counted are `cuptiActivityGetNextRecord` and `cuptiGetResultString`, which fail by name
//!   only.
//! - `SOFTCUDA_CUPTI_TAKEN=1`: another tool has CUPTI: callbacks and kinds are refused.
//! - `SOFTCUDA_CUPTI_INVALID_AFTER=n`: records of kernels after the n-th have no times.
//! - `SOFTCUDA_CUPTI_DROP_EVERY=n`: every n-th record of a kernel is dropped.

mod activity;
mod buffers;
mod callbacks;
mod calls;
mod driver_calls;
mod flush;
mod kinds;
mod records;
mod settings;
mod status;

use std::ffi::c_int;
use std::panic::AssertUnwindSafe;

pub(crate) use self::activity::{Activity, Copied, HostMemory, Kernel, Origin, Place, origin, traced};
pub(crate) use self::driver_calls::begin_call;
pub(crate) use self::kinds::report_enabled;
use self::status::{Answer, Refusal};

/// One call of CUPTI: counted, failed on request, and refused with a word on standard error. No lock is held for the
/// whole of it: calls may be made from the program's callbacks.
fn call(name: &'static str, body: impl FnOnce() -> Answer) -> c_int {
    answer(name, || {
        settings::count_call(name)?;
        body()
    })
}

/// One call that is not counted.
fn uncounted_call(name: &'static str, body: impl FnOnce() -> Answer) -> c_int {
    answer(name, || {
        settings::fail_by_name(name)?;
        body()
    })
}

fn answer(name: &'static str, body: impl FnOnce() -> Answer) -> c_int {
    calls::at_first_call();
    let answered = std::panic::catch_unwind(AssertUnwindSafe(body));
    let answer = answered.unwrap_or_else(|_| Err(Refusal::new(status::UNKNOWN, "softcuda panicked")));
    match answer {
        Ok(()) => status::SUCCESS,
        Err(refusal) => {
            refusal.report(name);
            refusal.status
        }
    }
}

/// Writes what a call returns through a pointer.
///
/// # Safety
/// `to` is null, or may be written.
unsafe fn give<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(Refusal::new(status::INVALID_PARAMETER, "a null pointer for the result"));
    }
    // SAFETY: by this function's contract.
    unsafe { to.write(value) };
    Ok(())
}
