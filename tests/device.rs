//! The device through its interface: memory, graphs, steps, tickets, stamps; on the CPU with kernels made for the test.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use vitrum::device::*;
use vitrum::isa::IsaChoice;
use vitrum::kernels::cpu::Worker;
use vitrum::kernels::cpu::{Choice, KernelFn};
use vitrum::kernels::params::{AttentionParams, EmbedParams};
use vitrum::kernels::{KernelParams, Node};
use vitrum::trace::schema::{Cost, GraphKey, GraphKind, NodeSources, Op, Place, StepCopies};

const KEY: GraphKey = GraphKey { kind: GraphKind::ForwardDecode, bucket: 1 };

fn open(choice: DeviceChoice, threads: usize, delay: Option<NodeDelay>) -> Device {
    let threads = (choice == DeviceChoice::Cpu).then_some(threads);
    Device::open(&DeviceOptions { choice, threads, isa: None, delay, activity: false }).unwrap()
}

fn cpu(threads: usize) -> Device {
    open(DeviceChoice::Cpu, threads, None)
}

/// A node that runs `run` with an address in `x` and a number in `shape`.
fn node(run: KernelFn, addr: u64, number: u64, layer: i32) -> (Node, Choice) {
    let params = KernelParams::Embed(EmbedParams { x: addr.into(), shape: number.into(), ..EmbedParams::default() });
    let node = Node { params, place: Place { layer, op: Op::AttnQkv }, cost: Cost::default() };
    let (name, variant) = (format!("test.{layer}"), "by hand".to_owned());
    (node, Choice { name, variant, barriers: 1, scratch_bytes: 1000, run })
}

fn capture(device: &mut Device, nodes: Vec<(Node, Choice)>) -> GraphId {
    let Device::Cpu(device) = device else { panic!("test kernels run on the CPU") };
    // SAFETY: the kernels below take these parameters, and the buffers live as long as the device.
    unsafe { device.capture_chosen(KEY, nodes) }.unwrap()
}

fn embed(params: &KernelParams) -> &EmbedParams {
    let KernelParams::Embed(params) = params else { panic!("not made by `node`") };
    params
}

