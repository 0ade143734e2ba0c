//! What decoding costs: records of kernels made here, walked by CUPTI's own call, decoded and written as those of a
//! session are. It needs CUPTI, and neither a driver nor a GPU: `cargo bench --bench cupti`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::buffers::{Buffer, FullBuffer};
use super::decoder::Decoder;
use super::identity::Identity;
use super::library::Cupti;
use super::records;
use crate::trace::activity::ActivityCounts;
use crate::trace::record::ACTIVITY_BLOCKS;
use crate::trace::record::sink::{Room, Sink};
use crate::trace::record::writer::{Message, Writer};
use crate::trace::session::Closing;

/// Nodes of the graph that the records are of.
const NODES: u64 = 200;

/// What came of decoding.
#[derive(Clone, Debug)]
pub struct Decoding {
    /// The library whose call walked the records.
    pub library: String,
    /// Bytes of a record.
    pub record_bytes: usize,
    /// What the decoder counted.
    pub counts: ActivityCounts,
    /// Time of one core: to walk, decode and encode the records, and to zero their buffers.
    pub cpu: Duration,
    /// Bytes written to the file.
    pub bytes: u64,
}

/// Decodes so many records into a file, which is overwritten. The error is a sentence.
pub fn decode_synthetic(toolkits: &[PathBuf], count: u64, path: &Path) -> Result<Decoding, String> {
    let cupti = Cupti::load(toolkits).map_err(|error| error.to_string())?;
    let in_file = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::create(path).map_err(in_file)?;
    let (full, messages) = sync_channel(ACTIVITY_BLOCKS + 1);
    let room = Arc::new(Room::new(0, u64::MAX));
    let writer = Writer::new((file, path), 0, None, Arc::clone(&room), Arc::default());
    let writer = std::thread::Builder::new().spawn(move || writer.run(&messages)).map_err(in_file)?;
    let mut identity = Identity::default();
    identity.add(1, 7, &(1..=NODES).collect::<Vec<u64>>());
    let record_bytes = records::kernel_bytes(&cupti);
    let mut decoder = Decoder::new(&cupti, None, Sink::new(ACTIVITY_BLOCKS, full.clone(), room));
    let mut buffer = FullBuffer { buffer: Buffer::new(), bytes: 0 };
    let (mut made, mut cpu) = (0, Duration::ZERO);
    while made < count {
        made += fill(&mut buffer, made, count - made, record_bytes);
        let begin = thread_time();
        decoder.decode(&mut buffer, &identity);
        buffer.zero();
        cpu += thread_time() - begin;
    }
    let decoded = decoder.end();
    drop(full.send(Message::Close(Box::<Closing>::default()))); // fails if the writer has ended, which is seen next
    let end = writer.join().map_err(|_| "the thread that writes ended before its time")?;
    match end.error {
        Some(error) => Err(in_file(error)),
        None => Ok(Decoding { library: cupti.name(), record_bytes, counts: decoded.counts, cpu, bytes: end.bytes }),
    }
}

/// Fills a buffer with at most so many records, as replays of one graph follow each other; with how many.
fn fill(full: &mut FullBuffer, first: u64, most: u64, record_bytes: usize) -> u64 {
    let bytes = full.buffer.bytes_mut();
    let count = most.min((bytes.len() / record_bytes) as u64);
    for (record, number) in bytes.chunks_exact_mut(record_bytes).zip(first..first + count) {
        let start_ns = 1_000_000 + 2_000 * number;
        let node = 7 << 32 | (1 + number % NODES);
        records::put_kernel(record, (number / NODES) as u32, node, (start_ns, start_ns + 1_900));
    }
    full.bytes = count as usize * record_bytes;
    count
}

/// What this thread has had of a core.
fn thread_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
