//! Calls about streams, events and captures.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use super::capture::{Capture, CaptureMode};
use super::status::{self, Answer, Refusal};
use super::streams::{self, Event, Stream, Work};
use super::{Needs, call, give};

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuStreamCreate(stream: *mut *mut c_void, flags: c_uint) -> c_int {
    call("cuStreamCreate", Needs::Context, |driver| {
        if flags > 1 {
            return Err(Refusal::new(status::INVALID_VALUE, format!("flags {flags}")));
        }
        // SAFETY: by this function's contract.
        unsafe { give(stream, driver.streams.insert(Stream::new())) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuStreamDestroy_v2(stream: *mut c_void) -> c_int {
    call("cuStreamDestroy_v2", Needs::Context, |driver| {
        if let Some(capture) = &mut driver.streams.get(stream)?.capture {
            return Err(capture.invalidate(status::CAPTURE_UNSUPPORTED, "a stream is destroyed that is capturing"));
        }
        driver.streams.remove(stream).map(drop)
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuStreamSynchronize(stream: *mut c_void) -> c_int {
    call("cuStreamSynchronize", Needs::Context, |driver| {
        let stream = driver.streams.get(stream)?;
        if let Some(capture) = &mut stream.capture {
            return Err(capture.invalidate(status::CAPTURE_UNSUPPORTED, "a stream is waited for that is capturing"));
        }
        stream.wait();
        check_failure()
    })
}

/// The status of what failed on the device: it has been reported there.
fn check_failure() -> Answer {
    streams::failure().map_or(Ok(()), |failure| Err(Refusal::quiet(failure.status, "the device has failed")))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuStreamWaitEvent(stream: *mut c_void, event: *mut c_void, flags: c_uint) -> c_int {
    call("cuStreamWaitEvent", Needs::Context, |driver| {
        let event = driver.events.get(event)?.clone();
        let stream = driver.streams.get(stream)?;
        let captured = *event.captured.lock().expect("not poisoned");
        if flags != 0 {
            return Err(Refusal::new(status::NOT_SUPPORTED, format!("flags {flags} are not modelled")));
        }
        match (&mut stream.capture, captured) {
            (Some(capture), of) if of != Some(capture.number) => {
                let why = "a stream that captures waits for an event that was not recorded in the capture";
                Err(capture.invalidate(status::CAPTURE_ISOLATION, why))
            }
            (None, Some(_)) => {
                let why = "a stream joins the capture of another by its event: not modelled";
                Err(Refusal::new(status::NOT_SUPPORTED, why))
            }
            _ => {
                let number = event.progress.asked();
                stream.submit(Work::WaitFor(event, number))
            }
        }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuEventCreate(event: *mut *mut c_void, flags: c_uint) -> c_int {
    call("cuEventCreate", Needs::Context, |driver| {
        if flags > 3 {
            return Err(Refusal::new(status::INVALID_VALUE, format!("flags {flags}")));
        }
        // SAFETY: by this function's contract.
        unsafe { give(event, driver.events.insert(Arc::new(Event::default()))) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuEventDestroy_v2(event: *mut c_void) -> c_int {
    call("cuEventDestroy_v2", Needs::Context, |driver| driver.events.remove(event).map(drop))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuEventRecord(event: *mut c_void, stream: *mut c_void) -> c_int {
    call("cuEventRecord", Needs::Context, |driver| {
        let event = driver.events.get(event)?.clone();
        let stream = driver.streams.get(stream)?;
        let capture = stream.capture.as_ref().map(|capture| capture.number);
        *event.captured.lock().expect("not poisoned") = capture;
        let number = if capture.is_some() { 0 } else { event.progress.ask() };
        stream.submit(Work::Record(event, number))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuEventSynchronize(event: *mut c_void) -> c_int {
    call("cuEventSynchronize", Needs::Context, |driver| {
        let event = driver.events.get(event)?.clone();
        let captured = *event.captured.lock().expect("not poisoned");
        if captured.is_some() {
            let captures = driver.streams.values().filter_map(|stream| stream.capture.as_mut());
            let why = "an event is waited for that was recorded in a capture";
            let mut refusal = Refusal::new(status::CAPTURED_EVENT, why);
            for capture in captures.filter(|capture| Some(capture.number) == captured) {
                refusal = capture.invalidate(status::CAPTURED_EVENT, why);
            }
            return Err(refusal);
        }
        event.progress.wait();
        check_failure()
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuStreamBeginCapture_v2(stream: *mut c_void, mode: c_uint) -> c_int {
    call("cuStreamBeginCapture_v2", Needs::Context, |driver| {
        let handle = driver.graphs.reserve();
        let stream = driver.streams.get(stream)?;
        let mode = match mode {
            0 => CaptureMode::Global,
            1 => CaptureMode::ThreadLocal,
            2 => CaptureMode::Relaxed,
            _ => return Err(Refusal::new(status::INVALID_VALUE, format!("capture mode {mode}"))),
        };
        if stream.capture.is_some() {
            return Err(Refusal::new(status::ILLEGAL_STATE, "the stream is capturing already"));
        }
        stream.capture = Some(Capture::new(mode, handle));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuStreamEndCapture(stream: *mut c_void, graph: *mut *mut c_void) -> c_int {
    call("cuStreamEndCapture", Needs::Context, |driver| {
        // SAFETY: by this function's contract. It stays null if there is no graph.
        unsafe { give(graph, std::ptr::null_mut())? };
        let stream = driver.streams.get(stream)?;
        let none = || Refusal::new(status::ILLEGAL_STATE, "the stream is not capturing");
        stream.capture.as_ref().ok_or_else(none)?.check_thread()?;
        let capture = stream.capture.take().ok_or_else(none)?;
        let handle = capture.handle;
        driver.graphs.put(handle, capture.end()?);
        // SAFETY: as above.
        unsafe { give(graph, handle) }
    })
}
