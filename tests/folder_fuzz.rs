//! Model folders with changed headers, indexes and configurations: opened and read whole, or refused, in memory that
//! their files bound.
//!
//! `VITRUM_FUZZ_SECONDS` says for how long, and 200 folders are tried at least; `VITRUM_FUZZ_SEED` says where to begin.
//! A folder is its seed's alone; what fails is saved, and its path is said.

#[path = "support/fuzz.rs"]
mod fuzz;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fuzz::{Random, Run, memory_bytes, save};
use serde_json::{Value, json};
use support::folder_writer::FolderWriter;
use support::temp::TempDir;
use support::tiny_model::TinyModel;
use vitrum::formats::WeightFormat;
use vitrum::model::Checkpoint;

const SECONDS_DEFAULT: u64 = 3;
/// However slow the machine is.
const FOLDERS_LEAST: u64 = 200;
/// What is changed.
const FILES: [&str; 5] = [
    "config.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "tokenizer_config.json",
    "tokenizer.json",
];
/// A folder has 200 kB; a process that has opened thousands has some of the allocator's besides.
const OWN_MIB_MAX: u64 = 128;

/// A number that readers stumble over.
fn number(random: &mut Random) -> Value {
    match random.below(8) {
        0 => json!(0),
        1 => json!(u64::MAX),
        2 => json!(1u64 << 63),
        3 => json!(-1),
        4 => json!(1e300),
        5 => json!(random.below(1 << 20)),
        6 => json!((1u64 << 32) + 1),
        _ => json!(random.next()),
    }
}

fn any_value(random: &mut Random) -> Value {
    match random.below(6) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!("text"),
        3 => json!([]),
        4 => json!({"a": number(random)}),
        _ => number(random),
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
        other => *other = any_value(random),
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
    let model = TinyModel {
        layers: 1,
        format: WeightFormat::Bf16,
        embedding_format: WeightFormat::Bf16,
        ..TinyModel::default()
    };
    let writer = FolderWriter::of(&model);
    let (mut run, mut opened) = (Run::asked(SECONDS_DEFAULT, FOLDERS_LEAST), 0);
    while let Some(seed) = run.next() {
        let (folder, mut random) = (TempDir::new(), Random::of_seed(seed));
        let path = writer.write_sharded(&folder, 2);
        let name = FILES[random.below(FILES.len())];
        spoil(&path.join(name), &mut random);
        match catch_unwind(AssertUnwindSafe(|| open(&path))) {
            Ok(is_whole) => opened += u64::from(is_whole),
            Err(_) => {
                let bytes = std::fs::read(path.join(name)).expect("a file");
                panic!("seed {seed}: a panic, by {}", save(&format!("folder-fuzz-{seed}-{name}"), bytes).display());
            }
        }
    }
    let (count, own) = (run.count(), memory_bytes() >> 20);
    println!("{count} folders: {opened} opened; this process has {own} MiB at most");
    // Folders that are all refused, or that all open, find nothing.
    assert!(opened > 0 && opened < count, "{opened} of {count}");
    assert!(own < OWN_MIB_MAX, "{own} MiB");
}

/// Opens a folder, and reads all that was taken.
fn open(path: &Path) -> bool {
    match Checkpoint::open_folder(path) {
        Ok(weights) => {
            for spec in weights.tensors() {
                let tensor = weights.tensor(&spec.name).expect("checked at open");
                assert_eq!(tensor.data.len(), tensor.rows * tensor.format.row_bytes(tensor.cols));
            }
            true
        }
        Err(error) => {
            assert!(error.to_string().len() < 3000, "{error:.200}");
            false
        }
    }
}
