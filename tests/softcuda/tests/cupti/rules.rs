//! What CUPTI refuses, and what it says.

use std::cell::Cell;
use std::ffi::CStr;

use crate::collect::{Cupti, DRIVER, KERNEL, MEMSET, OVERHEAD};
use crate::process::{Cuda, Program, in_process};
use crate::told;

fn attribute(cuda: &Cuda, attribute: u64, bytes: usize) -> i32 {
    let value = [0u64; 2];
    cuda.status("cuptiActivitySetAttribute", &[attribute, &raw const bytes as u64, &raw const value as u64])
}

#[test]
fn before_the_driver_some_calls_work() {
    let lines = in_process("rules::before_the_driver_some_calls_work", &[], |cuda| {
        assert_eq!(cuda.make("cuptiGetVersion", &[]), 130_001);
        assert_eq!([(0, 8), (5, 1), (6, 8), (8, 1)].map(|(of, bytes)| attribute(cuda, of, bytes)), [0; 4]);
        assert!(cuda.make("cuptiGetTimestamp", &[]) > 1_600_000_000_000_000_000, "since 1970");
        let mut out = 0u64;
        for call in ["cuptiGetGraphNodeId", "cuptiGetGraphId", "cuptiGetGraphExecId"] {
            assert_eq!(cuda.status(call, &[1, &raw mut out as u64]), 15, "{call}");
        }
        assert_eq!(cuda.status("cuptiActivityFlushAll", &[0]), 7);
        assert_eq!(cuda.status("cuptiActivityEnable", &[KERNEL]), 7);
        let cupti = Cupti::begin(cuda, &[]);
        assert_eq!((cuda.make("cuptiGetTimestamp", &[]), cuda.make("cuptiGetTimestamp", &[])), (1_010, 1_020));
        assert_eq!((cupti.flush(true).len(), cupti.dropped()), (0, 0));
        assert_eq!(cuda.status("cuptiActivityFlushPeriod", &[100]), 0);
    });
    told(&lines, &["before cuInit", "before cuInit", "before cuInit", "no callbacks", "no callbacks"]);
}

#[test]
fn arguments_are_checked() {
    let lines = in_process("rules::arguments_are_checked", &[], |cuda| {
        let wrong = [(5, 8), (0, 4), (5, 0), (99, 1), (3, 8), (9, 1)];
        assert_eq!(wrong.map(|(of, bytes)| attribute(cuda, of, bytes)), [10, 10, 10, 1, 27, 27]);
        assert_eq!(cuda.status("cuptiActivitySetAttribute", &[5, 0, 0]), 1);
        let bytes = 1usize;
        assert_eq!(cuda.status("cuptiActivitySetAttribute", &[5, &raw const bytes as u64, 0]), 1);
        for call in ["cuptiGetVersion", "cuptiGetTimestamp", "cuptiActivityRegisterTimestampCallback"] {
            assert_eq!(cuda.status(call, &[0]), 1, "{call}");
        }
        assert_eq!(cuda.status("cuptiActivityRegisterCallbacks", &[0, attribute as *const () as u64]), 1);
        let cupti = Cupti::begin(cuda, &[]);
        assert_eq!(cuda.status("cuptiActivityGetNumDroppedRecords", &[0, 0, 0]), 1);
        assert_eq!(cuda.status("cuptiActivityFlushAll", &[2]), 1);
        assert_eq!(cuda.status("cuptiActivityEnable", &[5]), 21);
        assert_eq!(cuda.status("cuptiActivityDisable", &[0]), 21);
        let one = [1u8];
        let late = [9, &raw const bytes as u64, one.as_ptr() as u64];
        assert_eq!(cuda.status("cuptiActivitySetAttribute", &late), 0, "but it is late");
        cupti.enable(3);
        cupti.enable(51);
        assert_eq!(cupti.register_clock(), 0);
        cupti.disable(3);
        cupti.disable(51);
    });
    let words = [
        "in 8 bytes instead of 1",
        "in 4 bytes instead of 8",
        "in 0 bytes",
        "attribute 99",
        "since CUDA 12.3",
        "threads share",
        "no size",
        "no value",
        "cuptiGetVersion: a null pointer",
        "cuptiGetTimestamp: a null pointer",
        "cuptiActivityRegisterTimestampCallback: a null pointer",
        "cuptiActivityRegisterCallbacks: a null pointer",
        "cuptiActivityGetNumDroppedRecords: a null pointer",
        "flag 2",
        "kind 5 is not modelled",
        "kind 0 is not modelled",
        "after the callbacks were registered",
        "KERNEL makes kernels run one after the other",
        "GRAPH_TRACE hides",
        "cuptiActivityRegisterTimestampCallback: while a kind is enabled",
    ];
    told(&lines, &words);
}

