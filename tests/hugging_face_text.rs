//! A `tokenizer.json` gives the tokens and the text that the `tokenizers` crate gives, for each shape of file.

#[path = "tokenizers/samples.rs"]
mod samples;

use std::cell::RefCell;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::Tokenizer as Library;
use vitrum::request::TokenId;
use vitrum::text::{Detokenizer, TextError, Tokenizer};
use vitrum::weights::{TokenizerJson, TokenizerSpec};

use self::samples::samples;

/// A file of one shape, read by both.
struct Pair {
    name: &'static str,
    ours: Arc<Tokenizer>,
    theirs: Library,
    is_bounded: bool,
    /// Tokens that are a byte when decoded by `ByteFallback`.
    bytes: Vec<u32>,
}

static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let pair = |sample: samples::Sample| {
        let text = sample.json.to_string();
        let mut theirs = Library::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        theirs.with_padding(None).with_truncation(None).expect("no truncation");
        let bytes = (0..=255u8).filter_map(|byte| theirs.token_to_id(&format!("<0x{byte:02X}>"))).collect();
        let ours = Arc::new(read(&text).unwrap_or_else(|error| panic!("{}: {error}", sample.name)));
        Pair { name: sample.name, ours, theirs, is_bounded: sample.is_bounded, bytes }
    };
    samples().into_iter().map(pair).collect()
});

fn read(json: &str) -> Result<Tokenizer, TextError> {
    let path = PathBuf::from("models/tokenizer.json");
    Tokenizer::from_spec(&TokenizerSpec::Json(TokenizerJson { path, json: json.to_owned(), ..Default::default() }))
}

fn tokens(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().copied().map(TokenId).collect()
}

fn ids(tokens: &[TokenId]) -> Vec<u32> {
    tokens.iter().map(|token| token.0).collect()
}

fn stream(tokenizer: &Arc<Tokenizer>, tokens: &[TokenId]) -> String {
    let mut detokenizer = Detokenizer::new(tokenizer.clone(), Vec::new(), true);
    let mut text: String = tokens.iter().map(|token| detokenizer.push(*token).text).collect();
    text.push_str(&detokenizer.finish());
    text
}

/// Tokens, text and the bound on the number of tokens.
fn assert_same(pair: &Pair, text: &str) {
    let name = pair.name;
    for add_special in [false, true] {
        let ours = ids(&pair.ours.encode(text, add_special).expect("any text can be encoded"));
        let theirs = pair.theirs.encode(text, add_special).expect("any text can be encoded");
        assert_eq!(ours, theirs.get_ids(), "{name}: {text:?}");
        assert_decodes(pair, &ours);
        let least = pair.ours.tokens_min(text);
        assert!(least <= ours.len(), "{name}: {least} tokens at least, and {} in {text:?}", ours.len());
    }
}

fn assert_decodes(pair: &Pair, ids: &[u32]) {
    let tokens = tokens(ids);
    let ours = pair.ours.decode(&tokens);
    assert_eq!(ours, pair.theirs.decode(ids, true).expect("text"), "{}: {ids:?}", pair.name);
    let streamed = stream(&pair.ours, &tokens);
    match pair.name {
        // An answer goes on from a prompt, and keeps the space that a text of its own would lose.
        "llama-2" | "phi-3" | "metaspace" | "metaspace-always" => {
            assert_eq!(streamed.trim_start_matches(' '), ours.trim_start_matches(' '), "{}: {ids:?}", pair.name);
        }
        _ => assert_eq!(streamed, ours, "{}: {ids:?}", pair.name),
    }
}

#[test]
fn tokens_are_those_of_the_library() {
    let texts = [
        "",
        " ",
        "hello world",
        "  hello   world  ",
        "hello whole whole",
        "the the\n\n\nthe",
        "1234567 12 3",
        "I'll we'RE it's",
        "café cafe\u{301} caf\u{e9}\u{301} e\u{301}",
        "世界 and 🤖🤖",
        "▁▁hello▁",
        "\u{3000}x\u{a0}y\u{2028}",
        "<s>hello</s> world",
        "a <mask> b<mask>",
        "x<|end|>   y <|end|>\n\nz",
        "words word word. sword",
        "     ",
        "x   y",
        "a  <both>  b",
        "<|begin_of_text|>hello<|eot_id|>",
        "<tool_call>{\"a\": 1}</tool_call><|im_end|>",
        "<|user|>\n\nhello<|user|>",
        "Yesterday YESTERDAY [Day] [day]",
        "<a b>hello <a b>",
        "\r\n\r\n \r",
        "\u{0}\u{1}\u{7f}",
        "﷽",
        "\u{feff}x",
        "İstanbul",
        "Σς",
    ];
    for pair in PAIRS.iter() {
        texts.iter().for_each(|text| assert_same(pair, text));
    }
}

