//! Text to tokens and back.
//!
//! A vocabulary's encoding goes in four steps: tokens that are found as such in the text (`<|im_end|>`) are cut out;
//! what lies between is split into words; words are spelled as the vocabulary spells them; BPE (of the `tokenizers`
//! crate) merges. A `tokenizer.json` is a pipeline of its own (`hugging_face`). Decoding looks every token's bytes up
//! in a table.

use std::fmt;

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::hugging_face::{HuggingFace, Loaded};
use super::least::{self, Least};
use super::split::{self, Splitter};
use super::vocabulary::Vocabulary;
use super::{TextError, byte_level, sentencepiece};
use crate::request::TokenId;
use crate::weights::{TokenKind, TokenizerJson, TokenizerSpec, VocabularySpec};

const SUPPORTED: &str = "gpt2, llama";

/// A model's tokenizer.
pub struct Tokenizer {
    algorithm: Algorithm,
    vocabulary: Vocabulary,
    /// Finds tokens that stand for themselves; `ids` are in the order of its patterns.
    literals: Option<Literals>,
    least: Least,
    /// Put before a prompt.
    bos: Option<TokenId>,
    /// Put after a prompt.
    eos: Option<TokenId>,
    /// Encoding puts a space before text that has none.
    space_prefix: bool,
}

enum Algorithm {
    ByteLevel {
        bpe: BPE,
        splitter: Splitter,
    },
    SentencePiece {
        bpe: BPE,
    },
    /// Ids in decimal, separated by spaces.
    Numeric,
    /// A pipeline of its own, which finds literals and puts tokens around a prompt by itself.
    HuggingFace(Box<HuggingFace>),
}

struct Literals {
    finder: AhoCorasick,
    ids: Vec<TokenId>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab", &self.vocab()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Builds the tokenizer that a model file describes.
    pub fn from_spec(spec: &TokenizerSpec) -> Result<Tokenizer, TextError> {
        match spec {
            TokenizerSpec::Vocabulary(vocabulary) => Tokenizer::of_vocabulary(vocabulary),
            TokenizerSpec::Json(json) => Tokenizer::of_json(json),
        }
    }

    /// Of a vocabulary.
    pub fn of_vocabulary(spec: &VocabularySpec) -> Result<Tokenizer, TextError> {
        match spec.model.as_str() {
            "gpt2" => Tokenizer::byte_level(spec),
            "llama" => Tokenizer::sentencepiece(spec),
            other => Err(TextError::UnknownModel { model: other.to_owned(), supported: SUPPORTED }),
        }
    }

    /// Of a `tokenizer.json`.
    pub fn of_json(json: &TokenizerJson) -> Result<Tokenizer, TextError> {
        let Loaded { pipeline, vocabulary, least } = HuggingFace::load(json)?;
        let algorithm = Algorithm::HuggingFace(Box::new(pipeline));
        Ok(Tokenizer { algorithm, vocabulary, literals: None, least, bos: None, eos: None, space_prefix: false })
    }

    /// For models without a tokenizer: text is a list of token ids in decimal, separated by spaces.
    pub fn numeric(vocab: usize) -> Tokenizer {
        let vocabulary = Vocabulary::numeric(vocab);
        let algorithm = Algorithm::Numeric;
        let least = Least::nothing_known(); // spaces are left out
        Tokenizer { algorithm, vocabulary, literals: None, least, bos: None, eos: None, space_prefix: true }
    }

    fn byte_level(spec: &VocabularySpec) -> Result<Tokenizer, TextError> {
        let name = spec.pre_tokenizer.as_deref().unwrap_or("default");
        let splitter = Splitter::named(name).ok_or_else(|| TextError::UnknownPreTokenizer {
            pre_tokenizer: name.to_owned(),
            supported: split::SUPPORTED,
        })?;
        let merges = listed_merges(spec)?;
        let builder = BPE::builder().vocab_and_merges(vocab(spec)?, merges).ignore_merges(splitter.ignore_merges);
        let bpe = builder.build().map_err(|source| TextError::Tokenizer { source })?;
        let add_bos = splitter.add_bos;
        let vocabulary = Vocabulary::byte_level(spec);
        let spelled = byte_level::spelled(spec.tokens.iter());
        let least = Least::new(&vocabulary, splitter.compose, |byte| spelled[usize::from(byte)]);
        let algorithm = Algorithm::ByteLevel { bpe, splitter };
        let space_prefix = spec.add_space_prefix.unwrap_or(false);
        Tokenizer::new(spec, algorithm, vocabulary, least, space_prefix, add_bos)
    }

