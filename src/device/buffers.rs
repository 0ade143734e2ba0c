//! Which addresses belong to a device: what an upload, a download and a captured parameter are checked against.

use super::DeviceBuffer;

/// The buffers that a device has given out, in order of address.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    sorted: Vec<DeviceBuffer>,
}

impl Buffers {
    /// Adds a buffer that overlaps no other.
    pub(super) fn insert(&mut self, buffer: DeviceBuffer) {
        let at = self.sorted.partition_point(|other| other.addr < buffer.addr);
        self.sorted.insert(at, buffer);
    }

    /// Whether all of `bytes` from `addr` lie in one buffer.
    pub(super) fn holds(&self, addr: u64, bytes: usize) -> bool {
        let after = self.sorted.partition_point(|buffer| buffer.addr <= addr);
        let Some(buffer) = after.checked_sub(1).map(|at| self.sorted[at]) else { return false };
        let offset = addr - buffer.addr;
        offset <= buffer.bytes as u64 && bytes as u64 <= buffer.bytes as u64 - offset
    }

    /// Panics unless all of `bytes` from `addr` lie in one buffer: whoever copies there has a wrong address.
    pub(super) fn assert_holds(&self, addr: u64, bytes: usize, what: &str) {
        assert!(self.holds(addr, bytes), "{what} of {bytes} bytes at {addr:#x}: outside the buffers of this device");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_to_lie_in_one_buffer() {
        let mut buffers = Buffers::default();
        assert!(!buffers.holds(0, 0), "no buffer yet");
        buffers.insert(DeviceBuffer { addr: 256, bytes: 64 });
        buffers.insert(DeviceBuffer { addr: 64, bytes: 100 });
        buffers.insert(DeviceBuffer { addr: 320, bytes: 64 });
        for (addr, bytes, expected) in [
            (64, 100, true),
            (64, 101, false),
            (63, 1, false),
            (100, 64, true),
            (100, 65, false),
            (200, 1, false),
            (256, 64, true),
            (256, 65, false), // the next buffer begins there: still not one buffer
            (320, 64, true),
            (384, 0, true),
            (385, 0, false),
            (u64::MAX, usize::MAX, false),
        ] {
            assert_eq!(buffers.holds(addr, bytes), expected, "{bytes} bytes at {addr}");
        }
    }
}
