//! The tables in nsys' columns and that of requests, and the files that tables are written to.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use vitrum::report::{Format, Report, ReportError, Table, stats, write_stats};
use vitrum::trace::record::Recorder;
use vitrum::trace::schema::{MemberRecord, RequestMoment, RequestRecord, StepRecord, StepSizes};
use vitrum::trace::session::Expected;

use super::library::record_seen;
use super::sources::{ALONE, BOTH};
use super::synthetic::{COPIES_NS, PHASES_NS, Plan, header, options};
use super::{cut, folder, load, record, rows};

/// A name that has everything that some format needs escaped.
pub(crate) fn odd_name() -> String {
    format!("void k<\"a\\b\", 'c'>\n\t\r\u{1}\u{1b}[31m\u{7f}\0 é 漢 😀 \u{fffd} </script> {}", "x".repeat(4096))
}

/// Sums of a column by another.
fn sums(rows: &[Value], key: impl Fn(&Value) -> String, column: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for row in rows {
        *sums.entry(key(row)).or_default() += row[column].as_u64().expect("a number");
    }
    sums
}

/// Records of a file in CSV, by the rules of RFC 4180.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut characters = text.chars().peekable();
    let mut is_quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => record.push(std::mem::take(&mut field)),
            '\n' if !is_quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            other => field.push(other),
        }
    }
    assert!(!is_quoted && field.is_empty() && record.is_empty(), "ends within a record");
    records
}

#[test]
fn the_gpu_trace_has_every_node_and_every_copy() {
    let plan = Plan::default();
    let report = load("gpu-trace", &plan);
    let text = stats(&report, Some(Table::GpuTrace), Format::Csv);
    assert!(text.starts_with(
        "Start (ns),Duration (ns),CorrId,GrdX,GrdY,GrdZ,BlkX,BlkY,BlkZ,Reg/Trd,StcSMem (MB),DymSMem (MB),Bytes (MB),\
         Throughput (MB/s),SrcMemKd,DstMemKd,Device,Ctx,GreenCtx,Strm,Name,Layer,Op,Step,Graph,Excl (ns)\n"
    ));
    let table = rows(&report, Table::GpuTrace);
    assert_eq!(table.len() as u64, plan.steps * (plan.step_nodes() + 2));
    assert_eq!(csv(&text).len(), 1 + table.len());
    let starts: Vec<u64> = table.iter().map(|row| row["Start (ns)"].as_u64().expect("a number")).collect();
    assert!(starts.is_sorted());
    let (nodes, copies): (Vec<Value>, Vec<Value>) = table.into_iter().partition(|row| !row["Op"].is_null());
    let name = |row: &Value| row["Name"].as_str().expect("a name").to_owned();
    let kernels = rows(&report, Table::KernSum);
    assert_eq!(sums(&nodes, name, "Duration (ns)"), sums(&kernels, name, "Total Time (ns)"));
    let place = |row: &Value| format!("{} {}", row["Layer"], row["Op"]);
    assert_eq!(sums(&nodes, place, "Excl (ns)"), sums(&rows(&report, Table::NodeSum), place, "Total (ns)"));
    assert_eq!((&nodes[0]["Graph"], &nodes[0]["Step"]), (&"forward.decode.8".into(), &plan.first_step.into()));
    assert_eq!(copies.len() as u64, 2 * plan.steps);
    let up = &copies[0];
    assert_eq!((&up["SrcMemKd"], &up["DstMemKd"]), (&Value::Null, &"Device".into()));
    let bytes = (1000 + COPIES_NS[0]) as f64;
    assert_eq!(up["Bytes (MB)"].as_f64(), Some(bytes / 1e6));
    assert!((up["Throughput (MB/s)"].as_f64().expect("a number") - bytes / COPIES_NS[0] as f64 * 1e3).abs() < 1e-9);

    // As text it has the same rows, aligned, below its name and its columns.
    let lines = stats(&report, Some(Table::GpuTrace), Format::Text);
    assert_eq!(lines.lines().count(), 2 + nodes.len() + copies.len());
    assert!(!stats(&report, None, Format::Text).contains("cuda_gpu_trace"), "not unless it is named");
}