#[test]
fn records_are_walked() {
    let lines = in_process("rules::records_are_walked", &[("SOFTCUDA_CUPTI", "13")], |cuda| {
        // A fill and a call, 104 and 40 bytes long.
        let buffer = [const { Cell::new(0u64) }; 50];
        buffer[0].set(MEMSET);
        buffer[13].set(DRIVER);
        let begin = buffer.as_ptr() as u64;
        let next = |record: &mut u64, bytes: u64| {
            cuda.status("cuptiActivityGetNextRecord", &[begin, bytes, std::ptr::from_mut(record) as u64])
        };
        let mut record = 0u64;
        assert_eq!((next(&mut record, 144), record - begin), (0, 0));
        assert_eq!((next(&mut record, 144), record - begin), (0, 104));
        assert_eq!((next(&mut record, 144), record - begin), (12, 104), "the end");
        assert_eq!((next(&mut record, 152), record - begin), (21, 104), "kind 0");
        buffer[18].set(99);
        assert_eq!(next(&mut record, 152), 21, "kind 99");
        record = begin;
        assert_eq!(next(&mut record, 143), 21, "cut");
        record = 0;
        assert_eq!(next(&mut record, 0), 12, "nothing");
        record = begin + 400;
        assert_eq!(next(&mut record, 144), 1, "elsewhere");
        assert_eq!(cuda.status("cuptiActivityGetNextRecord", &[0, 144, &raw mut record as u64]), 1);
        assert_eq!(cuda.status("cuptiActivityGetNextRecord", &[begin, 144, 0]), 1);
        let mut text = 0u64;
        for (status, name) in [(0, c"CUPTI_SUCCESS"), (39, c"CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED")] {
            cuda.call("cuptiGetResultString", &[status, &raw mut text as u64]);
            // SAFETY: a string of CUPTI's own.
            assert_eq!(unsafe { CStr::from_ptr(text as *const _) }, name);
        }
        assert_eq!(cuda.status("cuptiGetResultString", &[12_345, &raw mut text as u64]), 1);
    });
    told(&lines, &["a record of another buffer", "a null pointer", "a null pointer"]);
}

#[test]
fn what_is_left_at_the_end_is_told() {
    let test = "rules::what_is_left_at_the_end_is_told";
    let run = |left: &str| {
        in_process(test, &[("LEFT", left)], |cuda| {
            let cupti = Cupti::begin(cuda, &[MEMSET, OVERHEAD]);
            let p = Program::begin(cuda);
            let addr = p.alloc(4);
            cuda.call("cuMemsetD8Async", &[addr, 0, 4, p.stream]);
            cuda.call("cuStreamSynchronize", &[p.stream]);
            p.free(addr);
            let left = std::env::var("LEFT").expect("given");
            if left != "kinds" {
                cupti.disable(MEMSET);
                cupti.disable(OVERHEAD);
            }
            if left != "buffers" {
                cupti.flush(true);
            }
            p.end();
        })
    };
    told(&run("nothing"), &[]);
    told(&run("kinds"), &["cupti: kinds still enabled: MEMSET, OVERHEAD"]);
    told(&run("buffers"), &["cupti: 1 buffers not given back"]);
}

#[test]
fn both_libraries_are_one_and_a_process_may_have_the_driver_alone() {
    let test = "rules::both_libraries_are_one_and_a_process_may_have_the_driver_alone";
    let names = |folder: std::path::PathBuf| {
        let files = std::fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> =
            files.map(|file| file.expect("a file").file_name().into_string().expect("ASCII")).collect();
        names.sort();
        names
    };
    let lines = in_process(test, &[], |cuda| {
        let enable: usize = cuda.symbol("cuptiActivityEnable");
        for name in ["libcupti.so", "libcupti.so.13", "libcuda.so.1"] {
            // SAFETY: the library does nothing when it is loaded.
            let library = unsafe { libloading::Library::new(name) }.expect(name);
            // SAFETY: the address is not called.
            assert_eq!(unsafe { *library.get::<usize>(b"cuptiActivityEnable\0").expect("the call") }, enable, "{name}");
        }
    });
    told(&lines, &[]);
    assert_eq!(names(softcuda::driver_dir()), ["libcuda.so", "libcuda.so.1"]);
    assert_eq!(names(softcuda::library_dir()), ["libcuda.so", "libcuda.so.1", "libcupti.so", "libcupti.so.13"]);
}
