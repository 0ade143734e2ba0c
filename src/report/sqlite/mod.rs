//! A recording as an SQLite file: the tables of `nsys export --type sqlite`, so that its readers open it, and tables
//! with plain names for a query in one line:
//!
//! ```text
//! sqlite3 run.sqlite "select layer, op, count(*), sum(excl_ns) from vitrum_nodes group by layer, op"
//! ```
//!
//! - `vitrum_nodes`, a view: a row for each node of each replay: start_ns, end_ns, ns, excl_ns, wait_ns, step, replay,
//!   graph, ordinal, layer, op, kernel, choice, bytes, flops
//! - `vitrum_copies`, a view: copies and fills: kind, start_ns, end_ns, ns, bytes
//! - `vitrum_steps`: step, start_ns, end_ns, done_ns, tokens, seqs, logit_rows, kv_tokens, qk_pairs, prefill_tokens,
//!   traced, nodes_ns
//! - `vitrum_account`: the parts of a step's time: step, part, ns
//! - `vitrum_phases`: stretches of the engine's thread: phase, step, start_ns, end_ns
//! - `vitrum_requests`: request, start_ns, end_ns, queue_ns, prefill_ns, decode_ns, preempted_ns, e2e_ns, ttft_ns,
//!   itl_ns, prompt_tokens, answer_tokens, steps, nodes_ns, ended, name
//! - `vitrum_members`: a request's rows in a step: step, request, tokens, prefill_tokens, kv_len
//! - `vitrum_replays`: replay, step, graph_id, launch_start_ns, launch_end_ns, stamps, activity
//! - `vitrum_graphs`: graph_id, graph, kind, bucket
//! - `vitrum_graph_nodes`: id, graph_id, ordinal, kernel, choice, layer, op, and what the cost is made of
//! - `vitrum_session`: facts of the recording: name, value
//!
//! A layer is −1 outside the layers; times are nanoseconds since the recording's begin, which `vitrum_session` has on
//! both clocks; what is not known is NULL. `vitrum_nodes` reads the kernels' table of nsys, where the times stand once,
//! with two columns more: `vitrumExclNs` and `vitrumWaitNs`.
//!
//! In nsys' tables a name is an id of `StringIds`; `graphNodeId` is `graphId << 32 | ordinal`; the correlation of a
//! replay is its number; the `text` of ranges is there beside `textId`, because readers differ; calls and ranges of one
//! thread share its `globalTid`, `1 << 48 | pid << 24 | tid`. `memoryBandwidth` is the measured read peak. Waits of the
//! host stand in the table of synchronisations as long as their calls took. `EXPORT_PRODUCT_NAME` is vitrum.

mod nsys;
mod own;

use std::fs;
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Recording, Report, ReportError, output};
use crate::trace::session::ClockAnchor;

/// Writes the file; one that is there is replaced by a whole one only.
pub fn write(report: &Report, path: &Path) -> Result<(), ReportError> {
    let no_file = |source| ReportError::Write { path: path.into(), source };
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(no_file(io::Error::new(io::ErrorKind::InvalidInput, "it is there, and no regular file")));
    }
    output::whole_at(path, |temporary| {
        // Of a process that had the same number.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(no_file(error)),
            _ => {}
        }
        // Absolute: SQLite takes a name that begins with `file:` for more than a name.
        let absolute = std::path::absolute(temporary).map_err(no_file)?;
        write_to(report, &absolute).map_err(|source| ReportError::Sqlite { path: path.into(), source })
    })
}

fn write_to(report: &Report, path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    // A file that is not whole is thrown away, so nothing has to survive a crash.
    connection.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; \
         PRAGMA cache_size = -65536;",
    )?;
    fill(report, &mut connection)?;
    connection.close().map_err(|(_, error)| error)
}

/// Makes the tables in an empty database.
pub(super) fn fill(report: &Report, connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let frame = Frame::of(&report.recording);
    nsys::fill(report, &frame, &transaction)?;
    own::fill(report, &frame, &transaction)?;
    transaction.commit()
}

/// What times and threads are relative to.
struct Frame {
    base_ns: u64,
    end_ns: u64,
    clock: ClockAnchor,
    pid: u32,
}

impl Frame {
    fn of(recording: &Recording) -> Frame {
        let session = &recording.header.session;
        let (base_ns, end_ns) = recording.span();
        Frame { base_ns, end_ns, clock: session.clock.clone(), pid: session.pid }
    }

    /// The recording's begin, in nanoseconds since 1970.
    fn base_unix_ns(&self) -> i64 {
        i64::try_from(self.clock.unix_ns_at(self.base_ns).max(0)).unwrap_or(i64::MAX)
    }

    /// A moment, since the recording's begin.
    fn at(&self, ns: u64) -> i64 {
        count(ns.saturating_sub(self.base_ns))
    }
}

/// A number of things or nanoseconds: SQLite's integers end at 2⁶³ − 1.
fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number that names something: different ones stay different.
fn id(value: u64) -> i64 {
    value as i64
}

/// nsys' tables are named for the profiling library, and no string of a build without the recorder has its name in it
/// (`cargo xtask verify-off`): here it is written with a hyphen.
fn sql(text: &str) -> String {
    text.replace("P-T", "PT")
}
