//! Flushes, and records of the time that CUPTI itself takes.

use super::buffers::{self, Buffer, Queue, QueueId, State};
use super::driver_calls::thread_id;
use super::kinds;
use super::records::{OverheadRecord, Record};

/// Kinds of overheads, by their numbers in cupti_activity.h.
const BUFFER_FLUSH: u32 = 1 << 16;
pub(super) const BUFFER_REQUEST: u32 = 7 << 16;

/// Overheads are of a thread.
const OBJECT_THREAD: u32 = 2;

/// A record of this thread's time.
pub(super) fn overhead(overhead_kind: u32, (start, end): (u64, u64)) -> Vec<u8> {
    let record = OverheadRecord {
        kind: kinds::OVERHEAD,
        overhead_kind,
        object_kind: OBJECT_THREAD,
        process_id: std::process::id(),
        thread_id: thread_id(),
        start,
        end,
        ..OverheadRecord::default()
    };
    record.bytes()
}

/// Gives back the buffers with records, all of which are complete; if it is forced, all buffers. Returns when other
/// threads have given back theirs, too.
pub(super) fn flush_all(is_forced: bool) {
    let start = kinds::is_enabled(kinds::OVERHEAD).then(buffers::now);
    let mut taken = take(is_forced, |_| true);
    let Some(mut last) = taken.pop() else {
        return buffers::wait_for_deliveries();
    };
    taken.into_iter().for_each(buffers::deliver);
    // The flush's own record is in the buffer that is given back last, if there is room.
    let record = start.map(|start| overhead(BUFFER_FLUSH, (start, buffers::now())));
    let record = record.filter(|record| last.put(record, true).is_none());
    buffers::deliver(last);
    if let Some(record) = record {
        buffers::write(QueueId::of_thread(), &record, true);
        if is_forced {
            take(true, |id| id == QueueId::of_thread()).into_iter().for_each(buffers::deliver);
        }
    }
    buffers::wait_for_deliveries();
}

/// Takes what a flush gives back out of these queues; counted as being given back.
fn take(is_forced: bool, of: impl Fn(QueueId) -> bool) -> Vec<Buffer> {
    let mut state = buffers::lock();
    let State { queues, delivering, .. } = &mut *state;
    let mut taken = Vec::new();
    for (_, queue) in queues.iter_mut().filter(|(id, _)| of(**id)) {
        let Queue { current, spare, full } = queue;
        let is_due = |buffer: &Buffer| is_forced || (buffer.is_complete() && !buffer.is_empty());
        taken.extend(full.extract_if(.., |buffer| is_due(buffer)));
        taken.extend(current.take_if(|buffer| is_due(buffer)));
        if is_forced {
            taken.append(spare);
        }
    }
    queues.retain(|_, queue| queue.current.is_some() || !queue.full.is_empty() || !queue.spare.is_empty());
    *delivering += taken.len();
    taken
}
