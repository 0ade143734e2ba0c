//! The rules of the software driver, through the library that programs load.

mod process;

use process::{CHAINED, Program, Shape, in_process};

/// Each of these words is in a line of the driver's, in this order, and there are no other lines.
fn told(lines: &[String], words: &[&str]) {
    assert!(
        lines.len() == words.len() && lines.iter().zip(words).all(|(line, word)| line.contains(word)),
        "{lines:#?}, expected {words:?}"
    );
}

#[test]
fn a_program_that_keeps_the_rules_is_told_nothing() {
    let lines = in_process("a_program_that_keeps_the_rules_is_told_nothing", &[], |cuda| {
        let mut name = [0u8; 64];
        let p = Program::begin(cuda);
        cuda.call("cuDeviceGetName", &[name.as_mut_ptr() as u64, 64, 0]);
        assert!(name.starts_with(b"vitrum softcuda\0"));
        assert_eq!(cuda.make("cuDeviceGetCount", &[]) as u32, 1);
        assert_eq!(cuda.make("cuDriverGetVersion", &[]) as u32, 13_000);
        assert_eq!(cuda.make("cuDeviceGetAttribute", &[75, 0]) as u32, 9);
        let (input, sums) = (p.alloc(4 * 512), p.alloc(8));
        assert!(input % 256 == 0 && sums % 256 == 0);
        let pinned = cuda.make("cuMemHostAlloc", &[8, 0]);
        let event = cuda.make("cuEventCreate", &[2]);
        let graph = p.capture(|| {
            cuda.call("cuMemsetD8Async", &[sums, 0, 8, p.stream]);
            p.launch("numbering", 2, 256, 0, &[input]);
            p.launch("block_sum", 2, 256, CHAINED, &[input, sums]);
            cuda.call("cuMemcpyDtoHAsync_v2", &[pinned, sums, 8, p.stream]);
        });
        cuda.call("cuGraphUpload", &[graph.1, p.stream]);
        p.upload(input, &[1u32; 512]);
        for replay in 1..=3u32 {
            cuda.call("cuGraphLaunch", &[graph.1, p.stream]);
            cuda.call("cuEventRecord", &[event, p.stream]);
            cuda.call("cuEventSynchronize", &[event]);
            // numbering adds 2 i to each.
            let sum = |first: u32| (first..first + 256).map(|i| 1 + 2 * i * replay).sum::<u32>();
            // SAFETY: 8 bytes of pinned memory, of which all copies have ended.
            assert_eq!(unsafe { *(pinned as *const [u32; 2]) }, [sum(0), sum(256)], "replay {replay}");
        }
        p.destroy(graph);
        cuda.call("cuEventDestroy_v2", &[event]);
        cuda.call("cuMemFreeHost", &[pinned]);
        p.free(input);
        p.free(sums);
        p.end();
    });
    told(&lines, &[]);
}

#[test]
fn handles_and_contexts_have_to_be_right() {
    let lines = in_process("handles_and_contexts_have_to_be_right", &[], |cuda| {
        cuda.refused("ERROR_NOT_INITIALIZED", "cuDeviceGetCount", &[0]);
        cuda.call("cuInit", &[0]);
        cuda.refused("ERROR_INVALID_CONTEXT", "cuStreamCreate", &[0, 0]);
        let p = Program::begin(cuda);
        cuda.refused("ERROR_INVALID_HANDLE", "cuStreamSynchronize", &[0]);
        cuda.refused("ERROR_INVALID_HANDLE", "cuStreamSynchronize", &[p.module]);
        let event = cuda.make("cuEventCreate", &[0]);
        cuda.call("cuEventDestroy_v2", &[event]);
        cuda.refused("ERROR_INVALID_HANDLE", "cuEventRecord", &[event, p.stream]);
        let other_thread = || cuda.refused("ERROR_INVALID_CONTEXT", "cuStreamSynchronize", &[p.stream]);
        std::thread::scope(|scope| scope.spawn(other_thread).join()).expect("refused");
        let (mut function, name) = (0u64, c"nothing");
        let arguments = [&raw mut function as u64, p.module, name.as_ptr() as u64];
        cuda.refused("ERROR_NOT_FOUND", "cuModuleGetFunction", &arguments);
        cuda.refused("ERROR_INVALID_IMAGE", "cuModuleLoadData", &[&raw mut function as u64, name.as_ptr() as u64]);
        cuda.refused("ERROR_INVALID_DEVICE", "cuDeviceGet", &[&raw mut function as u64, 1]);
        p.end();
        cuda.refused("ERROR_INVALID_CONTEXT", "cuStreamCreate", &[&raw mut function as u64, 0]);
        cuda.refused("ERROR_INVALID_CONTEXT", "cuDevicePrimaryCtxRelease_v2", &[0]);
    });
    told(
        &lines,
        &[
            "before cuInit",
            "no context is current",
            "0x0 is no stream",
            "is no stream",
            "a destroyed event",
            "no context is current",
            "neither a cubin",
            "device 1 of 1",
            "was released",
            "not retained",
        ],
    );
}

