//! The page: its data is the recording's, a name in it is text, what it lacks it says.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vitrum::report::html::{self, Limits};
use vitrum::report::{DeviceRange, Life, Report, Table};
use vitrum::trace::record::Recorder;
use vitrum::trace::session::SessionOptions;

use super::synthetic::{Plan, header, options, play};
use super::{CUTS, cut, folder, load, record, record_with, rows};

/// A page's data, read by code that shares nothing with what wrote it.
struct Page {
    head: Value,
    columns: BTreeMap<String, Vec<i64>>,
}

fn page(report: &Report, limits: &Limits) -> String {
    html::page(report, limits).expect("a page")
}

fn open(page: &str) -> Page {
    let data = between(page, "id=\"data\">", "</script>").next().expect("the data");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&from_base64(data)[..]).read_to_end(&mut bytes).expect("gzip");
    let length = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    let head: Value = serde_json::from_slice(&bytes[4..4 + length]).expect("JSON");
    let columns = head["columns"].as_array().expect("columns").iter();
    let columns =
        columns.map(|column| (text(&column["name"]).to_owned(), decode(column, &bytes[4 + length..]))).collect();
    Page { head, columns }
}

impl Page {
    fn column(&self, name: &str) -> &[i64] {
        &self.columns[name]
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn decode(column: &Value, bytes: &[u8]) -> Vec<i64> {
    let number = |key: &str| column[key].as_u64().expect("a number") as usize;
    let mut bytes = bytes[number("at")..].iter();
    let mut last = 0;
    let mut next = || {
        let (mut value, mut shift) = (0_i64, 0);
        loop {
            let byte = i64::from(*bytes.next().expect("a byte"));
            value |= (byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let signed = |value: i64| if value % 2 == 0 { value / 2 } else { -(value + 1) / 2 };
    let mut value = |encoding: &str| match encoding {
        "plain" => next(),
        "signed" => signed(next()),
        _ => {
            last += signed(next());
            last
        }
    };
    (0..number("count")).map(|_| value(text(&column["encoding"]))).collect()
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is no base64"),
    };
    let digits: Vec<u8> = text.trim_end_matches('=').bytes().map(value).collect();
    let group = |digits: &[u8]| {
        let bits = digits.iter().enumerate().fold(0, |bits, (at, digit)| bits | u32::from(*digit) << (18 - 6 * at));
        bits.to_be_bytes()[1..digits.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

fn between<'a>(text: &'a str, before: &'a str, behind: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split(behind).next())
}

#[test]
fn the_page_holds_every_node_and_the_tables() {
    let plan = Plan { overlap_ns: 5, ..Plan::default() };
    let report = load("page", &plan);
    let page = open(&page(&report, &Limits::default()));
    for name in [Table::KernSum, Table::StepSum, Table::Account, Table::Completeness] {
        assert_eq!(page.head["tables"][name.as_str()], Value::Array(rows(&report, name)), "{}", name.as_str());
    }
    let places = page.head["places"].as_array().expect("places").iter();
    let places: Vec<[&Value; 6]> =
        places.map(|place| ["layer", "op", "count", "total_ns", "p50_ns", "p99_ns"].map(|key| &place[key])).collect();
    let rows = rows(&report, Table::NodeSum);
    let rows: Vec<[&Value; 6]> = rows
        .iter()
        .map(|row| ["Layer", "Op", "Count", "Total (ns)", "P50 (ns)", "P99 (ns)"].map(|key| &row[key]))
        .collect();
    assert_eq!(places, rows);
    // Every node is where the recording has it.
    let (gaps, durations) = (page.column("node.gap_ns"), page.column("node.ns"));
    let (ordinals, overlaps) = (page.column("node.ordinal"), page.column("node.overlap_ns"));
    let recording = &report.recording;
    assert_eq!(durations.len() as u64, plan.steps * plan.step_nodes());
    let base_ns = recording.span().0;
    let mut end = 0;
    for (at, node) in recording.nodes.iter().enumerate() {
        let start = end + gaps[at];
        end = start + durations[at];
        assert_eq!((start as u64 + base_ns, end as u64 + base_ns), (node.start_ns, node.end_ns), "node {at}");
        assert_eq!(ordinals[at], i64::from(node.ordinal));
        assert_eq!(overlaps[at] as u64, node.end_ns - node.start_ns - node.excl_ns);
    }
    assert!(overlaps.iter().sum::<i64>() > 0);
    assert_eq!(page.column("replay.nodes").iter().sum::<i64>(), durations.len() as i64);
    // So are the steps and layers that they make up.
    let ranges = |what: &str| {
        let [numbers, starts, lengths] =
            [what, "start", "ns"].map(|name| page.column(&format!("{what}_range.{name}")).to_vec());
        let starts = starts.into_iter().map(|start| start as u64 + base_ns);
        let lengths = lengths.into_iter().map(|ns| ns as u64);
        numbers.into_iter().map(|number| number as u64).zip(starts).zip(lengths).collect::<Vec<_>>()
    };
    let of = |range: &DeviceRange| ((range.layer.unwrap_or(range.step), range.start_ns), range.end_ns - range.start_ns);
    let [steps, layers] = [DeviceRange::steps, DeviceRange::layers].map(|of| of(recording, &recording.replays));
    assert_eq!(ranges("step"), steps.iter().map(of).collect::<Vec<_>>());
    assert_eq!(ranges("layer"), layers.iter().map(of).collect::<Vec<_>>());
    assert_eq!(page.head["left_out"], Value::Array(Vec::new()));
}

#[test]
fn bars_and_requests_are_what_was_played() {
    let plan = Plan::default();
    let report = load("page-bars", &plan);
    let page = open(&page(&report, &Limits::default()));
    let bars = page.head["bars"].as_array().expect("bars");
    assert_eq!(bars.iter().map(|bar| text(&bar["name"])).collect::<Vec<_>>(), ["all steps", "decode rows only"]);
    for bar in bars {
        let parts = bar["parts"].as_array().expect("parts").iter();
        let ns = |part: &Value| part["ns"].as_u64().expect("a number");
        assert_eq!(parts.clone().map(ns).sum::<u64>(), report.account.total.wall_ns);
        let qkv = parts.clone().find(|part| part["name"] == "attn.qkv").map(ns);
        let layers = 0..plan.layers as u64;
        assert_eq!(qkv, Some(plan.steps * layers.map(|layer| plan.node_ns(1, 1 + 5 * layer)).sum::<u64>()));
    }
    // Both requests are in every step; one was still running at the end.
    assert_eq!(page.column("request.id"), [1, 2]);
    assert_eq!(page.column("request.prompt_plus_1"), [13, 13]);
    let answer = Life::all(&report.recording)[0].tokens;
    assert_eq!(page.column("request.answer_plus_1"), [i64::from(answer) + 1, 0], "known at its end");
    assert_eq!(page.column("request.end"), [1, 0]);
    assert_eq!(page.head["request_names"], json!(report.recording.names));
    assert_eq!(page.column("member.step").len() as u64, 2 * plan.steps);
    let nodes: u64 = (0..plan.forward_nodes()).map(|at| plan.node_ns(1, at)).sum();
    let step_ns = nodes + plan.node_ns(2, 0) + plan.node_ns(2, 1);
    assert_eq!(page.column("step.node_ns"), vec![step_ns as i64; plan.steps as usize]);
    assert_eq!(page.column("step.number")[..2], [plan.first_step as i64, plan.first_step as i64 + 1]);
}

#[test]
fn names_are_text_and_only_the_pages_scripts_may_run() {
    let name = format!(
        "</title></script><script>alert(1)</script><img src=x onerror=alert(1)> \"'&\u{0}\u{7f}\n{{{{DATA}}}} {}",
        "é".repeat(2048)
    );
    let plan = Plan { kernel: Some(name.clone()), steps: 3, ..Plan::default() };
    let mut session = header();
    session.model = name.clone();
    session.device.name = name.clone();
    let graphs = plan.graphs();
    let mut recorder =
        Recorder::start(&options(&folder("page-names")), &session, &graphs.each_ref()).expect("a recorder");
    let expected = play(&plan, &mut recorder);
    let summary = recorder.stop(expected).expect("a summary");
    let report = Report::load(&summary.path).expect("a report");
    let page = page(&report, &Limits::default());
    let head = open(&page).head;
    assert_eq!((&head["model"], &head["device"]["name"]), (&name.as_str().into(), &name.as_str().into()));
    assert_eq!(head["kernels"], Value::from(vec![name]));
    // Nothing of the name is markup: there are the data, the library and the page's own script.
    assert_eq!(page.matches("<script").count(), 3);
    assert!(!page.contains("<img") && !page.contains('\0'));
    assert!(page.contains("<title>&lt;/title&gt;&lt;/script&gt;"));
    let policy = between(&page, "script-src ", "\">").next().expect("a policy");
    let scripts: Vec<&str> = between(&page, "<script>", "</script>").collect();
    assert_eq!(scripts.len(), 2);
    let allowed: Vec<Vec<u8>> = between(policy, "'sha256-", "'").map(from_base64).collect();
    assert_eq!(allowed, scripts.iter().map(|script| Sha256::digest(script).to_vec()).collect::<Vec<_>>());
}

#[test]
fn recordings_that_lack_something_are_shown_as_far_as_they_go() {
    let empty = load("page-empty", &Plan { steps: 0, ..Plan::default() });
    let shown = open(&page(&empty, &Limits::default()));
    assert!(shown.column("node.ns").is_empty() && shown.column("step.start").is_empty());
    assert_eq!(shown.head["completeness"]["complete"], true);
    let path = record("page-cut", &Plan::default()).path;
    let half_there = folder("page-cuts").join("cut.vtr");
    for left in CUTS {
        cut(&path, left, &half_there);
        let report = Report::load(&half_there).expect("a report");
        let shown = open(&page(&report, &Limits::default()));
        assert_eq!(shown.head["completeness"]["truncated"], true);
        assert!(text(&shown.head["completeness_text"]).contains("cut off"));
        assert_eq!(shown.column("node.ns").len(), report.recording.nodes.len());
    }
    let toggled = SessionOptions { toggle: true, ..options(&folder("page-toggled")) };
    let report = Report::load(&record_with(&Plan::default(), &toggled).path).expect("a report");
    let shown = open(&page(&report, &Limits::default()));
    let untraced = shown.column("step.traced").iter().filter(|traced| **traced == 0).count() as u64;
    assert!(untraced > 0);
    assert_eq!(shown.head["unaccounted"]["untraced"], untraced);
    let without = shown.column("step.wall_ns").iter().filter(|ns| **ns == 0).count();
    assert_eq!(without, shown.column("step.number").len() - report.account.steps.len());
}

#[test]
fn what_is_left_out_is_said() {
    let plan = Plan::default();
    let report = load("page-limits", &plan);
    let limits = Limits { nodes: 30, steps: 7, spans: 9, members: 5, requests: 1 };
    let shown = open(&page(&report, &limits));
    // The limit is between the second replay's end and the third's.
    assert_eq!(shown.column("node.ns").len() as u64, plan.step_nodes());
    assert_eq!(shown.column("step_range.step"), [plan.first_step as i64]);
    assert_eq!(shown.column("layer_range.ns").len(), plan.layers as usize);
    let lengths = ["step.start", "span.ns", "member.rows", "request.id"].map(|name| shown.column(name).len());
    assert_eq!(lengths, [7, 9, 5, 1]);
    let said: Vec<&str> = shown.head["left_out"].as_array().expect("sentences").iter().map(text).collect();
    assert_eq!(said.len(), 5);
    let nodes = plan.steps * plan.step_nodes();
    assert!(said[4].starts_with(&format!("The timeline holds the first {} of {nodes} node times.", plan.step_nodes())));
    // Tables are of everything all the same.
    assert_eq!(shown.head["tables"]["account"], Value::Array(rows(&report, Table::Account)));
}

#[test]
fn the_command_writes_a_page_beside_the_recording_and_fails_for_one_that_is_not_whole() {
    let vitrum = |arguments: &[&Path]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_vitrum")).args(["profile", "report"]).args(arguments).output().expect("vitrum")
    };
    let path = record("page-command", &Plan::default()).path;
    let output = vitrum(&[&path]);
    let page = path.with_extension("html");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", page.display()));
    let written = std::fs::read_to_string(&page).expect("a page");
    assert_eq!(
        open(&written).head["tables"]["account"],
        Value::Array(rows(&Report::load(&path).expect("a report"), Table::Account))
    );
    let half = path.with_file_name("half.vtr");
    cut(&path, |bytes| bytes / 2, &half);
    let other = path.with_file_name("other.html");
    let output = vitrum(&[&half, Path::new("-o"), &other]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cut off") && other.exists());
    let bytes = std::fs::read(&path).expect("the recording");
    let output = vitrum(&[&path, Path::new("-o"), &path]);
    assert!(!output.status.success() && std::fs::read(&path).expect("the recording") == bytes);
    let nowhere = path.with_file_name("no-such-folder").join("a.html");
    let output = vitrum(&[&path, Path::new("-o"), &nowhere]);
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("cannot write {}", nowhere.display())));
}

#[test]
fn half_a_million_nodes_are_a_small_page_soon() {
    let rest = std::time::Duration::from_millis(20); // a second in all, for 6 MB more than the blocks hold
    let plan = Plan { layers: 30, steps: 3_270, rest, ..Plan::default() };
    let report = load("page-large", &plan);
    assert_eq!(report.recording.nodes.len() as u64, 500_310);
    let begin = std::time::Instant::now();
    let page = page(&report, &Limits::default());
    let (took, bytes) = (begin.elapsed(), page.len());
    println!("a page of {bytes} bytes in {took:?}");
    assert!(bytes < 16 << 20, "{bytes} bytes");
    // It takes a part of a second: far below this on a machine that does other things besides.
    assert!(took.as_secs() < 20, "{took:?}");
}
