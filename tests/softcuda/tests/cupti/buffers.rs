//! Buffers: when they are asked for and given back, and what becomes of records without room.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::collect::{BIG, Cupti, DRIVER, Handing, KERNEL, MEMSET, Returned};
use crate::collect::{close_clock, hold_requests, open_clock, requests, wait_for_clock, wait_until};
use crate::process::{Cuda, Program, in_process};
use crate::told;

/// How many records each buffer has.
fn counts(returned: &[Returned]) -> Vec<usize> {
    returned.iter().map(|buffer| buffer.records.len()).collect()
}

/// A program with memory to fill, of which fills are recorded.
struct Filling<'a> {
    cupti: Cupti<'a>,
    p: Program<'a>,
    addr: u64,
}

impl<'a> Filling<'a> {
    fn begin(cuda: &'a Cuda) -> Filling<'a> {
        let cupti = Cupti::begin(cuda, &[MEMSET]);
        let p = Program::begin(cuda);
        let addr = p.alloc(64);
        Filling { cupti, p, addr }
    }

    fn ask(&self, stream: u64) {
        self.p.cuda.call("cuMemsetD8Async", &[self.addr, 0, 64, stream]);
    }

    fn wait(&self, stream: u64) {
        self.p.cuda.call("cuStreamSynchronize", &[stream]);
    }

    /// So many fills that have ended.
    fn fill(&self, count: usize) {
        (0..count).for_each(|_| self.ask(self.p.stream));
        self.wait(self.p.stream);
    }

    fn end(self) {
        self.cupti.disable(MEMSET);
        self.p.free(self.addr);
        self.p.end();
    }
}

#[test]
fn full_buffers_are_given_back_at_once() {
    let lines = in_process("buffers::full_buffers_are_given_back_at_once", &[], |cuda| {
        let f = Filling::begin(cuda);
        let room_for_two = Handing { bytes: 2 * 88 + 87, ..BIG };
        for handing in [Handing { records_max: 2, ..BIG }, room_for_two] {
            f.cupti.hand(handing);
            f.fill(5);
            let full = f.cupti.returned();
            assert_eq!(counts(&full), [2, 2]);
            assert!(full.iter().all(|buffer| buffer.thread != std::thread::current().id()), "the thread that fills it");
            let rest = f.cupti.flush(false);
            assert_eq!(counts(&rest), [1]);
            assert_eq!(rest[0].thread, std::thread::current().id());
            assert_eq!(counts(&f.cupti.flush(true)), [], "nothing is kept");
        }
        assert_eq!(requests(), 6);
        f.end();
    });
    told(&lines, &[]);
}

#[test]
fn only_a_forced_flush_gives_back_what_is_not_complete() {
    let lines = in_process("buffers::only_a_forced_flush_gives_back_what_is_not_complete", &[], |cuda| {
        let f = Filling::begin(cuda);
        close_clock();
        f.ask(f.p.stream);
        wait_for_clock();
        assert_eq!(counts(&f.cupti.flush(false)), []);
        let forced = f.cupti.flush(true);
        assert_eq!((counts(&forced), forced[0].records[0].times()), (vec![1], (0, 0)));
        open_clock();
        f.wait(f.p.stream);
        assert_eq!(counts(&f.cupti.flush(true)), [], "the record is gone");

        // A full buffer waits for its last record, and is given back from the thread that completes it.
        f.cupti.hand(Handing { records_max: 1, ..BIG });
        let other = cuda.make("cuStreamCreate", &[1]);
        close_clock();
        f.ask(f.p.stream);
        wait_for_clock();
        f.ask(other);
        f.ask(other);
        f.wait(other);
        assert_eq!(counts(&f.cupti.returned()), [1], "the other stream's first");
        assert_eq!(counts(&f.cupti.flush(false)), [1], "its second");
        open_clock();
        f.wait(f.p.stream);
        let late = f.cupti.returned();
        assert_eq!(counts(&late), [1]);
        assert!(late[0].thread != std::thread::current().id());
        assert!(late[0].records[0].times().0 > 0);

        // The same, forced.
        close_clock();
        f.ask(f.p.stream);
        wait_for_clock();
        f.ask(other);
        f.wait(other);
        assert_eq!(counts(&f.cupti.flush(true)), [1, 1]);
        open_clock();
        f.wait(f.p.stream);
        assert_eq!(counts(&f.cupti.flush(true)), []);
        cuda.call("cuStreamDestroy_v2", &[other]);
        f.end();
    });
    told(&lines, &[]);
}

#[test]
fn each_thread_has_its_own_buffer_for_calls() {
    let lines = in_process("buffers::each_thread_has_its_own_buffer_for_calls", &[], |cuda| {
        cuda.call("cuptiSetThreadIdType", &[1]);
        let f = Filling::begin(cuda);
        f.cupti.enable(DRIVER);
        // SAFETY: it takes nothing.
        let thread = || unsafe { libc::gettid() } as u32;
        cuda.make("cuDriverGetVersion", &[]);
        let call = || {
            cuda.make("cuDriverGetVersion", &[]);
            cuda.make("cuDriverGetVersion", &[]);
            thread()
        };
        let other = std::thread::scope(|scope| scope.spawn(call).join()).expect("it ends");
        f.fill(1);
        let returned = f.cupti.flush(false);
        let threads: Vec<Vec<u32>> = returned
            .iter()
            .map(|buffer| buffer.records.iter().filter(|record| record.kind() == DRIVER))
            .map(|records| records.map(|record| record.u32(28)).collect())
            .collect();
        assert_eq!(threads, [vec![], vec![thread(); 3], vec![other; 2]], "the device's, this thread's, the other's");
        f.cupti.disable(DRIVER);
        f.end();
    });
    told(&lines, &[]);
}

#[test]
fn records_without_room_are_counted() {
    let lines = in_process("buffers::records_without_room_are_counted", &[], |cuda| {
        let f = Filling::begin(cuda);
        f.cupti.hand(Handing { bytes: 0, ..BIG });
        f.fill(3);
        assert_eq!((f.cupti.dropped(), f.cupti.dropped()), (3, 0), "none; and each is counted once");
        f.cupti.hand(Handing { bytes: 87, ..BIG });
        f.fill(1);
        assert_eq!((f.cupti.dropped(), counts(&f.cupti.returned())), (1, vec![0]), "too small");
        f.cupti.hand(Handing { offset: 4, ..BIG });
        f.fill(1);
        assert_eq!((f.cupti.dropped(), counts(&f.cupti.returned())), (1, vec![0]), "not aligned");
        f.cupti.hand(Handing { offset: 8, ..BIG });
        f.fill(1);
        assert_eq!((f.cupti.dropped(), counts(&f.cupti.flush(true))), (0, vec![1]));
        f.end();
    });
    told(&lines, &["is no multiple of 8"]);
}

#[test]
fn buffers_are_zeroed_as_agreed() {
    let lines = in_process("buffers::buffers_are_zeroed_as_agreed", &[], |cuda| {
        let f = Filling::begin(cuda);
        f.fill(1);
        let returned = f.cupti.flush(true);
        assert_eq!((counts(&returned), returned[0].is_zeroed), (vec![1], true), "it was dirty");
        let (bytes, value) = (1usize, 1u8);
        cuda.call("cuptiActivitySetAttribute", &[5, &raw const bytes as u64, &raw const value as u64]);
        f.cupti.hand(Handing { dirt: 0, ..BIG });
        f.fill(1);
        f.cupti.hand(Handing { dirt: 1, ..BIG });
        assert!(f.cupti.flush(true)[0].is_zeroed);
        f.fill(1);
        let returned = f.cupti.flush(true);
        assert_eq!((counts(&returned), returned[0].is_zeroed), (vec![1], false), "it is left as it is");
        f.end();
    });
    told(&lines, &["not all zeros"]);
}

#[test]
fn functions_for_buffers_may_not_flush() {
    let lines = in_process("buffers::functions_for_buffers_may_not_flush", &[], |cuda| {
        let f = Filling::begin(cuda);
        f.cupti.flush_in_callbacks(true);
        f.fill(1);
        f.cupti.flush_in_callbacks(false);
        assert_eq!(counts(&f.cupti.flush(true)), [1], "after it, all is as ever");
        f.end();
    });
    told(&lines, &["in a function for buffers"]);
}

#[test]
fn a_function_for_buffers_may_wait_for_other_threads() {
    let lines = in_process("buffers::a_function_for_buffers_may_wait_for_other_threads", &[], |cuda| {
        let f = Filling::begin(cuda);
        let held = hold_requests();
        f.ask(f.p.stream);
        wait_until("the stream's thread asks for a buffer", || requests() == 1);
        // It waits for this thread, which goes on.
        f.ask(f.p.stream);
        drop(held);
        f.wait(f.p.stream);
        f.cupti.enable(DRIVER);
        cuda.make("cuDriverGetVersion", &[]);
        let held = hold_requests();
        let has_returned = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| cuda.make("cuDriverGetVersion", &[]));
            wait_until("the other thread asks for a buffer", || requests() == 3);
            // It waits, but not in the driver: this call returns. It has a buffer, so that it need not ask.
            scope.spawn(|| {
                wait_until("the call returns", || has_returned.load(SeqCst));
            });
            cuda.make("cuDriverGetVersion", &[]);
            has_returned.store(true, SeqCst);
            drop(held);
        });
        f.cupti.disable(DRIVER);
        assert_eq!(counts(&f.cupti.flush(true)), [2, 2, 1], "the device's, this thread's, the other's");
        f.end();
    });
    told(&lines, &[]);
}

