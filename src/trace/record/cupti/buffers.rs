//! Buffers of records: CUPTI asks for empty ones and hands full ones over, by callbacks that know nothing but
//! themselves. So the pool is this process's own, as CUPTI is.
//!
//! Buffers are zeroed, which CUPTI would otherwise do in the thread that has a record to write. There is a limit to
//! them: beyond it CUPTI gets none, drops records and counts them.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard};

/// Bytes of a buffer: some 20,000 records of kernels.
pub(super) const BUFFER_BYTES: usize = 4 << 20;

/// The most buffers that there are: 256 MiB.
const BUFFERS_MAX: usize = 64;

/// Buffers that are there before the first record. The threads that have records allocate more if they have many; of
/// any buffer, they are the first to touch its pages.
const BUFFERS_READY: usize = 8;

/// Buffers that there are: free, with CUPTI, on their way back, and wherever else one is.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A buffer, aligned to 8 bytes.
pub(super) struct Buffer(Box<[u64]>);

impl Buffer {
    pub(super) fn new() -> Buffer {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Buffer(vec![0; BUFFER_BYTES / size_of::<u64>()].into_boxed_slice())
    }

    /// Its address. It still counts.
    fn into_raw(self) -> *mut u8 {
        let mut buffer = ManuallyDrop::new(self);
        Box::into_raw(std::mem::take(&mut buffer.0)).cast()
    }

    /// # Safety
    /// The address came from [`Buffer::into_raw`], and nobody else uses it.
    unsafe fn from_raw(addr: *mut u8) -> Buffer {
        let words = std::ptr::slice_from_raw_parts_mut(addr.cast::<u64>(), BUFFER_BYTES / size_of::<u64>());
        // SAFETY: by this function's contract it is a box of so many words.
        Buffer(unsafe { Box::from_raw(words) })
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the words are as many bytes, which may have any value.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), BUFFER_BYTES) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A buffer that came back, and how many of its bytes are records.
pub(super) struct FullBuffer {
    pub(super) buffer: Buffer,
    pub(super) bytes: usize,
}

impl FullBuffer {
    /// Empties it.
    pub(super) fn zero(&mut self) {
        let words = self.bytes.div_ceil(size_of::<u64>()).min(self.buffer.0.len());
        self.buffer.0[..words].fill(0);
        self.bytes = 0;
    }
}

struct Pool {
    /// All zero.
    free: Vec<Buffer>,
    /// Addresses that CUPTI has.
    out: Vec<usize>,
    /// Takes what comes back; `None` while nothing is recorded.
    full: Option<Sender<FullBuffer>>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), out: Vec::new(), full: None });

/// No code panics while it has it.
fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Opens the pool for a session: what comes back goes to the receiver. `None` if another session has it.
pub(super) fn open() -> Option<Receiver<FullBuffer>> {
    let mut pool = pool();
    if pool.full.is_some() {
        return None;
    }
    let (full, receiver) = channel();
    pool.full = Some(full);
    let missing = BUFFERS_READY.min(BUFFERS_MAX.saturating_sub(COUNT.load(Ordering::Relaxed)));
    pool.free.extend((0..missing).map(|_| Buffer::new()));
    pool.out.reserve(BUFFERS_MAX);
    Some(receiver)
}

/// Whether a session has the pool.
pub(super) fn is_open() -> bool {
    pool().full.is_some()
}

/// Ends the session: the receiver has what came so far, and then its end. What CUPTI still has comes back one day.
pub(super) fn close() {
    let mut pool = pool();
    pool.full = None;
    pool.free = Vec::new();
}

/// Takes a buffer back whose records have been read.
pub(super) fn give_back(mut full: FullBuffer) {
    full.zero();
    let mut pool = pool();
    if pool.full.is_some() {
        pool.free.push(full.buffer);
    }
}