    fn sentencepiece(spec: &VocabularySpec) -> Result<Tokenizer, TextError> {
        if spec.scores.len() != spec.tokens.len() {
            return Err(TextError::Scores { tokens: spec.tokens.len(), scores: spec.scores.len() });
        }
        let unknown = spec.unknown.and_then(|id| spec.tokens.get(id as usize));
        let mut builder = BPE::builder().vocab_and_merges(vocab(spec)?, sentencepiece::merges(spec));
        builder = builder.byte_fallback(true).fuse_unk(true);
        if let Some(unknown) = unknown {
            builder = builder.unk_token(unknown.to_owned());
        }
        let bpe = builder.build().map_err(|source| TextError::Tokenizer { source })?;
        let space_prefix = spec.add_space_prefix.unwrap_or(true);
        let vocabulary = Vocabulary::sentencepiece(spec);
        // Without a token for each byte, unknown text is one token however long it is.
        let has_all_bytes = (0..=255)
            .filter(|byte| least::is_in_text(*byte))
            .all(|byte| bpe.token_to_id(&sentencepiece::byte_token(byte)).is_some());
        let least = if has_all_bytes { Least::new(&vocabulary, false, |_| true) } else { Least::nothing_known() };
        Tokenizer::new(spec, Algorithm::SentencePiece { bpe }, vocabulary, least, space_prefix, true)
    }

    fn new(
        spec: &VocabularySpec,
        algorithm: Algorithm,
        vocabulary: Vocabulary,
        least: Least,
        space_prefix: bool,
        add_bos: bool,
    ) -> Result<Tokenizer, TextError> {
        let around = |asked: Option<bool>, default: bool, id: Option<u32>, key| match (asked, id) {
            (Some(true), None) => Err(TextError::NoSuchToken { key }),
            (asked, id) => Ok(id.filter(|_| asked.unwrap_or(default)).map(TokenId)),
        };
        let bos = around(spec.add_bos, add_bos, spec.bos, "tokenizer.ggml.add_bos_token")?;
        let eos = around(spec.add_eos, false, spec.eos, "tokenizer.ggml.add_eos_token")?;
        Ok(Tokenizer { algorithm, vocabulary, literals: literals(spec)?, least, bos, eos, space_prefix })
    }

    /// Turns text into tokens. `add_special` puts the tokens around it that the model expects around a prompt; tokens
    /// such as `<|im_end|>` within the text are recognised in any case.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<TokenId>, TextError> {
        self.encode_while(text, add_special, &|_| Ok(()))
    }

    /// The same, with a look from word to word whether to go on, at the number of tokens so far.
    pub fn encode_while(
        &self,
        text: &str,
        add_special: bool,
        check: &dyn Fn(usize) -> Result<(), TextError>,
    ) -> Result<Vec<TokenId>, TextError> {
        if let Algorithm::HuggingFace(pipeline) = &self.algorithm {
            return pipeline.encode(text, add_special, check);
        }
        let mut tokens = Vec::new();
        tokens.extend(self.bos.filter(|_| add_special));
        let mut position = 0;
        if let Some(Literals { finder, ids }) = &self.literals {
            for found in finder.find_iter(text) {
                self.encode_plain(&text[position..found.start()], &mut tokens, check)?;
                check(tokens.len())?;
                tokens.push(ids[found.pattern().as_usize()]);
                position = found.end();
            }
        }
        self.encode_plain(&text[position..], &mut tokens, check)?;
        check(tokens.len())?;
        tokens.extend(self.eos.filter(|_| add_special));
        Ok(tokens)
    }

    /// Text that holds no literal token.
    fn encode_plain(
        &self,
        text: &str,
        tokens: &mut Vec<TokenId>,
        check: &dyn Fn(usize) -> Result<(), TextError>,
    ) -> Result<(), TextError> {
        if text.is_empty() {
            return Ok(());
        }
        let mut spelled = String::new();
        match &self.algorithm {
            Algorithm::ByteLevel { bpe, splitter } => {
                let prefixed;
                let text = if self.space_prefix && !text.starts_with(' ') {
                    prefixed = format!(" {text}");
                    &prefixed
                } else {
                    text
                };
                splitter.split(text, &mut |word| {
                    check(tokens.len())?;
                    byte_level::write(word, &mut spelled);
                    merge(bpe, &spelled, tokens)
                })
            }
            Algorithm::SentencePiece { bpe } => {
                sentencepiece::write(text, self.space_prefix, &mut spelled);
                merge(bpe, &spelled, tokens)
            }
            Algorithm::Numeric => {
                let vocab = self.vocab();
                for word in text.split_whitespace() {
                    check(tokens.len())?;
                    let id = word.parse().ok().filter(|id| (*id as usize) < vocab);
                    let id = id.ok_or_else(|| TextError::NotATokenId { word: shortened(word), vocab })?;
                    tokens.push(TokenId(id));
                }
                Ok(())
            }
            Algorithm::HuggingFace(_) => unreachable!("its text is not cut up here"),
        }
    }

    /// The fewest tokens that the text can have. It is not encoded for that.
    pub fn tokens_min(&self, text: &str) -> usize {
        self.least.tokens(text)
    }

    /// Turns tokens into text, without control tokens. Bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        self.join(tokens.iter().filter(|token| !self.is_special(**token)))
    }

    /// The same with control tokens.
    pub fn decode_with_special(&self, tokens: &[TokenId]) -> String {
        self.join(tokens.iter())
    }

    fn join<'a>(&self, tokens: impl Iterator<Item = &'a TokenId>) -> String {
        if let Algorithm::HuggingFace(pipeline) = &self.algorithm {
            return pipeline.join(&self.vocabulary, tokens);
        }
        let bytes: Vec<u8> = tokens.flat_map(|token| self.token_bytes(*token)).copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        // SentencePiece's decoding takes the space away that encoding put there; byte-level BPE's does not.
        let strips = self.space_prefix && !matches!(self.algorithm, Algorithm::ByteLevel { .. });
        text.strip_prefix(' ').filter(|_| strips).unwrap_or(&text).to_owned()
    }

    /// The vocabulary's size.
    pub fn vocab(&self) -> usize {
        self.vocabulary.len()
    }

    /// The bytes that a token stands for: a part of a character, for some. Empty for ids outside the vocabulary.
    pub fn token_bytes(&self, token: TokenId) -> &[u8] {
        self.vocabulary.bytes(token.0)
    }

    /// A token for display, control tokens too. Bytes that are not UTF-8 become U+FFFD.
    pub fn token_text(&self, token: TokenId) -> String {
        String::from_utf8_lossy(self.token_bytes(token)).into_owned()
    }

    /// Whether a token is structure, no text.
    pub fn is_special(&self, token: TokenId) -> bool {
        self.vocabulary.is_special(token.0)
    }
}

