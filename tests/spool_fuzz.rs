//! Recordings that were changed at random, read and made into every table, the trace, flame graphs and the page: an
//! error or a report, never a panic, in bounded memory and time. What needs a file, or a second recording, is not made:
//! the SQLite file, a merged trace, a comparison.
//!
//! `VITRUM_FUZZ_SECONDS` says for how long, and a hundred files are read at least; `VITRUM_FUZZ_SEED` says where to
//! begin. What fails is saved, and its path is said.

#[path = "support/fuzz.rs"]
mod fuzz;
#[path = "trace/synthetic.rs"]
mod synthetic;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use vitrum::report::{
    Format, Recording, Report, Table, WINDOW_RECORDS, Windows, chrome, dominates, html, speedscope, stats,
};
use vitrum::trace::record::Recorder;
use vitrum::trace::session::{Keep, SessionOptions};
use vitrum::trace::spool::{BLOCK_BYTES, Reader};

use self::fuzz::{Random, Run, memory_bytes, save};
use self::synthetic::{Plan, header, options, play};

/// Nothing is cancelled here.
static NEVER: AtomicBool = AtomicBool::new(false);
const SECONDS_DEFAULT: u64 = 2;
/// However slow the machine is.
const FILES_LEAST: u64 = 100;
/// Of this process at any time: the files have some hundred kilobytes.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Of one file; machines are shared.
const SECONDS_MAX: u64 = 60;
/// In front of the header's JSON: magic, version, length, checksum.
const PREFIX: usize = 20;
const HEAD: usize = 24;

#[test]
fn no_change_of_a_recording_makes_its_readers_panic() {
    let files = recordings();
    for file in &files {
        assert!(read(file), "a file that nobody changed is read");
    }
    let save = |file: &[u8], seed: u64| save(&format!("spool-fuzz-{seed}.vtr"), file);
    let (mut run, mut whole) = (Run::asked(SECONDS_DEFAULT, FILES_LEAST), 0);
    while let Some(seed) = run.next() {
        let mut random = Random::of_seed(seed);
        let file = changed(&files, &mut random);
        let since = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| read(&file))) {
            Ok(is_whole) => whole += u64::from(is_whole),
            Err(_) => panic!("seed {seed}: a panic, by {}", save(&file, seed).display()),
        }
        if since.elapsed() > Duration::from_secs(SECONDS_MAX) || memory_bytes() > MEMORY_BYTES_MAX {
            let (path, memory) = (save(&file, seed), memory_bytes() >> 20);
            panic!("seed {seed}: {:?}, {memory} MiB, by {}", since.elapsed(), path.display());
        }
    }
    let count = run.count();
    println!("{count} files, {whole} of them read to their end, {} MiB at most", memory_bytes() >> 20);
    assert!(whole > count / 50 && whole < count, "{whole} of {count}: changes that are all noticed find nothing");
}

/// Linear files and rings, closed and not.
fn recordings() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("spool-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let mut files = Vec::new();
    let small = Plan { layers: 1, steps: 12, ..Plan::default() };
    let long = Plan { layers: 1, steps: 900, ..Plan::default() };
    for (plan, keep, max_bytes) in
        [(&small, Keep::First, 1 << 30), (&small, Keep::Last, 1 << 20), (&long, Keep::Last, 240_000)]
    {
        for toggle in [false, true] {
            let options = SessionOptions { keep, max_bytes, toggle, ..options(&dir) };
            let [forward, sample] = plan.graphs();
            let mut recorder = Recorder::start(&options, &header(), &[&forward]).expect("a recorder");
            recorder.graph(&sample);
            let expected = play(plan, &mut recorder);
            let summary = recorder.stop(expected).expect("a summary");
            assert!(summary.is_complete() && (toggle || summary.expected == plan.steps * plan.step_nodes()));
            files.push(std::fs::read(summary.path).expect("the file"));
        }
        let closed = &files[files.len() - 1];
        let end = closed.windows(4).rposition(|four| four == b"VBLK").expect("a closing block");
        files.push(closed[..end].to_vec());
    }
    std::fs::remove_dir_all(dir).expect("the folder");
    files
}