#[test]
fn launches_are_in_the_tables_where_they_are_known() {
    let report = Report::load(&record_seen("tables-facts", &Plan::default(), ALONE, |_| {})).expect("a report");
    let table = rows(&report, Table::GpuTrace);
    let node = table.iter().find(|row| !row["Op"].is_null()).expect("a node");
    let int = |column: &str| node[column].as_u64().expect("a number");
    assert_eq!(["GrdX", "GrdY", "GrdZ", "BlkX", "BlkY", "BlkZ", "Reg/Trd"].map(int), [66, 2, 1, 128, 1, 1, 40]);
    assert_eq!((node["StcSMem (MB)"].as_f64(), node["DymSMem (MB)"].as_f64()), (Some(0.001024), Some(0.004096)));
    for row in rows(&report, Table::NodeSum) {
        let int = |column: &str| row[column].as_u64();
        assert_eq!(["Reg/Trd", "StcSMem (B)", "DymSMem (B)"].map(int), [Some(40), Some(1024), Some(4096)]);
    }
    let stamps = load("tables-no-facts", &Plan::default());
    assert!(rows(&stamps, Table::NodeSum).iter().all(|row| row["Reg/Trd"].is_null()));
}

#[test]
fn nodes_have_their_middle_and_their_tail() {
    let plan = Plan::default();
    for row in rows(&load("percentiles", &plan), Table::NodeSum) {
        // Each place takes the same time in every step.
        assert_eq!((&row["P50 (ns)"], &row["P99 (ns)"]), (&row["Avg (ns)"], &row["Avg (ns)"]), "{row}");
    }
}

