//! Flame graphs for speedscope and the SQLite file: their rules, and that their sums are those of the tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::Value;
use vitrum::report::{self, Export, Report, ReportError, Table};
use vitrum::trace::record::Recorder;
use vitrum::trace::schema::Op;
use vitrum::trace::session::Expected;

use super::library::record_seen;
use super::sources::{ALONE, BOTH};
use super::synthetic::{Plan, header, options};
use super::tables::odd_name;
use super::{cut, folder, record, rows};

/// Spools of every kind that rendering has to cope with.
fn spools(name: &str) -> Vec<(String, PathBuf)> {
    let named = |kind: &str| format!("{name}-{kind}");
    let overlap = Plan { overlap_ns: 500, ..Plan::default() };
    let odd = Plan { kernel: Some(odd_name()), steps: 3, ..Plan::default() };
    vec![
        (named("plain"), record(&named("plain"), &Plan::default()).path),
        (named("overlap"), record(&named("overlap"), &overlap).path),
        (named("odd"), record(&named("odd"), &odd).path),
        (named("alone"), record_seen(&named("alone"), &overlap, ALONE, |_| {})),
        (named("both"), record_seen(&named("both"), &overlap, BOTH, |_| {})),
    ]
}

fn int(row: &Value, column: &str) -> u64 {
    row[column].as_u64().expect("a number")
}

fn empty_spool(name: &str) -> PathBuf {
    let recorder = Recorder::start(&options(&folder(name)), &header(), &[]).expect("a recorder");
    recorder.stop(Expected::default()).expect("a summary").path
}

fn flames(spool: &Path) -> Value {
    let rendered = report::export(spool, Export::Speedscope, None).expect("a file");
    assert_eq!(rendered.files, [spool.with_extension("speedscope.json")]);
    serde_json::from_slice(&std::fs::read(&rendered.files[0]).expect("the file")).expect("JSON")
}

/// Checks the rules of speedscope's schema and reader; gives each stack's own time.
fn check_profile(profile: &Value, frames: usize) -> BTreeMap<Vec<u64>, u64> {
    assert_eq!((&profile["type"], &profile["unit"]), (&"evented".into(), &"nanoseconds".into()));
    let end = profile["endValue"].as_u64().expect("an end");
    let mut at = profile["startValue"].as_u64().expect("a begin");
    let mut stack: Vec<u64> = Vec::new();
    let mut own: BTreeMap<Vec<u64>, u64> = BTreeMap::new();
    for event in profile["events"].as_array().expect("events") {
        let (now, frame) = (event["at"].as_u64().expect("a time"), event["frame"].as_u64().expect("a frame"));
        assert_eq!(event.as_object().expect("an event").len(), 3, "no arguments");
        assert!(at <= now && now <= end, "{event} behind {at}");
        assert!((frame as usize) < frames);
        *own.entry(stack.clone()).or_default() += now - at;
        at = now;
        match event["type"].as_str().expect("a type") {
            "O" => stack.push(frame),
            "C" => assert_eq!(stack.pop(), Some(frame), "the innermost is closed first"),
            other => panic!("{other}"),
        }
    }
    assert!(stack.is_empty(), "everything is closed");
    own
}

