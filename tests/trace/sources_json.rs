//! The trace of a recording with activity: Kineto's words, calls joined with what they launched.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vitrum::report;

use super::library::{FACTS, LIBRARY, OTHER_THREAD, correlation, record_seen};
use super::sources::{ALONE, BOTH, OFFSET_NS};
use super::synthetic::{COPIES_NS, Plan};
use super::trace_json::{events, ns, parse};

/// What calls and copies are numbered by where they are no replay's.
const OFFSET: u64 = 1 << 32;

fn trace(name: &str, plan: &Plan, library: super::library::Library) -> Value {
    let rendered = report::render(&record_seen(name, plan, library, |_| {})).expect("a trace");
    assert!(rendered.completeness.complete);
    parse(&rendered.files[0])
}

#[test]
fn nodes_have_the_facts_of_their_launch_in_kinetos_order() {
    let plan = Plan { steps: 3, ..Plan::default() };
    let trace = trace("facts", &plan, ALONE);
    let nodes: Vec<&Value> = events(&trace, "X", "kernel").collect();
    assert_eq!(nodes.len() as u64, plan.steps * plan.step_nodes());
    for node in nodes {
        let keys: Vec<&String> = node["args"].as_object().expect("args").keys().collect();
        assert_eq!(
            keys[..12],
            [
                "device",
                "context",
                "stream",
                "correlation",
                "registers per thread",
                "shared memory",
                "blocks per SM",
                "warps per SM",
                "grid",
                "block",
                "est. achieved occupancy %",
                "graph id"
            ]
        );
        let args = &node["args"];
        assert_eq!((&args["grid"], &args["block"]), (&json!(FACTS.grid), &json!(FACTS.block)));
        assert_eq!((args["registers per thread"].as_u64(), args["shared memory"].as_u64()), (Some(40), Some(5120)));
        // 132 blocks of 4 warps on 132 multiprocessors of 64 warps.
        assert_eq!((args["blocks per SM"].as_f64(), args["warps per SM"].as_f64()), (Some(1.0), Some(4.0)));
        assert_eq!(args["est. achieved occupancy %"].as_u64(), Some(6));
        assert!(args["lib_start_us"].is_null(), "one source, one time");
    }
}

#[test]
fn nodes_that_both_sources_timed_have_both_times() {
    let plan = Plan { steps: 3, overlap_ns: 500, ..Plan::default() };
    let trace = trace("both-times", &plan, BOTH);
    for node in events(&trace, "X", "kernel") {
        let args = &node["args"];
        let hidden_ns = if args["graph node id"].as_u64().expect("an id") & 0xffff_ffff == 0 { 0 } else { 500 };
        assert_eq!(ns(&args["lib_start_us"]), ns(&node["ts"]) + OFFSET_NS + hidden_ns);
        assert_eq!(ns(&args["lib_dur_us"]), ns(&node["dur"]) - hidden_ns);
    }
    let vitrum = &trace["vitrum"];
    let sources = json!({"asked": "both", "used": "both", "library": LIBRARY, "absent": null});
    assert_eq!(vitrum["sources"], sources);
    assert_eq!(vitrum["source_comparison"]["start_difference_ns"].as_f64(), Some((OFFSET_NS + 500) as f64));
    assert_eq!(vitrum["completeness"]["activity"]["complete"], true);
}

#[test]
fn calls_are_joined_with_what_they_launched() {
    let plan = Plan { steps: 20, ..Plan::default() };
    let trace = trace("calls", &plan, BOTH);
    let calls: Vec<&Value> = events(&trace, "X", "cuda_driver").collect();
    let named = |name: &str| calls.iter().filter(|call| call["name"] == name).count() as u64;
    assert_eq!(named("replay"), 0, "every launch was seen");
    for (name, count) in [
        ("cuGraphLaunch", 2 * plan.steps),
        ("cuMemcpyHtoDAsync", plan.steps),
        ("cuMemcpyDtoHAsync", plan.steps),
        ("cuMemsetD8Async", plan.steps),
        ("cuEventSynchronize", plan.steps),
        ("cuStreamSynchronize", 1),
    ] {
        assert_eq!(named(name), count, "{name}");
    }
    for call in &calls {
        let of_engine = call["name"] != "cuStreamSynchronize";
        assert_eq!(call["tid"], if of_engine { 4243 } else { OTHER_THREAD }, "{call}");
        let is_launch = call["name"] == "cuGraphLaunch";
        let number = call["args"]["correlation"].as_u64().expect("a correlation");
        assert_eq!(number < OFFSET, is_launch, "{call}");
        assert_eq!(call["args"]["graph"].is_string() && call["args"]["traced"] == true, is_launch, "{call}");
    }
    let copies: Vec<&Value> = events(&trace, "X", "gpu_memcpy").chain(events(&trace, "X", "gpu_memset")).collect();
    assert_eq!(copies.len() as u64, 4 * plan.steps, "those of the activity, and not those of the stamps, too");
    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    for copy in &copies {
        *by_name.entry(copy["name"].as_str().expect("a name")).or_default() += ns(&copy["dur"]);
        let number = copy["args"]["correlation"].as_u64().expect("a correlation");
        assert!(calls.iter().any(|call| call["args"]["correlation"] == number), "{copy}");
        let gb_s = copy["args"]["bytes"].as_f64().expect("bytes") / ns(&copy["dur"]) as f64;
        assert!((copy["args"]["memory bandwidth (GB/s)"].as_f64().expect("a number") - gb_s).abs() < 1e-9);
    }
    let ns_of = |ns: u64| plan.steps * ns;
    let expected =
        [("Memcpy DtoH", ns_of(COPIES_NS[1])), ("Memcpy HtoD", ns_of(COPIES_NS[0])), ("Memset (Device)", ns_of(50))];
    assert_eq!(by_name, BTreeMap::from(expected));
    let first = copies[0]["args"]["correlation"].as_u64().expect("a correlation");
    assert_eq!(first, OFFSET + u64::from(correlation(2) + 1));
    let nodes = plan.steps * plan.step_nodes();
    assert_eq!(events(&trace, "s", "ac2g").count() as u64, 5 * plan.steps, "two launches, two copies, a fill");
    assert_eq!(events(&trace, "f", "ac2g").count() as u64, nodes + 4 * plan.steps);
}

#[test]
fn overhead_has_a_place_of_its_own() {
    let trace = trace("overheads", &Plan { steps: 2, ..Plan::default() }, ALONE);
    let overheads: Vec<&Value> = events(&trace, "X", "overhead").collect();
    assert_eq!(overheads.iter().map(|event| &event["name"]).collect::<Vec<_>>(), ["Buffer Flush", "Resource"]);
    assert_ne!(overheads[0]["tid"], overheads[1]["tid"], "they overlap");
    let others = trace["traceEvents"].as_array().expect("events").iter();
    let mut others = others.filter(|event| event["ph"] == "X" && event["cat"] != "overhead");
    assert!(others.all(|event| event["pid"] != overheads[0]["pid"]));
}