fn submission<'a>(graphs: &'a [GraphId], downloads: &'a [Download], traced: bool) -> Submission<'a> {
    let sources = NodeSources { stamps: traced, activity: false };
    Submission { uploads: &[], graphs, downloads, sources }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

const TILES: usize = 37;

/// x[i] = x[i] * number + i, for TILES words.
unsafe fn multiply_and_add(params: &KernelParams, worker: &Worker) {
    let (x, number) = (embed(params).x.cast::<u32>().as_mut_ptr(), embed(params).shape.addr() as u32);
    // SAFETY: the buffer has TILES words, and each tile is one thread's.
    worker.for_each_tile(TILES, |tile| unsafe { *x.add(tile) = (*x.add(tile)).wrapping_mul(number) + tile as u32 });
}

/// x[i] += x[TILES - 1 - i], in two phases: copied aside, then added.
unsafe fn add_mirrored(params: &KernelParams, worker: &Worker) {
    let x = embed(params).x.cast::<u32>().as_mut_ptr();
    // SAFETY: the buffer has 2 · TILES words, and each tile is one thread's.
    worker.for_each_tile(TILES, |tile| unsafe { *x.add(TILES + tile) = *x.add(TILES - 1 - tile) });
    worker.barrier();
    // SAFETY: as above.
    worker.for_each_tile(TILES, |tile| unsafe { *x.add(tile) += *x.add(TILES + tile) });
}

/// Takes `number` microseconds on every worker.
unsafe fn take_time(params: &KernelParams, _: &Worker) {
    let end = Instant::now() + Duration::from_micros(embed(params).shape.addr());
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

#[test]
fn nodes_run_in_order_on_any_number_of_threads() {
    let mut expected = vec![0u32; TILES];
    for _ in 0..3 {
        expected.iter_mut().enumerate().for_each(|(i, x)| *x = x.wrapping_mul(3) + i as u32);
        let mirrored: Vec<u32> = expected.iter().rev().copied().collect();
        expected.iter_mut().zip(mirrored).for_each(|(x, m)| *x += m);
    }
    for threads in [1, 2, 5] {
        let mut device = cpu(threads);
        assert_eq!(device.info().workers, threads);
        let x = device.alloc(2 * TILES * 4, "test").unwrap();
        let graph = capture(&mut device, vec![node(multiply_and_add, x.addr, 3, 0), node(add_mirrored, x.addr, 0, 1)]);
        let download = [Download { addr: x.addr, bytes: TILES * 4 }];
        let ticket = device.submit(&submission(&[graph, graph, graph], &download, false)).unwrap();
        let done = device.wait(ticket).unwrap();
        assert_eq!(words(done.data), expected, "{threads} threads");
        assert!(done.stamps.is_empty());
    }
}

#[test]
fn a_step_submitted_behind_another_sees_its_results() {
    let mut device = cpu(2);
    let x = device.alloc(TILES * 4, "test").unwrap();
    let input = device.alloc(4, "input").unwrap();
    let graph = capture(&mut device, vec![node(multiply_and_add, x.addr, 1, 0)]);
    let downloads = [Download { addr: x.addr + 4, bytes: 8 }, Download { addr: input.addr, bytes: 4 }];
    let mut tickets = std::collections::VecDeque::new();
    let mut waited = 0u32;
    for step in 1..=300u32 {
        let data = step.to_le_bytes();
        let uploads = [Upload { addr: input.addr, data: &data }];
        let submission =
            Submission { uploads: &uploads, graphs: &[graph], downloads: &downloads, sources: NodeSources::NONE };
        tickets.push_back(device.submit(&submission).unwrap());
        if tickets.len() == STEPS_IN_FLIGHT {
            waited += 1;
            let done = device.wait(tickets.pop_front().unwrap()).unwrap();
            assert_eq!(words(done.data), [waited, 2 * waited, waited]);
        }
    }
}

#[test]
fn memory_is_zeroed_and_holds_what_is_uploaded() {
    for choice in [DeviceChoice::Cpu, DeviceChoice::Null] {
        let mut device = open(choice, 1, None);
        let buffer = device.alloc(300, "test").unwrap();
        assert_eq!(buffer.addr % 64, 0);
        let mut bytes = [1u8; 300];
        device.download(&buffer, 0, &mut bytes);
        assert_eq!(bytes, [0; 300]);
        device.upload(&buffer, 100, &[7; 50]);
        device.download(&buffer, 0, &mut bytes);
        let sevens = if choice == DeviceChoice::Cpu { 50 } else { 0 };
        assert_eq!(bytes.iter().filter(|byte| **byte == 7).count(), sevens);
        let error = device.alloc(usize::MAX, "too much").unwrap_err();
        assert!(matches!(error, DeviceError::OutOfMemory { purpose: "too much", .. }), "{error}");
    }
    assert!(cpu(1).info().memory_bytes > 0);
}

#[test]
fn misuse_is_refused_alike_on_every_device() {
    let check = |what: &str, misuse: &dyn Fn(&mut Device, DeviceBuffer)| {
        for choice in [DeviceChoice::Cpu, DeviceChoice::Null] {
            let mut device = open(choice, 2, None);
            let buffer = device.alloc(128, "test").unwrap();
            let panic = catch_unwind(AssertUnwindSafe(|| misuse(&mut device, buffer))).expect_err(what);
            let message = panic.downcast_ref::<String>().map_or("", String::as_str);
            assert!(message.contains(what), "{choice:?}: {message}");
        }
    };
    let empty = submission(&[], &[], false);
    check("submitted while 2 are under way", &|device, _| {
        (0..3).for_each(|_| drop(device.submit(&empty).unwrap()));
    });
    check("waited for in order", &|device, _| {
        let _first = device.submit(&empty).unwrap();
        let second = device.submit(&empty).unwrap();
        device.wait(second).unwrap();
    });
    check("no step is under way", &|device, _| drop(device.wait(Ticket(1)).unwrap().data.to_vec()));
    check("upload while 1 steps are under way", &|device, buffer| {
        let _ticket = device.submit(&empty).unwrap();
        device.upload(&buffer, 0, &[0]);
    });
    check("outside the buffers", &|device, buffer| {
        let uploads = [Upload { addr: buffer.addr + 100, data: &[0; 29] }];
        drop(device.submit(&Submission { uploads: &uploads, ..empty }));
    });
    check("outside the buffers", &|device, buffer| {
        let downloads = [Download { addr: buffer.addr - 1, bytes: 130 }];
        drop(device.submit(&Submission { downloads: &downloads, ..empty }));
    });
    check("graph 1 was not captured", &|device, _| {
        drop(device.submit(&Submission { graphs: &[GraphId(1)], ..empty }));
    });
    check("at most 64", &|device, buffer| {
        let downloads = [Download { addr: buffer.addr, bytes: 1 }; STEP_PARTS_MAX + 1];
        drop(device.submit(&Submission { downloads: &downloads, ..empty }));
    });
    check("a step downloads", &|device, _| {
        let large = device.alloc(STAGING_BYTES + 1, "large").unwrap();
        let downloads = [Download { addr: large.addr, bytes: large.bytes }];
        drop(device.submit(&Submission { downloads: &downloads, ..empty }));
    });
}

#[test]
fn what_no_kernel_takes_is_an_error_at_capture() {
    let mut device = cpu(1);
    let params = KernelParams::Attention(AttentionParams { heads: 9, kv_heads: 3, head_dim: 20, ..Default::default() });
    let node = Node { params, place: Place { layer: 0, op: Op::AttnCore }, cost: Cost::default() };
    let error = device.capture(KEY, &[node]).unwrap_err().to_string();
    assert_eq!(error, "forward.decode.1, node 0 (attention): head_dim is 20, and has to be a multiple of 16");
}

#[test]
fn what_cannot_be_opened_is_an_error() {
    let options =
        DeviceOptions { choice: DeviceChoice::Cpu, threads: Some(0), isa: None, delay: None, activity: false };
    assert!(matches!(Device::open(&options), Err(DeviceError::ThreadCount { threads: 0, .. })));
    for isa in IsaChoice::ALL {
        let options = DeviceOptions { threads: Some(1), isa: Some(isa), ..options.clone() };
        match Device::open(&options) {
            Ok(device) => assert!(isa.is_available() && device.info().isa == isa.as_str()),
            Err(error) => assert!(!isa.is_available() && matches!(error, DeviceError::IsaMissing { .. })),
        }
    }
}

#[test]
fn a_graph_is_described_by_its_table() {
    let mut device = cpu(1);
    for id in 1..=2 {
        let graph = capture(&mut device, vec![node(take_time, 0, 0, 4)]);
        let table = device.graph(graph);
        assert_eq!((graph, table.id, table.key), (GraphId(id), id, KEY));
        let info = &table.nodes[0];
        assert_eq!((info.kernel.as_str(), info.choice.as_str(), info.place.layer), ("test.4", "by hand", 4));
    }
}

/// Fills this worker's scratch, then finds it as it was: no other worker has the same.
unsafe fn use_scratch(params: &KernelParams, worker: &Worker) {
    assert_eq!(worker.scratch() as usize % 64, 0);
    // SAFETY: the choice asked for 1000 bytes.
    unsafe { worker.scratch().write_bytes(worker.index() as u8 + 1, 1000) };
    worker.barrier();
    // SAFETY: as above.
    let scratch = unsafe { std::slice::from_raw_parts(worker.scratch(), 1000) };
    let wrong = scratch.iter().filter(|byte| **byte != worker.index() as u8 + 1).count();
    // SAFETY: one word per worker.
    unsafe { *(embed(params).x.cast::<u32>().as_mut_ptr()).add(worker.index()) = wrong as u32 + 1 };
}

#[test]
fn every_worker_has_scratch_memory_of_its_own() {
    let mut device = cpu(3);
    let x = device.alloc(12, "test").unwrap();
    let graph = capture(&mut device, vec![node(use_scratch, x.addr, 0, 0)]);
    let download = [Download { addr: x.addr, bytes: 12 }];
    let ticket = device.submit(&submission(&[graph], &download, false)).unwrap();
    assert_eq!(words(device.wait(ticket).unwrap().data), [1, 1, 1]);
}

#[test]
fn traced_steps_are_stamped_in_builds_that_profile() {
    const DELAY_MICROS: u32 = 3_000;
    let delayed = Place { layer: 1, op: Op::AttnQkv };
    let mut device = open(DeviceChoice::Cpu, 2, Some(NodeDelay { place: delayed, micros: DELAY_MICROS }));
    let nodes = (0..4).map(|layer| node(take_time, 0, 50, layer)).collect();
    let graph = capture(&mut device, nodes);
    for traced in [true, false, true] {
        let before_ns = monotonic_ns();
        let ticket = device.submit(&submission(&[graph, graph], &[], traced)).unwrap();
        let Completion { stamps, copies, .. } = device.wait(ticket).unwrap();
        let after_ns = monotonic_ns();
        assert!(after_ns - before_ns > 2 * 1_000 * u64::from(DELAY_MICROS), "the delay is there, traced or not");
        if !cfg!(feature = "profiling") || !traced {
            assert!(stamps.is_empty() && copies == StepCopies::default());
            continue;
        }
        assert_eq!(stamps.len(), 8);
        assert!(before_ns <= copies.upload.start_ns && copies.upload.is_valid() && copies.upload.bytes == 0);
        let mut last_end_ns = copies.upload.end_ns;
        for (ordinal, stamp) in stamps.iter().enumerate() {
            assert!(last_end_ns <= stamp.start_ns && stamp.start_ns <= stamp.end_ns, "{ordinal}: {stamps:?}");
            last_end_ns = stamp.end_ns;
            let expected_micros = if ordinal % 4 == 1 { 50 + DELAY_MICROS } else { 50 };
            let (least_ns, took_ns) = (u64::from(expected_micros) * 1_000, stamp.end_ns - stamp.start_ns);
            assert!(took_ns >= least_ns, "node {ordinal} took {took_ns} ns of at least {least_ns}");
            assert!(stamp.wait_ns <= took_ns, "one worker waits at most for the whole node: {stamp:?}");
        }
        assert!(last_end_ns <= copies.download.start_ns && copies.download.is_valid());
        assert!(copies.download.end_ns <= after_ns);
    }
}

#[test]
fn the_null_device_stamps_every_node_with_no_time() {
    let mut device = open(DeviceChoice::Null, 1, None);
    let nodes: Vec<Node> = (0..3).map(|layer| node(take_time, 0, 0, layer).0).collect();
    let graph = device.capture(KEY, &nodes).unwrap();
    let buffer = device.alloc(8, "test").unwrap();
    let download = [Download { addr: buffer.addr, bytes: 8 }];
    let first = device.submit(&submission(&[graph], &download, true)).unwrap();
    let second = device.submit(&submission(&[graph], &[], false)).unwrap();
    let done = device.wait(first).unwrap();
    assert_eq!(done.data, [0; 8]);
    assert_eq!(done.stamps.len(), if cfg!(feature = "profiling") { 3 } else { 0 });
    assert!(done.stamps.iter().all(|stamp| stamp.start_ns > 0 && stamp.start_ns == stamp.end_ns));
    assert!(device.wait(second).unwrap().stamps.is_empty());
}

#[test]
fn closing_the_device_ends_its_threads_whatever_is_queued() {
    for queued in 0..=STEPS_IN_FLIGHT {
        let mut device = cpu(2);
        let graph = capture(&mut device, vec![node(take_time, 0, 2_000, 0)]);
        for _ in 0..queued {
            drop(device.submit(&submission(&[graph], &[], false)).unwrap());
        }
        let start = Instant::now();
        std::thread::spawn(move || drop(device)).join().unwrap(); // on any thread
        assert!(start.elapsed() < Duration::from_secs(5), "{queued} queued");
    }
}

unsafe fn panic_on_worker_1(_: &KernelParams, worker: &Worker) {
    assert!(worker.index() != 1, "the panic of the test");
}

/// Not a test of its own: run by the next one in a process of its own, which it has to end.
#[test]
#[ignore = "ends its process"]
fn child_with_a_panicking_kernel() {
    let mut device = cpu(2);
    let graph = capture(&mut device, vec![node(panic_on_worker_1, 0, 0, 0)]);
    let ticket = device.submit(&submission(&[graph], &[], false)).unwrap();
    let _ = device.wait(ticket);
}

#[test]
fn a_panicking_kernel_ends_the_process_with_a_message() {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child_with_a_panicking_kernel", "--ignored", "--nocapture"]);
    let output = child.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        message.contains("a kernel panicked on worker 1") && message.contains("the panic of the test"),
        "{message}"
    );
}
