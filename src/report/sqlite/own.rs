//! Tables and views with plain names.

use std::collections::HashMap;

use rusqlite::{Connection, ToSql, params};

use super::{Frame, count, id, sql};
use crate::report::layout::Layout;
use crate::report::stats::node_ns_by_step;
use crate::report::{Doing, Life, Recording, Report, dominates};
use crate::trace::schema::LinearCost;

// Columns named `end` are quoted in views: DuckDB, which reads them too, takes the bare word for another.
const SCHEMA: &str = "
CREATE TABLE vitrum_session (name TEXT NOT NULL PRIMARY KEY, value);
CREATE TABLE vitrum_graphs (graph_id INTEGER NOT NULL PRIMARY KEY, graph TEXT NOT NULL, kind TEXT NOT NULL,
    bucket INTEGER NOT NULL);
CREATE TABLE vitrum_graph_nodes (id INTEGER NOT NULL PRIMARY KEY, graph_id INTEGER NOT NULL, ordinal INTEGER NOT NULL,
    kernel TEXT NOT NULL, choice TEXT NOT NULL, layer INTEGER NOT NULL, op TEXT NOT NULL,
    bytes_constant REAL, bytes_tokens REAL, bytes_seqs REAL, bytes_logit_rows REAL, bytes_kv_tokens REAL,
    bytes_qk_pairs REAL, flops_constant REAL, flops_tokens REAL, flops_seqs REAL, flops_logit_rows REAL,
    flops_kv_tokens REAL, flops_qk_pairs REAL);
CREATE TABLE vitrum_replays (replay INTEGER NOT NULL PRIMARY KEY, step INTEGER NOT NULL, graph_id INTEGER NOT NULL,
    launch_start_ns INTEGER NOT NULL, launch_end_ns INTEGER NOT NULL, stamps INTEGER NOT NULL,
    activity INTEGER NOT NULL);
CREATE TABLE vitrum_steps (step INTEGER NOT NULL PRIMARY KEY, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
    done_ns INTEGER NOT NULL, tokens INTEGER NOT NULL, seqs INTEGER NOT NULL, logit_rows INTEGER NOT NULL,
    kv_tokens INTEGER NOT NULL, qk_pairs INTEGER NOT NULL, prefill_tokens INTEGER NOT NULL, traced INTEGER NOT NULL,
    nodes_ns INTEGER);
CREATE TABLE vitrum_account (step INTEGER NOT NULL, part TEXT NOT NULL, ns INTEGER NOT NULL);
CREATE TABLE vitrum_phases (phase TEXT NOT NULL, step INTEGER NOT NULL, start_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL);
CREATE TABLE vitrum_members (step INTEGER NOT NULL, request INTEGER NOT NULL, tokens INTEGER NOT NULL,
    prefill_tokens INTEGER NOT NULL, kv_len INTEGER NOT NULL);
CREATE TABLE vitrum_requests (request INTEGER NOT NULL PRIMARY KEY, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
    queue_ns INTEGER NOT NULL, prefill_ns INTEGER NOT NULL, decode_ns INTEGER NOT NULL, preempted_ns INTEGER NOT NULL,
    e2e_ns INTEGER, ttft_ns INTEGER, itl_ns REAL, prompt_tokens INTEGER, answer_tokens INTEGER,
    steps INTEGER NOT NULL, nodes_ns INTEGER NOT NULL, ended TEXT NOT NULL,
    name TEXT);
CREATE VIEW vitrum_nodes AS SELECT k.start AS start_ns, k.\"end\" AS end_ns, k.\"end\" - k.start AS ns,
    k.vitrumExclNs AS excl_ns, k.vitrumWaitNs AS wait_ns, r.step AS step, k.correlationId AS replay, g.graph AS graph,
    n.ordinal AS ordinal, n.layer AS layer, n.op AS op, n.kernel AS kernel, n.choice AS choice,
    n.bytes_constant + n.bytes_tokens * s.tokens + n.bytes_seqs * s.seqs + n.bytes_logit_rows * s.logit_rows
        + n.bytes_kv_tokens * s.kv_tokens + n.bytes_qk_pairs * s.qk_pairs AS bytes,
    n.flops_constant + n.flops_tokens * s.tokens + n.flops_seqs * s.seqs + n.flops_logit_rows * s.logit_rows
        + n.flops_kv_tokens * s.kv_tokens + n.flops_qk_pairs * s.qk_pairs AS flops
    FROM CUP-TI_ACTIVITY_KIND_KERNEL k JOIN vitrum_graph_nodes n ON n.id = k.graphNodeId
    JOIN vitrum_graphs g ON g.graph_id = k.graphId JOIN vitrum_replays r ON r.replay = k.correlationId
    LEFT JOIN vitrum_steps s ON s.step = r.step;
