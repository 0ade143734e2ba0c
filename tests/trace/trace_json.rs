//! The trace, parsed back: every record is there once, with its numbers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use vitrum::report;

use super::synthetic::{COPIES_NS, Plan, START_NS};
use super::{CUTS, cut, folder, record};

/// Parses a gzipped trace.
pub(crate) fn parse(path: &Path) -> Value {
    let mut text = String::new();
    let file = File::open(path).expect("a trace");
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

pub(crate) fn events<'a>(trace: &'a Value, ph: &'a str, cat: &'a str) -> impl Iterator<Item = &'a Value> + Clone {
    let events = trace["traceEvents"].as_array().expect("events").iter();
    events.filter(move |event| event["ph"] == ph && event["cat"].as_str().unwrap_or("") == cat)
}

/// Microseconds with three decimals are exact to the nanosecond in a double of this size.
pub(crate) fn ns(value: &Value) -> u64 {
    (value.as_f64().expect("a number") * 1000.0).round() as u64
}

fn render(name: &str, plan: &Plan) -> (Value, report::Rendered) {
    let rendered = report::render(&record(name, plan).path).expect("a trace");
    (parse(&rendered.files[0]), rendered)
}

#[test]
fn every_node_is_there_once_with_its_numbers() {
    let plan = Plan::default();
    let (trace, rendered) = render("nodes", &plan);
    assert!(rendered.completeness.complete);
    assert!(rendered.files[0].to_string_lossy().ends_with(".pt.trace.json.gz"));
    assert_eq!(rendered.nodes, plan.steps * plan.step_nodes());
    let mut by_replay: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for node in events(&trace, "X", "kernel") {
        by_replay.entry(node["args"]["correlation"].as_u64().expect("a correlation")).or_default().push(node);
    }
    assert_eq!(by_replay.len() as u64, 2 * plan.steps);
    for (replay, nodes) in &by_replay {
        let graph = if replay % 2 == 1 { 1 } else { 2 };
        assert_eq!(nodes.len() as u64, if graph == 1 { plan.forward_nodes() } else { 2 });
        for (ordinal, node) in nodes.iter().enumerate() {
            let args = &node["args"];
            assert_eq!(ns(&node["dur"]), plan.node_ns(graph, ordinal as u64));
            assert_eq!(args["graph node id"].as_u64(), Some(u64::from(graph) << 32 | ordinal as u64));
            assert_eq!(args["step"].as_u64(), Some(plan.first_step + (replay - 1) / 2));
            assert_eq!(args["replay"].as_u64(), Some(*replay));
            assert_eq!((args["bytes"].as_u64(), args["flops"].as_u64()), (Some(40_200), Some(160_000)));
            assert_eq!(ns(&args["excl_us"]), plan.node_ns(graph, ordinal as u64));
            assert_eq!((&node["pid"], &node["tid"]), (&0.into(), &1.into()));
        }
    }
    let launches = events(&trace, "X", "cuda_driver");
    assert_eq!(launches.clone().count(), by_replay.len());
    assert!(launches.clone().all(|launch| launch["name"] == "replay"));
    assert_eq!(events(&trace, "s", "ac2g").count(), by_replay.len());
    let copies: Vec<&Value> = events(&trace, "X", "gpu_memcpy").collect();
    assert_eq!(copies.len() as u64, 2 * plan.steps);
    for (at, copy) in copies.iter().enumerate() {
        assert_eq!(copy["name"], ["Memcpy HtoD", "Memcpy DtoH"][at % 2]);
        assert_eq!(ns(&copy["dur"]), COPIES_NS[at % 2]);
        // The upload was launched with the step's first graph, the download with its second.
        assert_eq!(copy["args"]["correlation"].as_u64(), Some(at as u64 + 1));
        assert_eq!(copy["args"]["bytes"].as_u64(), Some(1000 + COPIES_NS[at % 2]));
    }
    let flow_ends = events(&trace, "f", "ac2g").filter(|flow| flow["bp"] == "e");
    assert_eq!(flow_ends.count() as u64, rendered.nodes + copies.len() as u64);
}