#[test]
fn added_tokens_are_found_and_special_ones_are_no_text() {
    let pair = |name: &str| PAIRS.iter().find(|pair| pair.name == name).expect("a sample");
    let encoded = |name: &str, text: &str| ids(&pair(name).ours.encode(text, true).expect("text"));
    assert_eq!(encoded("llama-3", "hello<|eot_id|>"), [275, 259, 276], "a prompt begins with a token");
    assert_eq!(encoded("llama-3", " whole"), [275, 300], "a word of the vocabulary is taken whole");
    assert_ne!(encoded("qwen-2", " whole"), [300]);
    let user = pair("phi-3").ours.encode("<|user|> \n the", false).expect("text");
    assert_eq!(pair("phi-3").ours.decode(&user), "the", "whitespace went with the token");
    let call = pair("qwen-2").ours.encode("<tool_call><|im_end|>", false).expect("text");
    assert_eq!(pair("qwen-2").ours.decode(&call), "<tool_call>");
    assert_eq!(pair("qwen-2").ours.decode_with_special(&call), "<tool_call><|im_end|>");
    assert!(pair("qwen-2").ours.is_special(call[1]) && !pair("qwen-2").ours.is_special(call[0]));
    // An id in a gap, and ids beyond the largest.
    let ours = &pair("llama-3").ours;
    assert_eq!((ours.vocab(), ours.token_text(TokenId(300)).as_str()), (301, " whole"));
    for id in [299, 301, u32::MAX] {
        assert!(ours.token_bytes(TokenId(id)).is_empty() && !ours.is_special(TokenId(id)), "{id}");
    }
}

#[test]
fn a_token_that_is_the_librarys_and_a_letter_of_the_alphabet_is_text() {
    let mut json = samples().remove(1).json;
    json["added_tokens"][1]["content"] = json!("é");
    let ours = read(&json.to_string()).expect("a tokenizer");
    let tokens = ours.encode("é", false).expect("text");
    assert_eq!((tokens.len(), ours.decode(&tokens).as_str()), (1, "é"));
}

#[test]
fn encoding_stops_where_it_is_told_to() {
    for pair in PAIRS.iter() {
        let text = "hello 123 <s> world ".repeat(50);
        let whole = pair.ours.encode(&text, true).expect("text").len();
        let seen = RefCell::new(Vec::new());
        let check = |tokens: usize| {
            seen.borrow_mut().push(tokens);
            if tokens > 5 { Err(TextError::TooManyTokens { limit: 5 }) } else { Ok(()) }
        };
        let error = pair.ours.encode_while(&text, true, &check).expect_err("too many");
        assert!(matches!(error, TextError::TooManyTokens { limit: 5 }), "{}: {error}", pair.name);
        let seen = seen.into_inner();
        assert!(seen.is_sorted() && seen.iter().all(|tokens| *tokens <= whole), "{}: {seen:?}", pair.name);
        let left = pair.ours.encode_while(&text, true, &|_| Err(TextError::Abandoned));
        assert!(matches!(left, Err(TextError::Abandoned)), "{}", pair.name);
    }
    let words = RefCell::new(0);
    let count = |_: usize| {
        *words.borrow_mut() += 1;
        Ok(())
    };
    PAIRS[0].ours.encode_while(&"hello ".repeat(1000), false, &count).expect("text");
    assert!(words.into_inner() >= 1000, "each word is asked for");
}

#[test]
fn the_fewest_tokens_are_known_where_no_text_is_lost() {
    for pair in PAIRS.iter() {
        let text = "x7.".repeat(10_000);
        assert_eq!(pair.ours.tokens_min(&text) > 0, pair.is_bounded, "{}", pair.name);
    }
    let changed = |index: usize, change: &dyn Fn(&mut Value)| {
        let mut json = samples().remove(index).json;
        change(&mut json);
        read(&json.to_string()).expect("a tokenizer").tokens_min(&"x".repeat(100_000))
    };
    assert_ne!(changed(0, &|_| {}), 0);
    assert_eq!(changed(0, &|json| json["pre_tokenizer"]["pretokenizers"][0]["behavior"] = json!("Removed")), 0);
    assert_eq!(changed(0, &|json| json["normalizer"] = json!({"type": "Lowercase"})), 0);
    assert_eq!(changed(0, &|json| json["model"]["end_of_word_suffix"] = json!("</w>")), 0);
    let without_byte = |json: &mut Value| {
        json["model"]["vocab"].as_object_mut().expect("tokens").shift_remove("<0xF0>");
    };
    assert_eq!(changed(3, &without_byte), 0, "unknown text is one token, however long");
}

#[test]
fn long_runs_take_no_stack_and_no_squared_time() {
    for pair in PAIRS.iter() {
        for unit in [" ", "\n", "a", "7", "!", "\u{301}", "<mask>", " <mask> <|user|>", "<s>"] {
            let text = unit.repeat(100_000 / unit.len()) + "x";
            let tokens = pair.ours.encode(&text, false).expect("text");
            assert!(pair.ours.tokens_min(&text) <= tokens.len(), "{}: {unit:?}", pair.name);
        }
    }
}