CREATE VIEW vitrum_copies AS SELECT coalesce(o.label, 'Unknown') AS kind, c.start AS start_ns, c.\"end\" AS end_ns,
    c.\"end\" - c.start AS ns, c.bytes AS bytes
    FROM CUP-TI_ACTIVITY_KIND_MEMCPY c LEFT JOIN ENUM_CUDA_MEMCPY_OPER o ON o.id = c.copyKind
    UNION ALL SELECT 'Fill', start, \"end\", \"end\" - start, bytes FROM CUP-TI_ACTIVITY_KIND_MEMSET;
";

pub(super) fn fill(report: &Report, frame: &Frame, to: &Connection) -> rusqlite::Result<()> {
    to.execute_batch(&sql(SCHEMA))?;
    let recording = &report.recording;
    let node_ns = node_ns_by_step(recording);
    session(report, frame, to)?;
    graphs(recording, to)?;
    replays(recording, frame, to)?;
    steps(report, &node_ns, frame, to)?;
    requests(recording, &node_ns, frame, to)
}

fn session(report: &Report, frame: &Frame, to: &Connection) -> rusqlite::Result<()> {
    let (header, completeness) = (&report.recording.header, &report.completeness);
    let session = &header.session;
    let ratio = report.perturbation.map(|cost| cost.ratio);
    let facts: [(&str, &dyn ToSql); 26] = [
        ("version", &session.version),
        ("recording", &header.id),
        ("model", &session.model),
        ("device", &session.device.name),
        ("device_kind", &session.device.kind),
        ("isa", &session.device.isa),
        ("workers", &session.device.workers),
        ("pid", &session.pid),
        ("engine_tid", &session.engine_tid),
        ("memory_gb_s", &session.peaks.map(|peaks| peaks.memory_gb_s)),
        ("cache_gb_s", &session.peaks.map(|peaks| peaks.cache_gb_s)),
        ("float_gflop_s", &session.peaks.map(|peaks| peaks.float_gflop_s)),
        ("base_unix_ns", &frame.base_unix_ns()),
        ("base_monotonic_ns", &count(frame.base_ns)),
        ("end_ns", &frame.at(frame.end_ns)),
        ("complete", &completeness.complete),
        ("expected", &completeness.expected.map(count)),
        ("received", &count(completeness.received)),
        ("dropped", &count(completeness.dropped)),
        ("invalid", &count(completeness.invalid)),
        ("overwritten", &count(completeness.overwritten)),
        ("trimmed", &count(completeness.trimmed)),
        ("whole_from_step", &completeness.whole_from_step.map(count)),
        ("toggled", &header.toggle_seed.is_some()),
        ("perturbation", &ratio),
        ("dominates", &dominates(report)),
    ];
    let mut insert = to.prepare("INSERT INTO vitrum_session VALUES (?1, ?2)")?;
    facts.iter().try_for_each(|(name, value)| insert.execute(params![name, value]).map(drop))
}

fn graphs(recording: &Recording, to: &Connection) -> rusqlite::Result<()> {
    let mut graph_row = to.prepare("INSERT INTO vitrum_graphs VALUES (?1, ?2, ?3, ?4)")?;
    let mut node_row = to.prepare(
        "INSERT INTO vitrum_graph_nodes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
         ?16, ?17, ?18, ?19)",
    )?;
    let layout = Layout::alone(recording);
    for graph in &recording.graphs {
        let key = graph.key;
        graph_row.execute(params![graph.id, key.to_string(), key.kind.as_str(), key.bucket])?;
        for (ordinal, info) in graph.nodes.iter().enumerate() {
            let number = id(layout.graph_node_id(graph, ordinal));
            let [b0, b1, b2, b3, b4, b5] = parts(&info.cost.bytes);
            let [f0, f1, f2, f3, f4, f5] = parts(&info.cost.flops);
            let (layer, op) = (info.place.layer, info.place.op.as_str());
            let (kernel, choice) = (&info.kernel, &info.choice);
            node_row.execute(params![
                number,
                graph.id,
                ordinal as i64,
                kernel,
                choice,
                layer,
                op,
                b0,
                b1,
                b2,
                b3,
                b4,
                b5,
                f0,
                f1,
                f2,
                f3,
                f4,
                f5
            ])?;
        }
    }
    Ok(())
}