#[test]
fn memory_is_checked() {
    let lines = in_process("memory_is_checked", &[("SOFTCUDA_MEMORY_BYTES", "1000000")], |cuda| {
        let p = Program::begin(cuda);
        let host = [0u32; 64];
        let (addr, host_addr) = (p.alloc(100), host.as_ptr() as u64);
        let pinned = cuda.make("cuMemHostAlloc", &[100, 0]);
        let upload = |to, from, bytes| {
            cuda.refused("ERROR_INVALID_VALUE", "cuMemcpyHtoDAsync_v2", &[to, from, bytes, p.stream]);
        };
        upload(addr, host_addr, 101);
        upload(addr - 1, host_addr, 4);
        upload(host_addr, host_addr, 4);
        upload(addr, addr, 4);
        upload(addr, pinned + 1, 100);
        cuda.refused("ERROR_INVALID_VALUE", "cuMemsetD8Async", &[addr + 99, 0, 2, p.stream]);
        cuda.refused("ERROR_INVALID_VALUE", "cuMemFree_v2", &[addr + 4]);
        cuda.refused("ERROR_INVALID_VALUE", "cuMemAlloc_v2", &[host_addr, 0]);
        cuda.refused("ERROR_OUT_OF_MEMORY", "cuMemAlloc_v2", &[host_addr, 1_000_000]);
        assert_eq!(p.download(addr, 25), [u32::MAX; 25], "what nobody has written is of no use");
        // Behind 100 bytes, up to the next multiple of 256, there is memory.
        p.launch("numbering", 1, 26, 0, &[addr]);
        p.free(addr);
        cuda.refused("ERROR_INVALID_VALUE", "cuMemFree_v2", &[addr]);
        cuda.call("cuMemFreeHost", &[pinned]);
        p.end();
    });
    told(
        &lines,
        &[
            "101 bytes",
            "not within one allocation",
            "not an address of the device",
            "from 4 bytes at 0x2",
            "of pinned memory",
            "not within one allocation",
            "nothing is allocated",
            "0 bytes",
            "something wrote behind the allocation",
            "nothing is allocated",
        ],
    );
}

#[test]
fn a_kernel_that_uses_freed_memory_fails_and_so_does_all_after_it() {
    let lines = in_process("a_kernel_that_uses_freed_memory_fails_and_so_does_all_after_it", &[], |cuda| {
        let p = Program::begin(cuda);
        let (addr, other) = (p.alloc(4096), p.alloc(4));
        let graph = p.capture(|| p.launch("numbering", 1, 32, 0, &[addr]));
        cuda.call("cuGraphLaunch", &[graph.1, p.stream]);
        cuda.call("cuStreamSynchronize", &[p.stream]);
        p.free(addr);
        cuda.call("cuGraphLaunch", &[graph.1, p.stream]);
        cuda.refused("ERROR_ILLEGAL_ADDRESS", "cuStreamSynchronize", &[p.stream]);
        cuda.refused("ERROR_ILLEGAL_ADDRESS", "cuMemFree_v2", &[other]);
        cuda.refused("ERROR_ILLEGAL_ADDRESS", "cuStreamDestroy_v2", &[p.stream]);
    });
    let access = "on a stream: numbering, block (0, 0, 0), thread (0, 0, 0): access to 0x2";
    told(&lines, &[access, "the process ends while the context is retained", "leaked: 1 allocation(s)"]);
}

