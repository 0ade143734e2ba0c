//! Small files of each shape that `tokenizer.json` has among language models.

use serde_json::{Value, json};

/// A file of one shape.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) json: Value,
    /// Whether the fewest tokens of a text are known.
    pub(crate) is_bounded: bool,
}

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Merges of words in the alphabet of bytes; those of byte pairs spell `é` and the beginning of `世`.
const BYTE_MERGES: [&str; 18] = [
    "h e",
    "l l",
    "he ll",
    "hell o",
    "Ġ w",
    "o r",
    "Ġw or",
    "l d",
    "Ġwor ld",
    "Ġ Ġ",
    "ĠĠ ĠĠ",
    "Ċ Ċ",
    "Ã ©",
    "ä ¸",
    "1 2",
    "12 3",
    "Ġ t",
    "Ġt he",
];

/// Merges of words as SentencePiece spells them.
const PIECE_MERGES: [&str; 14] = [
    "h e",
    "l l",
    "he ll",
    "hell o",
    "▁ hello",
    "▁ w",
    "o r",
    "▁w or",
    "l d",
    "▁wor ld",
    "▁ ▁",
    "▁▁ ▁▁",
    "t he",
    "▁ the",
];

pub(crate) fn samples() -> Vec<Sample> {
    let sample = |name, is_bounded, json| Sample { name, json, is_bounded };
    vec![
        sample("llama-3", true, llama3()),
        sample("qwen-2", true, qwen2()),
        sample("gpt-2", true, gpt2()),
        sample("llama-2", true, llama2()),
        sample("phi-3", true, phi3()),
        sample("gemma", true, gemma()),
        sample("metaspace", false, metaspace("first")),
        sample("metaspace-always", false, metaspace("always")),
        sample("metaspace-never", false, metaspace("never")),
        sample("lowercase", false, lowercase()),
    ]
}

/// By byte: its letter.
fn alphabet() -> Vec<String> {
    let mut others = '\u{100}'..;
    let letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => others.next().expect("a letter"),
    };
    (0..=255).map(letter).map(String::from).collect()
}

/// Tokens by id, the merged ones last.
fn vocabulary(first: Vec<String>, merges: &[&str]) -> serde_json::Map<String, Value> {
    let mut vocabulary = serde_json::Map::new();
    let merged = merges.iter().map(|merge| merge.replace(' ', ""));
    for token in first.into_iter().chain(merged) {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert(Value::from(id));
    }
    vocabulary
}

fn byte_model(ignore_merges: bool) -> Value {
    let mut vocabulary = vocabulary(alphabet(), &BYTE_MERGES);
    vocabulary.insert("Ġwhole".to_owned(), Value::from(300)); // no merges lead there, and there is a gap
    json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
        "vocab": vocabulary, "merges": BYTE_MERGES
    })
}

/// Characters of four bytes have no token but their bytes.
fn piece_model(byte_fallback: bool) -> Value {
    let bytes = (0..=255).filter(|_| byte_fallback).map(|byte| format!("<0x{byte:02X}>"));
    let letters = ('a'..='z').chain("▁ABCHW123.,!?éß世\n".chars()).map(String::from);
    let first = ["<unk>", "<s>", "</s>"].into_iter().map(str::to_owned).chain(bytes).chain(letters);
    let merges: Vec<(&str, &str)> = PIECE_MERGES.iter().map(|merge| merge.split_once(' ').expect("two")).collect();
    json!({
        "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": byte_fallback,
        "vocab": vocabulary(first.collect(), &PIECE_MERGES), "merges": merges
    })
}

/// `flags`: of `l`strip, `r`strip, `n`ormalized, `s`pecial, single_`w`ord.
fn added(id: u32, content: &str, flags: &str) -> Value {
    let has = |flag| flags.contains(flag);
    json!({
        "id": id, "content": content, "single_word": has('w'), "lstrip": has('l'), "rstrip": has('r'),
        "normalized": has('n'), "special": has('s')
    })
}

fn begins_with(token: &str, id: u32) -> Value {
    json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}}
    })
}

fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex
    })
}

