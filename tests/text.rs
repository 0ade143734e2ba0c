//! Tokenizer, detokenizer and chat templates against what other libraries make of the same text.

mod support;

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde::Deserialize;
use support::temp::TempDir;
use support::tiny_model::TinyModel;
use support::{assert_says, smollm2};
use vitrum::model::Checkpoint;
use vitrum::request::TokenId;
use vitrum::text::{ChatLimits, ChatMessage, ChatRenderer, ChatTemplate, Detokenizer};
use vitrum::text::{TemplateError, TemplateSource, TextError, Tokenizer};
use vitrum::weights::{StringTable, TokenKind, TokenizerSpec, VocabularySpec};

fn fixture<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("a fixture");
    serde_json::from_str(&text).expect("a fixture's JSON")
}

fn smollm2_spec() -> VocabularySpec {
    let weights = Checkpoint::open(&smollm2::path()).expect("SmolLM2 opens");
    vocabulary(&weights)
}

/// What a GGUF file has.
fn vocabulary(weights: &Checkpoint) -> VocabularySpec {
    match weights.tokenizer() {
        Some(TokenizerSpec::Vocabulary(vocabulary)) => vocabulary.clone(),
        other => panic!("no vocabulary: {other:?}"),
    }
}

fn ids(tokens: &[TokenId]) -> Vec<u32> {
    tokens.iter().map(|token| token.0).collect()
}

fn tokens(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().copied().map(TokenId).collect()
}

/// Pre-tokenizer, text, token ids, decoded text.
type TokenRow = (String, String, Vec<u32>, String);

#[test]
fn byte_level_tokens_are_those_of_hugging_face() {
    let spec = smollm2_spec();
    let named = |name: &str| {
        let spec = VocabularySpec { pre_tokenizer: Some(name.to_owned()), ..spec.clone() };
        (name.to_owned(), Tokenizer::of_vocabulary(&spec).expect("a tokenizer"))
    };
    let tokenizers: std::collections::HashMap<String, Tokenizer> =
        ["smollm", "gpt-2", "llama-bpe", "qwen2", "default"].map(named).into_iter().collect();
    let rows: Vec<TokenRow> = fixture("text/smollm2-tokens.json");
    assert!(rows.len() > 400, "the fixture has {} rows", rows.len());
    for (name, text, expected, decoded) in &rows {
        if name == "decode" {
            assert_eq!(&tokenizers["smollm"].decode(&tokens(expected)), decoded, "decoding {expected:?}");
            continue;
        }
        let found = tokenizers[name].encode(text, false).expect("any text can be encoded");
        assert_eq!(&ids(&found), expected, "{name}: {text:?}");
        assert_eq!(&tokenizers[name].decode(&found), decoded, "{name}: decoding {text:?}");
    }
}

#[derive(Deserialize)]
struct Golden {
    prompts: Vec<GoldenPrompt>,
}

#[derive(Deserialize)]
struct GoldenPrompt {
    name: String,
    text: String,
    token_ids: Vec<u32>,
}

#[test]
fn golden_prompts_have_their_tokens() {
    let spec = smollm2_spec();
    let tokenizer = Tokenizer::of_vocabulary(&spec).expect("a tokenizer");
    let golden: Golden = fixture("golden/smollm2-135m-q4_1.json");
    for prompt in &golden.prompts {
        let found = tokenizer.encode(&prompt.text, true).expect("text");
        assert_eq!(ids(&found), prompt.token_ids, "{}", prompt.name);
    }
    let chat = golden.prompts.iter().find(|prompt| prompt.name == "chat-capital").expect("a chat prompt");
    let source = TemplateSource::from_spec(&TokenizerSpec::Vocabulary(spec.clone())).expect("a template");
    let renderer = ChatRenderer::new(env!("CARGO_BIN_EXE_vitrum").into(), source, ChatLimits::default());
    assert_eq!(renderer.render(&[user("What is the capital of France?")], true).expect("a prompt"), chat.text);
}

#[derive(Deserialize)]
struct SentencePiece {
    tokens: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<i32>,
    /// Text, token ids, decoded text.
    cases: Vec<(String, Vec<u32>, String)>,
}

fn sentencepiece_spec(fixture: &SentencePiece) -> VocabularySpec {
    VocabularySpec {
        model: "llama".to_owned(),
        tokens: fixture.tokens.iter().map(String::as_str).collect(),
        scores: fixture.scores.clone(),
        kinds: fixture.kinds.iter().map(|kind| TokenKind::from_gguf(*kind).expect("a kind")).collect(),
        unknown: Some(0),
        bos: Some(1),
        eos: Some(2),
        ..VocabularySpec::default()
    }
}