#[test]
fn steps_layers_requests_and_tables_are_there() {
    let plan = Plan::default();
    let (trace, _) = render("lanes", &plan);
    let annotations: Vec<&Value> = events(&trace, "X", "user_annotation").collect();
    let steps: Vec<&&Value> =
        annotations.iter().filter(|event| event["name"].as_str().unwrap().starts_with("ProfilerStep#")).collect();
    assert_eq!(steps.len() as u64, plan.steps);
    assert_eq!(steps[0]["name"], format!("ProfilerStep#{}", plan.first_step));
    assert_eq!(steps[0]["args"]["requests"][1]["request"], 2);
    assert_eq!(annotations.len() as u64, 8 * plan.steps, "an iteration and seven phases");
    let lanes: Vec<&Value> = events(&trace, "X", "gpu_user_annotation").collect();
    assert!(
        lanes.iter().all(|event| ["stream", "device", "correlation"].iter().all(|key| event["args"][key].is_null()))
    );
    assert_eq!(lanes.iter().filter(|event| event["name"] == "layer 3").count() as u64, plan.steps);
    assert_eq!(lanes.len() as u64, plan.steps * (1 + plan.layers as u64));
    let requests: Vec<&str> =
        events(&trace, "X", "request").map(|event| event["name"].as_str().expect("a name")).collect();
    assert_eq!(requests.iter().filter(|name| name.starts_with("request ")).count(), 2);
    for stretch in ["queued", "prefill", "decode"] {
        assert_eq!(requests.iter().filter(|name| **name == stretch).count(), 2, "{stretch}");
    }
    let tables: Vec<&Value> = events(&trace, "i", "graph").collect();
    assert_eq!(tables.len(), 2);
    assert_eq!(tables[0]["name"], "graph forward.decode.8");
    assert_eq!(tables[0]["args"]["nodes"].as_array().map(Vec::len), Some(plan.forward_nodes() as usize));
    let vitrum = &trace["vitrum"];
    assert_eq!(vitrum["graphs"][1]["name"], "sample.plain.8");
    assert_eq!(vitrum["completeness"]["complete"], true);
    assert_eq!(vitrum["account"]["total"]["unattributed_ns"].as_u64(), Some(203 * (plan.steps - 1)));
    let base_ns = trace["baseTimeNanoseconds"].as_u64().expect("a base");
    assert_eq!(base_ns, 1_768_000_000_000_000_000 + 1_000_000);
    assert_eq!(vitrum["window"]["start_ns"].as_u64(), Some(START_NS));
}

#[test]
fn overlap_of_one_nanosecond_goes_to_another_lane() {
    let plan = Plan { overlap_ns: 1, ..Plan::default() };
    let (trace, _) = render("overlap", &plan);
    let mut lanes: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for node in events(&trace, "X", "kernel") {
        assert_eq!(node["args"]["stream"], 1, "the stream stays the true one");
        let start_ns = ns(&node["ts"]);
        lanes.entry(node["tid"].as_u64().unwrap()).or_default().push((start_ns, start_ns + ns(&node["dur"])));
    }
    assert_eq!(lanes.len(), 2);
    assert_eq!(lanes.values().map(Vec::len).sum::<usize>() as u64, plan.steps * plan.step_nodes());
    for slices in lanes.values_mut() {
        slices.sort_unstable();
        assert!(slices.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }
    let names: Vec<&str> =
        trace["traceEvents"].as_array().unwrap().iter().filter_map(|event| event["args"]["name"].as_str()).collect();
    assert!(names.contains(&"stream 1 (overlap 1)"), "{names:?}");
}

#[test]
fn any_name_is_a_name() {
    let name = format!("void k<\"a\\b\">\n\t\u{1}\u{7f} é 漢 😀 {}", "x".repeat(4096));
    let plan = Plan { kernel: Some(name.clone()), steps: 3, ..Plan::default() };
    let (trace, _) = render("names", &plan);
    assert!(events(&trace, "X", "kernel").all(|event| event["name"] == name.as_str()));
    assert_eq!(trace["vitrum"]["graphs"][0]["nodes"][0]["kernel"], name.as_str());
}

#[test]
fn a_cut_spool_renders_what_it_holds() {
    let plan = Plan { steps: 300, ..Plan::default() };
    let summary = record("cut", &plan);
    let dir = folder("cut-copies");
    let mut received = Vec::new();
    for (at, left) in CUTS.into_iter().enumerate() {
        let path = dir.join(format!("cut.{at}.vtr"));
        cut(&summary.path, left, &path);
        let rendered = report::render(&path).expect("a trace");
        let trace = parse(&rendered.files[0]);
        assert!(rendered.completeness.truncated && !rendered.completeness.complete);
        assert_eq!(trace["vitrum"]["completeness"]["truncated"], true);
        assert_eq!(trace["vitrum"]["completeness"]["expected"], Value::Null);
        assert_eq!(events(&trace, "X", "kernel").count() as u64, rendered.nodes);
        received.push(rendered.nodes);
    }
    assert!(0 < received[0] && received[0] < received[1] && received[1] < received[2], "{received:?}");
    let mut damaged = std::fs::read(&summary.path).expect("the spool");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let path = dir.join("damaged.1.vtr");
    std::fs::write(&path, &damaged).expect("a copy");
    let error = report::render(&path).expect_err("damage");
    assert!(
        std::error::Error::source(&error).expect("a source").to_string().starts_with("damaged at byte "),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(&dir).expect("the folder").count(), 3 + 3 + 1, "no file half written");
}