#[test]
fn flame_graphs_add_up_to_the_tables() {
    for (name, spool) in spools("flames") {
        let report = Report::load(&spool).expect("a report");
        let flames = flames(&spool);
        assert_eq!(flames["$schema"], "https://www.speedscope.app/file-format-schema.json");
        let frames = flames["shared"]["frames"].as_array().expect("frames");
        let [device, thread] = &flames["profiles"].as_array().expect("profiles")[..] else { panic!("two profiles") };
        let own = check_profile(device, frames.len());
        let key = |layer: &Value, op: &Value| format!("{layer} {op}");
        let mut by_place: BTreeMap<String, u64> = BTreeMap::new();
        let mut nodes_ns = 0;
        for (stack, ns) in &own {
            let name = stack.last().and_then(|frame| frames[*frame as usize]["name"].as_str()).unwrap_or_default();
            let Some(op) = Op::ALL.into_iter().find(|op| name.split(' ').next() == Some(op.as_str())) else { continue };
            let [step, layer @ .., _] = &stack[..] else { panic!("a node outside of a step") };
            let step = frames[*step as usize]["name"].as_str().expect("a name");
            assert_eq!(step, "step forward.decode.8 + sample.plain.8");
            let layer = layer.first().map_or(Value::Null, |layer| {
                let name = frames[*layer as usize]["name"].as_str().expect("a name");
                name.strip_prefix("layer ").expect("a layer").parse::<u64>().expect("a number").into()
            });
            *by_place.entry(key(&layer, &op.as_str().into())).or_default() += ns;
            nodes_ns += ns;
        }
        let table = rows(&report, Table::NodeSum);
        let place = |row: &Value| (key(&row["Layer"], &row["Op"]), int(row, "Total (ns)"));
        assert_eq!(by_place, table.iter().map(place).collect(), "{name}");
        assert_eq!(nodes_ns, report.account.total.nodes_ns, "{name}");
        if name.ends_with("odd") {
            let name = format!("mlp.up {}", odd_name());
            assert!(frames.iter().any(|frame| frame["name"] == name.as_str()), "the name survives");
        }
        let own = check_profile(thread, frames.len());
        let iterations: u64 = report.recording.steps.iter().map(|step| step.end_ns - step.start_ns).sum();
        let is_iteration =
            |stack: &Vec<u64>| stack.first().is_some_and(|f| frames[*f as usize]["name"] == "ProfilerStep");
        let within: u64 = own.iter().filter(|(stack, _)| is_iteration(stack)).map(|(_, ns)| ns).sum();
        assert_eq!(within, iterations, "{name}: iterations take what they take");
    }
    let flames = flames(&empty_spool("flames-empty"));
    assert_eq!(flames["profiles"][0]["events"], Value::Array(Vec::new()));
}

fn database(spool: &Path) -> Connection {
    let rendered = report::export(spool, Export::Sqlite, None).expect("a file");
    assert_eq!(rendered.files, [spool.with_extension("sqlite")]);
    Connection::open(&rendered.files[0]).expect("a database")
}

fn count(database: &Connection, sql: &str) -> u64 {
    let found: i64 = database.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    found.try_into().expect("no negative number")
}

#[test]
fn a_database_adds_up_to_the_tables() {
    for (name, spool) in spools("sqlite") {
        let (report, database) = (Report::load(&spool).expect("a report"), database(&spool));
        let mut query = database
            .prepare(
                "SELECT value, sum(end - start), count(*) FROM CUPTI_ACTIVITY_KIND_KERNEL \
                 JOIN StringIds ON id = demangledName GROUP BY value ORDER BY 2 DESC, 1",
            )
            .expect("tables of nsys");
        let kernels = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("rows");
        let kernels: Vec<(String, i64, i64)> = kernels.map(|row| row.expect("a row")).collect();
        let table = rows(&report, Table::KernSum);
        let signed = |row: &Value, column: &str| row[column].as_i64().expect("a number");
        let expected: Vec<(String, i64, i64)> = table
            .iter()
            .map(|row| {
                let name = row["Name"].as_str().expect("a name").to_owned();
                (name, signed(row, "Total Time (ns)"), signed(row, "Instances"))
            })
            .collect();
        assert_eq!(kernels, expected, "{name}");

        let mut query = database
            .prepare(
                "SELECT layer, op, count(*), sum(excl_ns), sum(bytes) / sum(excl_ns), sum(flops) / sum(excl_ns) \
                 FROM vitrum_nodes GROUP BY layer, op",
            )
            .expect("the view");
        let mut places = query.query([]).expect("rows");
        let mut found = 0;
        let table = rows(&report, Table::NodeSum);
        while let Some(place) = places.next().expect("a row") {
            let (layer, op): (i64, String) = (place.get(0).unwrap(), place.get(1).unwrap());
            let of_place = |row: &&Value| row["Layer"].as_i64().unwrap_or(-1) == layer && row["Op"] == op.as_str();
            let row = table.iter().find(of_place).unwrap_or_else(|| panic!("{name}: {layer} {op}"));
            assert_eq!(signed(row, "Count"), place.get::<_, i64>(2).unwrap());
            assert_eq!(signed(row, "Total (ns)"), place.get::<_, i64>(3).unwrap());
            for (column, at) in [("GB/s", 4), ("GFLOP/s", 5)] {
                let real = row[column].as_f64().expect("a number");
                assert!((real - place.get::<_, f64>(at).unwrap()).abs() < 1e-9 * real, "{name}: {column}");
            }
            found += 1;
        }
        assert_eq!(found, table.len());
    }
}