#[test]
fn sentencepiece_tokens_are_those_of_sentencepiece() {
    let fixture: SentencePiece = fixture("text/sentencepiece.json");
    let tokenizer = Tokenizer::of_vocabulary(&sentencepiece_spec(&fixture)).expect("a tokenizer");
    assert!(fixture.cases.len() >= 200, "the fixture has {} cases", fixture.cases.len());
    for (text, expected, decoded) in &fixture.cases {
        let found = tokenizer.encode(text, false).expect("any text can be encoded");
        assert_eq!(&ids(&found), expected, "{text:?}");
        assert_eq!(&tokenizer.decode(&found), decoded, "decoding {text:?}");
    }
    let with_bos = tokenizer.encode("the self", true).expect("text");
    assert_eq!(with_bos[0], TokenId(1), "Llama prompts begin with <s>");
    let around = tokenizer.encode("a</s>b", false).expect("text");
    assert!(around.contains(&TokenId(2)), "control tokens are found in text");
    assert_eq!(tokenizer.decode(&around), "a b", "each part of the text has its space");
}

#[test]
fn tokens_are_found_whole_the_longest_first() {
    let mut spec = sentencepiece_spec(&fixture("text/sentencepiece.json"));
    for text in ["<tool>", "<tool>s", "<end>"] {
        spec.tokens.push(text);
        spec.scores.push(0.0);
        spec.kinds.push(if text == "<end>" { TokenKind::Control } else { TokenKind::UserDefined });
    }
    let tokenizer = Tokenizer::of_vocabulary(&spec).expect("a tokenizer");
    let found = tokenizer.encode("<tool>s<tool><end>", false).expect("text");
    assert_eq!(ids(&found), [701, 700, 702]);
    assert_eq!(tokenizer.decode(&found), "<tool>s<tool>", "user-defined tokens are text, control tokens are not");
    assert_eq!(tokenizer.token_text(TokenId(702)), "<end>");
}

#[test]
fn long_runs_take_no_stack_and_no_squared_time() {
    let mut spec = tiny_spec();
    for name in ["gpt-2", "smollm", "llama3", "qwen2", "default"] {
        spec.pre_tokenizer = Some(name.to_owned());
        let tokenizer = Tokenizer::of_vocabulary(&spec).expect("a tokenizer");
        for unit in [" ", "\n", "a", "7", "!", "\u{301}"] {
            let text = unit.repeat(100_000) + "x";
            let found = tokenizer.encode(&text, false).expect("text");
            assert_eq!(tokenizer.decode(&found), text, "{name}: a run of {unit:?}");
        }
    }
}

#[test]
fn broken_tokenizers_are_refused() {
    let good = VocabularySpec {
        model: "gpt2".to_owned(),
        pre_tokenizer: Some("gpt-2".to_owned()),
        tokens: ["a", "b", "ab"].into_iter().collect(),
        kinds: vec![TokenKind::Normal; 3],
        merges: ["a b"].into_iter().collect(),
        ..VocabularySpec::default()
    };
    assert_eq!(ids(&Tokenizer::of_vocabulary(&good).expect("good").encode("abba", false).expect("text")), [2, 1, 0]);
    let table = |strings: &[&str]| strings.iter().copied().collect::<StringTable>();
    let cases = [
        (VocabularySpec { model: "bert".to_owned(), ..good.clone() }, "bert is not supported (supported: gpt2, llama)"),
        (VocabularySpec { pre_tokenizer: Some("tekken".to_owned()), ..good.clone() }, "pre-tokenizer tekken is not"),
        (VocabularySpec { tokens: table(&["a", "b", "a"]), ..good.clone() }, "tokens 0 and 2 have the same text \"a\""),
        (VocabularySpec { merges: table(&["ab"]), ..good.clone() }, "merge 0 is \"ab\""),
        (VocabularySpec { merges: table(&["a c"]), ..good.clone() }, "`c` out of vocabulary"),
        (VocabularySpec { add_bos: Some(true), ..good.clone() }, "add_bos_token is true, and the file names no such"),
        (VocabularySpec { model: "llama".to_owned(), ..good.clone() }, "3 tokens and 0 scores"),
    ];
    for (spec, expected) in cases {
        assert_says(Tokenizer::of_vocabulary(&spec).expect_err(expected), expected);
    }
}

#[test]
fn numeric_text_is_token_ids() {
    let tokenizer = Tokenizer::numeric(100);
    let found = tokenizer.encode("17  5\n99", true).expect("ids");
    assert_eq!(ids(&found), [17, 5, 99]);
    assert_eq!(tokenizer.decode(&found), "17 5 99");
    assert_eq!(tokenizer.token_text(TokenId(17)), " 17");
    for wrong in ["17 x", "100", "-1", "99999999999"] {
        assert!(matches!(tokenizer.encode(wrong, false), Err(TextError::NotATokenId { .. })), "{wrong}");
    }
}