#[test]
fn what_is_not_waited_for_has_not_happened() {
    let lines = in_process("what_is_not_waited_for_has_not_happened", &[], |cuda| {
        let p = Program::begin(cuda);
        let (addr, small) = (p.alloc(4 << 20), p.alloc(4));
        let pinned = cuda.make("cuMemHostAlloc", &[8, 0]) as *mut u32;
        // SAFETY: 8 bytes of pinned memory; that copies are under way meanwhile is what is tested.
        let set = |index: usize, value: u32| unsafe { pinned.add(index).write_volatile(value) };
        // SAFETY: as above.
        let get = |index: usize| unsafe { pinned.add(index).read_volatile() };
        set(0, 5);
        set(1, 6);
        cuda.call("cuMemsetD8Async", &[addr, 0, 4 << 20, p.stream]);
        p.launch("numbering", 1024, 1024, 0, &[addr]);
        cuda.call("cuMemcpyHtoDAsync_v2", &[small, pinned as u64, 4, p.stream]);
        cuda.call("cuMemcpyDtoHAsync_v2", &[pinned as u64 + 4, small, 4, p.stream]);
        assert_eq!(get(1), 6, "read too early");
        set(0, 7); // written too early
        cuda.call("cuStreamSynchronize", &[p.stream]);
        assert_eq!(get(1), 7);
        // Pageable memory may be used again as soon as the call returns.
        let mut pageable = [8u32];
        p.launch("numbering", 1024, 1024, 0, &[addr]);
        p.upload(small, &pageable);
        pageable[0] = 9;
        assert_eq!((p.download(small, 1), pageable), (vec![8], [9]));
        cuda.call("cuMemFreeHost", &[pinned as u64]);
        p.free(addr);
        p.free(small);
        p.end();
    });
    told(&lines, &[]);
}

#[test]
fn captures_are_isolated_and_end_where_they_began() {
    let lines = in_process("captures_are_isolated_and_end_where_they_began", &[], |cuda| {
        let p = Program::begin(cuda);
        let (addr, event) = (p.alloc(64), cuda.make("cuEventCreate", &[0]));
        let mut graph = 1u64;
        let begin = || cuda.call("cuStreamBeginCapture_v2", &[p.stream, 1]);
        let invalid = |graph: &mut u64| {
            let end = [p.stream, std::ptr::from_mut(graph) as u64];
            cuda.refused("ERROR_STREAM_CAPTURE_INVALIDATED", "cuStreamEndCapture", &end);
            assert_eq!(*graph, 0, "no graph");
            *graph = 1;
        };
        cuda.call("cuEventRecord", &[event, p.stream]);
        begin();
        cuda.refused("ERROR_STREAM_CAPTURE_ISOLATION", "cuStreamWaitEvent", &[p.stream, event, 0]);
        let fill = [addr, 0, 64, p.stream];
        cuda.refused("ERROR_STREAM_CAPTURE_INVALIDATED", "cuMemsetD8Async", &fill);
        invalid(&mut graph);
        for (call, arguments) in [
            ("cuStreamSynchronize", vec![p.stream]),
            ("cuMemAlloc_v2", vec![&raw mut graph as u64, 4]),
            ("cuMemFree_v2", vec![addr]),
            ("cuModuleLoadData", vec![&raw mut graph as u64, c"softcuda".as_ptr() as u64]),
            ("cuStreamDestroy_v2", vec![p.stream]),
        ] {
            begin();
            cuda.refused("ERROR_STREAM_CAPTURE_UNSUPPORTED", call, &arguments);
            invalid(&mut graph);
        }
        begin();
        cuda.call("cuEventRecord", &[event, p.stream]);
        cuda.refused("ERROR_CAPTURED_EVENT", "cuEventSynchronize", &[event]);
        invalid(&mut graph);
        cuda.refused("ERROR_ILLEGAL_STATE", "cuStreamEndCapture", &[p.stream, &raw mut graph as u64]);
        begin();
        cuda.refused("ERROR_ILLEGAL_STATE", "cuStreamBeginCapture_v2", &[p.stream, 1]);
        cuda.call("cuMemsetD8Async", &fill);
        let context = cuda.make("cuDevicePrimaryCtxRetain", &[0]);
        let other_thread = || {
            // Of another thread, a call does not disturb a thread-local capture.
            cuda.call("cuCtxSetCurrent", &[context]);
            cuda.call("cuMemFree_v2", &[cuda.make("cuMemAlloc_v2", &[4])]);
            let mut graph = 0u64;
            let end = [p.stream, &raw mut graph as u64];
            cuda.refused("ERROR_STREAM_CAPTURE_WRONG_THREAD", "cuStreamEndCapture", &end);
        };
        std::thread::scope(|scope| scope.spawn(other_thread).join()).expect("refused");
        cuda.call("cuStreamEndCapture", &[p.stream, &raw mut graph as u64]);
        cuda.call("cuGraphDestroy", &[graph]);
        cuda.call("cuEventDestroy_v2", &[event]);
        cuda.call("cuDevicePrimaryCtxRelease_v2", &[0]);
        p.free(addr);
        p.end();
    });
    assert_eq!(lines.len(), 2 + 1 + 2 * 5 + 2 + 3, "{lines:#?}");
}

