//! The program's functions: for buffers that are needed or full, and for the time.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};

use super::buffers::{self, Buffer};
use crate::driver::say;

pub(super) type Requested = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
pub(super) type Completed = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);
pub(super) type Timestamp = unsafe extern "C" fn() -> u64;

static BUFFERS: RwLock<Option<(Requested, Completed)>> = RwLock::new(None);
static CLOCK: RwLock<Option<Timestamp>> = RwLock::new(None);
/// Buffers are handed in with zeros in every byte.
static ZEROED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in a function for buffers.
pub(super) fn is_in_callback() -> bool {
    IN_CALLBACK.get()
}

fn registered() -> Option<(Requested, Completed)> {
    *BUFFERS.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn is_registered() -> bool {
    registered().is_some()
}

pub(super) fn register(requested: Requested, completed: Completed) {
    *BUFFERS.write().unwrap_or_else(PoisonError::into_inner) = Some((requested, completed));
}

pub(super) fn register_clock(clock: Timestamp) {
    *CLOCK.write().unwrap_or_else(PoisonError::into_inner) = Some(clock);
}

pub(super) fn set_zeroed(zeroed: bool) {
    ZEROED.store(zeroed, Relaxed);
}

/// The time in nanoseconds, by the program's clock if there is one.
pub(super) fn now() -> u64 {
    let clock = *CLOCK.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(clock) = clock {
        // SAFETY: the program registered a function of this type.
        return unsafe { clock() };
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes the time.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Asks for a buffer that has room for a record of so many bytes.
pub(super) fn request(record_bytes: usize) -> Option<Buffer> {
    let (requested, _) = registered()?;
    let (mut addr, mut bytes, mut records_max) = (std::ptr::null_mut::<u8>(), 0usize, 0usize);
    IN_CALLBACK.set(true);
    // SAFETY: the program registered a function of this type.
    unsafe { requested(&mut addr, &mut bytes, &mut records_max) };
    IN_CALLBACK.set(false);
    if addr.is_null() {
        return None;
    }
    buffers::lock().held += 1;
    let buffer = Buffer::new(addr as usize, bytes, records_max);
    let is_aligned = addr.addr().is_multiple_of(8);
    if !is_aligned {
        say(&format!("cupti: a buffer at {addr:p}, which is no multiple of 8 (CUPTI_ERROR_INVALID_PARAMETER)"));
    }
    if !is_aligned || bytes < record_bytes {
        give_back(&buffer);
        return None;
    }
    if !ZEROED.load(Relaxed) {
        // SAFETY: the program handed in so many bytes.
        unsafe { std::ptr::write_bytes(addr, 0, bytes) };
    // SAFETY: as above; nobody writes them meanwhile.
    } else if unsafe { std::slice::from_raw_parts(addr, bytes) }.iter().any(|&byte| byte != 0) {
        say("cupti: a buffer that is not all zeros, though ZEROED_OUT_ACTIVITY_BUFFER is set");
    }
    Some(buffer)
}

/// Gives a buffer back to the program.
pub(super) fn give_back(buffer: &Buffer) {
    buffers::lock().held -= 1;
    let Some((_, completed)) = registered() else {
        return;
    };
    let (addr, bytes, used) = (buffer.addr as *mut u8, buffer.bytes, buffer.used);
    IN_CALLBACK.set(true);
    // SAFETY: the program registered a function of this type; the buffer is its own again.
    unsafe { completed(std::ptr::null_mut(), 0, addr, bytes, used) };
    IN_CALLBACK.set(false);
}
