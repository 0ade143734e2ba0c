//! The call that says how far a capture has come.

use std::ffi::{c_int, c_void};

use super::graphs::EdgeData;
use super::status::{self, Refusal};
use super::{Needs, call, give};

/// `CUstreamCaptureStatus` of cuda.h.
const NONE: c_int = 0;
const ACTIVE: c_int = 1;
const INVALIDATED: c_int = 2;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuStreamGetCaptureInfo_v3(
    stream: *mut c_void,
    status: *mut c_int,
    id: *mut u64,
    graph: *mut *mut c_void,
    dependencies: *mut *const *mut c_void,
    edges: *mut *const EdgeData,
    count: *mut usize,
) -> c_int {
    call("cuStreamGetCaptureInfo_v3", Needs::Context, |driver| {
        let stream = driver.streams.get(stream)?;
        if dependencies.is_null() && !edges.is_null() {
            return Err(Refusal::new(status::INVALID_VALUE, "edges are asked for without dependencies"));
        }
        let Some(capture) = stream.capture.as_mut().filter(|capture| !capture.is_invalid()) else {
            let is_none = stream.capture.is_none();
            // SAFETY: by this function's contract.
            return unsafe { give(status, if is_none { NONE } else { INVALIDATED }) };
        };
        let (number, handle) = (capture.number, capture.handle);
        let frontier = capture.frontier();
        let is_default = frontier.is_none_or(|frontier| frontier.edge == EdgeData::default());
        if !dependencies.is_null() && edges.is_null() && !is_default {
            return Err(Refusal::new(status::LOSSY_QUERY, "the edge to the next node is programmatic"));
        }
        // SAFETY: each is null, or may be written by this function's contract. What is pointed to is the capture's.
        unsafe {
            give(status, ACTIVE)?;
            give_if_asked(id, number);
            give_if_asked(graph, handle);
            give_if_asked(dependencies, frontier.map_or(std::ptr::null(), |frontier| &raw const frontier.node));
            give_if_asked(edges, frontier.map_or(std::ptr::null(), |frontier| &raw const frontier.edge));
            give_if_asked(count, usize::from(frontier.is_some()));
        }
        Ok(())
    })
}

/// Writes what a caller may leave out.
///
/// # Safety
/// `to` is null, or may be written.
unsafe fn give_if_asked<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: by this function's contract.
        unsafe { to.write(value) };
    }
}