#[test]
fn a_database_has_what_readers_of_nsys_need() {
    let plan = Plan::default();
    let spool = record_seen("sqlite-nsys", &plan, BOTH, |_| {});
    let database = database(&spool);
    let nodes = plan.steps * plan.step_nodes();
    let kernel = "CUPTI_ACTIVITY_KIND_KERNEL k JOIN CUPTI_ACTIVITY_KIND_RUNTIME r ON r.correlationId = k.correlationId";
    assert_eq!(count(&database, &format!("SELECT count(*) FROM {kernel}")), nodes, "each has one launch");
    assert_eq!(
        count(
            &database,
            &format!(
                "SELECT count(*) FROM {kernel} JOIN StringIds s ON s.id = r.nameId WHERE s.value = 'cuGraphLaunch'"
            )
        ),
        nodes
    );
    let within = "NVTX_EVENTS e ON e.globalTid = r.globalTid AND e.start <= r.start AND e.end >= r.end";
    let phase = format!("SELECT count(*) FROM {kernel} JOIN {within} WHERE e.text = 'replay'");
    assert_eq!(count(&database, &phase), nodes, "each launch lies in a range of its thread");
    let texts = "SELECT count(*) FROM NVTX_EVENTS JOIN StringIds ON id = textId WHERE value = text AND eventType = 59";
    assert_eq!(count(&database, texts), 8 * plan.steps);
    assert_eq!(
        count(&database, "SELECT count(DISTINCT graphNodeId) FROM CUPTI_ACTIVITY_KIND_KERNEL"),
        plan.step_nodes()
    );
    assert_eq!(count(&database, "SELECT globalTid / 0x1000000 % 0x1000000 FROM NVTX_EVENTS LIMIT 1"), 4242);
    assert_eq!(count(&database, "SELECT globalTid % 0x1000000 FROM NVTX_EVENTS LIMIT 1"), 4243);
    let up = "SELECT count(*) FROM CUPTI_ACTIVITY_KIND_MEMCPY JOIN CUPTI_ACTIVITY_KIND_RUNTIME USING (correlationId) \
              JOIN StringIds ON id = nameId WHERE copyKind = 1 AND value = 'cuMemcpyHtoDAsync'";
    assert_eq!(count(&database, up), 2 * plan.steps);
    assert_eq!(count(&database, "SELECT count(*) FROM CUPTI_ACTIVITY_KIND_MEMSET"), plan.steps);
    let waits = "SELECT count(*) FROM CUPTI_ACTIVITY_KIND_SYNCHRONIZATION JOIN ENUM_CUPTI_SYNC_TYPE ON id = syncType";
    assert_eq!(count(&database, waits), plan.steps + 1);
    assert_eq!(count(&database, "SELECT smCount FROM TARGET_INFO_GPU"), 132);
    assert_eq!(count(&database, "SELECT utcEpochNs FROM TARGET_INFO_SESSION_START_TIME"), 1_768_000_000_001_000_000);
    let product = "SELECT count(*) FROM META_DATA_EXPORT WHERE name = 'EXPORT_PRODUCT_NAME' AND value = 'vitrum'";
    assert_eq!(count(&database, product), 1);
    assert_eq!(count(&database, "SELECT min(start) FROM NVTX_EVENTS"), 0);
}