#[test]
fn chained_kernels_have_to_wait() {
    let lines = in_process("chained_kernels_have_to_wait", &[], |cuda| {
        let p = Program::begin(cuda);
        let (from, to) = (p.alloc(4 * 64), p.alloc(4 * 64));
        let written: Vec<u32> = (0..64).map(|i| 1 + 2 * i).collect();
        for (reader, expected) in [("read_after_wait", &written), ("read_before_wait", &vec![1; 64])] {
            let graph = p.capture(|| {
                p.launch("numbering", 1, 64, 0, &[from]);
                p.launch(reader, 1, 64, CHAINED, &[from, to]);
            });
            p.upload(from, &[1u32; 64]);
            cuda.call("cuGraphLaunch", &[graph.1, p.stream]);
            assert_eq!(&p.download(to, 64), expected, "{reader}");
            p.destroy(graph);
        }
        // Without the edge there is nothing to wait for.
        p.launch("no_wait_where_it_leaves", 2, 32, 0, &[to]);
        cuda.call("cuStreamSynchronize", &[p.stream]);
        p.launch("no_wait_where_it_leaves", 2, 32, CHAINED, &[to]);
        cuda.refused("ERROR_LAUNCH_FAILED", "cuStreamSynchronize", &[p.stream]);
        cuda.call("cuDevicePrimaryCtxRelease_v2", &[0]);
    });
    told(&lines, &["block (1, 0, 0), thread (5, 0, 0): it returned without pdl_wait", "leaked: 2 allocation(s)"]);
}

#[test]
fn launches_are_checked() {
    let lines = in_process("launches_are_checked", &[], |cuda| {
        let p = Program::begin(cuda);
        let (addr, host) = (p.alloc(64 << 10), [0u32; 4]);
        let launch = |kernel: &str, blocks, threads, shared_bytes, attribute, params: &[u64]| {
            let shape = Shape { blocks, threads, shared_bytes, attribute };
            cuda.name_of(p.launch_status(p.function(kernel), shape, params))
        };
        let invalid = "CUDA_ERROR_INVALID_VALUE";
        assert_eq!(launch("numbering", 0, 32, 0, 0, &[addr]), invalid);
        assert_eq!(launch("numbering", 1, 1025, 0, 0, &[addr]), invalid);
        assert_eq!(launch("numbering", 1, 32, 0, 4, &[addr]), "CUDA_ERROR_NOT_SUPPORTED");
        assert_eq!(launch("numbering", 1, 32, 0, 0, &[host.as_ptr() as u64]), "CUDA_ERROR_ILLEGAL_ADDRESS");
        assert_eq!(launch("reverse", 1, 64, (48 << 10) + 16, 0, &[addr, addr]), invalid);
        cuda.call("cuFuncSetAttribute", &[p.function("reverse"), 8, (48 << 10) + 16]);
        assert_eq!(launch("reverse", 1, 64, (48 << 10) + 16, 0, &[addr, addr + 4096]), "CUDA_SUCCESS");
        cuda.refused("ERROR_INVALID_VALUE", "cuFuncSetAttribute", &[p.function("reverse"), 8, 1 << 20]);
        let graph = p.capture(|| p.launch("numbering", 1, 32, 0, &[addr]));
        cuda.refused("ERROR_NOT_SUPPORTED", "cuGraphInstantiateWithFlags", &[addr, graph.0, 1]);
        cuda.call("cuModuleUnload", &[p.module]);
        cuda.refused("ERROR_INVALID_HANDLE", "cuGraphLaunch", &[graph.1, p.stream]);
        p.destroy(graph);
        p.free(addr);
        cuda.call("cuStreamDestroy_v2", &[p.stream]);
        cuda.call("cuDevicePrimaryCtxRelease_v2", &[0]);
    });
    told(
        &lines,
        &[
            "a grid of [0",
            "at most 1024 threads",
            "attribute 4",
            "parameter 0 of 1, byte 0",
            "at most 49152 so far",
            "at most 232448",
            "flags 1",
            "the module of numbering is unloaded",
        ],
    );
}