// ---- Detokenizer

/// The tokenizer of a tiny model: control tokens, bytes, some words.
fn byte_tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: LazyLock<Arc<Tokenizer>> =
        LazyLock::new(|| Arc::new(Tokenizer::of_vocabulary(&tiny_spec()).expect("a tokenizer")));
    TOKENIZER.clone()
}

fn tiny_spec() -> VocabularySpec {
    let folder = TempDir::new();
    let weights = Checkpoint::open(&TinyModel::default().write(&folder)).expect("a model");
    vocabulary(&weights)
}

/// All text, and the stop string that ended it.
fn stream(tokenizer: &Arc<Tokenizer>, tokens: &[TokenId], stop: &[&str], skip: bool) -> (String, Option<String>) {
    let stop = stop.iter().map(|stop| (*stop).to_owned()).collect();
    let mut detokenizer = Detokenizer::new(tokenizer.clone(), stop, skip);
    let (mut text, mut stopped) = (String::new(), None);
    for token in tokens {
        let piece = detokenizer.push(*token);
        text.push_str(&piece.text);
        if piece.stopped.is_some() {
            assert_eq!(stopped, None, "a text ends once");
            stopped = piece.stopped;
        }
    }
    text.push_str(&detokenizer.finish());
    (text, stopped)
}

#[test]
fn text_ends_before_the_stop_string_that_is_complete_first() {
    let tokenizer = byte_tokenizer();
    let table: [(&str, &[&str], &str, Option<&str>); 9] = [
        ("hello world", &["wor"], "hello ", Some("wor")),
        ("hello world", &["xyz", "worlds"], "hello world", None),
        ("hello world", &["o w", "ell"], "h", Some("ell")),
        ("hello world", &["llo", "lo"], "he", Some("llo")),
        ("hello world", &["hello world", "o"], "hell", Some("o")),
        ("aab", &["ab"], "a", Some("ab")),
        ("aaaab", &["aab"], "aa", Some("aab")),
        ("grüße", &["ß"], "grü", Some("ß")),
        ("hello", &[""], "hello", None),
    ];
    for (text, stop, expected, stopped) in table {
        let tokens = tokenizer.encode(text, false).expect("text");
        let (found, found_stop) = stream(&tokenizer, &tokens, stop, true);
        assert_eq!((found.as_str(), found_stop.as_deref()), (expected, stopped), "{text:?} with {stop:?}");
    }
}

