//! Files `tokenizer.json` that were changed at random: an error that names the file, or a tokenizer that gives the
//! library's tokens, never a panic, in bounded memory and time.
//!
//! `VITRUM_FUZZ_SECONDS` says for how long, and three hundred files are read at least; `VITRUM_FUZZ_SEED` says where to
//! begin. What fails is saved, and its path is said.

#[path = "support/fuzz.rs"]
mod fuzz;
#[path = "tokenizers/samples.rs"]
#[allow(dead_code, reason = "names and bounds are for the test of good files")]
mod samples;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuzz::{Random, Run, memory_bytes, save};
use serde_json::{Value, json};
use tokenizers::Tokenizer as Library;
use vitrum::request::TokenId;
use vitrum::text::{Detokenizer, Tokenizer};
use vitrum::weights::{TokenizerJson, TokenizerSpec};

const SECONDS_DEFAULT: u64 = 2;
/// However slow the machine is.
const FILES_LEAST: u64 = 300;
/// Of this process at any time: the files have some ten kilobytes.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Of one file; machines are shared.
const SECONDS_MAX: u64 = 60;

const TEXTS: [&str; 12] = [
    "",
    " hello  world the whole \n\n 1234\r\n",
    "<s>a</s><|user|>  \n b <mask>word <|end|>   <both>\u{3000}words",
    "é e\u{301} caf\u{e9}\u{301} 世界🤖\u{1100}\u{1161}\u{11a8}",
    "   ▁▁ \u{a0}\u{2028}\t",
    "Yesterday [Day] İ Σς ﷽ \u{fb01}",
    "<|begin_of_text|><|eot_id|><tool_call><|im_end|><a b>",
    "<0x41><0xE4><unk>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\u{0}\u{1}\u{7f}\u{10ffff}",
    "\u{301}\u{301}x",
    "Ġwhole Ġ Ã©",
];

/// How files ended.
#[derive(Default)]
struct Ends {
    refused: u64,
    read: u64,
    /// Of those that were read: compared with the library.
    compared: u64,
}

#[test]
fn no_change_of_a_tokenizer_makes_it_panic_or_differ_from_the_library() {
    let files: Vec<Value> = samples::samples().into_iter().map(|sample| sample.json).collect();
    let save = |file: &str, seed: u64| save(&format!("tokenizer-fuzz-{seed}.json"), file);
    let mut ends = Ends::default();
    for file in &files {
        assert!(read(&file.to_string(), &mut ends), "a file that nobody changed is read");
    }
    ends = Ends::default();
    let mut run = Run::asked(SECONDS_DEFAULT, FILES_LEAST);
    while let Some(seed) = run.next() {
        let mut random = Random::of_seed(seed);
        let file = changed(&files, &mut random);
        let since = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| read(&file, &mut ends))).is_err() {
            panic!("seed {seed}: a panic, by {}", save(&file, seed).display());
        }
        if since.elapsed() > Duration::from_secs(SECONDS_MAX) || memory_bytes() > MEMORY_BYTES_MAX {
            let (path, memory) = (save(&file, seed), memory_bytes() >> 20);
            panic!("seed {seed}: {:?}, {memory} MiB, by {}", since.elapsed(), path.display());
        }
    }
    let Ends { refused, read, compared } = ends;
    println!(
        "{} files: {refused} refused, {read} read, {compared} of them by the library too, {} MiB at most",
        run.count(),
        memory_bytes() >> 20
    );
    assert!(refused > 0 && compared > read / 2, "files that are all refused, or all read, find nothing");
}

/// Reads a file and uses what was read; whether it could be.
fn read(file: &str, ends: &mut Ends) -> bool {
    let path = PathBuf::from("models/tokenizer.json");
    let spec = TokenizerSpec::Json(TokenizerJson { path, json: file.to_owned(), ..Default::default() });
    let tokenizer = match Tokenizer::from_spec(&spec) {
        Ok(tokenizer) => Arc::new(tokenizer),
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("models/tokenizer.json: ") && text.len() < 2000, "{text}");
            ends.refused += 1;
            return false;
        }
    };
    ends.read += 1;
    let library = library(file);
    ends.compared += u64::from(library.is_some());
    for text in TEXTS {
        for add_special in [false, true] {
            let Ok(tokens) = tokenizer.encode(text, add_special) else { continue };
            let least = tokenizer.tokens_min(text);
            assert!(least <= tokens.len(), "{least} tokens at least, and {} in {text:?}", tokens.len());
            if let Some(library) = &library {
                let encoding = library.encode(text, add_special).expect("what we can encode");
                let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
                assert_eq!(ids, encoding.get_ids(), "{text:?}");
            }
            use_tokens(&tokenizer, &tokens);
        }
    }
    let ids: Vec<TokenId> = (0..tokenizer.vocab().min(600) as u32 + 2).map(TokenId).collect();
    use_tokens(&tokenizer, &ids);
    true
}

