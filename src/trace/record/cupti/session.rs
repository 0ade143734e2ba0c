//! A session: from the enabling of kinds of records to the last buffer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use cudarc::cupti::sys::CUpti_ActivityKind as Kind;

use super::buffers::{self, FullBuffer};
use super::decoder::{Decoded, Decoder};
use super::library::{Cupti, CuptiError};
use super::{ActivityLibrary, IS_TROUBLED, TROUBLE, lock};
use crate::trace::record::sink::Sink;

/// What is recorded: kernels as they run beside each other, and never the kinds that serialise them or put whole graphs
/// in place of their nodes.
const KINDS: [Kind; 5] = [
    Kind::CUPTI_ACTIVITY_KIND_DRIVER,
    Kind::CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
    Kind::CUPTI_ACTIVITY_KIND_MEMCPY,
    Kind::CUPTI_ACTIVITY_KIND_MEMSET,
    Kind::CUPTI_ACTIVITY_KIND_OVERHEAD,
];

/// Hands over buffers with incomplete records, too: CUPTI_ACTIVITY_FLAG_FLUSH_FORCED.
const FLUSH_FORCED: u32 = 1;

/// CUPTI at work.
#[derive(Debug)]
pub(in crate::trace::record) struct Session {
    library: String,
    switch: Switch,
    /// Its kinds of records were switched on.
    is_on: bool,
    has_ended: bool,
    /// What went wrong when its kinds of records were switched off before its end, if they were.
    quiesced: Option<Vec<String>>,
    buffers: Option<Receiver<FullBuffer>>,
    decoder: Option<JoinHandle<Decoded>>,
}

impl Session {
    /// Begins to record, with nothing under way. The error is a sentence, and nothing is recorded then.
    pub(super) fn begin() -> Result<Session, String> {
        let mut session = Session::open()?;
        session.switch_on()?;
        Ok(session)
    }

    /// Prepares to record. The error is a sentence.
    pub(in crate::trace::record) fn open() -> Result<Session, String> {
        let ActivityLibrary { cupti } = ActivityLibrary::get()?;
        if let Some(trouble) = &*lock(&TROUBLE) {
            return Err(trouble.clone());
        }
        let buffers = buffers::open().ok_or("another recording of this process uses CUPTI")?;
        let switch = Switch { cupti, given_up: Arc::new(AtomicBool::new(false)) };
        let (library, buffers) = (cupti.name(), Some(buffers));
        Ok(Session { library, switch, is_on: false, has_ended: false, quiesced: None, buffers, decoder: None })
    }

    /// Records from here on, with nothing under way. The error is a sentence; the session is to be dropped then.
    pub(in crate::trace::record) fn switch_on(&mut self) -> Result<(), String> {
        if self.is_given_up() {
            return Err("CUPTI failed before the recording began".into()); // whoever gave it up switched it off
        }
        self.is_on = true; // also if it fails for the second kind
        self.switch.on().map_err(|error| error.to_string())
    }

    /// The library's name and version.
    pub(in crate::trace::record) fn library(&self) -> &str {
        &self.library
    }

    /// Starts the thread that decodes.
    pub(in crate::trace::record) fn decode_into(&mut self, sink: Sink) -> std::io::Result<()> {
        let Some(buffers) = self.buffers.take() else { return Ok(()) };
        let decoder = Decoder::new(&self.switch.cupti, Some(self.switch.clone()), sink);
        let thread = std::thread::Builder::new().name("vitrum-cupti".into());
        self.decoder = Some(thread.spawn(move || decoder.run(&buffers))?);
        Ok(())
    }

    /// Whether the library is of no use any more: it was switched off, or some graph's nodes are not known to it.
    pub(in crate::trace::record) fn is_given_up(&self) -> bool {
        self.switch.given_up.load(Ordering::Relaxed) || IS_TROUBLED.load(Ordering::Relaxed)
    }

    /// What is launched from now on is not recorded. With nothing under way.
    pub(in crate::trace::record) fn quiesce(&mut self) {
        if self.quiesced.is_none() {
            self.quiesced = Some(self.switch.off());
        }
    }

    /// Ends it, with nothing under way, if nobody decodes: the buffers that came, the library that filled them, how
    /// many records it had no room for, and what went wrong.
    pub(super) fn stop_undecoded(mut self) -> (Receiver<FullBuffer>, Cupti, u64, Vec<String>) {
        let (dropped, errors) = self.switch_off();
        let buffers = self.buffers.take().expect("no thread was started that decodes");
        (buffers, self.switch.cupti, dropped, errors)
    }

