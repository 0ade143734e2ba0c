//! What the CPU device costs besides its kernels: barriers, stamps, handing over a step. Medians, in nanoseconds.
//!
//! `cargo bench --bench device`, with `--features profiling` for the cost of stamps.

use std::time::Duration;

use vitrum::device::*;
use vitrum::kernels::cpu::Worker;
use vitrum::kernels::cpu::{Choice, KernelFn};
use vitrum::kernels::params::EmbedParams;
use vitrum::kernels::{KernelParams, Node};
use vitrum::trace::schema::{Cost, GraphKey, GraphKind, NodeSources, Op, Place};

const NODES: usize = 1_000;
const SAMPLES: usize = 401;

unsafe fn nothing(_: &KernelParams, _: &Worker) {}

unsafe fn ten_barriers(_: &KernelParams, worker: &Worker) {
    (0..10).for_each(|_| worker.barrier());
}

unsafe fn tiles(_: &KernelParams, worker: &Worker) {
    worker.for_each_tile(16, |tile| {
        std::hint::black_box(tile);
    });
}

/// Writes the time at which worker 0 came to the node.
unsafe fn now(params: &KernelParams, worker: &Worker) {
    let KernelParams::Embed(params) = params else { unreachable!() };
    if worker.index() == 0 {
        // SAFETY: `x` is the address of a buffer of 8 bytes.
        unsafe { params.x.cast::<u64>().as_mut_ptr().write(monotonic_ns()) };
    }
}

fn capture(device: &mut Device, run: KernelFn, nodes: usize, x: u64) -> GraphId {
    let Device::Cpu(device) = device else { unreachable!() };
    let params = KernelParams::Embed(EmbedParams { x: x.into(), ..EmbedParams::default() });
    let node = Node { params, place: Place { layer: 0, op: Op::Embed }, cost: Cost::default() };
    let (name, variant) = (String::new(), String::new());
    let choice = Choice { name, variant, barriers: 1, scratch_bytes: 0, run };
    let key = GraphKey { kind: GraphKind::ForwardDecode, bucket: 1 };
    // SAFETY: the kernels above read no parameters but an address of this device.
    unsafe { device.capture_chosen(key, vec![(node, choice); nodes]) }.unwrap()
}

fn run(device: &mut Device, graphs: &[GraphId], downloads: &[Download], traced: bool) -> u64 {
    let start_ns = monotonic_ns();
    let sources = NodeSources { stamps: traced, activity: false };
    let ticket = device.submit(&Submission { uploads: &[], graphs, downloads, sources }).unwrap();
    let data = device.wait(ticket).unwrap().data;
    // The time that a node wrote, if it did; else the end.
    let end_ns = data.try_into().map_or_else(|_| monotonic_ns(), u64::from_le_bytes);
    end_ns - start_ns
}

fn median(mut sample: impl FnMut() -> u64) -> u64 {
    let mut samples: Vec<u64> = (0..SAMPLES).map(|_| sample()).collect();
    *samples.select_nth_unstable(SAMPLES / 2).1
}

fn main() {
    let options = DeviceOptions { choice: DeviceChoice::Cpu, threads: None, isa: None, delay: None, activity: false };
    let mut device = Device::open(&options).unwrap();
    println!("{} workers on {}", device.info().workers, device.info().name);
    let mut clock = || {
        let start_ns = monotonic_ns();
        (1..1_000).for_each(|_| {
            std::hint::black_box(monotonic_ns());
        });
        monotonic_ns() - start_ns
    };
    println!("{:>8.1}  a read of the clock", median(&mut clock) as f64 / 1_000.0);
    for (what, kernel, traced, per_node) in [
        ("an empty node", nothing as KernelFn, false, 1.0),
        ("an empty node, traced", nothing, true, 1.0),
        ("a barrier inside a node", ten_barriers, false, 11.0),
        ("a node that hands out 16 empty tiles", tiles, false, 1.0),
    ] {
        let graph = capture(&mut device, kernel, NODES, 0);
        let step_ns = median(|| run(&mut device, &[graph], &[], traced));
        println!("{:>8.1}  {what}", step_ns as f64 / (NODES as f64 * per_node));
    }
    println!("{:>8}  an empty step, submitted and waited for", median(|| run(&mut device, &[], &[], false)));
    let time = device.alloc(8, "a time").unwrap();
    let graph = capture(&mut device, now, 1, time.addr);
    let download = [Download { addr: time.addr, bytes: 8 }];
    println!("{:>8}  from submission to the first node", median(|| run(&mut device, &[graph], &download, false)));
    let after_sleep = median(|| {
        std::thread::sleep(Duration::from_millis(1));
        run(&mut device, &[graph], &download, false)
    });
    println!("{after_sleep:>8}  the same after a millisecond without work, when the workers sleep");
}