#[test]
fn blocks_that_a_multiprocessor_holds_are_counted() {
    let lines = in_process("blocks_that_a_multiprocessor_holds_are_counted", &[], |cuda| {
        let p = Program::begin(cuda);
        let call = "cuOccupancyMaxActiveBlocksPerMultiprocessor";
        let held = |threads: u64, shared_bytes: u64| cuda.make(call, &[p.function("reverse"), threads, shared_bytes]);
        assert_eq!((held(256, 0), held(64, 0)), (8, 32), "2048 threads, 32 blocks");
        assert_eq!(held(256, 40 << 10), 5, "228 KiB of shared memory, and 1 KiB of each block is the system's");
        assert_eq!(held(256, 64 << 10), 0, "more than it may have so far");
        cuda.call("cuFuncSetAttribute", &[p.function("reverse"), 8, 64 << 10]);
        assert_eq!(held(256, 64 << 10), 3);
        let mut blocks = 0u64;
        cuda.refused("ERROR_INVALID_VALUE", call, &[&raw mut blocks as u64, p.function("reverse"), 1025, 0]);
        p.end();
    });
    told(&lines, &["blocks of 1025 threads"]);
}

#[test]
fn what_is_left_is_told_at_the_end() {
    let lines = in_process("what_is_left_is_told_at_the_end", &[], |cuda| {
        let p = Program::begin(cuda);
        p.alloc(100);
        p.alloc(200);
        cuda.make("cuMemHostAlloc", &[50, 0]);
        cuda.make("cuEventCreate", &[0]);
        p.capture(|| {});
        p.end();
    });
    let left = "leaked: 2 allocation(s) of device memory, 300 bytes, 1 allocation(s) of pinned memory, 50 bytes, \
                1 event(s), 1 executable graph(s), 1 graph(s)";
    told(&lines, &[left]);
}

#[test]
fn one_call_can_be_made_to_fail() {
    let test = "one_call_can_be_made_to_fail";
    let run = |fail: &str, expected: [&str; 3]| {
        in_process(test, &[("SOFTCUDA_FAIL_CALL", fail), ("EXPECTED", &expected.join(" "))], |cuda| {
            let calls = [("cuInit", vec![0]), ("cuCtxSetCurrent", vec![0]), ("cuCtxSetCurrent", vec![0])];
            let expected = std::env::var("EXPECTED").expect("given");
            for ((name, arguments), expected) in calls.iter().zip(expected.split(' ')) {
                assert_eq!(cuda.name_of(cuda.status(name, arguments)), expected);
            }
        })
    };
    let fine = "CUDA_SUCCESS";
    told(&run("2", [fine, "CUDA_ERROR_UNKNOWN", fine]), &[]);
    told(&run("3:2", [fine, fine, "CUDA_ERROR_OUT_OF_MEMORY"]), &[]);
    told(&run("0", [fine; 3]), &["3 calls"]);
}