fn texts() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "hello",
        " world",
        " the",
        "  ",
        "\n\n",
        "é",
        "e\u{301}",
        "世",
        "🤖",
        "▁",
        " whole",
        "<s>",
        "</s>",
        "<unk>",
        "<mask>",
        "<|end|>",
        "word",
        "<both>",
        "<|user|>",
        "<tool_call>",
        "<|im_end|>",
        "<|eot_id|>",
        "Yesterday",
        "[Day]",
        "<a b>",
        "123",
        "\u{3000}",
        "\u{a0}",
        "caf\u{e9}\u{301}",
        "\u{1100}\u{1161}\u{11a8}",
        "\u{212a}",
    ]);
    let part = prop_oneof![3 => known.prop_map(str::to_owned), 1 => any::<String>(), 1 => "[a-z ]{0,8}"];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn tokens_of_any_text_are_those_of_the_library(text in texts()) {
        PAIRS.iter().for_each(|pair| assert_same(pair, &text));
    }

    #[test]
    fn any_tokens_decode_as_the_library_decodes_them(ids in prop::collection::vec(0u32..420, 0..40)) {
        for pair in PAIRS.iter() {
            let ids: Vec<u32> = ids.iter().copied().filter(|id| !pair.bytes.contains(id)).collect();
            assert_decodes(pair, &ids);
        }
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_files_name() {
    let cases: [(usize, &str, Value, &str); 27] = [
        (0, "/model/type", json!("Unigram"), "model Unigram is not supported (supported: BPE)"),
        (0, "/model/vocab", json!([]), "model.vocab is [], and has to be an object"),
        (
            0,
            "/model/vocab/a",
            json!(4_000_000_000u32),
            "model.vocab[\"a\"] is 4000000000, and has to be an id, less than",
        ),
        (0, "/model/vocab/a", json!(-1), "model.vocab[\"a\"] is -1"),
        (0, "/model/vocab/a", json!(66), "66 for \"B\" and \"a\", and has to be one id"),
        (0, "/model/merges/0", json!("q zz"), "`zz` out of vocabulary"),
        (0, "/model/merges/0", json!(1), "data did not match any variant"),
        (0, "/model/dropout", json!(0.1), "model.dropout is 0.1, and has to be 0"),
        (0, "/model/continuing_subword_prefix", json!("####"), "model.merges is \"h e\", and has to be two tokens"),
        (
            0,
            "/normalizer",
            json!({"type": "Precompiled"}),
            "normalizer Precompiled is not supported (supported: Sequence",
        ),
        (0, "/normalizer", json!({}), "normalizer.type is null, and has to be a string"),
        (0, "/pre_tokenizer/pretokenizers/0/pattern/Regex", json!("(a"), "Parsing error"),
        (0, "/pre_tokenizer/pretokenizers", json!(3), "pretokenizers is 3, and has to be a list"),
        (0, "/decoder", json!({"type": "WordPiece", "prefix": "##"}), "decoder WordPiece is not supported"),
        (0, "/decoder", Value::Null, "decoder null is not supported (supported: ByteLevel; Metaspace;"),
        (3, "/decoder/decoders/0/pattern/String", json!(""), "decoder.pattern is {\"String\":\"\"}"),
        (3, "/decoder/decoders/3/stop", json!(1), "and has to be of spaces at the start"),
        (
            3,
            "/decoder/decoders/2",
            json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
            "decoder Strip is not",
        ),
        (0, "/normalizer", json!({"type": "Prepend", "prepend": ""}), "normalizer.prepend is \"\", and has to be"),
        (3, "/normalizer/normalizers/1/pattern", json!({"Regex": "(?=.)"}), "finds no empty text"),
        (3, "/normalizer/normalizers/1/pattern", json!({"String": ""}), "normalizer.pattern is {\"String\":\"\"}"),
        (3, "/decoder/decoders/0/content", json!("x".repeat(2000)), "decoder is making text 4002 times as long"),
        (3, "/added_tokens/0/content", json!("x".repeat(1025)), "and has to be at most 1024 bytes"),
        (3, "/post_processor/special_tokens", json!({}), "post_processor.single is \"<s>\", and has to be one of"),
        (3, "/post_processor/special_tokens/<s>/ids/0", json!(9000), "special_tokens.ids is [9000]"),
        (3, "/post_processor/single", json!([]), "post_processor.single is [], and has to be a template with A once"),
        (2, "/added_tokens/3/lstrip", json!(true), "and has to be more than whitespace, having lstrip"),
    ];
    for (index, place, value, expected) in cases {
        let mut json = samples().remove(index).json;
        *json.pointer_mut(place).expect("the place") = value;
        let error = read(&json.to_string()).expect_err(place).to_string();
        assert!(error.starts_with("models/tokenizer.json: ") && error.contains(expected), "{place}: {error}");
    }
    for (text, expected) in [("{", "EOF while parsing"), ("[]", "the file is []"), ("{}", "model is null")] {
        let error = read(text).expect_err(text).to_string();
        assert!(error.starts_with("models/tokenizer.json: ") && error.contains(expected), "{error}");
    }
}
