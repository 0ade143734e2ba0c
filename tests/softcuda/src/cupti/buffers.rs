//! Buffers of records: asked for where a record finds no room, given back when they are full or flushed.
//!
//! The program's callbacks are called without a lock held. So while one thread asks for a buffer, another may as well:
//! what is not needed at once is kept for later.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard};

use super::callbacks;
pub(super) use super::callbacks::now;
use super::flush;
use super::kinds;
use super::records::TIMES;

/// Whose buffers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum QueueId {
    Device,
    Thread(u64),
}

impl QueueId {
    /// Of this thread's own records.
    pub(super) fn of_thread() -> QueueId {
        static THREADS: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static NUMBER: Cell<u64> = const { Cell::new(0) };
        }
        if NUMBER.get() == 0 {
            NUMBER.set(THREADS.fetch_add(1, Relaxed));
        }
        QueueId::Thread(NUMBER.get())
    }
}

/// A buffer of the program's.
pub(super) struct Buffer {
    /// Its own among all that were handed in, even if the memory is the same.
    serial: u64,
    pub(super) addr: usize,
    pub(super) bytes: usize,
    pub(super) used: usize,
    records: usize,
    records_max: usize,
    /// Records that are not complete.
    pending: usize,
}

impl Buffer {
    /// Of memory that the program hands in. `records_max`: 0 for as many as there is room for.
    pub(super) fn new(addr: usize, bytes: usize, records_max: usize) -> Buffer {
        static SERIALS: AtomicU64 = AtomicU64::new(0);
        let records_max = if records_max == 0 { usize::MAX } else { records_max };
        Buffer { serial: SERIALS.fetch_add(1, Relaxed), addr, bytes, used: 0, records: 0, records_max, pending: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn is_complete(&self) -> bool {
        self.pending == 0
    }

    /// Appends a record; where. `None`: there is no room.
    pub(super) fn put(&mut self, record: &[u8], is_complete: bool) -> Option<usize> {
        if self.records == self.records_max || self.bytes - self.used < record.len() {
            return None;
        }
        let offset = self.used;
        // SAFETY: the program handed in so many bytes, and has not been given them back.
        unsafe { std::ptr::copy_nonoverlapping(record.as_ptr(), (self.addr + offset) as *mut u8, record.len()) };
        self.used += record.len();
        self.records += 1;
        self.pending += usize::from(!is_complete);
        Some(offset)
    }

    /// Writes a record's times, with which it is complete.
    fn complete(&mut self, offset: usize, times: (u64, u64)) {
        // SAFETY: a record of this buffer, as above; its bytes are multiples of 8, and so is the buffer's address.
        unsafe {
            let to = (self.addr + offset + TIMES) as *mut u64;
            to.write(times.0);
            to.add(1).write(times.1);
        }
        self.pending -= 1;
    }
}

/// A record in a buffer that is not complete yet.
pub(super) struct Slot {
    queue: QueueId,
    serial: u64,
    offset: usize,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) current: Option<Buffer>,
    /// Empty ones.
    pub(super) spare: Vec<Buffer>,
    /// Those that wait for records to be complete.
    pub(super) full: Vec<Buffer>,
}

impl Queue {
    /// Takes the current buffer away, if there is one; one that may be given back is the answer.
    fn turn(&mut self) -> Option<Buffer> {
        let old = self.current.take();
        self.current = self.spare.pop();
        let old = old?;
        if old.is_complete() {
            return Some(old);
        }
        self.full.push(old);
        None
    }
}

pub(super) struct State {
    pub(super) queues: BTreeMap<QueueId, Queue>,
    /// Buffers that are being given back.
    pub(super) delivering: usize,
    /// Buffers that the program handed in and has not got back.
    pub(super) held: usize,
    dropped: usize,
}

static STATE: Mutex<State> = Mutex::new(State { queues: BTreeMap::new(), delivering: 0, held: 0, dropped: 0 });
static DELIVERED: Condvar = Condvar::new();

pub(super) fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Writes a record; where, for what completes it later. `None`: there is no room for it, and it is counted as dropped.
pub(super) fn write(id: QueueId, record: &[u8], is_complete: bool) -> Option<Slot> {
    let mut requests = Vec::new();
    let slot = write_asking(id, record, is_complete, &mut requests);
    // Room that is needed for what is said of a request here gives no record again.
    for times in requests {
        write_asking(id, &flush::overhead(flush::BUFFER_REQUEST, times), true, &mut Vec::new());
    }
    slot
}

/// The same, with when the program was asked for buffers, if that is to be recorded.
fn write_asking(id: QueueId, record: &[u8], is_complete: bool, requests: &mut Vec<(u64, u64)>) -> Option<Slot> {
    loop {
        let full = {
            let mut state = lock();
            let queue = state.queues.entry(id).or_default();
            if let Some(buffer) = &mut queue.current
                && let Some(offset) = buffer.put(record, is_complete)
            {
                return Some(Slot { queue: id, serial: buffer.serial, offset });
            }
            let full = queue.turn();
            let has_other = queue.current.is_some();
            state.delivering += usize::from(full.is_some());
            if full.is_none() && has_other {
                continue;
            }
            full
        };
        if let Some(full) = full {
            deliver(full);
            continue;
        }
        let start = kinds::is_enabled(kinds::OVERHEAD).then(now);
        let buffer = callbacks::request(record.len());
        requests.extend(start.map(|start| (start, now())));
        let Some(buffer) = buffer else {
            drop_record();
            return None;
        };
        let mut state = lock();
        let queue = state.queues.entry(id).or_default();
        match &queue.current {
            Some(_) => queue.spare.push(buffer),
            None => queue.current = Some(buffer),
        }
    }
}

/// Completes a record. It may be gone, after a forced flush.
pub(super) fn complete(slot: &Slot, times: (u64, u64)) {
    let done = {
        let mut state = lock();
        let Some(queue) = state.queues.get_mut(&slot.queue) else {
            return;
        };
        if let Some(current) = queue.current.as_mut().filter(|buffer| buffer.serial == slot.serial) {
            return current.complete(slot.offset, times);
        }
        let Some(place) = queue.full.iter().position(|buffer| buffer.serial == slot.serial) else {
            return;
        };
        queue.full[place].complete(slot.offset, times);
        if !queue.full[place].is_complete() {
            return;
        }
        let done = queue.full.remove(place);
        state.delivering += 1;
        done
    };
    deliver(done);
}

/// Gives a buffer back that was counted as being given back.
pub(super) fn deliver(buffer: Buffer) {
    callbacks::give_back(&buffer);
    let mut state = lock();
    state.delivering -= 1;
    DELIVERED.notify_all();
}

/// Waits until no thread is giving a buffer back.
pub(super) fn wait_for_deliveries() {
    drop(DELIVERED.wait_while(lock(), |state| state.delivering > 0).unwrap_or_else(|poisoned| poisoned.into_inner()));
}

pub(super) fn drop_record() {
    lock().dropped += 1;
}

/// How many records were dropped since the last such question.
pub(super) fn take_dropped() -> usize {
    std::mem::take(&mut lock().dropped)
}

/// Buffers that are not given back; `None` if the state is in use.
pub(super) fn count_held() -> Option<usize> {
    STATE.try_lock().ok().map(|state| state.held)
}