#[test]
fn kernels_are_dropped_or_without_times_on_request() {
    let test = "buffers::kernels_are_dropped_or_without_times_on_request";
    let run = |variable: &str| {
        in_process(test, &[(variable, "3"), ("WHICH", variable)], |cuda| {
            let f = Filling::begin(cuda);
            f.cupti.enable(KERNEL);
            (1..=7).for_each(|threads| f.p.launch("numbering", 1, threads, 0, &[f.addr]));
            f.fill(1);
            let records = f.cupti.records();
            let (has_times, has_none): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.times() != (0, 0));
            assert!(has_times.iter().all(|record| record.times().0 > 0 && record.times().1 > 0));
            let kernels = |records: &[&crate::collect::Record]| -> Vec<u32> {
                records.iter().filter(|record| record.kind() == KERNEL).map(|record| record.u32(64)).collect()
            };
            let result = (kernels(&has_times), kernels(&has_none), f.cupti.dropped());
            let is_dropped = std::env::var("WHICH").expect("given") == "SOFTCUDA_CUPTI_DROP_EVERY";
            let dropped = (vec![1, 2, 4, 5, 7], vec![], 2);
            assert_eq!(result, if is_dropped { dropped } else { (vec![1, 2, 3], vec![4, 5, 6, 7], 0) });
            f.cupti.disable(KERNEL);
            f.end();
        })
    };
    told(&run("SOFTCUDA_CUPTI_DROP_EVERY"), &[]);
    told(&run("SOFTCUDA_CUPTI_INVALID_AFTER"), &[]);
}