fn use_tokens(tokenizer: &Arc<Tokenizer>, tokens: &[TokenId]) {
    let text = tokenizer.decode(tokens);
    let mut detokenizer = Detokenizer::new(tokenizer.clone(), Vec::new(), true);
    let mut streamed: String = tokens.iter().map(|token| detokenizer.push(*token).text).collect();
    streamed.push_str(&detokenizer.finish());
    assert!(streamed.ends_with(text.trim_start_matches(' ')) || text.len() < streamed.len(), "{text:?} {streamed:?}");
}

/// The library's own reading, if it reads the file; what it says of truncation and padding is left out.
fn library(file: &str) -> Option<Library> {
    let mut library = Library::from_str(file).ok()?;
    library.with_padding(None).with_truncation(None).ok()?;
    Some(library)
}

fn changed(files: &[Value], random: &mut Random) -> String {
    let mut file = files[random.below(files.len())].clone();
    for _ in 0..random.below(4) {
        change_value(&mut file, files, random);
    }
    let mut text = file.to_string().into_bytes();
    // Mostly still JSON, so that what is behind it is reached.
    if random.below(4) == 0 {
        (0..=random.below(3)).for_each(|_| change_bytes(&mut text, random));
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn change_bytes(text: &mut Vec<u8>, random: &mut Random) {
    if text.is_empty() {
        return;
    }
    let at = random.below(text.len());
    let to = (at + 1 + random.below(16)).min(text.len());
    match random.below(6) {
        0 => text[at] ^= 1 << random.below(8),
        1 => text[at] = random.next() as u8,
        2 => drop(text.drain(at..to)),
        3 => {
            let piece = text[at..to].to_vec();
            let place = random.below(text.len());
            text.splice(place..place, piece);
        }
        4 => text[at] = b"{}[]\",:0"[random.below(8)],
        _ if random.below(4) == 0 => text.truncate(at),
        _ => text[at] = b'0' + random.below(10) as u8,
    }
}

/// Drops a value, or puts another one in its place: an odd one, or one from anywhere in a good file.
fn change_value(file: &mut Value, files: &[Value], random: &mut Random) {
    let path = path(file, random);
    let other = match random.below(3) {
        0 => odd(random),
        1 => {
            let other = &files[random.below(files.len())];
            other.pointer(&self::path(other, random)).cloned().unwrap_or(Value::Null)
        }
        // The same place of another file.
        _ => files[random.below(files.len())].pointer(&path).cloned().unwrap_or_else(|| odd(random)),
    };
    let Some((parent, name)) = path.rsplit_once('/') else { return };
    let name = name.replace("~1", "/").replace("~0", "~");
    match (file.pointer_mut(parent), random.below(4)) {
        (Some(Value::Object(fields)), 0) => drop(fields.shift_remove(&name)),
        (Some(Value::Object(fields)), _) => drop(fields.insert(name, other)),
        (Some(Value::Array(values)), kind) => {
            let index: usize = name.parse().expect("an index");
            match kind {
                0 => drop(values.remove(index)),
                1 => values.insert(index, other),
                _ => values[index] = other,
            }
        }
        _ => {}
    }
}

fn odd(random: &mut Random) -> Value {
    let values = [
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(299),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(0.5),
        json!(1e300),
        json!(""),
        json!(" "),
        json!("▁"),
        json!("é"),
        json!("##"),
        json!("a b"),
        json!("\\s*"),
        json!("(?=a)|b*"),
        json!("(?<=\\p{L})(?!\\1)(x+x+)+y"),
        json!([]),
        json!({}),
        json!({"String": ""}),
        json!({"Regex": "(?=.)"}),
        json!({"type": "Strip", "strip_left": true, "strip_right": true}),
        json!({"type": "Whitespace"}),
        json!({"type": "WhitespaceSplit"}),
        json!({"type": "Punctuation", "behavior": "Contiguous"}),
        json!({"type": "Replace", "pattern": {"Regex": "\\s+|x*"}, "content": ""}),
        json!({"type": "Prepend", "prepend": ""}),
        json!({"type": "Replace", "pattern": {"Regex": "^"}, "content": "▁"}),
        json!({"type": "Replace", "pattern": {"Regex": "\\s"}, "content": "x "}),
        json!({"type": "Sequence", "normalizers": [], "pretokenizers": [], "decoders": [], "processors": []}),
        json!({"type": "NFKD"}),
        json!({"type": "NFD"}),
    ];
    values[random.below(values.len())].clone()
}

/// The path of a value, found by going down at random; seldom into the long lists.
fn path(file: &Value, random: &mut Random) -> String {
    let mut path = String::new();
    let mut value = file;
    loop {
        let name = match value {
            Value::Object(fields) if !fields.is_empty() => {
                let name = fields.keys().nth(random.below(fields.len())).expect("a field");
                name.replace('~', "~0").replace('/', "~1")
            }
            Value::Array(values) if !values.is_empty() => random.below(values.len()).to_string(),
            _ => return path,
        };
        path = format!("{path}/{name}");
        value = file.pointer(&path).expect("it is there");
        if random.below(4) == 0 {
            return path;
        }
    }
}
