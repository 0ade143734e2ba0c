//! What the driver holds.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Needs;
use super::arena::{DEVICE, PINNED};
use super::graphs::{Executable, Graph};
use super::handles::Handles;
use super::modules::{Function, Module};
use super::settings;
use super::status::{self, Answer, Refusal};
use super::streams::{self, Event, Stream};
use crate::cupti;

pub(super) struct Driver {
    pub(super) is_initialised: bool,
    /// How often the primary context is retained.
    pub(super) retained: u32,
    pub(super) contexts: Handles<()>,
    /// The primary context, while it is retained.
    pub(super) primary: *mut c_void,
    pub(super) streams: Handles<Stream>,
    pub(super) events: Handles<Arc<Event>>,
    pub(super) modules: Handles<Module>,
    pub(super) functions: Handles<Function>,
    pub(super) graphs: Handles<Graph>,
    pub(super) executables: Handles<Arc<Executable>>,
}

// SAFETY: the handle that it holds is a number.
unsafe impl Send for Driver {}

static DRIVER: Mutex<Driver> = Mutex::new(Driver {
    is_initialised: false,
    retained: 0,
    contexts: Handles::new("context", 1),
    primary: std::ptr::null_mut(),
    streams: Handles::new("stream", 2),
    events: Handles::new("event", 3),
    modules: Handles::new("module", 4),
    functions: Handles::new("function", 5),
    graphs: Handles::new("graph", 6),
    executables: Handles::new("executable graph", 7),
});

thread_local! {
    static CURRENT: Cell<*mut c_void> = const { Cell::new(std::ptr::null_mut()) };
}

/// A panic while it was locked is reported where it happened; the state is used as it is.
pub(super) fn lock() -> MutexGuard<'static, Driver> {
    DRIVER.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Driver {
    pub(super) fn set_current(context: *mut c_void) {
        CURRENT.set(context);
    }

    pub(super) fn check(&mut self, needs: Needs) -> Answer {
        if needs == Needs::Nothing {
            return Ok(());
        }
        if !self.is_initialised {
            return Err(Refusal::new(status::NOT_INITIALIZED, "before cuInit"));
        }
        if needs == Needs::Context {
            let current = CURRENT.get();
            if current.is_null() {
                return Err(Refusal::new(status::INVALID_CONTEXT, "no context is current on this thread"));
            }
            self.contexts.get(current).map_err(|_| {
                Refusal::new(status::INVALID_CONTEXT, "the context that is current on this thread was released")
            })?;
            if let Some(failure) = streams::failure() {
                return Err(Refusal::quiet(failure.status, "the device has failed before"));
            }
        }
        Ok(())
    }

    /// Refuses a call that no capture survives.
    pub(super) fn refuse_in_capture(&mut self, what: &str) -> Answer {
        let mut refused = Ok(());
        for capture in self.streams.values().filter_map(|stream| stream.capture.as_mut()) {
            if capture.is_disturbed() {
                let why = format!("{what} while a stream is capturing");
                refused = Err(capture.invalidate(status::CAPTURE_UNSUPPORTED, &why));
            }
        }
        refused
    }

    /// Waits for all streams, as calls do that change memory.
    pub(super) fn wait_for_all(&mut self) {
        self.streams.values().for_each(|stream| stream.wait());
    }

    /// Destroys the context and what is left in it, and says what that was.
    pub(super) fn destroy_context(&mut self) {
        self.wait_for_all();
        cupti::report_enabled();
        self.report_leaks();
        self.streams.clear();
        self.events.clear();
        self.functions.clear();
        self.modules.clear();
        self.executables.clear();
        self.graphs.clear();
        DEVICE.clear();
        PINNED.clear();
        streams::forget_failure();
        let _ = self.contexts.remove(self.primary);
        self.primary = std::ptr::null_mut();
    }

    fn report_leaks(&self) {
        let memory = [(DEVICE.count(), "of device memory"), (PINNED.count(), "of pinned memory")];
        let mut left: Vec<String> = memory
            .iter()
            .filter(|((count, _), _)| *count > 0)
            .map(|((count, bytes), what)| format!("{count} allocation(s) {what}, {bytes} bytes"))
            .collect();
        let kinds = [
            self.streams.count(),
            self.events.count(),
            self.modules.count(),
            self.executables.count(),
            self.graphs.count(),
        ];
        left.extend(kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}(s)")));
        if !left.is_empty() {
            status::say(&format!("leaked: {}", left.join(", ")));
        }
    }
}

/// At the end of the process.
pub(super) extern "C" fn at_exit() {
    settings::report_calls();
    if let Ok(driver) = DRIVER.try_lock()
        && driver.retained > 0
    {
        status::say("the process ends while the context is retained");
        driver.report_leaks();
    }
}
