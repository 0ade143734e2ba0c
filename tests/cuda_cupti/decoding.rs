//! Many records: each is decoded once, in memory that does not grow with their number.

use vitrum::trace::record::cupti::synthetic::decode_synthetic;

use super::support::software_gpu::finished;
use super::support::temp::TempDir;
use super::{FOLDER, child_without_driver, folder, toolkit};

/// Records of the first look at the memory, and of the second.
const FEW: u64 = 500_000;
const MANY: u64 = 5_000_000;

/// What the process may have more at the second look, in KiB: less than a hundredth of the records' own bytes.
const GROWTH_KIB_MAX: u64 = 8 << 10;

#[test]
fn every_record_is_decoded_in_constant_memory() {
    let dir = TempDir::new();
    let mut command = child_without_driver("decoding::child_every_record_is_decoded");
    command.env(FOLDER, dir.path());
    let ended = finished(command);
    assert!(ended.code == Some(0) && ended.stdout.contains("1 passed"), "{}{}", ended.stdout, ended.stderr);
}

/// A process of its own: its memory is nobody else's. The records are walked by NVIDIA's own library.
#[test]
#[ignore = "run by the test of its name"]
fn child_every_record_is_decoded() {
    let decode = |count: u64| {
        let path = folder().join("records.bin");
        let decoding = decode_synthetic(&[toolkit()], count, &path).expect("the library is there");
        let counts = &decoding.counts;
        assert_eq!((counts.nodes, counts.invalid, counts.unknown), (count, 0, 0), "{counts:?}");
        assert!(decoding.bytes > 20 * (count - counts.lost), "{decoding:?}");
        std::fs::remove_file(path).expect("it was written");
        peak_kib()
    };
    let (few, many) = (decode(FEW), decode(MANY));
    assert!(few > 0 && many - few < GROWTH_KIB_MAX, "{few} KiB, then {many} KiB");
}

/// Resident memory at its highest, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is a process");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}
