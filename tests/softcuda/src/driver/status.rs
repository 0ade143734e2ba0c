//! The driver's statuses, and refusals that say why.

use std::ffi::{CStr, c_char, c_int};
use std::io::Write;

pub(super) const SUCCESS: c_int = 0;
pub(super) const INVALID_VALUE: c_int = 1;
pub(super) const OUT_OF_MEMORY: c_int = 2;
pub(super) const NOT_INITIALIZED: c_int = 3;
pub(super) const INVALID_DEVICE: c_int = 101;
pub(super) const INVALID_IMAGE: c_int = 200;
pub(super) const INVALID_CONTEXT: c_int = 201;
pub(super) const INVALID_HANDLE: c_int = 400;
pub(super) const ILLEGAL_STATE: c_int = 401;
pub(super) const LOSSY_QUERY: c_int = 402;
pub(super) const NOT_FOUND: c_int = 500;
pub(super) const ILLEGAL_ADDRESS: c_int = 700;
pub(super) const LAUNCH_FAILED: c_int = 719;
pub(super) const NOT_SUPPORTED: c_int = 801;
pub(super) const CAPTURE_UNSUPPORTED: c_int = 900;
pub(super) const CAPTURE_INVALIDATED: c_int = 901;
pub(super) const CAPTURE_ISOLATION: c_int = 905;
pub(super) const CAPTURED_EVENT: c_int = 907;
pub(super) const CAPTURE_WRONG_THREAD: c_int = 908;
pub(super) const UNKNOWN: c_int = 999;

const WORDS: &[(c_int, &CStr, &CStr)] = &[
    (SUCCESS, c"CUDA_SUCCESS", c"no error"),
    (INVALID_VALUE, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (OUT_OF_MEMORY, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (NOT_INITIALIZED, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (INVALID_DEVICE, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (INVALID_IMAGE, c"CUDA_ERROR_INVALID_IMAGE", c"device kernel image is invalid"),
    (INVALID_CONTEXT, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
    (INVALID_HANDLE, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
    (ILLEGAL_STATE, c"CUDA_ERROR_ILLEGAL_STATE", c"the operation cannot be performed in the present state"),
    (LOSSY_QUERY, c"CUDA_ERROR_LOSSY_QUERY", c"attempted introspection would be semantically lossy"),
    (NOT_FOUND, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (ILLEGAL_ADDRESS, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered"),
    (LAUNCH_FAILED, c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
    (NOT_SUPPORTED, c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
    (
        CAPTURE_UNSUPPORTED,
        c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        c"operation not permitted when stream is capturing",
    ),
    (
        CAPTURE_INVALIDATED,
        c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        c"operation failed due to a previous error during capture",
    ),
    (
        CAPTURE_ISOLATION,
        c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
        c"dependency created on uncaptured work in another stream",
    ),
    (
        CAPTURED_EVENT,
        c"CUDA_ERROR_CAPTURED_EVENT",
        c"operation not permitted on an event last recorded in a capturing stream",
    ),
    (
        CAPTURE_WRONG_THREAD,
        c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
        c"attempt to terminate a thread-local capture sequence from another thread",
    ),
    (UNKNOWN, c"CUDA_ERROR_UNKNOWN", c"unknown error"),
];

/// Whether a device that has failed so stays failed.
pub(super) fn is_sticky(status: c_int) -> bool {
    matches!(status, ILLEGAL_ADDRESS | LAUNCH_FAILED)
}

/// Why a call is refused.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: c_int,
    why: String,
    /// Nothing is wrong with the caller: no line is printed.
    quiet: bool,
}

pub(super) type Answer<T = ()> = Result<T, Refusal>;

impl Refusal {
    pub(super) fn new(status: c_int, why: impl Into<String>) -> Refusal {
        Refusal { status, why: why.into(), quiet: false }
    }

    /// What a program that keeps the rules may run into.
    pub(super) fn quiet(status: c_int, why: impl Into<String>) -> Refusal {
        Refusal { status, why: why.into(), quiet: true }
    }

    pub(super) fn report(&self, call: &str) {
        if !self.quiet {
            let name = words(self.status).map_or("?", |(name, _)| name.to_str().unwrap_or("?"));
            say(&format!("{call}: {} ({name})", self.why));
        }
    }
}

/// A line on standard error.
pub(crate) fn say(text: &str) {
    // In one piece: others write there, too.
    let _ = std::io::stderr().write_all(format!("softcuda: {text}\n").as_bytes());
}

fn words(status: c_int) -> Option<(&'static CStr, &'static CStr)> {
    WORDS.iter().find(|(known, _, _)| *known == status).map(|(_, name, text)| (*name, *text))
}

/// Writes a string of a status, or null and a refusal: without a count, since these are asked about failures.
unsafe fn give_word(to: *mut *const c_char, word: Option<&'static CStr>) -> c_int {
    if to.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller passes a place for one pointer.
    unsafe { to.write(word.map_or(std::ptr::null(), CStr::as_ptr)) };
    if word.is_some() { SUCCESS } else { INVALID_VALUE }
}

/// The name of a status.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuGetErrorName(status: c_int, to: *mut *const c_char) -> c_int {
    // SAFETY: by this function's contract.
    unsafe { give_word(to, words(status).map(|(name, _)| name)) }
}

/// The description of a status.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuGetErrorString(status: c_int, to: *mut *const c_char) -> c_int {
    // SAFETY: by this function's contract.
    unsafe { give_word(to, words(status).map(|(_, text)| text)) }
}
