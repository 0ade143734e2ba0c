//! A program's side of CUPTI: functions for buffers and the time, and records as bytes.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::process::Cuda;

pub(crate) const MEMCPY: u64 = 1;
pub(crate) const MEMSET: u64 = 2;
pub(crate) const DRIVER: u64 = 4;
pub(crate) const KERNEL: u64 = 10;
pub(crate) const OVERHEAD: u64 = 17;

/// A record's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Record(pub(crate) Vec<u8>);

impl Record {
    pub(crate) fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.0[at..at + 2].try_into().expect("2 bytes"))
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("4 bytes"))
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().expect("8 bytes"))
    }

    pub(crate) fn kind(&self) -> u64 {
        self.u32(0).into()
    }

    /// Start and end of what the device did, and of calls.
    pub(crate) fn times(&self) -> (u64, u64) {
        let at = match self.kind() {
            DRIVER => 8,
            OVERHEAD => 24,
            _ => 16,
        };
        (self.u64(at), self.u64(at + 8))
    }
}

/// A buffer that was given back.
#[derive(Clone, Debug)]
pub(crate) struct Returned {
    pub(crate) records: Vec<Record>,
    /// Whether what lies behind the records is zeros.
    pub(crate) is_zeroed: bool,
    /// With what the walk ended.
    pub(crate) status: i32,
    pub(crate) thread: ThreadId,
}

/// How buffers are handed in.
#[derive(Clone, Copy)]
pub(crate) struct Handing {
    pub(crate) bytes: usize,
    pub(crate) records_max: usize,
    /// Into an allocation.
    pub(crate) offset: usize,
    /// What they hold.
    pub(crate) dirt: u8,
}

pub(crate) const BIG: Handing = Handing { bytes: 1 << 16, records_max: 0, offset: 0, dirt: 0xee };

static HANDING: Mutex<Handing> = Mutex::new(BIG);
static RETURNED: Mutex<Vec<Returned>> = Mutex::new(Vec::new());
static REQUESTS: AtomicUsize = AtomicUsize::new(0);
type NextRecord = unsafe extern "C" fn(*mut u8, usize, *mut *mut u8) -> i32;
static NEXT_RECORD: Mutex<Option<NextRecord>> = Mutex::new(None);
type FlushAll = unsafe extern "C" fn(u32) -> i32;
static FLUSH_IN_CALLBACK: Mutex<Option<FlushAll>> = Mutex::new(None);

const ROOM: usize = 64;

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + ROOM, 64).expect("a layout")
}

unsafe extern "C" fn requested(buffer: *mut *mut u8, bytes: *mut usize, records_max: *mut usize) {
    REQUESTS.fetch_add(1, SeqCst);
    let handing = *HANDING.lock().expect("not poisoned");
    let flush = *FLUSH_IN_CALLBACK.lock().expect("not poisoned");
    if let Some(flush) = flush {
        // SAFETY: a function of the library. It is refused.
        assert_eq!(unsafe { flush(0) }, 7, "INVALID_OPERATION");
    }
    if handing.bytes == 0 {
        // SAFETY: CUPTI's own.
        return unsafe { buffer.write(std::ptr::null_mut()) };
    }
    // SAFETY: memory of that layout; the pointers are CUPTI's.
    unsafe {
        let memory = if handing.dirt == 0 { alloc_zeroed(layout(handing.bytes)) } else { alloc(layout(handing.bytes)) };
        if handing.dirt != 0 {
            memory.write_bytes(handing.dirt, handing.bytes + ROOM);
        }
        buffer.write(memory.add(handing.offset));
        bytes.write(handing.bytes);
        records_max.write(handing.records_max);
    }
}

unsafe extern "C" fn completed(context: *mut c_void, stream: u32, buffer: *mut u8, bytes: usize, valid: usize) {
    assert!(context.is_null() && stream == 0 && valid <= bytes, "{context:?} {stream} {valid} of {bytes}");
    let next = NEXT_RECORD.lock().expect("not poisoned").expect("set when it was registered");
    let (mut record, mut begins) = (std::ptr::null_mut::<u8>(), Vec::new());
    // SAFETY: the buffer of so many bytes, and a pointer into it.
    let mut step = || unsafe { next(buffer, valid, &mut record) };
    let mut status = step();
    while status == 0 {
        begins.push(record as usize - buffer as usize);
        // SAFETY: as above.
        status = unsafe { next(buffer, valid, &mut record) };
    }
    let ends = begins.iter().copied().skip(1).chain([valid]);
    // SAFETY: the valid part of the buffer; and memory that `requested` allocated.
    let (records, is_zeroed) = unsafe {
        let all = std::slice::from_raw_parts(buffer, bytes);
        let is_zeroed = all[valid..].iter().all(|&byte| byte == 0);
        let records = begins.iter().zip(ends).map(|(&begin, end)| Record(all[begin..end].to_vec())).collect();
        dealloc((buffer as usize / 64 * 64) as *mut u8, layout(bytes));
        (records, is_zeroed)
    };
    let thread = std::thread::current().id();
    RETURNED.lock().expect("not poisoned").push(Returned { records, is_zeroed, status, thread });
}

