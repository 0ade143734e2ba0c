//! Model folders with changed headers, indexes and configurations: opened and read whole, or refused, in memory that
//! their files bound.
//!
//! `VITRUM_FUZZ_SECONDS` says for how long, and 200 folders are tried at least; `VITRUM_FUZZ_SEED` says where to begin.
//! A folder is its seed's alone.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::folder_writer::{FolderWriter, safetensors};
use support::temp::TempDir;
use support::tiny_model::TinyModel;
use vitrum::formats::WeightFormat;
use vitrum::model::Checkpoint;

const SECONDS_DEFAULT: u64 = 3;
/// However slow the machine is.
const FOLDERS_LEAST: u64 = 200;
/// A folder has 200 kB; a process that has opened thousands has some of the allocator's besides.
const OWN_MIB_MAX: u64 = 128;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// A number that readers stumble over.
    fn number(&mut self) -> Value {
        match self.below(8) {
            0 => json!(0),
            1 => json!(u64::MAX),
            2 => json!(1u64 << 63),
            3 => json!(-1),
            4 => json!(1e300),
            5 => json!(self.below(1 << 20)),
            6 => json!((1u64 << 32) + 1),
            _ => json!(self.next()),
        }
    }

    fn value(&mut self) -> Value {
        match self.below(6) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!("text"),
            3 => json!([]),
            4 => json!({"a": self.number()}),
            _ => self.number(),
        }
    }
}

/// Changes one value somewhere within, or takes it away.
fn change(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(fields) if !fields.is_empty() && random.below(8) > 0 => {
            let key = fields.keys().nth(random.below(fields.len())).expect("a key").clone();
            match random.below(10) {
                0 => drop(fields.remove(&key)),
                1 => drop(fields.insert(format!("{key}x"), json!(1))),
                _ => change(&mut fields[&key], random),
            }
        }
        Value::Array(values) if !values.is_empty() && random.below(8) > 0 => {
            let index = random.below(values.len());
            change(&mut values[index], random);
        }
        other => *other = random.value(),
    }
}

/// Changes a file: its JSON, or its bytes.
fn spoil(path: &Path, random: &mut Random) {
    let mut bytes = std::fs::read(path).expect("a file");
    let is_header = path.extension().is_some_and(|end| end == "safetensors");
    if random.below(4) == 0 {
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len().min(3000));
            bytes[at] = random.next() as u8;
        }
        if random.below(3) == 0 {
            bytes.truncate(random.below(bytes.len()));
        }
    } else if is_header {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
        (0..=random.below(2)).for_each(|_| change(&mut header, random));
        let text = header.to_string();
        bytes = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[8 + length..]].concat();
    } else {
        let mut value: Value = serde_json::from_slice(&bytes).expect("a file of JSON");
        (0..=random.below(2)).for_each(|_| change(&mut value, random));
        bytes = value.to_string().into_bytes();
    }
    std::fs::write(path, bytes).expect("a file");
}

#[test]
fn no_folder_ends_whoever_opens_it() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seconds = number("VITRUM_FUZZ_SECONDS").unwrap_or(SECONDS_DEFAULT);
    let first = number("VITRUM_FUZZ_SEED").unwrap_or(1);
    let model = TinyModel {
        layers: 1,
        format: WeightFormat::Bf16,
        embedding_format: WeightFormat::Bf16,
        ..TinyModel::default()
    };
    let writer = FolderWriter::of(&model);
    assert!(!safetensors(&writer.tensors).is_empty());
    let (begin, mut seed, mut opened) = (Instant::now(), first, 0);
    while seed - first < FOLDERS_LEAST || begin.elapsed() < Duration::from_secs(seconds) {
        let (folder, mut random) = (TempDir::new(), Random(seed));
        let path = writer.write_sharded(&folder, 2);
        let names = [
            "config.json",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "tokenizer_config.json",
            "tokenizer.json",
        ];
        spoil(&path.join(names[random.below(names.len())]), &mut random);
        match Checkpoint::open_folder(&path) {
            Ok(weights) => {
                opened += 1;
                for spec in weights.tensors() {
                    let tensor = weights.tensor(&spec.name).expect("checked at open");
                    assert_eq!(tensor.data.len(), tensor.rows * tensor.format.row_bytes(tensor.cols), "seed {seed}");
                }
            }
            Err(error) => assert!(error.to_string().len() < 3000, "seed {seed}: {error:.200}"),
        }
        seed += 1;
    }
    let own = own_mib();
    println!("{} folders: {opened} opened; this process has {own} MiB at most", seed - first);
    // Folders that are all refused, or that all open, find nothing.
    assert!(opened > 0 && opened < seed - first, "{opened} of {}", seed - first);
    assert!(own < OWN_MIB_MAX, "{own} MiB");
}

/// The most memory that this process has had.
fn own_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
}