#[test]
fn text_is_held_back_only_while_a_stop_string_may_have_begun() {
    let tokenizer = byte_tokenizer();
    let mut detokenizer = Detokenizer::new(tokenizer.clone(), vec!["abc".to_owned()], true);
    let pieces: Vec<String> = tokenizer
        .encode("xababd", false)
        .expect("text")
        .into_iter()
        .map(|token| detokenizer.push(token).text)
        .collect();
    assert_eq!(pieces, ["x", "", "", "ab", "", "abd"]);
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn characters_come_whole_and_control_tokens_as_asked() {
    let tokenizer = byte_tokenizer();
    let tokens = tokenizer.encode("é<|im_end|>🤖", false).expect("text");
    let mut detokenizer = Detokenizer::new(tokenizer.clone(), Vec::new(), false);
    let pieces: Vec<String> = tokens.iter().map(|token| detokenizer.push(*token).text).collect();
    assert_eq!(pieces, ["", "é", "<|im_end|>", "", "", "", "🤖"]);
    assert_eq!(stream(&tokenizer, &tokens, &[], true).0, "é🤖");
    assert_eq!(stream(&tokenizer, &tokens[..5], &[], true).0, "é\u{fffd}", "an incomplete end becomes U+FFFD");
}

/// What a stop string should do, in the plainest words: letter by letter, the longest that ends here.
fn cut_at_stop(text: &str, stop: &[&str]) -> (String, Option<String>) {
    for end in (1..=text.len()).filter(|end| text.is_char_boundary(*end)) {
        let found = stop.iter().filter(|stop| !stop.is_empty() && text[..end].ends_with(**stop));
        if let Some(found) = found.max_by_key(|stop| stop.len()) {
            return (text[..end - found.len()].to_owned(), Some((*found).to_owned()));
        }
    }
    (text.to_owned(), None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn parts_are_the_whole(ids in prop::collection::vec(0u32..270, 0..60), skip: bool) {
        let tokenizer = byte_tokenizer();
        let tokens = tokens(&ids);
        let whole = if skip { tokenizer.decode(&tokens) } else {
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| tokenizer.token_bytes(*token)).copied().collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        prop_assert_eq!(stream(&tokenizer, &tokens, &[], skip).0, whole);
    }

    #[test]
    fn stop_strings_cut_like_the_plain_rule(
        text in "[abc\u{e9}]{0,24}",
        stop in prop::collection::vec("[abc\u{e9}]{0,4}", 0..4),
    ) {
        let tokenizer = byte_tokenizer();
        let stop: Vec<&str> = stop.iter().map(String::as_str).collect();
        let tokens = tokenizer.encode(&text, false).expect("text");
        prop_assert_eq!(stream(&tokenizer, &tokens, &stop, true), cut_at_stop(&text, &stop));
    }
}

#[test]
fn parts_are_the_whole_in_the_real_vocabulary() {
    let tokenizer = Arc::new(Tokenizer::of_vocabulary(&smollm2_spec()).expect("a tokenizer"));
    let rows: Vec<TokenRow> = fixture("text/smollm2-tokens.json");
    for (_, _, ids, decoded) in &rows {
        assert_eq!(&stream(&tokenizer, &tokens(ids), &[], true).0, decoded, "{ids:?}");
    }
}

// ---- Chat templates

fn user(content: &str) -> ChatMessage {
    ChatMessage { role: "user".to_owned(), content: content.to_owned() }
}

const PROMPT_BYTES_MAX: usize = 64 << 20;

fn template(text: &str) -> TemplateSource {
    let [bos_token, eos_token] = ["<s>", "</s>"].map(|token| Some(token.to_owned()));
    TemplateSource { template: text.to_owned(), bos_token, eos_token }
}

fn compiled(text: &str) -> ChatTemplate {
    ChatTemplate::compile(&template(text)).expect("a template")
}

#[derive(Deserialize)]
struct ChatCase {
    template: String,
    messages: Vec<ChatMessage>,
    add_generation_prompt: bool,
    text: String,
}

#[test]
fn templates_render_as_transformers_renders_them() {
    let cases: Vec<ChatCase> = fixture("text/chat.json");
    assert!(cases.len() >= 18, "the fixture has {} cases", cases.len());
    for case in &cases {
        let (messages, begins) = (&case.messages, case.add_generation_prompt);
        let found = compiled(&case.template).render(messages, begins, PROMPT_BYTES_MAX).expect("a prompt");
        assert_eq!(found, case.text, "{messages:?} of {:.40}", case.template);
        // And so in a process of its own.
        let program = env!("CARGO_BIN_EXE_vitrum").into();
        let renderer = ChatRenderer::new(program, template(&case.template), ChatLimits::default());
        assert_eq!(renderer.render(messages, begins).expect("a prompt"), case.text);
    }
}

#[test]
fn a_template_comes_with_the_tokens_that_it_may_write() {
    let tokens = ["<unk>", "<s>", "</s>"].into_iter().collect();
    let spec = VocabularySpec { tokens, bos: Some(1), eos: Some(3), ..VocabularySpec::default() };
    assert!(matches!(
        TemplateSource::from_spec(&TokenizerSpec::Vocabulary(spec.clone())),
        Err(TextError::NoChatTemplate)
    ));
    let spec = VocabularySpec { chat_template: Some("x".to_owned()), ..spec };
    let source = TemplateSource::from_spec(&TokenizerSpec::Vocabulary(spec.clone())).expect("a template");
    let found = (source.template.as_str(), source.bos_token.as_deref(), source.eos_token.as_deref());
    assert_eq!(found, ("x", Some("<s>"), None));
}

#[test]
fn template_errors_say_what_is_wrong() {
    let invalid = ChatTemplate::compile(&template("{% for %}")).expect_err("no template");
    assert_says(invalid, "the model's chat template does not compile: syntax error");
    let cases = [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content.nothing() }}", "unknown method"),
        ("{{ missing.field }}", "undefined"),
        ("{{ strftime_now('%Q') }}", "unknown directive"),
        ("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}", "out of fuel"),
    ];
    for (template, expected) in cases {
        let error = compiled(template).render(&[user("hi")], true, PROMPT_BYTES_MAX).expect_err(expected);
        assert_says(error, expected);
    }
    let exact = compiled("{{ messages[0].content }}é");
    assert_eq!(exact.render(&[user("hi")], true, 4).expect("it fits"), "hié");
    assert_eq!(exact.render(&[user("hi")], true, 3), Err(TemplateError::Output { bytes: 3 }));
}

#[test]
fn templates_know_the_date() {
    let date = compiled("{{ strftime_now('%Y-%m-%d') }}").render(&[], false, PROMPT_BYTES_MAX).expect("a date");
    assert!(date.len() == 10 && date.as_str() > "2024-01-01", "{date}");
}
