//! What records say, and of what there is one.

use crate::collect::{BIG, Cupti, DRIVER, Handing, KERNEL, MEMCPY, MEMSET, OVERHEAD, Record};
use crate::collect::{close_clock, open_clock, requests, wait_for_clock};
use crate::process::{Program, Shape, in_process};
use crate::told;

fn of_kind(records: &[Record], kind: u64) -> Vec<&Record> {
    records.iter().filter(|record| record.kind() == kind).collect()
}

#[test]
fn work_is_recorded_as_it_was_asked_for() {
    let lines = in_process("records::work_is_recorded_as_it_was_asked_for", &[], |cuda| {
        let cupti = Cupti::begin(cuda, &[KERNEL, MEMCPY, MEMSET]);
        let p = Program::begin(cuda);
        let (from, to) = (p.alloc(4096), p.alloc(4096));
        let pinned = cuda.make("cuMemHostAlloc", &[100, 0]);
        p.upload(from, &[1u32; 1024]);
        cuda.call("cuMemcpyHtoDAsync_v2", &[from, pinned, 100, p.stream]);
        let shape = Shape { blocks: 3, threads: 32, shared_bytes: 1024, attribute: 0 };
        assert_eq!(p.launch_status(p.function("reverse"), shape, &[from, to]), 0);
        cuda.call("cuMemsetD8Async", &[to, 0xab, 77, p.stream]);
        p.download(to, 5);
        let other = cuda.make("cuStreamCreate", &[1]);
        cuda.call("cuMemsetD8Async", &[to, 1, 1, other]);
        cuda.call("cuStreamSynchronize", &[other]);
        let records = cupti.records();
        let kinds: Vec<u64> = records.iter().map(Record::kind).collect();
        assert_eq!(kinds, [MEMCPY, MEMCPY, KERNEL, MEMSET, MEMCPY, MEMSET]);

        let copy = |index: usize| {
            let record: &Record = &records[index];
            ([4, 5, 6].map(|at| record.u8(at)), record.u64(8), record.u64(64), record.u32(72))
        };
        assert_eq!(copy(0), ([1, 1, 3], 4096, 0, 0), "from pageable memory, outside of graphs");
        assert_eq!(copy(1), ([1, 2, 3], 100, 0, 0), "from pinned memory");
        assert_eq!(copy(4), ([2, 3, 1], 20, 0, 0), "to pageable memory");
        let kernel = &records[2];
        let numbers = [40, 44, 52, 56, 60, 64, 68, 72, 76, 80].map(|at| kernel.u32(at));
        assert_eq!(numbers, [0, 1, 3, 1, 1, 32, 1, 1, 0, 1024], "device, context, grid, block, shared memory");
        assert_eq!((kernel.u16(6), kernel.u64(144), kernel.u32(156)), (0, 0, 0), "registers are not known of probes");
        assert_eq!((records[3].u32(4), records[3].u64(8)), (0xab, 77));
        assert_eq!((records[3].u64(64), records[3].u32(72), records[3].u16(50)), (0, 0, 3));

        // Streams and correlations: those of a copy and a fill lie at the same place.
        let at = |record: &Record, kernel: usize, other: usize| {
            record.u32(if record.kind() == KERNEL { kernel } else { other })
        };
        let streams: Vec<u32> = records.iter().map(|record| at(record, 48, 40)).collect();
        assert!(streams[0] >= 7 && streams[..5].iter().all(|stream| *stream == streams[0]), "{streams:?}");
        assert!(streams[5] != streams[0] && streams[5] >= 7, "{streams:?}");
        let correlations: Vec<u32> = records.iter().map(|record| at(record, 92, 44)).collect();
        assert!(correlations[0] > 0 && correlations.is_sorted_by(|a, b| a < b), "{correlations:?}");
        assert!(records.iter().all(|record| record.times().0 > 1_000 && record.times().0 < record.times().1));

        [KERNEL, MEMCPY, MEMSET].iter().for_each(|&kind| cupti.disable(kind));
        cuda.call("cuStreamDestroy_v2", &[other]);
        cuda.call("cuMemFreeHost", &[pinned]);
        p.free(from);
        p.free(to);
        p.end();
    });
    told(&lines, &[]);
}