#[test]
fn a_database_has_steps_requests_and_the_account() {
    let plan = Plan::default();
    let spool = record("sqlite-own", &plan).path;
    let (report, database) = (Report::load(&spool).expect("a report"), database(&spool));
    let total = &report.account.total;
    for part in total.named().into_iter().filter(|part| part.ns > 0) {
        let sum = format!("SELECT sum(ns) FROM vitrum_account WHERE part = '{}'", part.name);
        assert_eq!(count(&database, &sum), part.ns, "{}", part.name);
    }
    assert_eq!(count(&database, "SELECT sum(ns) FROM vitrum_account"), total.wall_ns);
    assert_eq!(count(&database, "SELECT sum(nodes_ns) FROM vitrum_steps"), total.nodes_ns);
    let shared =
        "SELECT count(*) FROM vitrum_members JOIN vitrum_steps USING (step) JOIN vitrum_requests USING (request)";
    assert_eq!(count(&database, shared), 2 * plan.steps);
    let table = rows(&report, Table::RequestSum);
    let request = "SELECT ttft_ns FROM vitrum_requests WHERE ended = 'finished'";
    assert_eq!(Value::from(count(&database, request)), table[0]["TTFT (ns)"]);
    assert_eq!(count(&database, "SELECT count(*) FROM vitrum_phases"), 7 * plan.steps);
    assert_eq!(count(&database, "SELECT sum(ns) FROM vitrum_copies WHERE kind = 'Host-to-Device'"), total.upload_ns);
    assert_eq!(count(&database, "SELECT value FROM vitrum_session WHERE name = 'complete'"), 1);
    let steps = count(&database, "SELECT count(DISTINCT step) FROM vitrum_nodes WHERE graph = 'sample.plain.8'");
    assert_eq!(steps, plan.steps);
}

#[test]
fn a_file_is_replaced_by_a_whole_one_only() {
    let spool = record("replaced", &Plan::default()).path;
    let dir = folder("replaced-out");
    let formats = [Export::Chrome, Export::Speedscope, Export::Sqlite];
    for (at, format) in formats.into_iter().enumerate() {
        let path = dir.join(format!("file:{at}?mode=ro"));
        let temporary = dir.join(format!("file:{at}?mode=ro.{}.tmp", std::process::id()));
        std::fs::write(&path, "as it was").expect("a file");
        // Something stands where the new file would be written.
        std::fs::create_dir(&temporary).expect("a folder");
        let refused = report::export(&spool, format, Some(&path)).expect_err("a refusal");
        assert!(refused.to_string().contains("?mode=ro: "), "{format:?}: {refused}");
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "as it was", "{format:?}");
        std::fs::remove_dir(&temporary).expect("the folder");
        std::fs::write(&temporary, "left by one that was killed").expect("a file");
        let rendered = report::export(&spool, format, Some(&path)).expect("a file");
        assert_eq!(rendered.files, std::slice::from_ref(&path));
        assert!(std::fs::metadata(&path).expect("the file").len() > 1000, "{format:?}");
        assert!(!temporary.exists(), "{format:?}");
        let over = report::export(&spool, format, Some(&spool)).expect_err("a refusal");
        assert!(matches!(over, ReportError::OverRecording { .. }), "{format:?}: {over}");
        let folder = report::export(&spool, format, Some(&dir)).expect_err("a refusal");
        assert!(matches!(folder, ReportError::Write { .. }), "{format:?}: {folder}");
    }
    assert!(Report::load(&spool).is_ok(), "the recording is there");
    assert_eq!(std::fs::read_dir(&dir).expect("the folder").count(), formats.len(), "no file half written");
    let header = std::fs::read(dir.join("file:2?mode=ro")).expect("the database");
    assert!(header.starts_with(b"SQLite format 3\0"));
}

#[test]
fn empty_and_cut_recordings_are_exported() {
    let whole = record("cut-exports", &Plan { steps: 300, ..Plan::default() }).path;
    let half = whole.with_extension("cut.vtr");
    cut(&whole, |bytes| bytes / 2, &half);
    for (spool, is_empty) in [(empty_spool("empty-exports"), true), (half, false)] {
        let nodes = Report::load(&spool).expect("a report").recording.nodes.len() as u64;
        assert_eq!(nodes == 0, is_empty);
        let database = database(&spool);
        assert_eq!(count(&database, "SELECT count(*) FROM vitrum_nodes"), nodes);
        let complete = count(&database, "SELECT value FROM vitrum_session WHERE name = 'complete'");
        assert_eq!(complete == 1, is_empty);
        let flames = flames(&spool);
        let frames = flames["shared"]["frames"].as_array().expect("frames").len();
        check_profile(&flames["profiles"][0], frames);
        check_profile(&flames["profiles"][1], frames);
    }
}
