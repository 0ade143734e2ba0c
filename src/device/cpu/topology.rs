//! The machine as this process may use it: cores, their caches, the processor's name.

use std::collections::HashSet;
use std::fs;

use crate::device::DeviceError;

/// The most worker threads. Far above any machine where a single barrier for all threads is a good idea.
const WORKERS_MAX: usize = 1024;

#[cfg(target_os = "linux")]
const _: () = assert!(WORKERS_MAX <= libc::CPU_SETSIZE as usize, "a counted processor fits a processor set");

/// The size assumed for a last-level cache that nothing tells the size of.
const UNKNOWN_CACHE_BYTES: u64 = 32 << 20;

/// The processors that this process may run on.
#[derive(Debug)]
pub(super) struct Topology {
    /// Numbers of the logical processors: first one of each core, then the second threads of cores that have them.
    processors: Vec<usize>,
    /// How many of them are one of each core.
    cores: usize,
}

impl Topology {
    pub(super) fn detect() -> Topology {
        let allowed = allowed_processors();
        let siblings = |cpu: usize| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string())
        };
        let (processors, cores) = one_of_each_core_first(&allowed, siblings);
        Topology { processors, cores }
    }

    /// How many workers to start: as many as asked for, or one per core.
    pub(super) fn workers(&self, asked: Option<usize>) -> Result<usize, DeviceError> {
        // Below the number of cores where a container has a quota of processor time.
        let quota = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = asked.unwrap_or(self.cores.min(quota));
        if !(1..=WORKERS_MAX).contains(&threads) {
            return Err(DeviceError::ThreadCount { threads, max: WORKERS_MAX });
        }
        if threads > self.processors.len() {
            let processors = self.processors.len();
            tracing::warn!(threads, processors, "more worker threads than processors: every barrier will be slow");
        }
        Ok(threads)
    }

    /// Whether each of so many threads can have a processor of its own.
    pub(super) fn has_room_for(&self, threads: usize) -> bool {
        threads <= self.processors.len()
    }

    /// The processor for a worker, if every worker can have its own.
    pub(super) fn processor(&self, worker: usize, workers: usize) -> Option<usize> {
        self.has_room_for(workers).then(|| self.processors[worker])
    }

    /// The last-level caches that so many workers reach, added up.
    pub(super) fn cache_bytes(&self, workers: usize) -> u64 {
        let of_processor = |cpu: &usize| {
            let level_3 = format!("/sys/devices/system/cpu/cpu{cpu}/cache/index3");
            let read = |file: &str| fs::read_to_string(format!("{level_3}/{file}")).ok();
            Some((read("shared_cpu_list")?, parse_cache_size(&read("size")?)?))
        };
        let caches: HashSet<(String, u64)> = self.processors.iter().take(workers).filter_map(of_processor).collect();
        match caches.iter().map(|(_, bytes)| bytes).sum() {
            0 => cache_bytes_by_cpuid().unwrap_or(UNKNOWN_CACHE_BYTES),
            bytes => bytes,
        }
    }
}

/// Processors in their order, moved so that the first of each core comes before the second of any.
fn one_of_each_core_first(allowed: &[usize], core_of: impl Fn(usize) -> String) -> (Vec<usize>, usize) {
    let mut seen = HashSet::new();
    let (mut first, second): (Vec<usize>, Vec<usize>) = allowed.iter().partition(|cpu| seen.insert(core_of(**cpu)));
    let cores = first.len();
    first.extend(second);
    (first, cores)
}

/// `32768K` as /sys writes it.
fn parse_cache_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix(['K', 'M']) {
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) => (digits, 1 << 20),
        None => (text, 1),
    };
    Some(digits.parse::<u64>().ok()? * unit)
}

/// The level 3 cache by the deterministic cache parameters: leaf 4 (Intel), 0x8000001D (AMD), of one layout.
#[cfg(target_arch = "x86_64")]
fn cache_bytes_by_cpuid() -> Option<u64> {
    #[allow(unused_unsafe)] // newer compilers know this function as safe
    // SAFETY: every x86-64 processor has the instruction.
    let cpuid = |leaf, index| unsafe { std::arch::x86_64::__cpuid_count(leaf, index) };
    for (leaf, last_leaf) in [(4, 0), (0x8000_001D, 0x8000_0000)] {
        if cpuid(last_leaf, 0).eax < leaf {
            continue;
        }
        for index in 0..16 {
            let cache = cpuid(leaf, index);
            let (kind, level) = (cache.eax & 0x1f, cache.eax >> 5 & 7);
            if kind == 0 {
                break; // no more caches
            }
            if level == 3 {
                let field = |shift: u32, bits: u32| u64::from(cache.ebx >> shift & ((1 << bits) - 1)) + 1;
                let (line, partitions, ways, sets) = (field(0, 12), field(12, 10), field(22, 10), cache.ecx);
                return Some(line * partitions * ways * (u64::from(sets) + 1));
            }
        }
    }
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn cache_bytes_by_cpuid() -> Option<u64> {
    None
}

/// What the processor calls itself.
pub(super) fn processor_name() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    parse_processor_name(&cpuinfo).unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH))
}