/// Reads a file and makes everything of it; whether it could be read to its end.
fn read(file: &[u8]) -> bool {
    let Ok(mut reader) = Reader::new(Cursor::new(file)) else { return false };
    let Ok(recording) = Recording::read(&mut reader) else { return false };
    let report = Report::new(recording);
    for step in &report.account.steps {
        let parts: u128 = step.parts.named().iter().map(|part| u128::from(part.ns)).sum();
        assert_eq!(parts, u128::from(step.parts.wall_ns), "the parts of a step are the step");
    }
    for table in Table::ALL {
        for format in [Format::Text, Format::Csv, Format::Json] {
            assert!(!stats(&report, Some(table), format).is_empty());
        }
    }
    assert!(dominates(&report).ends_with('.') && !report.completeness.to_string().is_empty());
    let flames = speedscope::write_json(&report, Vec::new()).expect("flame graphs");
    serde_json::from_slice::<serde::de::IgnoredAny>(&flames).expect("JSON");
    // In one window, and in as many as there may be.
    for records in [WINDOW_RECORDS, 1] {
        let reader = Reader::new(Cursor::new(file)).expect("a spool");
        let windows = Windows::new(Path::new("any"), reader, records, &NEVER).expect("records");
        let (json, summary) = chrome::write_json(windows, "any", Vec::new()).expect("a trace");
        serde_json::from_slice::<serde::de::IgnoredAny>(&json).expect("JSON");
        assert_eq!(summary.nodes, report.recording.nodes.len() as u64, "every node is in a window");
    }
    assert!(html::page(&report, &html::Limits::default()).expect("a page").ends_with("</html>\n"));
    true
}

fn changed(files: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut file = files[random.below(files.len())].clone();
    for _ in 0..=random.below(6) {
        change(&mut file, files, random);
    }
    // Mostly right by its checksums, so that what is behind them is reached.
    if random.below(8) > 0 {
        mend(&mut file);
    }
    file
}

fn change(file: &mut Vec<u8>, files: &[Vec<u8>], random: &mut Random) {
    const WORDS: [u64; 8] = [0, 1, 2, 255, u32::MAX as u64, i64::MAX as u64, u64::MAX - 1, u64::MAX];
    if file.len() < 2 * HEAD {
        file.extend_from_slice(&files[0]);
    }
    let at = position(file, random);
    let to = (at + 1 + random.below(64)).min(file.len());
    match random.below(12) {
        0..=2 => file[at] ^= 1 << random.below(8),
        3 => file[at] = random.next() as u8,
        4 | 5 => {
            let word = WORDS[random.below(WORDS.len())].to_le_bytes();
            file[at..to.min(at + 8)].iter_mut().zip(word).for_each(|(byte, new)| *byte = new);
        }
        // Another number in JSON stays JSON.
        6 | 7 => {
            let digit = (at..file.len()).find(|at| file[*at].is_ascii_digit());
            if let Some(digit) = digit {
                file[digit] = b'0' + random.below(10) as u8;
            }
        }
        8 => drop(file.drain(at..to)),
        9 => {
            let piece = file[at..to].to_vec();
            let place = position(file, random);
            file.splice(place..place, piece);
        }
        10 if random.below(4) == 0 => file.truncate(at),
        // Blocks change places, or come from another file.
        _ => {
            let heads = heads(file);
            let (Some(a), Some(b)) = (pick(&heads, random), pick(&heads, random)) else { return };
            let bytes = BLOCK_BYTES.min(a.abs_diff(b)).min(file.len() - a.max(b));
            (0..bytes).for_each(|at| file.swap(a + at, b + at));
        }
    }
}

/// Mostly near something that means something: zeros behind a block are many, and alike.
fn position(file: &[u8], random: &mut Random) -> usize {
    let heads = heads(file);
    match (random.below(8), pick(&heads, random)) {
        (0, _) | (_, None) => random.below(file.len()),
        (1, _) => random.below(file.len().min(4000)),
        (2, Some(head)) => (head + random.below(HEAD + 64)).min(file.len() - 1),
        (_, Some(head)) => (head + random.below(4000)).min(file.len() - 1),
    }
}

fn pick(heads: &[usize], random: &mut Random) -> Option<usize> {
    (!heads.is_empty()).then(|| heads[random.below(heads.len())])
}

/// Where blocks begin, or seem to.
fn heads(file: &[u8]) -> Vec<usize> {
    let mut heads = Vec::new();
    let mut at = 0;
    while let Some(found) = file[at..].windows(4).position(|four| four == b"VBLK") {
        heads.push(at + found);
        at += found + 4;
    }
    heads
}

/// Gives the header and every block the checksums and lengths that fit them.
fn mend(file: &mut [u8]) {
    let word = |file: &[u8], at: usize| u32::from_le_bytes(std::array::from_fn(|byte| file[at + byte]));
    let put = |file: &mut [u8], at: usize, word: u32| file[at..at + 4].copy_from_slice(&word.to_le_bytes());
    let heads = heads(file);
    if let Some(first) = heads.first().copied().filter(|first| *first > PREFIX) {
        put(file, 12, (first - PREFIX) as u32);
        let checksum = crc32(&file[PREFIX..first]);
        put(file, 16, checksum);
    }
    let length = file.len();
    for head in heads.into_iter().filter(|head| head + HEAD <= length) {
        let content = head + HEAD;
        let end = content.saturating_add(word(file, head + 12) as usize).min(file.len());
        let checksum = crc32(&file[content..end]);
        put(file, head + 16, checksum);
        let checksum = crc32(&file[head..head + HEAD - 4]);
        put(file, head + HEAD - 4, checksum);
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
