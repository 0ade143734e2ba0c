//! CUPTI's calls.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Once;

use super::callbacks::{self, Completed, Requested, Timestamp};
use super::status::{self, Answer, Refusal};
use super::{buffers, call, driver_calls, flush, give, kinds, records, settings, uncounted_call};
use crate::driver::{self, Unknown, say};

/// At the first call: what is to be said at the end of the process.
pub(super) fn at_first_call() {
    static AT_EXIT: Once = Once::new();
    extern "C" fn at_exit() {
        settings::report_calls();
        kinds::report_enabled();
        let held = buffers::count_held().filter(|&held| held > 0 && kinds::was_enabled());
        if let Some(held) = held {
            say(&format!("cupti: {held} buffers not given back"));
        }
    }
    // SAFETY: the function takes nothing and may run at any time.
    AT_EXIT.call_once(|| assert_eq!(unsafe { libc::atexit(at_exit) }, 0, "atexit"));
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiGetVersion(version: *mut u32) -> c_int {
    settings::begin();
    // SAFETY: by this function's contract.
    call("cuptiGetVersion", || unsafe { give(version, settings::settings().version()) })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiGetResultString(result: c_int, text: *mut *const c_char) -> c_int {
    uncounted_call("cuptiGetResultString", || {
        let word = status::word(result).ok_or_else(|| Refusal::quiet(status::INVALID_PARAMETER))?;
        // SAFETY: by this function's contract.
        unsafe { give(text, word.as_ptr()) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiGetTimestamp(timestamp: *mut u64) -> c_int {
    // SAFETY: by this function's contract.
    call("cuptiGetTimestamp", || unsafe { give(timestamp, callbacks::now()) })
}

/// Attributes by their numbers in cupti_activity.h: those with a value of one byte; of a size_t; and those that are not
/// supported since CUDA 12.3.
const BYTE_ATTRIBUTES: [c_uint; 3] = [ZEROED_OUT_ACTIVITY_BUFFER, 8, PER_THREAD_ACTIVITY_BUFFER];
const SIZE_ATTRIBUTES: [c_uint; 5] = [0, 1, 2, 6, 10];
const OLD_ATTRIBUTES: [c_uint; 3] = [3, 4, 7];
const ZEROED_OUT_ACTIVITY_BUFFER: c_uint = 5;
const PER_THREAD_ACTIVITY_BUFFER: c_uint = 9;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiActivitySetAttribute(
    attribute: c_uint,
    bytes: *mut usize,
    value: *mut c_void,
) -> c_int {
    call("cuptiActivitySetAttribute", || {
        let invalid = |why: String| Refusal::new(status::INVALID_PARAMETER, why);
        // SAFETY: null, or the size of the value by this function's contract.
        let bytes = *unsafe { bytes.as_ref() }.ok_or_else(|| invalid("no size".into()))?;
        if value.is_null() {
            return Err(invalid("no value".into()));
        }
        let expected = match attribute {
            _ if BYTE_ATTRIBUTES.contains(&attribute) => 1,
            _ if SIZE_ATTRIBUTES.contains(&attribute) => size_of::<usize>(),
            _ if OLD_ATTRIBUTES.contains(&attribute) => {
                return Err(Refusal::new(status::NOT_SUPPORTED, format!("attribute {attribute}, since CUDA 12.3")));
            }
            _ => return Err(invalid(format!("attribute {attribute}"))),
        };
        if bytes != expected {
            let why = format!("attribute {attribute} in {bytes} bytes instead of {expected}");
            return Err(Refusal::new(status::PARAMETER_SIZE_NOT_SUFFICIENT, why));
        }
        // SAFETY: at least one byte, by this function's contract.
        let first = unsafe { value.cast::<u8>().read() };
        match attribute {
            ZEROED_OUT_ACTIVITY_BUFFER => callbacks::set_zeroed(first != 0),
            PER_THREAD_ACTIVITY_BUFFER if first == 0 => {
                return Err(Refusal::new(status::NOT_SUPPORTED, "buffers that threads share are not modelled"));
            }
            PER_THREAD_ACTIVITY_BUFFER if callbacks::is_registered() => {
                say("cuptiActivitySetAttribute: PER_THREAD_ACTIVITY_BUFFER after the callbacks were registered");
            }
            _ => {}
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiSetThreadIdType(kind: c_uint) -> c_int {
    const SYSTEM: c_uint = 1;
    call("cuptiSetThreadIdType", || match kind {
        0 | SYSTEM => {
            driver_calls::set_system_ids(kind == SYSTEM);
            Ok(())
        }
        _ => Err(Refusal::new(status::INVALID_PARAMETER, format!("threads are not numbered in a way {kind}"))),
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiActivityRegisterTimestampCallback(clock: Option<Timestamp>) -> c_int {
    call("cuptiActivityRegisterTimestampCallback", || {
        callbacks::register_clock(clock.ok_or_else(no_function)?);
        if kinds::enabled() != 0 {
            say("cuptiActivityRegisterTimestampCallback: while a kind is enabled");
        }
        Ok(())
    })
}

fn no_function() -> Refusal {
    Refusal::new(status::INVALID_PARAMETER, "a null pointer for a function")
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiActivityRegisterCallbacks(
    requested: Option<Requested>,
    completed: Option<Completed>,
) -> c_int {
    call("cuptiActivityRegisterCallbacks", || {
        let (requested, completed) = requested.zip(completed).ok_or_else(no_function)?;
        if settings::settings().is_taken {
            return Err(Refusal::quiet(status::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED));
        }
        callbacks::register(requested, completed);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiActivityEnable(kind: c_uint) -> c_int {
    call("cuptiActivityEnable", || kinds::enable(kind))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiActivityDisable(kind: c_uint) -> c_int {
    call("cuptiActivityDisable", || kinds::disable(kind))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiActivityFlushAll(flag: u32) -> c_int {
    call("cuptiActivityFlushAll", || {
        if callbacks::is_in_callback() {
            return Err(Refusal::new(status::INVALID_OPERATION, "in a function for buffers"));
        }
        if !callbacks::is_registered() {
            return Err(Refusal::new(status::INVALID_OPERATION, "no callbacks are registered"));
        }
        if flag > 1 {
            return Err(Refusal::new(status::INVALID_PARAMETER, format!("flag {flag}")));
        }
        flush::flush_all(flag == 1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiActivityFlushPeriod(_milliseconds: u32) -> c_int {
    call("cuptiActivityFlushPeriod", || Ok(()))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiActivityGetNumDroppedRecords(
    _context: *mut c_void,
    _stream: u32,
    dropped: *mut usize,
) -> c_int {
    call("cuptiActivityGetNumDroppedRecords", || {
        if dropped.is_null() {
            return Err(Refusal::new(status::INVALID_PARAMETER, "a null pointer for the result"));
        }
        // SAFETY: by this function's contract.
        unsafe { give(dropped, buffers::take_dropped()) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiActivityGetNextRecord(
    buffer: *mut u8,
    bytes: usize,
    record: *mut *mut u8,
) -> c_int {
    uncounted_call("cuptiActivityGetNextRecord", || {
        if buffer.is_null() || record.is_null() {
            return Err(Refusal::new(status::INVALID_PARAMETER, "a null pointer"));
        }
        // SAFETY: a pointer by this function's contract.
        let previous = unsafe { *record } as usize;
        let (begin, end) = (buffer as usize, buffer as usize + bytes);
        let mut next = begin;
        if previous != 0 {
            if !(begin..end).contains(&previous) {
                return Err(Refusal::new(status::INVALID_PARAMETER, "a record of another buffer"));
            }
            next = previous + record_bytes(previous, end)?;
        }
        if next == end {
            return Err(Refusal::quiet(status::MAX_LIMIT_REACHED));
        }
        record_bytes(next, end)?;
        // SAFETY: as above.
        unsafe { record.write(next as *mut u8) };
        Ok(())
    })
}

/// The bytes of the record that begins here, if there is one.
fn record_bytes(at: usize, end: usize) -> Answer<usize> {
    let invalid = || Refusal::quiet(status::INVALID_KIND);
    if end - at < 8 {
        return Err(invalid());
    }
    // SAFETY: the caller's buffer has these bytes.
    let kind = unsafe { (at as *const u32).read_unaligned() };
    records::size(kind).filter(|&bytes| bytes <= end - at).ok_or_else(invalid)
}

/// Gives the number of what the driver knows by a handle.
///
/// # Safety
/// `to` is null, or may be written.
unsafe fn give_id<T>(to: *mut T, handle: *mut c_void, id: fn(*mut c_void) -> Result<T, Unknown>) -> Answer {
    let id = id(handle).map_err(|unknown| match unknown {
        Unknown::NotInitialised => Refusal::new(status::NOT_INITIALIZED, "before cuInit"),
        Unknown::Handle => Refusal::new(status::INVALID_PARAMETER, format!("no such handle: {handle:p}")),
    });
    // SAFETY: by this function's contract.
    unsafe { give(to, id?) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiGetGraphNodeId(node: *mut c_void, id: *mut u64) -> c_int {
    // SAFETY: by this function's contract.
    call("cuptiGetGraphNodeId", || unsafe { give_id(id, node, driver::node_id) })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiGetGraphId(graph: *mut c_void, id: *mut u32) -> c_int {
    // SAFETY: by this function's contract.
    call("cuptiGetGraphId", || unsafe { give_id(id, graph, driver::graph_id) })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuptiGetGraphExecId(executable: *mut c_void, id: *mut u32) -> c_int {
    // SAFETY: by this function's contract.
    call("cuptiGetGraphExecId", || unsafe { give_id(id, executable, driver::executable_id) })
}
