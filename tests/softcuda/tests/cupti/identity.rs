//! Which record is of what: nodes of graphs, calls, streams.

use crate::collect::{Cupti, KERNEL, MEMCPY, MEMSET, Record};
use crate::process::{CHAINED, Cuda, Program, in_process};
use crate::told;

/// What a driver says of a capture: status, its number, graph, nodes, the first edge's bytes.
struct Frontier {
    status: u32,
    graph: u64,
    nodes: Vec<u64>,
    edge: [u8; 8],
}

fn frontier(cuda: &Cuda, stream: u64) -> Frontier {
    let (mut status, mut id, mut graph) = (9u64, 0u64, 0u64);
    let (mut nodes, mut edges, mut count) = (0u64, 0u64, 0u64);
    let places = [&raw mut status, &raw mut id, &raw mut graph, &raw mut nodes, &raw mut edges, &raw mut count];
    let arguments: Vec<u64> = std::iter::once(stream).chain(places.map(|place| place as u64)).collect();
    cuda.call("cuStreamGetCaptureInfo_v3", &arguments);
    let (mut all, mut edge) = (Vec::new(), [0; 8]);
    for index in 0..count {
        // SAFETY: the driver's arrays of so many nodes and edges.
        unsafe {
            all.push(*(nodes as *const u64).add(index as usize));
            edge = *(edges as *const [u8; 8]);
        }
    }
    Frontier { status: status as u32, graph, nodes: all, edge }
}

fn name(record: &Record) -> &'static str {
    // SAFETY: the name of a kernel, which is there as long as the process.
    unsafe { std::ffi::CStr::from_ptr(record.u64(104) as *const _) }.to_str().expect("ASCII")
}

/// By kind: where the correlation, the graph's node and the graph are in a record, and the numbers of its source.
fn places(record: &Record) -> [usize; 5] {
    match record.kind() {
        KERNEL => [92, 144, 156, 240, 232],
        MEMCPY => [44, 64, 72, 104, 96],
        MEMSET => [44, 64, 72, 96, 88],
        kind => panic!("kind {kind}"),
    }
}

fn correlation(record: &Record) -> u32 {
    record.u32(places(record)[0])
}

/// Node and graph, and if records have them, those of the source.
fn place(record: &Record) -> (u64, u32) {
    let [_, node, graph, ..] = places(record);
    (record.u64(node), record.u32(graph))
}

fn source(record: &Record) -> (u64, u32) {
    let [.., node, graph] = places(record);
    (record.u64(node), record.u32(graph))
}

/// A graph of a fill, two kernels with a programmatic edge, and a copy; with the numbers of its nodes.
struct Captured {
    graph: u64,
    executable: u64,
    nodes: Vec<u64>,
}

fn capture(cupti: &Cupti, p: &Program, [input, sums, pinned]: [u64; 3]) -> Captured {
    let cuda = p.cuda;
    let (mut nodes, mut handle, mut edges) = (Vec::new(), 0, Vec::new());
    let (graph, executable) = p.capture(|| {
        let first = frontier(cuda, p.stream);
        assert_eq!((first.status, first.nodes.len()), (1, 0), "none before the first");
        handle = first.graph;
        let mut note = || {
            let now = frontier(cuda, p.stream);
            assert_eq!((now.status, now.graph, now.nodes.len()), (1, handle, 1));
            nodes.push(cupti.id("cuptiGetGraphNodeId", now.nodes[0]));
            edges.push(now.edge);
        };
        cuda.call("cuMemsetD8Async", &[sums, 7, 8, p.stream]);
        note();
        p.launch("numbering", 2, 256, 0, &[input]);
        note();
        p.launch("block_sum", 2, 256, CHAINED, &[input, sums]);
        note();
        cuda.call("cuMemcpyDtoHAsync_v2", &[pinned, sums, 8, p.stream]);
        note();
        let id = cupti.id("cuptiGetGraphId", handle);
        assert!(nodes.iter().all(|node| node >> 32 == id), "{id} {nodes:x?}");
    });
    assert_eq!(graph, handle, "the handle that it had in the capture");
    assert_eq!(edges, [[0; 8], [0; 8], [1, 0, 1, 0, 0, 0, 0, 0], [0; 8]]);
    let locals: Vec<u32> = nodes.iter().map(|&node| node as u32).collect();
    assert!(locals[0] != 0 && locals[1] != locals[0] + 1 && locals.is_sorted(), "{locals:?}");
    Captured { graph, executable, nodes }
}

