//! Memory in an address range of its own. Each allocation ends where memory ends, up to its alignment, and no address
//! is given out twice: an access beyond an allocation or after its end meets no memory.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::RwLock;

const PAGE: u64 = 4096;
const ALIGNMENT: u64 = 256;
const ROOM: u64 = 4 << 40;
/// What new memory holds, and the bytes between an allocation's end and the end of memory.
const SPOILED: u8 = 0xff;
const BEHIND: u8 = 0x5a;
/// New memory is spoiled as far as this: large allocations are not to be touched as a whole.
const SPOILED_BYTES_MAX: u64 = 1 << 20;

/// The device's memory.
pub(super) static DEVICE: Arena = Arena::new(0x2000_0000_0000);
/// Pinned memory of the host.
pub(super) static PINNED: Arena = Arena::new(0x3000_0000_0000);

pub(super) struct Arena {
    base: u64,
    inner: RwLock<Inner>,
}

struct Inner {
    /// Where the next allocation may begin; 0 before the range is reserved.
    next: u64,
    used: u64,
    live: BTreeMap<u64, Allocation>,
}

#[derive(Clone)]
struct Allocation {
    bytes: u64,
    pages: Range<u64>,
}

fn rounded(value: u64, to: u64) -> u64 {
    value.div_ceil(to) * to
}

impl Arena {
    const fn new(base: u64) -> Arena {
        Arena { base, inner: RwLock::new(Inner { next: 0, used: 0, live: BTreeMap::new() }) }
    }

    /// Whether an address lies in the range, whatever is there.
    pub(super) fn is_range_of(&self, addr: u64) -> bool {
        (self.base..self.base + ROOM).contains(&addr)
    }

    /// Whether all these bytes are in one allocation.
    pub(super) fn holds(&self, addr: u64, bytes: u64) -> bool {
        let inner = self.inner.read().expect("not poisoned");
        let found = inner.live.range(..=addr).next_back();
        found.is_some_and(|(begin, found)| addr.checked_add(bytes).is_some_and(|end| end <= begin + found.bytes))
    }

    /// Bytes in use, whole pages.
    pub(super) fn used(&self) -> u64 {
        self.inner.read().expect("not poisoned").used
    }

    /// Allocations and their bytes.
    pub(super) fn count(&self) -> (usize, u64) {
        let inner = self.inner.read().expect("not poisoned");
        (inner.live.len(), inner.live.values().map(|found| found.bytes).sum())
    }

    /// Memory; `None` if the host has none, or more than `limit` bytes would be in use.
    pub(super) fn alloc(&self, bytes: u64, limit: u64) -> Option<u64> {
        let mut inner = self.inner.write().expect("not poisoned");
        if inner.next == 0 {
            map(self.base..self.base + ROOM, libc::PROT_NONE, libc::MAP_FIXED_NOREPLACE)?;
            inner.next = self.base + PAGE;
        }
        let size = rounded(bytes.checked_add(ALIGNMENT)?, PAGE);
        if inner.used.checked_add(size)? > limit || inner.next + size + PAGE > self.base + ROOM {
            return None;
        }
        let pages = inner.next..inner.next + size;
        map(pages.clone(), libc::PROT_READ | libc::PROT_WRITE, libc::MAP_FIXED)?;
        let addr = pages.end - rounded(bytes, ALIGNMENT);
        // SAFETY: the pages were just mapped, and are known to nobody else.
        unsafe {
            std::ptr::write_bytes(addr as *mut u8, SPOILED, bytes.min(SPOILED_BYTES_MAX) as usize);
            std::ptr::write_bytes((addr + bytes) as *mut u8, BEHIND, (pages.end - addr - bytes) as usize);
        }
        inner.next = pages.end + PAGE;
        inner.used += size;
        inner.live.insert(addr, Allocation { bytes, pages });
        Some(addr)
    }

    /// Gives memory back. `None`: nothing was allocated at this address; else whether nothing was written behind it.
    pub(super) fn free(&self, addr: u64) -> Option<bool> {
        let mut inner = self.inner.write().expect("not poisoned");
        let found = inner.live.remove(&addr)?;
        // SAFETY: the bytes between the end of an allocation and of its pages are mapped, and nobody uses them.
        let behind = unsafe {
            let end = addr + found.bytes;
            std::slice::from_raw_parts(end as *const u8, (found.pages.end - end) as usize)
        };
        let is_whole = behind.iter().all(|&byte| byte == BEHIND);
        inner.used -= found.pages.end - found.pages.start;
        map(found.pages, libc::PROT_NONE, libc::MAP_FIXED)?;
        Some(is_whole)
    }

    /// Gives everything back.
    pub(super) fn clear(&self) {
        let live: Vec<u64> = self.inner.read().expect("not poisoned").live.keys().copied().collect();
        for addr in live {
            self.free(addr);
        }
    }
}

/// Fills memory of an allocation. Zeros over whole pages are had by giving the pages back.
pub(super) fn fill(addr: u64, value: u8, bytes: u64) {
    let pages = rounded(addr, PAGE)..(addr + bytes) / PAGE * PAGE;
    let whole = if value == 0 && pages.end > pages.start { pages } else { addr..addr };
    // SAFETY: the caller has found the bytes in an allocation; the pages lie within them.
    unsafe {
        if !whole.is_empty() {
            libc::madvise(whole.start as *mut c_void, (whole.end - whole.start) as usize, libc::MADV_DONTNEED);
        }
        let (before, after) = if whole.is_empty() { (addr, addr) } else { (whole.start, whole.end) };
        std::ptr::write_bytes(addr as *mut u8, value, (before - addr) as usize);
        std::ptr::write_bytes(after as *mut u8, value, (addr + bytes - after) as usize);
    }
}

/// Maps fresh private pages; `None` if that fails.
fn map(range: Range<u64>, protection: i32, how: i32) -> Option<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | how;
    let bytes = (range.end - range.start) as usize;
    // SAFETY: the range is in an arena: reserved by it, or refused if something else is there.
    let mapped = unsafe { libc::mmap(range.start as *mut c_void, bytes, protection, flags, -1, 0) };
    (mapped as u64 == range.start).then_some(())
}
