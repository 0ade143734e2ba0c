//! How many blocks of a kernel a multiprocessor holds: NVIDIA's occupancy calculator, for the architectures we build.

/// Registers of a multiprocessor; each of its four partitions has a quarter.
const REGISTERS: u32 = 65536;
const PARTITIONS: u32 = 4;
const WARP_THREADS: u32 = 32;
/// Registers are given to warps, and shared memory to blocks, in pieces of this many registers or bytes.
const REGISTERS_PIECE: u32 = 256;
const SHARED_PIECE: u32 = 128;
/// What the system takes of each block's shared memory.
const SHARED_RESERVED: u32 = 1024;

/// What a multiprocessor has.
struct Multiprocessor {
    threads: u32,
    blocks: u32,
    shared: u32,
}

fn multiprocessor(arch: &str) -> Option<Multiprocessor> {
    let (threads, blocks, shared_kib) = match arch {
        "sm_80" => (2048, 32, 164),
        "sm_90a" | "sm_100" => (2048, 32, 228),
        "sm_120" => (1536, 24, 100),
        _ => return None,
    };
    Some(Multiprocessor { threads, blocks, shared: shared_kib * 1024 })
}

/// Blocks of so many threads, registers per thread and bytes of shared memory that are on a multiprocessor at once;
/// `None` for an architecture that is not known.
pub(super) fn blocks(arch: &str, threads: u32, registers: u32, shared: u32) -> Option<u32> {
    let has = multiprocessor(arch)?;
    let warps = threads.div_ceil(WARP_THREADS).max(1);
    let warp_registers = (registers * WARP_THREADS).next_multiple_of(REGISTERS_PIECE).max(REGISTERS_PIECE);
    let by_registers = REGISTERS / PARTITIONS / warp_registers * PARTITIONS / warps;
    let by_shared = has.shared / (shared + SHARED_RESERVED).next_multiple_of(SHARED_PIECE);
    let by_threads = has.threads / WARP_THREADS / warps;
    Some(by_registers.min(by_shared).min(by_threads).min(has.blocks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scarcest_decides() {
        let cases = [
            ("sm_90a", 256, 32, 0, 8),      // threads: 2048 / 256
            ("sm_90a", 32, 16, 0, 32),      // blocks
            ("sm_90a", 256, 128, 0, 2),     // registers: 16 warps of 4096
            ("sm_90a", 256, 129, 0, 1),     // 4352 a warp: 3 in each partition
            ("sm_90a", 256, 255, 0, 1),     // 8192 a warp: just one block
            ("sm_90a", 1024, 65, 0, 0),     // 72 × 32: 7 in each partition, 28 warps of 32
            ("sm_90a", 128, 32, 76_800, 3), // shared memory: 233472 / 77824
            ("sm_80", 128, 32, 76_800, 2),  // 167936 / 77824
            ("sm_120", 128, 32, 76_800, 1), // 102400 / 77824
            ("sm_120", 32, 16, 0, 24),      // blocks
            ("sm_120", 512, 40, 0, 3),      // 12 warps of 1280 in each partition: 48 of 16
        ];
        for (arch, threads, registers, shared, expected) in cases {
            let found = blocks(arch, threads, registers, shared);
            assert_eq!(found, Some(expected), "{arch} {threads} {registers} {shared}");
        }
        assert_eq!(blocks("sm_70", 32, 32, 0), None);
    }
}