#[test]
fn calls_of_the_driver_are_recorded() {
    let lines = in_process("records::calls_of_the_driver_are_recorded", &[], |cuda| {
        cuda.call("cuptiSetThreadIdType", &[1]);
        let cupti = Cupti::begin(cuda, &[DRIVER, KERNEL]);
        let p = Program::begin(cuda);
        let addr = p.alloc(4096);
        p.launch("numbering", 1, 32, 0, &[addr]);
        cuda.refused("ERROR_INVALID_HANDLE", "cuStreamSynchronize", &[0]);
        cuda.call("cuStreamSynchronize", &[p.stream]);
        cupti.disable(DRIVER);
        p.free(addr);
        let records = cupti.records();
        let calls = of_kind(&records, DRIVER);
        let ids: Vec<u32> = calls.iter().map(|call| call.u32(4)).collect();
        // cuInit, retain, set current, stream, module; memory, function, launch, synchronise twice.
        assert_eq!(ids, [1, 386, 303, 124, 19, 243, 23, 652, 126, 126]);
        let returned: Vec<u32> = calls.iter().map(|call| call.u32(36)).collect();
        assert_eq!(returned, [0, 0, 0, 0, 0, 0, 0, 0, 400, 0]);
        // SAFETY: it takes nothing.
        let thread = unsafe { libc::gettid() } as u32;
        assert!(calls.iter().all(|call| (call.u32(24), call.u32(28)) == (std::process::id(), thread)));
        assert!(calls.iter().all(|call| call.times().0 < call.times().1));
        let correlations: Vec<u32> = calls.iter().map(|call| call.u32(32)).collect();
        assert!(correlations[0] > 0 && correlations.is_sorted_by(|a, b| a < b), "{correlations:?}");
        let kernels = of_kind(&records, KERNEL);
        assert_eq!(kernels.iter().map(|kernel| kernel.u32(92)).collect::<Vec<_>>(), [correlations[7]]);
        cupti.disable(KERNEL);
        p.end();
        assert_eq!(cupti.flush(true).len(), 0, "nothing is enabled");
    });
    told(&lines, &["0x0 is no stream"]);
}

#[test]
fn what_is_done_outside_of_a_session_is_not_recorded() {
    let lines = in_process("records::what_is_done_outside_of_a_session_is_not_recorded", &[], |cuda| {
        let cupti = Cupti::begin(cuda, &[]);
        let p = Program::begin(cuda);
        let addr = p.alloc(4096);
        let launch = |threads: u32| p.launch("numbering", 1, threads, 0, &[addr]);
        launch(1);
        cuda.call("cuStreamSynchronize", &[p.stream]);
        assert_eq!((requests(), cupti.flush(true).len()), (0, 0));

        // Put on the stream before, done after the kind was enabled; and the other way round.
        let event = cuda.make("cuEventCreate", &[0]);
        cupti.enable(MEMSET);
        let other = cuda.make("cuStreamCreate", &[1]);
        close_clock();
        cuda.call("cuMemsetD8Async", &[addr, 0, 1, other]);
        wait_for_clock();
        cuda.call("cuEventRecord", &[event, other]);
        cuda.call("cuStreamWaitEvent", &[p.stream, event, 0]);
        launch(2);
        cupti.enable(KERNEL);
        launch(3);
        open_clock();
        cuda.call("cuStreamSynchronize", &[p.stream]);
        close_clock();
        launch(4);
        wait_for_clock();
        launch(5);
        cupti.disable(KERNEL);
        open_clock();
        cuda.call("cuStreamSynchronize", &[p.stream]);
        // Put on the stream between two sessions, done in the second.
        close_clock();
        cuda.call("cuMemsetD8Async", &[addr, 0, 1, p.stream]);
        wait_for_clock();
        cupti.enable(KERNEL);
        cuda.call("cuEventRecord", &[event, other]);
        cupti.disable(KERNEL);
        cupti.disable(MEMSET);
        launch(6);
        cupti.enable(KERNEL);
        open_clock();
        cuda.call("cuStreamSynchronize", &[p.stream]);
        let records = cupti.records();
        let threads: Vec<u32> = of_kind(&records, KERNEL).iter().map(|kernel| kernel.u32(64)).collect();
        assert_eq!(threads, [3, 4], "4 had begun");
        cupti.disable(KERNEL);
        cuda.call("cuStreamDestroy_v2", &[other]);
        cuda.call("cuEventDestroy_v2", &[event]);
        p.free(addr);
        p.end();
    });
    told(&lines, &[]);
}