/// The records of one replay.
fn check_replay(records: &[Record], captured: &Captured, id: u32, has_sources: bool) {
    let kinds: Vec<u64> = records.iter().map(Record::kind).collect();
    assert_eq!(kinds, [MEMSET, KERNEL, KERNEL, MEMCPY]);
    let template = (captured.nodes[0] >> 32) as u32;
    for (record, &node) in records.iter().zip(&captured.nodes) {
        let expected = u64::from(id) << 32 | node & 0xffff_ffff;
        assert_eq!(place(record), (expected, id), "the template's is {node:x}");
        if has_sources {
            assert_eq!(source(record), (node, template));
        }
    }
    for pair in records.windows(2) {
        assert!(pair[0].times().0 < pair[0].times().1 && pair[0].times().1 <= pair[1].times().0, "one after the other");
        assert_eq!(correlation(&pair[0]), correlation(&pair[1]), "of one launch");
    }
    assert_eq!([name(&records[1]), name(&records[2])], ["numbering", "block_sum"]);
    assert_eq!((records[0].u32(4), records[0].u64(8)), (7, 8), "a fill's value and bytes");
    assert_eq!([4, 5, 6].map(|at| records[3].u8(at)), [2, 3, 2], "from the device to pinned memory");
}

#[test]
fn nodes_have_their_numbers_in_every_version() {
    let test = "identity::nodes_have_their_numbers_in_every_version";
    for (version, said, sizes) in [
        ("9", 28, [208, 96, 88]),
        ("10", 130_001, [216, 96, 88]),
        ("11", 130_100, [224, 96, 88]),
        ("12", 130_300, [232, 96, 88]),
        ("13", 130_400, [248, 112, 104]),
    ] {
        let (said, sizes) = (format!("{said}"), sizes.map(|bytes| bytes.to_string()).join(" "));
        let variables = [("SOFTCUDA_CUPTI", version), ("SAID", &said), ("SIZES", &sizes)];
        let lines = in_process(test, &variables, |cuda| {
            let said: u64 = std::env::var("SAID").expect("given").parse().expect("a number");
            assert_eq!(cuda.make("cuptiGetVersion", &[]), said);
            let cupti = Cupti::begin(cuda, &[]);
            let p = Program::begin(cuda);
            let memory = [p.alloc(4 * 512), p.alloc(8), cuda.make("cuMemHostAlloc", &[8, 0])];
            assert_eq!(frontier(cuda, p.stream).status, 0);
            let captured = capture(&cupti, &p, memory);
            let again = cuda.make("cuGraphInstantiateWithFlags", &[captured.graph, 0]);
            [KERNEL, MEMCPY, MEMSET].iter().for_each(|&kind| cupti.enable(kind));
            let executables = [captured.executable, again, captured.executable];
            executables.iter().for_each(|&executable| cuda.call("cuGraphLaunch", &[executable, p.stream]));
            cuda.call("cuStreamSynchronize", &[p.stream]);
            let ids = executables.map(|executable| cupti.id("cuptiGetGraphExecId", executable) as u32);
            assert!(ids[0] != ids[1] && ids[1] != (captured.nodes[0] >> 32) as u32, "{ids:?}");
            let records = cupti.records();
            assert_eq!(records.len(), 3 * 4);
            let mut launches: Vec<u32> = Vec::new();
            for (records, id) in records.chunks(4).zip(ids) {
                check_replay(records, &captured, id, said == 130_400);
                launches.push(correlation(&records[0]));
                let lengths = [1, 3, 0].map(|index| records[index].0.len().to_string());
                assert_eq!(lengths.join(" "), std::env::var("SIZES").expect("given"));
            }
            assert!(launches[0] > 0 && launches.is_sorted_by(|a, b| a < b), "{launches:?}");
            [KERNEL, MEMCPY, MEMSET].iter().for_each(|&kind| cupti.disable(kind));
            cuda.call("cuGraphExecDestroy", &[again]);
            p.destroy((captured.graph, captured.executable));
            cuda.call("cuMemFreeHost", &[memory[2]]);
            p.free(memory[0]);
            p.free(memory[1]);
            p.end();
        });
        told(&lines, &[]);
    }
}
