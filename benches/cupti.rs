//! What decoding CUPTI's records costs: synthetic ones, walked by the library of the compiler's packages.
//!
//! `cargo bench --bench cupti --features profiling [-- RECORDS]`; 100 million unless a number is given. The memory that
//! the process has must not grow with their number.

use std::fs;
use std::path::{Path, PathBuf};

use vitrum::trace::record::cupti::synthetic::{Decoding, decode_synthetic};

const RECORDS: u64 = 100_000_000;

/// How many are decoded before the memory is looked at for the first time.
const WARM_UP: u64 = 1_000_000;

fn main() {
    let records = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(RECORDS);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("cupti-bench-{}.bin", std::process::id()));
    let decode = |count: u64| decode_synthetic(&toolkits(folder), count, &path);
    let result = decode(WARM_UP).and_then(|_| {
        let before = peak_kib();
        Ok((before, decode(records)?, peak_kib()))
    });
    fs::remove_file(&path).ok();
    match result {
        Ok((before, decoding, after)) => print(&decoding, [before, after]),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

fn print(decoding: &Decoding, [before, after]: [u64; 2]) {
    let Decoding { library, record_bytes, counts, cpu, bytes } = decoding;
    let seconds = cpu.as_secs_f64();
    println!("{library}, records of {record_bytes} bytes");
    println!(
        "{} records decoded and encoded in {seconds:.2} s of one core: {:.2} M records/s, {:.0} ns each",
        counts.nodes,
        counts.nodes as f64 / seconds / 1e6,
        1e9 * seconds / counts.nodes as f64
    );
    println!("{bytes} bytes written, {} records left out because the file was slower", counts.lost);
    println!("the most memory that the process had: {before} KiB after {WARM_UP} records, {after} KiB at the end");
}

/// Where `cargo xtask cuda-toolchain` has put CUPTI.
fn toolkits(folder: &Path) -> Vec<PathBuf> {
    let note = folder.parent().map(|target| target.join("cuda-toolchain.txt"));
    let nvcc = note.and_then(|note| fs::read_to_string(note).ok());
    nvcc.iter().filter_map(|nvcc| Path::new(nvcc.trim()).ancestors().nth(2)).map(PathBuf::from).collect()
}

/// Resident memory at its highest, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