    /// How many records there was no room for, and what went wrong.
    fn switch_off(&mut self) -> (u64, Vec<String>) {
        self.has_ended = true;
        let (mut errors, mut dropped) = (Vec::new(), 0);
        if self.is_on {
            errors = self.quiesced.take().unwrap_or_else(|| self.switch.off());
            dropped = self.switch.flush(&mut errors);
        }
        buffers::close();
        (dropped, errors)
    }

    /// Ends it, with nothing under way: every record is there then, or counted.
    pub(in crate::trace::record) fn stop(mut self) -> Decoded {
        let (dropped, errors) = self.switch_off();
        let mut decoded = match self.decoder.take().map(JoinHandle::join) {
            Some(Ok(decoded)) => decoded,
            Some(Err(_)) => Decoded::failed("the thread that decodes records ended before its time"),
            None => Decoded::default(),
        };
        decoded.counts.dropped += dropped;
        // Of graphs that were captured meanwhile.
        for error in lock(&TROUBLE).clone().into_iter().chain(errors) {
            if !decoded.counts.errors.contains(&error) {
                decoded.counts.errors.push(error);
            }
        }
        decoded
    }
}

/// A session that is not stopped is of a recording that failed or never began: nobody counts its records.
impl Drop for Session {
    fn drop(&mut self) {
        if !self.has_ended {
            for error in self.switch_off().1 {
                tracing::warn!("ending a recording: {error}");
            }
            if let Some(decoder) = self.decoder.take() {
                let _ = decoder.join(); // it is nobody's any more
            }
        }
    }
}

/// One flush at a time: the engine's thread may end a session while the decoder's asks for buffers.
static FLUSH: Mutex<()> = Mutex::new(());

/// Switches CUPTI on and off.
#[derive(Clone)]
pub(super) struct Switch {
    pub(super) cupti: Cupti,
    given_up: Arc<AtomicBool>,
}

impl Switch {
    fn on(&self) -> Result<(), CuptiError> {
        let mut dropped = 0;
        // SAFETY: CUPTI writes one number; it counts from here on. The kinds are known to every version.
        unsafe {
            self.cupti.cuptiActivityGetNumDroppedRecords(std::ptr::null_mut(), 0, &mut dropped)?;
            KINDS.into_iter().try_for_each(|kind| self.cupti.cuptiActivityEnable(kind))
        }
    }

    /// What went wrong with it.
    fn off(&self) -> Vec<String> {
        if self.given_up.load(Ordering::Acquire) {
            return Vec::new(); // it is off
        }
        // SAFETY: the kinds are known to every version. Those that are off stay so.
        let failed = KINDS.into_iter().filter_map(|kind| unsafe { self.cupti.cuptiActivityDisable(kind) }.err());
        failed.map(|error| error.to_string()).collect()
    }

    /// Switches it off before the session's end.
    pub(super) fn give_up(&self) -> Vec<String> {
        let errors = self.off();
        self.given_up.store(true, Ordering::Release);
        errors
    }

    /// Has those buffers handed over whose records are all complete; what went wrong.
    pub(super) fn flush_complete(&self) -> Option<String> {
        let _flush = lock(&FLUSH);
        // SAFETY: the callbacks are registered, and this is none of them.
        unsafe { self.cupti.cuptiActivityFlushAll(0) }.err().map(|error| error.to_string())
    }

    /// Has all buffers handed over; how many records CUPTI had no room for.
    fn flush(&self, errors: &mut Vec<String>) -> u64 {
        let (mut dropped, _flush) = (0, lock(&FLUSH));
        // SAFETY: the callbacks are registered, and this is none of them; CUPTI writes one number.
        let calls = unsafe {
            [
                self.cupti.cuptiActivityFlushAll(0),
                self.cupti.cuptiActivityFlushAll(FLUSH_FORCED),
                self.cupti.cuptiActivityGetNumDroppedRecords(std::ptr::null_mut(), 0, &mut dropped),
            ]
        };
        errors.extend(calls.into_iter().filter_map(|call| Some(call.err()?.to_string())));
        dropped as u64
    }
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cupti.name())
    }
}