/// Merges one word. Characters that the vocabulary lacks are left out unless it has an unknown token or byte tokens;
/// so do the tokenizers that such vocabularies come from.
fn merge(bpe: &BPE, spelled: &str, tokens: &mut Vec<TokenId>) -> Result<(), TextError> {
    let merged = bpe.tokenize(spelled).map_err(|source| TextError::Tokenizer { source })?;
    tokens.extend(merged.into_iter().map(|token| TokenId(token.id)));
    Ok(())
}

fn vocab(spec: &VocabularySpec) -> Result<Vocab, TextError> {
    let mut vocab = Vocab::with_capacity(spec.tokens.len());
    // An empty token stands for nothing; files have some to fill gaps between ids.
    for (token, id) in spec.tokens.iter().zip(0u32..).filter(|(token, _)| !token.is_empty()) {
        if let Some(first) = vocab.insert(token.to_owned(), id) {
            return Err(TextError::DuplicateToken { first, second: id, text: token.to_owned() });
        }
    }
    Ok(vocab)
}

fn listed_merges(spec: &VocabularySpec) -> Result<Merges, TextError> {
    let split = |(index, merge): (usize, &str)| match merge.split_once(' ') {
        Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
        None => Err(TextError::BadMerge { index, merge: merge.to_owned() }),
    };
    spec.merges.iter().enumerate().map(split).collect()
}

/// Tokens that stand for themselves in the text; of two that begin at one place, the longer one.
fn literals(spec: &VocabularySpec) -> Result<Option<Literals>, TextError> {
    let is_literal = |kind| matches!(kind, TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown);
    let tokens = spec.tokens.iter().zip(&spec.kinds).zip(0u32..);
    let (patterns, ids): (Vec<&str>, Vec<TokenId>) = tokens
        .filter(|((text, kind), _)| is_literal(**kind) && !text.is_empty())
        .map(|((text, _), id)| (text, TokenId(id)))
        .unzip();
    if patterns.is_empty() {
        return Ok(None);
    }
    let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns);
    let finder = finder.map_err(|source| TextError::Tokenizer { source: source.into() })?;
    Ok(Some(Literals { finder, ids }))
}

/// A word for an error message.
fn shortened(word: &str) -> String {
    word.chars().take(32).collect()
}
