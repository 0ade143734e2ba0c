//! Kernels of csrc, run on the host by softcuda, and memory for them.

use softcuda::emulate::{Launch, Library, Mode};
use vitrum::kernels::DevicePtr;
use vitrum::kernels::params::LaunchInfo;

/// Device memory. Its buffers begin at multiples of 256 bytes, as those of a device do.
#[derive(Default)]
pub(crate) struct Memory {
    buffers: Vec<Vec<Line>>,
}

#[repr(align(256))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code, reason = "it is memory")] [u8; 256]);

impl Memory {
    /// A buffer of these bytes; its address.
    pub(crate) fn put<T>(&mut self, bytes: &[u8]) -> DevicePtr<T> {
        let mut buffer = vec![Line([0xff; 256]); bytes.len().div_ceil(256).max(1)];
        // SAFETY: the lines are at least as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.as_mut_ptr().cast(), bytes.len()) };
        let addr = buffer.as_mut_ptr().expose_provenance() as u64;
        self.buffers.push(buffer);
        addr.into()
    }

    fn holds(&self, addr: u64, bytes: u64) -> bool {
        self.buffers.iter().any(|buffer| {
            let (first, size) = (buffer.as_ptr() as u64, size_of_val(buffer.as_slice()) as u64);
            addr >= first && addr + bytes <= first + size
        })
    }

    /// So many bytes at an address.
    pub(crate) fn read<T>(&self, from: DevicePtr<T>, bytes: usize) -> Vec<u8> {
        let addr = from.addr();
        assert!(self.holds(addr, bytes as u64), "{bytes} bytes at {addr:#x}");
        let at = std::ptr::with_exposed_provenance::<u8>(addr as usize);
        // SAFETY: the bytes are part of a buffer, which kernels have written by its exposed address.
        unsafe { std::slice::from_raw_parts(at, bytes) }.to_vec()
    }

    /// So many words at an address.
    pub(crate) fn read_words<T>(&self, from: DevicePtr<T>, count: usize) -> Vec<u32> {
        let bytes = self.read(from, count * 4);
        bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect()
    }

    /// Overwrites all buffers; returns what they held.
    fn hide(&self) -> Vec<Vec<Line>> {
        let held = self.buffers.clone();
        self.fill(self.buffers.iter().map(|buffer| vec![Line([0xff; 256]); buffer.len()]).collect());
        held
    }

    /// Writes all buffers, by their exposed addresses.
    fn fill(&self, contents: Vec<Vec<Line>>) {
        for (buffer, content) in self.buffers.iter().zip(contents) {
            let to = std::ptr::with_exposed_provenance_mut::<Line>(buffer.as_ptr() as usize);
            // SAFETY: the buffer has as many lines, and was exposed when it was made; nothing refers to them now.
            unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), to, content.len()) };
        }
    }

    /// Runs a kernel whose parameters are a struct of params.h and `LaunchInfo`.
    pub(crate) fn launch<P: Copy>(&self, kernel: &str, blocks: u32, block: (u32, u32), params: &P, mode: Mode) {
        self.launch_stamped(kernel, blocks, block, params, mode, DevicePtr::NULL);
    }

    /// The same; the kernel leaves its begin and end at `stamp`. What memory holds is there when the kernel before has
    /// ended, so that no kernel may look at it before its `pdl_wait`.
    pub(crate) fn launch_stamped<P: Copy>(
        &self,
        kernel: &str,
        blocks: u32,
        (threads, shared_bytes): (u32, u32),
        params: &P,
        mode: Mode,
        stamp: DevicePtr<u64>,
    ) {
        // SAFETY: structs of params.h have no padding.
        let params = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(params).cast::<u8>(), size_of::<P>()) };
        let launch = LaunchInfo { stamp };
        let mut held = Some(self.hide());
        let mut end_of_predecessor = || held.take().into_iter().for_each(|held| self.fill(held));
        let run = Library::kernels().launch(Launch {
            kernel,
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            shared_bytes,
            params: &[params, &launch.stamp.addr().to_ne_bytes()],
            mode,
            chained: true,
            predecessor: Some(&mut end_of_predecessor),
            is_memory: Some(&|addr, bytes| self.holds(addr, bytes)),
        });
        run.unwrap_or_else(|error| panic!("{mode:?}: {error}"));
    }
}
