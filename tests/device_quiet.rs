//! What a device must not do: allocate while it runs steps, use a processor while it has none.
//!
//! A process of its own without a test harness, whose threads allocate too: it counts every allocation and all
//! processor time of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use vitrum::device::*;
use vitrum::kernels::cpu::Choice;
use vitrum::kernels::cpu::Worker;
use vitrum::kernels::params::EmbedParams;
use vitrum::kernels::{KernelParams, Node};
use vitrum::trace::schema::{Cost, GraphKey, GraphKind, NodeSources, Op, Place};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

unsafe fn some_tiles(_: &KernelParams, worker: &Worker) {
    worker.for_each_tile(10, |tile| {
        std::hint::black_box(tile);
    });
    worker.barrier();
}

/// Processor time of the process, in milliseconds.
#[cfg(target_os = "linux")]
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The fields after the name, which is in parentheses; times are in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum()
}

fn main() {
    let options =
        DeviceOptions { choice: DeviceChoice::Cpu, threads: Some(3), isa: None, delay: None, activity: false };
    let mut device = Device::open(&options).unwrap();
    let buffer = device.alloc(4096, "test").unwrap();
    let graph = {
        let Device::Cpu(device) = &mut device else { unreachable!() };
        let params = KernelParams::Embed(EmbedParams::default());
        let node = Node { params, place: Place { layer: 0, op: Op::Embed }, cost: Cost::default() };
        let (name, variant) = (String::new(), String::new());
        let choice = Choice { name, variant, barriers: 2, scratch_bytes: 64, run: some_tiles };
        let key = GraphKey { kind: GraphKind::ForwardDecode, bucket: 1 };
        // SAFETY: the kernel reads no parameters.
        unsafe { device.capture_chosen(key, vec![(node, choice); 100]) }.unwrap()
    };
    let (data, downloads) = ([7u8; 4096], [Download { addr: buffer.addr, bytes: 4096 }; 2]);
    let uploads = [Upload { addr: buffer.addr, data: &data }];

    let before = ALLOCATIONS.load(Relaxed);
    let mut queued: Option<Ticket> = None;
    for step in 0..200 {
        let graphs = [graph, graph];
        let sources = NodeSources { stamps: step % 2 == 0, activity: false };
        let submission = Submission { uploads: &uploads, graphs: &graphs, downloads: &downloads, sources };
        let ticket = device.submit(&submission).unwrap();
        if let Some(ticket) = queued.replace(ticket) {
            assert_eq!(device.wait(ticket).unwrap().data.len(), 2 * 4096);
        }
    }
    device.wait(queued.unwrap()).unwrap();
    assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "allocations in 200 steps, the first ones included");

    #[cfg(target_os = "linux")]
    {
        std::thread::sleep(Duration::from_millis(50)); // the last spins and yields
        let before_ms = processor_ms();
        std::thread::sleep(Duration::from_millis(300));
        let used_ms = processor_ms() - before_ms;
        assert!(used_ms <= 20, "an idle pool used {used_ms} ms of processor time in 300 ms");
    }
    drop(device);
    println!("steps allocate nothing, and an idle pool sleeps");
}
