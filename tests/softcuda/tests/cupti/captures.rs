//! How far a capture has come, what functions are like, and handles that CUPTI is asked about.

use std::cell::Cell;

use crate::collect::Cupti;
use crate::process::{CHAINED, Cuda, Program, in_process};
use crate::told;

const INFO: &str = "cuStreamGetCaptureInfo_v3";

/// Where a driver writes what it says of a capture: status, number, graph, nodes, edges, how many.
struct Info([Cell<u64>; 6]);

const STATUS: usize = 0;
const NUMBER: usize = 1;
const NODES: usize = 3;
const EDGES: usize = 4;
const COUNT: usize = 5;

impl Info {
    fn new() -> Info {
        Info([const { Cell::new(9) }; 6])
    }

    /// Arguments that ask for these.
    fn asking(&self, stream: u64, asked: &[usize]) -> Vec<u64> {
        let place = |index: usize| if asked.contains(&index) { self.0[index].as_ptr() as u64 } else { 0 };
        std::iter::once(stream).chain((0..6).map(place)).collect()
    }

    fn get(&self, index: usize) -> u64 {
        self.0[index].get()
    }

    /// The array's first node as it is now.
    fn node(&self) -> u64 {
        // SAFETY: the driver's array of one node; it keeps the memory as long as the capture is under way.
        unsafe { (self.get(NODES) as *const u64).read_volatile() }
    }
}

const ALL: &[usize] = &[0, 1, 2, 3, 4, 5];

/// A call that refuses a handle.
fn unknown(cuda: &Cuda, calls: &[(&str, u64)]) {
    let mut id = 0u64;
    for (call, handle) in calls {
        assert_eq!(cuda.status(call, &[*handle, &raw mut id as u64]), 1, "{call} {handle:#x}");
    }
}

#[test]
fn captures_say_how_far_they_are() {
    let lines = in_process("captures::captures_say_how_far_they_are", &[], |cuda| {
        let p = Program::begin(cuda);
        let cupti = Cupti::begin(cuda, &[]);
        let addr = p.alloc(64);
        let info = Info::new();
        let ask = |asked: &[usize]| cuda.call(INFO, &info.asking(p.stream, asked));
        let refused = |status: &str, asked: &[usize]| cuda.refused(status, INFO, &info.asking(p.stream, asked));
        let (mut first, mut stale) = (0, 0);
        let (graph, executable) = p.capture(|| {
            ask(ALL);
            assert_eq!((info.get(STATUS) as u32, info.get(COUNT)), (1, 0));
            let number = info.get(NUMBER);
            p.launch("numbering", 1, 4, 0, &[addr]);
            ask(&[STATUS, NODES, COUNT]);
            first = info.node();
            p.launch("numbering", 1, 4, CHAINED, &[addr]);
            stale = info.node();
            refused("ERROR_LOSSY_QUERY", &[STATUS, NODES, COUNT]);
            ask(&[STATUS]);
            refused("ERROR_INVALID_VALUE", &[STATUS, EDGES]);
            refused("ERROR_INVALID_VALUE", &[]);
            ask(ALL);
            assert_eq!((info.get(NUMBER), info.get(COUNT)), (number, 1));
            assert!(info.node() != first);
        });
        assert!(stale != first && stale != info.get(NODES), "valid until the next call");
        let node = cupti.id("cuptiGetGraphNodeId", first);
        assert_eq!(cupti.id("cuptiGetGraphId", graph), node >> 32, "the node is there after the capture");
        unknown(cuda, &[("cuptiGetGraphNodeId", stale), ("cuptiGetGraphNodeId", 0), ("cuptiGetGraphId", executable)]);
        unknown(cuda, &[("cuptiGetGraphExecId", graph)]);
        p.destroy((graph, executable));
        unknown(cuda, &[("cuptiGetGraphNodeId", first), ("cuptiGetGraphId", graph)]);
        unknown(cuda, &[("cuptiGetGraphExecId", executable)]);
        p.free(addr);
        p.end();
    });
    let words = ["programmatic", "without dependencies", "a null pointer"];
    told(&lines, &[&words[..], &["no such handle"; 7]].concat());
}

#[test]
fn an_invalid_capture_says_so_and_its_nodes_go() {
    let lines = in_process("captures::an_invalid_capture_says_so_and_its_nodes_go", &[], |cuda| {
        let p = Program::begin(cuda);
        let addr = p.alloc(64);
        let info = Info::new();
        let status = || {
            cuda.call(INFO, &info.asking(p.stream, ALL));
            info.get(STATUS) as u32
        };
        cuda.call("cuStreamBeginCapture_v2", &[p.stream, 1]);
        p.launch("numbering", 1, 4, 0, &[addr]);
        assert_eq!(status(), 1);
        let node = info.node();
        cuda.refused("ERROR_STREAM_CAPTURE_UNSUPPORTED", "cuStreamSynchronize", &[p.stream]);
        assert_eq!(status(), 2);
        let mut graph = 0u64;
        let end = [p.stream, &raw mut graph as u64];
        cuda.refused("ERROR_STREAM_CAPTURE_INVALIDATED", "cuStreamEndCapture", &end);
        assert_eq!(status(), 0);
        unknown(cuda, &[("cuptiGetGraphNodeId", node)]);
        p.free(addr);
        p.end();
    });
    told(&lines, &["waited for that is capturing", "invalid since an earlier call", "no such handle"]);
}

#[test]
fn functions_say_what_they_are_like() {
    let lines = in_process("captures::functions_say_what_they_are_like", &[], |cuda| {
        let p = Program::begin(cuda);
        let reverse = p.function("reverse");
        let of = |attribute: u64| cuda.make("cuFuncGetAttribute", &[attribute, reverse]) as i32;
        assert_eq!([0, 1, 3, 4, 8].map(of), [1024, 0, 0, 0, 48 << 10]);
        cuda.call("cuFuncSetAttribute", &[reverse, 8, 100 << 10]);
        assert_eq!(of(8), 100 << 10);
        let mut value = 0u64;
        cuda.refused("ERROR_INVALID_VALUE", "cuFuncGetAttribute", &[&raw mut value as u64, 99, reverse]);
        cuda.refused("ERROR_INVALID_HANDLE", "cuFuncGetAttribute", &[&raw mut value as u64, 0, 99]);
        p.end();
    });
    told(&lines, &["attribute 99", "is no function"]);
}