fn split(pattern: Value, behavior: &str) -> Value {
    json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": false})
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
}

fn sequence(field: &str, parts: &[Value]) -> Value {
    json!({"type": "Sequence", field: parts})
}

fn file(added: &[Value], normalizer: Value, pre_tokenizer: Value, post: Value, decoder: Value, model: Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": post, "decoder": decoder, "model": model
    })
}

fn llama3() -> Value {
    let splits = [split(json!({"Regex": LLAMA3}), "Isolated"), byte_level(false, false)];
    let post = [byte_level(true, true), begins_with("<|begin_of_text|>", 275)];
    file(
        &[added(275, "<|begin_of_text|>", "s"), added(276, "<|eot_id|>", "s")],
        Value::Null,
        sequence("pretokenizers", &splits),
        sequence("processors", &post),
        byte_level(true, true),
        byte_model(true),
    )
}

fn qwen2() -> Value {
    let splits = [split(json!({"Regex": QWEN2}), "Isolated"), byte_level(false, false)];
    file(
        &[added(275, "<|im_end|>", "s"), added(276, "<tool_call>", ""), added(277, "caf\u{e9}\u{301}", "n")],
        json!({"type": "NFC"}),
        sequence("pretokenizers", &splits),
        byte_level(false, false),
        byte_level(false, false),
        byte_model(false),
    )
}

/// With tokens that take whitespace away, as fine-tuned models have them; the first files say no type of the model.
fn gpt2() -> Value {
    let mut model = byte_model(false);
    model.as_object_mut().expect("an object").remove("type");
    file(
        &[
            added(275, "<mask>", "ls"),
            added(276, "<|end|>", "rs"),
            added(277, "word", "wn"),
            added(278, "   ", "n"),
            added(279, "<both>", "lrn"),
        ],
        Value::Null,
        byte_level(true, true),
        byte_level(true, false),
        byte_level(true, true),
        model,
    )
}

fn piece_decoder(strip: bool) -> Value {
    let mut steps = vec![replace("▁", " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if strip {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    sequence("decoders", &steps)
}

fn piece_file(added_tokens: &[Value]) -> Value {
    let normalizer = sequence("normalizers", &[json!({"type": "Prepend", "prepend": "▁"}), replace(" ", "▁")]);
    let (post, decoder) = (begins_with("<s>", 1), piece_decoder(true));
    file(added_tokens, normalizer, Value::Null, post, decoder, piece_model(true))
}

fn llama2() -> Value {
    piece_file(&[added(0, "<unk>", "s"), added(1, "<s>", "s"), added(2, "</s>", "ns")])
}

fn phi3() -> Value {
    let mut file = piece_file(&[added(1, "<s>", "s"), added(2, "</s>", "r"), added(400, "<|user|>", "rs")]);
    file["truncation"] = json!({"max_length": 3, "stride": 0, "strategy": "LongestFirst", "direction": "Right"});
    file["padding"] = json!({
        "strategy": {"Fixed": 40}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<unk>"
    });
    file
}

fn gemma() -> Value {
    file(
        &[added(1, "<s>", "s"), added(2, "</s>", "s"), added(0, "▁▁", ""), added(0, "\n\n", "")],
        replace(" ", "▁"),
        split(json!({"String": " "}), "MergedWithPrevious"),
        begins_with("<s>", 1),
        piece_decoder(false),
        piece_model(true),
    )
}

fn metaspace(prepend: &str) -> Value {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend, "split": true});
    let added = [added(1, "<s>", "s"), added(0, "<a b>", "")];
    file(&added, Value::Null, metaspace.clone(), begins_with("<s>", 1), metaspace, piece_model(false))
}

fn lowercase() -> Value {
    let normalizers = [json!({"type": "NFKC"}), json!({"type": "Lowercase"})];
    let digits = json!({"type": "Digits", "individual_digits": true});
    file(
        &[added(0, "Yesterday", "n"), added(0, "[Day]", "s")],
        sequence("normalizers", &normalizers),
        sequence("pretokenizers", &[digits, byte_level(false, true)]),
        Value::Null,
        sequence("decoders", &[byte_level(true, true)]),
        byte_model(false),
    )
}