fn parse_processor_name(cpuinfo: &str) -> Option<String> {
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let found = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(value);
    found.filter(|name| !name.is_empty())
}

#[cfg(target_os = "linux")]
fn allowed_processors() -> Vec<usize> {
    // SAFETY: a processor set is an array of bits, for which all zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as said; 0 is the calling thread.
    let rc = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    // SAFETY: every number is below the size of the set.
    let is_in = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    let allowed: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(is_in).collect();
    // The call fails on machines with more processors than the set has room for.
    if rc == 0 && !allowed.is_empty() { allowed } else { counted_processors() }
}

#[cfg(not(target_os = "linux"))]
fn allowed_processors() -> Vec<usize> {
    counted_processors()
}

fn counted_processors() -> Vec<usize> {
    (0..std::thread::available_parallelism().map_or(1, |n| n.get()).min(WORKERS_MAX)).collect()
}

/// Binds the calling thread to one processor. Where that is impossible the thread runs anywhere, as well as it can.
#[cfg(target_os = "linux")]
pub(super) fn pin_this_thread(processor: usize) {
    assert!(processor < libc::CPU_SETSIZE as usize, "workers are at most {WORKERS_MAX}, processors are counted from 0");
    // SAFETY: a processor set is an array of bits, for which all zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number is below the size of the set.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: the set is as large as said; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } != 0 {
        tracing::warn!(processor, error = %std::io::Error::last_os_error(), "a worker thread could not be pinned");
    }
}

/// Binds the calling thread to one processor, where the system can.
#[cfg(not(target_os = "linux"))]
pub(super) fn pin_this_thread(_: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_asked_for_within_reason() {
        let topology = Topology { processors: vec![0, 2, 1, 3], cores: 2 };
        assert!(topology.workers(None).is_ok_and(|workers| (1..=2).contains(&workers)));
        assert!(matches!(topology.workers(Some(0)), Err(DeviceError::ThreadCount { threads: 0, .. })));
        assert!(matches!(topology.workers(Some(1 << 20)), Err(DeviceError::ThreadCount { .. })));
        assert_eq!(topology.workers(Some(9)).unwrap(), 9);
        assert_eq!(topology.processor(1, 4), Some(2));
        assert_eq!(topology.processor(1, 5), None, "no pinning when some would share");
    }

    #[test]
    fn second_threads_of_a_core_come_last() {
        let pairs = |cpu: usize| format!("{},{}", cpu / 2 * 2, cpu / 2 * 2 + 1);
        assert_eq!(one_of_each_core_first(&[0, 1, 2, 3, 5], pairs), (vec![0, 2, 5, 1, 3], 3));
        assert_eq!(one_of_each_core_first(&[1, 4], |cpu| cpu.to_string()), (vec![1, 4], 2));
    }

    #[test]
    fn cache_sizes_as_sys_writes_them() {
        assert_eq!(parse_cache_size("32768K\n"), Some(32 << 20));
        assert_eq!(parse_cache_size("16M"), Some(16 << 20));
        assert_eq!(parse_cache_size("512"), Some(512));
        assert_eq!(parse_cache_size("lots"), None);
        assert!(Topology::detect().cache_bytes(1) > 0);
        if let Some(bytes) = cache_bytes_by_cpuid() {
            assert!((1 << 20..=4 << 30).contains(&bytes), "{bytes} bytes of level 3 cache by cpuid");
        }
    }

    #[test]
    fn names_are_found_in_cpuinfo() {
        let intel = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 9B14\ncache size\t: 512 KB\n";
        assert_eq!(parse_processor_name(intel).as_deref(), Some("AMD EPYC 9B14"));
        assert_eq!(parse_processor_name("processor : 0\nBogoMIPS : 50\n"), None);
        assert!(!processor_name().is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pinned_thread_stays_on_its_processor() {
        let processor = *Topology::detect().processors.last().unwrap();
        std::thread::spawn(move || {
            pin_this_thread(processor);
            assert_eq!(allowed_processors(), [processor]);
        })
        .join()
        .unwrap();
    }
}