/// CUPTI needs a buffer.
///
/// # Safety
/// The addresses may be written.
pub(super) unsafe extern "C" fn requested(buffer: *mut *mut u8, bytes: *mut usize, records_max: *mut usize) {
    let given = {
        let mut pool = pool();
        let buffer = match pool.free.pop() {
            _ if pool.full.is_none() => None,
            None if COUNT.load(Ordering::Relaxed) >= BUFFERS_MAX => None,
            None => Some(Buffer::new().into_raw()),
            Some(buffer) => Some(buffer.into_raw()),
        };
        pool.out.extend(buffer.map(|addr| addr as usize));
        buffer
    };
    // SAFETY: by this function's contract. No limit to the number of records.
    unsafe {
        *buffer = given.unwrap_or(std::ptr::null_mut());
        *bytes = if given.is_some() { BUFFER_BYTES } else { 0 };
        *records_max = 0;
    }
}

/// CUPTI hands a buffer over.
///
/// # Safety
/// The buffer came from [`requested`], and CUPTI is done with it.
pub(super) unsafe extern "C" fn completed(
    _context: cudarc::driver::sys::CUcontext,
    _stream: u32,
    buffer: *mut u8,
    _bytes: usize,
    valid_bytes: usize,
) {
    let mut pool = pool();
    let Some(at) = pool.out.iter().position(|addr| *addr == buffer as usize) else { return };
    pool.out.swap_remove(at);
    // SAFETY: it is one that was given out, and has come back just now.
    let buffer = unsafe { Buffer::from_raw(buffer) };
    let full = FullBuffer { buffer, bytes: valid_bytes.min(BUFFER_BYTES) };
    // It is nobody's any more if nothing is recorded, or the session's thread has ended before its time.
    if let Some(session) = &pool.full {
        let _ = session.send(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> (*mut u8, usize) {
        let (mut buffer, mut bytes, mut records_max) = (std::ptr::null_mut(), 1, 1);
        // SAFETY: three places of this function.
        unsafe { requested(&mut buffer, &mut bytes, &mut records_max) };
        assert_eq!(records_max, 0);
        (buffer, bytes)
    }

    #[test]
    fn buffers_are_zeroed_and_there_is_a_limit_to_them() {
        assert_eq!(request(), (std::ptr::null_mut(), 0), "nothing is recorded");
        let full = open().expect("the pool is free");
        assert!(open().is_none(), "one session at a time");
        let given: Vec<*mut u8> = (0..BUFFERS_MAX).map(|_| request().0).collect();
        assert!(given.iter().all(|buffer| !buffer.is_null() && buffer.addr().is_multiple_of(8)));
        assert_eq!(request(), (std::ptr::null_mut(), 0), "the limit");
        // SAFETY: each has BUFFER_BYTES, and came from `requested`.
        unsafe {
            given[0].write_bytes(7, 100);
            completed(std::ptr::null_mut(), 0, given[0], BUFFER_BYTES, 100);
            completed(std::ptr::null_mut(), 0, std::ptr::dangling_mut(), BUFFER_BYTES, 100);
        }
        assert_eq!(request(), (std::ptr::null_mut(), 0), "it is on its way");
        let mut back = full.try_recv().expect("what came back");
        assert_eq!((back.buffer.as_mut_ptr(), back.bytes), (given[0], 100));
        assert!(full.try_recv().is_err(), "what is none of ours is not taken");
        give_back(back);
        let (again, bytes) = request();
        assert_eq!((again, bytes), (given[0], BUFFER_BYTES));
        // SAFETY: as above.
        assert!(unsafe { std::slice::from_raw_parts(again, 104) }.iter().all(|byte| *byte == 0), "zeroed again");
        close();
        assert!(full.recv().is_err(), "the end");
        for buffer in &given {
            // SAFETY: as above.
            unsafe { completed(std::ptr::null_mut(), 0, *buffer, BUFFER_BYTES, 0) };
        }
        let pool = pool();
        assert!(pool.out.is_empty() && pool.free.is_empty(), "what comes late is freed");
        assert_eq!(COUNT.load(Ordering::Relaxed), 0);
    }
}