#[test]
fn ranges_have_the_table_of_nsys() {
    let plan = Plan::default();
    let report = load("ranges", &plan);
    let text = stats(&report, Some(Table::NvtxSum), Format::Csv);
    assert!(text.starts_with(
        "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Style,Range\n"
    ));
    let table = rows(&report, Table::NvtxSum);
    assert_eq!(table.len(), 7 + 1 + 1 + plan.layers as usize);
    assert!(table.iter().all(|row| row["Style"] == "PushPop" && row["Instances"] == plan.steps));
    let of = |name: &str| table.iter().find(|row| row["Range"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(of("schedule")["Total Time (ns)"], plan.steps * PHASES_NS[1].1);
    let steps = report.recording.steps.iter().map(|step| step.end_ns - step.start_ns);
    assert_eq!(of("ProfilerStep#*")["Total Time (ns)"], steps.sum::<u64>());
    // Five nodes and the gaps between them.
    let layer_ns: u64 = (0..5).map(|op| plan.node_ns(1, 1 + 2 * 5 + op)).sum::<u64>() + 4 * 37;
    assert_eq!((&of("layer 2")["Min (ns)"], &of("layer 2")["Max (ns)"]), (&layer_ns.into(), &layer_ns.into()));
    assert!(of("step *")["Min (ns)"].as_u64() > of("layer 2")["Max (ns)"].as_u64());
}

#[test]
fn requests_have_their_times() {
    let plan = Plan::default();
    let report = load("requests", &plan);
    let table = rows(&report, Table::RequestSum);
    let moments = |moment| {
        let mut found = report.recording.requests.iter().filter(move |record| record.moment == moment);
        found.next().expect("a moment").at_ns
    };
    let [queued, scheduled, first, finished] =
        [RequestMoment::Queued, RequestMoment::Scheduled, RequestMoment::FirstToken, RequestMoment::Finished]
            .map(moments);
    let ended = &table[0];
    let int = |column: &str| ended[column].as_u64().expect("a number");
    assert_eq!(["Request", "Prompt tokens", "Answer tokens", "Steps"].map(int), [1, 12, plan.steps, plan.steps]);
    assert_eq!(["Queue (ns)", "Prefill (ns)"].map(int), [scheduled - queued, first - scheduled]);
    assert_eq!(["Decode (ns)", "Preempted (ns)"].map(int), [finished - first, 0]);
    assert_eq!(["E2E (ns)", "TTFT (ns)"].map(int), [finished - queued, first - queued]);
    let between_ns = (finished - first) as f64 / (plan.steps - 1) as f64;
    assert!((ended["Avg ITL (ns)"].as_f64().expect("a number") - between_ns).abs() < 1e-6);
    let node_ns: u64 = report.recording.nodes.iter().map(|node| node.excl_ns).sum();
    assert_eq!(int("Nodes of its steps (ns)"), node_ns, "it was in every step");
    assert_eq!(ended["End"], "finished");
    let other = &table[1];
    assert_eq!((&other["End"], &other["E2E (ns)"]), (&"after the recording".into(), &Value::Null));
    assert_eq!(other["Answer tokens"], Value::Null);
}

#[test]
fn a_preempted_request_goes_on_with_its_next_step() {
    let mut recorder = Recorder::start(&options(&folder("preempted")), &header(), &[]).expect("a recorder");
    let moment = |moment, at_ns, tokens| RequestRecord { request: 7, moment, at_ns, tokens };
    let step = |step, start_ns| StepRecord {
        step,
        start_ns,
        end_ns: start_ns + 90,
        done_ns: start_ns + 90,
        sizes: StepSizes::default(),
        prefill_tokens: 0,
        traced: false,
        copies: Default::default(),
    };
    recorder.request(&moment(RequestMoment::Queued, 1_000, 5));
    recorder.request(&moment(RequestMoment::Scheduled, 1_100, 0));
    recorder.request(&moment(RequestMoment::FirstToken, 1_190, 1));
    recorder.request(&moment(RequestMoment::Preempted, 1_250, 6));
    recorder.request(&moment(RequestMoment::Finished, 1_690, 3));
    for (number, start_ns) in [(1, 1_100), (2, 1_200), (3, 1_300), (4, 1_400), (5, 1_600)] {
        if [1, 2, 4, 5].contains(&number) {
            recorder.member(&MemberRecord { step: number, request: 7, tokens: 1, prefill_tokens: 0, kv_len: 1 });
        }
        recorder.step(&step(number, start_ns));
    }
    let summary = recorder.stop(Expected::default()).expect("a summary");
    let table = rows(&Report::load(&summary.path).expect("a report"), Table::RequestSum);
    let int = |column: &str| table[0][column].as_u64().expect("a number");
    assert_eq!(["Queue (ns)", "Prefill (ns)", "Preempted (ns)", "Decode (ns)"].map(int), [100, 90, 150, 60 + 290]);
    assert_eq!(["E2E (ns)", "TTFT (ns)", "Steps", "Nodes of its steps (ns)"].map(int), [690, 190, 4, 0]);
    assert_eq!(table[0]["Avg ITL (ns)"].as_f64(), Some(250.0));
}

#[test]
fn odd_names_survive_in_every_format() {
    let name = odd_name();
    let plan = Plan { kernel: Some(name.clone()), steps: 2, ..Plan::default() };
    let report = load("odd-tables", &plan);
    for table in [Table::KernSum, Table::GpuTrace] {
        let json = rows(&report, table);
        assert!(json.iter().any(|row| row["Name"] == name.as_str()), "{table:?}");
        let records = csv(&stats(&report, Some(table), Format::Csv));
        let column = records[0].iter().position(|column| column == "Name").expect("a column");
        assert!(records.iter().all(|record| record.len() == records[0].len()), "{table:?}");
        assert!(records.iter().any(|record| record[column] == name), "{table:?}");
        let text = stats(&report, Some(table), Format::Text);
        assert!(!text.contains(|character: char| character.is_control() && character != '\n'), "{table:?}");
        assert!(text.contains("\\n\\t\\r\\u{1}\\u{1b}[31m\\u{7f}\\u{0} é 漢 😀 \u{fffd}"), "{table:?}: {text}");
    }
}

#[test]
fn empty_and_cut_recordings_have_tables() {
    let recorder = Recorder::start(&options(&folder("empty-tables")), &header(), &[]).expect("a recorder");
    let empty = Report::load(&recorder.stop(Expected::default()).expect("a summary").path).expect("a report");
    let plan = Plan { steps: 300, ..Plan::default() };
    let whole = record("cut-tables", &plan).path;
    let half = whole.with_extension("cut.vtr");
    cut(&whole, |bytes| bytes / 2, &half);
    let half = Report::load(&half).expect("a report");
    assert!(half.completeness.truncated);
    for table in [Table::GpuTrace, Table::NvtxSum, Table::RequestSum] {
        assert_eq!(rows(&empty, table), Vec::<Value>::new(), "{table:?}");
        assert_eq!(csv(&stats(&empty, Some(table), Format::Csv)).len(), 1, "{table:?}");
        let found = rows(&half, table);
        assert!(!found.is_empty(), "{table:?}");
        assert_eq!(csv(&stats(&half, Some(table), Format::Csv)).len(), 1 + found.len(), "{table:?}");
    }
    assert_eq!(
        rows(&half, Table::GpuTrace).iter().filter(|row| !row["Op"].is_null()).count(),
        half.recording.nodes.len()
    );
}

#[test]
fn tables_are_written_to_files_whole_or_not_at_all() {
    let spool = record("table-files", &Plan::default()).path;
    let report = Report::load(&spool).expect("a report");
    let dir = folder("table-files-out");
    let write = |tables: &[Table], format, name: &str| write_stats(&spool, &report, tables, format, &dir.join(name));
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    let both = [Table::OpSum, Table::Account];
    assert_eq!(write(&both[..1], Format::Csv, "one.csv").expect("a file"), [dir.join("one.csv")]);
    assert_eq!(read(&dir.join("one.csv")), stats(&report, Some(Table::OpSum), Format::Csv));
    let files = write(&both, Format::Csv, "two.csv").expect("files");
    assert_eq!(files, [dir.join("two_op_sum.csv"), dir.join("two_account.csv")]);
    assert_eq!(write(&both, Format::Csv, "run").expect("files")[1], dir.join("run_account.csv"));
    assert_eq!(read(&files[1]), stats(&report, Some(Table::Account), Format::Csv));
    write(&both, Format::Json, "one.csv").expect("a file is replaced");
    let json: Value = serde_json::from_str(&read(&dir.join("one.csv"))).expect("JSON");
    assert_eq!(json["account"], Value::from(rows(&report, Table::Account)));
    let missing = write(&both, Format::Json, "no-such-folder/x").expect_err("a refusal");
    assert!(missing.to_string().contains("no-such-folder/x: "), "{missing}");
    let over = write_stats(&spool, &report, &both, Format::Text, &spool).expect_err("a refusal");
    assert!(matches!(over, ReportError::OverRecording { .. }), "{over}");
    assert!(Report::load(&spool).is_ok(), "the recording is there");
    assert_eq!(std::fs::read_dir(&dir).expect("the folder").count(), 5, "no file half written");
}

fn vitrum(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vitrum")).args(["profile", "stats"]).args(arguments).output().expect("the binary")
}

#[test]
fn the_command_takes_the_options_of_nsys() {
    let spool = record_seen("stats-command", &Plan::default(), BOTH, |_| {});
    let file = spool.to_str().expect("UTF-8");
    let report = Report::load(&spool).expect("a report");
    let named = vitrum(&[file, "-r", "op_sum,account", "--report", "nvtx_sum", "-f", "json", "-o", "-"]);
    assert!(named.status.success(), "{named:?}");
    let json: Value = serde_json::from_slice(&named.stdout).expect("JSON");
    assert_eq!(json.as_object().expect("tables").keys().collect::<Vec<_>>(), ["op_sum", "account", "nvtx_sum"]);
    assert_eq!(json["op_sum"], Value::from(rows(&report, Table::OpSum)));
    for format in ["table", "text"] {
        let text = vitrum(&[file, "-r", "step_sum", "-f", format]);
        assert_eq!(String::from_utf8_lossy(&text.stdout), stats(&report, Some(Table::StepSum), Format::Text));
    }
    let unknown = vitrum(&[file, "-r", "op_sum,gpu_trace"]);
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(!unknown.status.success() && said.contains("'gpu_trace'") && said.contains("cuda_gpu_trace"), "{said}");
    let help = vitrum(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for table in Table::ALL {
        assert!(help.contains(table.as_str()), "{}: {help}", table.as_str());
    }
    assert!(help.contains("all but cuda_gpu_trace") && help.contains("FILE_NAME.csv"), "{help}");
}
