//! The device's memory: zeroed, at fixed addresses, advised for huge pages, freed when the device closes.
//!
//! Buffers are cut one after the other from large chunks of address space, so that many small ones share huge pages and
//! the weights of a layer lie side by side. A chunk costs memory only where it is touched.

use std::sync::Once;

use memmap2::MmapMut;

use crate::device::buffers::Buffers;
use crate::device::{DeviceBuffer, DeviceError};

/// The size of a huge page, and the alignment of buffers that are at least as large.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Small buffers begin on a cache line.
const ALIGN_BYTES: usize = 64;

/// Address space taken at once. A larger buffer gets a chunk of its own.
const CHUNK_BYTES: usize = 64 << 20;

/// No buffer is larger, whatever the limit: so sums of an address and a size do not overflow.
const BUFFER_BYTES_MAX: usize = isize::MAX as usize / 2;

/// Memory of one device.
#[derive(Debug)]
pub(super) struct Memory {
    /// Kept to be unmapped at the end; only the last one is still cut from.
    chunks: Vec<MmapMut>,
    /// The part of the last chunk that is free: address and end.
    free: (u64, u64),
    buffers: Buffers,
    used_bytes: u64,
    limit_bytes: u64,
}

impl Memory {
    pub(super) fn new(limit_bytes: u64) -> Memory {
        Memory { chunks: Vec::new(), free: (0, 0), buffers: Buffers::default(), used_bytes: 0, limit_bytes }
    }

    /// The most bytes that buffers may add up to.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// The buffers given out so far.
    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Zeroed memory, aligned to a cache line, or to a huge page if it is at least as large as one.
    pub(super) fn alloc(&mut self, bytes: usize, purpose: &'static str) -> Result<DeviceBuffer, DeviceError> {
        let out_of_memory = |source| DeviceError::OutOfMemory { bytes, purpose, source };
        if bytes > BUFFER_BYTES_MAX || bytes as u64 > self.limit_bytes - self.used_bytes {
            return Err(out_of_memory(std::io::ErrorKind::OutOfMemory.into()));
        }
        let align = if bytes < HUGE_PAGE_BYTES { ALIGN_BYTES } else { HUGE_PAGE_BYTES } as u64;
        // No two buffers at one address, not even empty ones.
        let room = (bytes.max(1) as u64).next_multiple_of(ALIGN_BYTES as u64);
        let mut addr = self.free.0.next_multiple_of(align);
        if addr + room > self.free.1 {
            let chunk = map_huge(room.max(CHUNK_BYTES as u64) as usize).map_err(out_of_memory)?;
            addr = aligned_addr(&chunk);
            self.free.1 = addr + room.max(CHUNK_BYTES as u64);
            self.chunks.push(chunk);
        }
        self.free.0 = addr + room;
        self.used_bytes += bytes as u64;
        let buffer = DeviceBuffer { addr, bytes };
        self.buffers.insert(buffer);
        Ok(buffer)
    }
}

/// Maps zeroed memory, a huge page more than asked for, so that its use can begin at [`aligned_addr`].
pub(super) fn map_huge(bytes: usize) -> std::io::Result<MmapMut> {
    let with_slack = bytes.checked_add(HUGE_PAGE_BYTES).ok_or(std::io::ErrorKind::OutOfMemory)?;
    let map = MmapMut::map_anon(with_slack)?;
    advise_huge(&map);
    Ok(map)
}

/// The first address in a map of [`map_huge`] that is aligned to a huge page.
pub(super) fn aligned_addr(map: &MmapMut) -> u64 {
    (map.as_ptr().expose_provenance() as u64).next_multiple_of(HUGE_PAGE_BYTES as u64)
}

#[cfg(target_os = "linux")]
fn advise_huge(map: &MmapMut) {
    static SAID: Once = Once::new();
    if let Err(error) = map.advise(memmap2::Advice::HugePage) {
        SAID.call_once(|| tracing::warn!(%error, "no huge pages: reading weights will be slower"));
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_huge(_: &MmapMut) {
    static SAID: Once = Once::new();
    SAID.call_once(|| tracing::info!("this system takes no advice on huge pages"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_zero(buffer: &DeviceBuffer) -> bool {
        // SAFETY: the buffer was just given out by a Memory that lives to the end of the test.
        unsafe { std::slice::from_raw_parts(buffer.addr as *const u8, buffer.bytes) }.iter().all(|byte| *byte == 0)
    }

    #[test]
    fn buffers_are_zeroed_aligned_and_apart() {
        let mut memory = Memory::new(1 << 30);
        let sizes = [1, 0, 63, 64, 65, 4096, 553_000, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 5 << 20, 70 << 20, 3];
        let mut end = Vec::new();
        for bytes in sizes {
            let buffer = memory.alloc(bytes, "test").unwrap();
            let align = if bytes < HUGE_PAGE_BYTES { 64 } else { HUGE_PAGE_BYTES } as u64;
            assert_eq!(buffer.addr % align, 0, "{bytes} bytes");
            assert!(is_zero(&buffer));
            // SAFETY: as in `is_zero`.
            unsafe { (buffer.addr as *mut u8).write_bytes(0xff, bytes) };
            assert!(memory.buffers().holds(buffer.addr, bytes) && !memory.buffers().holds(buffer.addr, bytes + 64));
            end.push((buffer.addr, buffer.addr + bytes as u64));
        }
        end.sort_unstable();
        assert!(end.windows(2).all(|w| w[0].1 <= w[1].0 && w[0].0 < w[1].0));
    }

    #[test]
    fn small_buffers_share_a_chunk() {
        let mut memory = Memory::new(1 << 30);
        let buffers: Vec<_> = (0..1000).map(|_| memory.alloc(100, "small").unwrap()).collect();
        assert_eq!(memory.chunks.len(), 1);
        assert_eq!(buffers[999].addr - buffers[0].addr, 999 * 128);
    }

    #[test]
    fn absurd_sizes_are_errors() {
        for limit in [1 << 20, u64::MAX] {
            let mut memory = Memory::new(limit);
            for bytes in [2 << 20, usize::MAX / 2, usize::MAX - 1, usize::MAX] {
                if limit == u64::MAX && bytes == 2 << 20 {
                    continue;
                }
                let error = memory.alloc(bytes, "a test").unwrap_err();
                assert!(matches!(error, DeviceError::OutOfMemory { purpose: "a test", .. }), "{error}");
            }
            memory.alloc(64, "what fits").unwrap();
        }
        let mut memory = Memory::new(200);
        memory.alloc(150, "first").unwrap();
        memory.alloc(51, "too much together").unwrap_err();
        memory.alloc(50, "exactly").unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn chunks_are_marked_for_huge_pages() {
        let mut memory = Memory::new(1 << 30);
        let buffer = memory.alloc(4 << 20, "test").unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((Ok(from), Ok(to))) =
                range.map(|(from, to)| (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)))
            {
                inside = (from..to).contains(&buffer.addr);
            } else if inside && line.starts_with("VmFlags:") {
                assert!(line.contains(" hg"), "{line}");
                return;
            }
        }
        panic!("the buffer's mapping is not in smaps");
    }
}