static TIME: AtomicU64 = AtomicU64::new(1_000);
static GATE: Mutex<Gate> = Mutex::new(Gate { owner: None, stopped: None });
static OPENED: Condvar = Condvar::new();

/// Who closed the clock, and whom it stops: the first other thread that asks.
struct Gate {
    owner: Option<ThreadId>,
    stopped: Option<ThreadId>,
}

/// Goes on by 10 each time.
unsafe extern "C" fn clock() -> u64 {
    let mine = std::thread::current().id();
    let mut gate = GATE.lock().expect("not poisoned");
    if gate.owner.is_some_and(|owner| owner != mine) && *gate.stopped.get_or_insert(mine) == mine {
        drop(OPENED.wait_while(gate, |gate| gate.owner.is_some()).expect("not poisoned"));
    }
    10 + TIME.fetch_add(10, SeqCst)
}

/// From here on, the first other thread that asks for the time waits.
pub(crate) fn close_clock() {
    *GATE.lock().expect("not poisoned") = Gate { owner: Some(std::thread::current().id()), stopped: None };
}

pub(crate) fn open_clock() {
    GATE.lock().expect("not poisoned").owner = None;
    OPENED.notify_all();
}

/// Waits for something that has to happen soon.
pub(crate) fn wait_until(what: &str, happened: impl Fn() -> bool) {
    let begin = Instant::now();
    while !happened() {
        if begin.elapsed() > Duration::from_secs(20) {
            // Other threads may wait for this one: there is no end to wait for.
            eprintln!("in vain: {what}");
            std::process::exit(1);
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Waits until another thread waits for the time.
pub(crate) fn wait_for_clock() {
    wait_until("another thread asks for the time", || GATE.lock().expect("not poisoned").stopped.is_some());
}

/// A program that has registered its functions.
pub(crate) struct Cupti<'a>(pub(crate) &'a Cuda);

impl<'a> Cupti<'a> {
    pub(crate) fn begin(cuda: &'a Cuda, kinds: &[u64]) -> Cupti<'a> {
        let cupti = Cupti(cuda);
        assert_eq!(cupti.register(), 0);
        assert_eq!(cupti.register_clock(), 0);
        kinds.iter().for_each(|&kind| cupti.enable(kind));
        cupti
    }

    pub(crate) fn register(&self) -> i32 {
        *NEXT_RECORD.lock().expect("not poisoned") = Some(self.0.symbol("cuptiActivityGetNextRecord"));
        let functions = [requested as *const () as u64, completed as *const () as u64];
        self.0.status("cuptiActivityRegisterCallbacks", &functions)
    }

    pub(crate) fn register_clock(&self) -> i32 {
        self.0.status("cuptiActivityRegisterTimestampCallback", &[clock as *const () as u64])
    }

    pub(crate) fn enable(&self, kind: u64) {
        assert_eq!(self.0.status("cuptiActivityEnable", &[kind]), 0, "kind {kind}");
    }

    pub(crate) fn disable(&self, kind: u64) {
        assert_eq!(self.0.status("cuptiActivityDisable", &[kind]), 0, "kind {kind}");
    }

    pub(crate) fn hand(&self, handing: Handing) {
        *HANDING.lock().expect("not poisoned") = handing;
    }

    pub(crate) fn flush_in_callbacks(&self, does: bool) {
        *FLUSH_IN_CALLBACK.lock().expect("not poisoned") = does.then(|| self.0.symbol("cuptiActivityFlushAll"));
    }

    /// What was given back since the last time.
    pub(crate) fn returned(&self) -> Vec<Returned> {
        std::mem::take(&mut *RETURNED.lock().expect("not poisoned"))
    }

    /// Flushes; what was given back since the last time.
    pub(crate) fn flush(&self, is_forced: bool) -> Vec<Returned> {
        assert_eq!(self.0.status("cuptiActivityFlushAll", &[is_forced.into()]), 0);
        self.returned()
    }

    /// The records of a forced flush, each buffer of which ended well.
    pub(crate) fn records(&self) -> Vec<Record> {
        let returned = self.flush(true);
        assert!(returned.iter().all(|buffer| buffer.status == 12), "{returned:?}");
        returned.into_iter().flat_map(|buffer| buffer.records).collect()
    }

    pub(crate) fn dropped(&self) -> u64 {
        let mut dropped = u64::MAX;
        assert_eq!(self.0.status("cuptiActivityGetNumDroppedRecords", &[0, 0, &raw mut dropped as u64]), 0);
        dropped
    }

    /// A number that a call gives for a handle.
    pub(crate) fn id(&self, name: &str, handle: u64) -> u64 {
        let mut id = 0u64;
        assert_eq!(self.0.status(name, &[handle, &raw mut id as u64]), 0, "{name}");
        id
    }
}

/// While it is held, functions for buffers wait.
pub(crate) fn hold_requests() -> MutexGuard<'static, Handing> {
    HANDING.lock().expect("not poisoned")
}

/// How often buffers were asked for.
pub(crate) fn requests() -> usize {
    REQUESTS.load(SeqCst)
}