#[test]
fn cupti_s_own_time_is_recorded() {
    let lines = in_process("records::cupti_s_own_time_is_recorded", &[], |cuda| {
        cuda.call("cuptiSetThreadIdType", &[1]);
        const FLUSH: u32 = 1 << 16;
        const REQUEST: u32 = 7 << 16;
        let cupti = Cupti::begin(cuda, &[OVERHEAD, MEMSET]);
        let p = Program::begin(cuda);
        let addr = p.alloc(64);
        let fill = || {
            cuda.call("cuMemsetD8Async", &[addr, 0, 64, p.stream]);
            cuda.call("cuStreamSynchronize", &[p.stream]);
        };
        fill();
        let records = cupti.records();
        let kinds: Vec<(u64, u32)> = records.iter().map(|record| (record.kind(), record.u32(4))).collect();
        assert_eq!(kinds, [(MEMSET, 0), (OVERHEAD, REQUEST), (OVERHEAD, FLUSH)]);
        for record in of_kind(&records, OVERHEAD) {
            assert!(record.times().0 < record.times().1);
            assert_eq!((record.0.len(), record.u32(8), record.u32(12)), (56, 2, std::process::id()), "of a thread");
        }
        // SAFETY: it takes nothing.
        let thread = unsafe { libc::gettid() } as u32;
        assert!(records[1].u32(16) != thread && records[2].u32(16) == thread, "the stream's, and this one");
        assert_eq!(cupti.flush(true).len(), 0, "nor is there anything left");

        // Where a buffer holds one record, each record needs a buffer; what is asked for to say so is not said.
        cupti.hand(Handing { records_max: 1, ..BIG });
        fill();
        let returned = cupti.flush(true);
        let kinds: Vec<(u64, u32)> =
            returned.iter().flat_map(|buffer| &buffer.records).map(|record| (record.kind(), record.u32(4))).collect();
        assert_eq!(kinds, [(MEMSET, 0), (OVERHEAD, REQUEST), (OVERHEAD, FLUSH), (OVERHEAD, REQUEST)]);
        assert_eq!(returned.len(), 4);
        [OVERHEAD, MEMSET].iter().for_each(|&kind| cupti.disable(kind));
        p.free(addr);
        p.end();
    });
    told(&lines, &[]);
}

/// By pthread_self, as long as nobody asks for the system's numbers.
#[test]
fn threads_are_numbered_as_asked() {
    let lines = in_process("records::threads_are_numbered_as_asked", &[], |cuda| {
        let cupti = Cupti::begin(cuda, &[]);
        let p = Program::begin(cuda);
        let mut threads = [0; 2];
        for kind in [0, 1] {
            cuda.call("cuptiSetThreadIdType", &[kind as u64]);
            cupti.enable(DRIVER);
            cuda.make("cuDriverGetVersion", &[]);
            cupti.disable(DRIVER);
            threads[kind] = of_kind(&cupti.records(), DRIVER)[0].u32(28);
        }
        // SAFETY: both take nothing.
        assert_eq!(threads, unsafe { [libc::pthread_self() as u32, libc::gettid() as u32] });
        assert_eq!(cuda.status("cuptiSetThreadIdType", &[2]), 1);
        p.end();
    });
    told(&lines, &["numbered"]);
}