/// In the order of the columns.
fn parts(cost: &LinearCost) -> [f64; 6] {
    [cost.constant, cost.tokens, cost.seqs, cost.logit_rows, cost.kv_tokens, cost.qk_pairs]
}

// A number that should be there once may be there twice in a file that others wrote: the first one counts.

fn replays(recording: &Recording, frame: &Frame, to: &Connection) -> rusqlite::Result<()> {
    let mut insert = to.prepare("INSERT OR IGNORE INTO vitrum_replays VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for replay in &recording.replays {
        let record = &replay.record;
        let (start, end) = (frame.at(record.launch_start_ns), frame.at(record.launch_end_ns));
        let sources = record.sources;
        insert.execute(params![
            id(record.replay),
            id(record.step),
            record.graph,
            start,
            end,
            sources.stamps,
            sources.activity
        ])?;
    }
    Ok(())
}

fn steps(report: &Report, node_ns: &HashMap<u64, u64>, frame: &Frame, to: &Connection) -> rusqlite::Result<()> {
    let recording = &report.recording;
    let mut insert =
        to.prepare("INSERT OR IGNORE INTO vitrum_steps VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)")?;
    for step in &recording.steps {
        let sizes = &step.sizes;
        insert.execute(params![
            id(step.step),
            frame.at(step.start_ns),
            frame.at(step.end_ns),
            frame.at(step.done_ns),
            count(sizes.tokens),
            count(sizes.seqs),
            count(sizes.logit_rows),
            count(sizes.kv_tokens),
            count(sizes.qk_pairs),
            count(step.prefill_tokens),
            step.traced,
            node_ns.get(&step.step).copied().map(count),
        ])?;
    }
    let mut insert = to.prepare("INSERT INTO vitrum_account VALUES (?1, ?2, ?3)")?;
    for step in &report.account.steps {
        for part in step.parts.named().into_iter().filter(|part| part.ns > 0) {
            insert.execute(params![id(step.step), part.name, count(part.ns)])?;
        }
    }
    let mut insert = to.prepare("INSERT INTO vitrum_phases VALUES (?1, ?2, ?3, ?4)")?;
    for span in &recording.spans {
        let (start, end) = (frame.at(span.start_ns), frame.at(span.end_ns));
        insert.execute(params![span.phase.as_str(), id(span.step), start, end])?;
    }
    Ok(())
}

fn requests(
    recording: &Recording,
    node_ns: &HashMap<u64, u64>,
    frame: &Frame,
    to: &Connection,
) -> rusqlite::Result<()> {
    let mut insert = to.prepare("INSERT INTO vitrum_members VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for member in &recording.members {
        let (step, request) = (id(member.step), id(member.request));
        insert.execute(params![step, request, member.tokens, member.prefill_tokens, member.kv_len])?;
    }
    let mut insert = to.prepare(
        "INSERT INTO vitrum_requests VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?;
    for life in Life::all(recording) {
        let of_steps = life.steps.iter().filter_map(|step| node_ns.get(step).copied());
        insert.execute(params![
            id(life.request),
            frame.at(life.start_ns),
            frame.at(life.end_ns),
            count(life.ns_of(Doing::Queued)),
            count(life.ns_of(Doing::Prefill)),
            count(life.ns_of(Doing::Decode)),
            count(life.ns_of(Doing::Preempted)),
            life.whole_ns().map(count),
            life.first_token_after_ns().map(count),
            life.inter_token_ns(),
            life.prompt_tokens,
            life.answer_tokens(),
            life.steps.len() as i64,
            count(of_steps.fold(0, u64::saturating_add)),
            life.end_word(),
            life.name,
        ])?;
    }
    Ok(())
}
