//! Hugging Face's `tokenizer.json`: the pipeline that the file describes, run by the `tokenizers` crate.
//!
//! Encoding goes through the crate's own pieces, so that the tokens are the crate's; between words it is asked whether
//! to go on. Decoding looks bytes up in a table, which is made from the file's `decoder`. A file is checked before the
//! crate reads it: the crate panics on some that it does not expect.

mod bound;
mod decoder;
mod file;

use std::cell::Cell;
use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::{
    AddedToken, Model, ModelWrapper, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, PreTokenizerWrapper, SplitDelimiterBehavior, Token, Tokenizer as Library,
};

use self::decoder::Decoder;
use self::file::File;
use super::TextError;
use super::least::Least;
use super::vocabulary::Vocabulary;
use crate::request::TokenId;
use crate::weights::TokenizerJson;

/// Hears the number of tokens so far, and says whether to go on.
type Check<'a> = &'a dyn Fn(usize) -> Result<(), TextError>;

/// A pipeline that encodes.
pub(super) struct HuggingFace {
    library: Library,
    decoder: Decoder,
    around: Around,
}

/// What the post-processor puts around a prompt.
#[derive(Debug)]
struct Around {
    before: Vec<TokenId>,
    after: Vec<TokenId>,
}

/// A pipeline, and what is known of its tokens.
pub(super) struct Loaded {
    pub(super) pipeline: HuggingFace,
    pub(super) vocabulary: Vocabulary,
    pub(super) least: Least,
}

impl HuggingFace {
    /// Of a file. What it says of truncation and padding is ignored: prompts are neither cut nor filled up.
    pub(super) fn load(source: &TokenizerJson) -> Result<Loaded, TextError> {
        let file = File::parse(&source.path, &source.json)?;
        let library = Library::deserialize(file.json()).map_err(|error| file.refused(error.to_string()))?;
        let ModelWrapper::BPE(_) = library.get_model() else {
            return Err(file.refused("the model is not read as BPE".to_owned()));
        };
        let added: BTreeMap<u32, AddedToken> = library.get_added_tokens_decoder().into_iter().collect();
        let added: Vec<Added> = added.into_iter().map(|(id, token)| Added::new(id, token, &library)).collect();
        for token in &added {
            token.check(&file)?;
        }
        let decoder = Decoder::new(&file)?;
        let vocabulary = vocabulary(&file, &library, &decoder, &added);
        let post_processor = serde_json::to_value(library.get_post_processor());
        let post_processor = post_processor.map_err(|error| file.refused(error.to_string()))?;
        file.check_post_processor(&post_processor, vocabulary.len())?;
        let least = bound::least(&file, &added);
        let around = Around::of(&library).map_err(|error| file.refused(error.to_string()))?;
        Ok(Loaded { pipeline: HuggingFace { library, decoder, around }, vocabulary, least })
    }

    /// The tokens that the crate's `encode` gives. `check` hears the number of tokens so far, and may end it.
    pub(super) fn encode(&self, text: &str, add_special: bool, check: Check<'_>) -> Result<Vec<TokenId>, TextError> {
        check(0)?;
        let mut tokens = if add_special { self.around.before.clone() } else { Vec::new() };
        let added = self.library.get_added_vocabulary();
        let words = added.extract_and_normalize(self.library.get_normalizer(), text);
        check(tokens.len())?;
        match self.first_split() {
            Some((split, rest)) => self.encode_lazily(words, split, rest, &mut tokens, check)?,
            None => self.encode_whole(words, &mut tokens, check)?,
        }
        check(tokens.len())?;
        tokens.extend(self.around.after.iter().filter(|_| add_special));
        Ok(tokens)
    }

    /// The first pre-tokenizer, if words can be had from it one by one, and those that go on with each.
    fn first_split(&self) -> Option<(&Split, &[PreTokenizerWrapper])> {
        let (first, rest) = match self.library.get_pre_tokenizer()? {
            PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().split_first()?,
            first => (first, &[][..]),
        };
        // Metaspace asks where in the text a word stands.
        let is_local = |part: &PreTokenizerWrapper| {
            !matches!(part, PreTokenizerWrapper::Metaspace(_) | PreTokenizerWrapper::Sequence(_))
        };
        match first {
            PreTokenizerWrapper::Split(split)
                if split.behavior == SplitDelimiterBehavior::Isolated && !split.invert && rest.iter().all(is_local) =>
            {
                Some((split, rest))
            }
            _ => None,
        }
    }

    /// Word by word: what the crate knows of the place of each byte, some hundred bytes for it, is had for one word
    /// only.
    fn encode_lazily(
        &self,
        words: PreTokenizedString,
        split: &Split,
        rest: &[PreTokenizerWrapper],
        tokens: &mut Vec<TokenId>,
        check: Check<'_>,
    ) -> Result<(), TextError> {
        let parts: Vec<Result<String, Vec<TokenId>>> = splits(&words)
            .map(|(text, tokens)| match tokens {
                Some(tokens) => Err(tokens.iter().map(|token| TokenId(token.id)).collect()),
                None => Ok(text.to_owned()),
            })
            .collect();
        drop(words);
        for part in parts {
            let text = match part {
                Ok(text) => text,
                Err(added) => {
                    tokens.extend(added);
                    continue;
                }
            };
            let mut end = 0;
            for (start, found_end) in split.regex.find_iter(&text) {
                self.encode_word(&text[end..start], rest, tokens, check)?;
                self.encode_word(&text[start..found_end], rest, tokens, check)?;
                end = found_end;
            }
            self.encode_word(&text[end..], rest, tokens, check)?;
        }
        Ok(())
    }

    fn encode_word(
        &self,
        word: &str,
        rest: &[PreTokenizerWrapper],
        tokens: &mut Vec<TokenId>,
        check: Check<'_>,
    ) -> Result<(), TextError> {
        if word.is_empty() {
            return Ok(());
        }
        let mut words = PreTokenizedString::from(word);
        rest.iter().try_for_each(|part| part.pre_tokenize(&mut words)).map_err(failed)?;
        self.merge(words, tokens, check)
    }

    fn encode_whole(
        &self,
        mut words: PreTokenizedString,
        tokens: &mut Vec<TokenId>,
        check: Check<'_>,
    ) -> Result<(), TextError> {
        if let Some(pre_tokenizer) = self.library.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut words).map_err(failed)?;
        }
        self.merge(words, tokens, check)
    }

    /// Merges words that are spelled.
    fn merge(
        &self,
        mut words: PreTokenizedString,
        tokens: &mut Vec<TokenId>,
        check: Check<'_>,
    ) -> Result<(), TextError> {
        let model = self.library.get_model();
        let added: usize = splits(&words).filter_map(|(_, tokens)| tokens).map(<[Token]>::len).sum();
        let count = Cell::new(tokens.len() + added);
        let tokenize = |word: &NormalizedString| -> tokenizers::Result<Vec<Token>> {
            check(count.get())?;
            let tokens = model.tokenize(word.get())?;
            count.set(count.get() + tokens.len());
            Ok(tokens)
        };
        words.tokenize(tokenize).map_err(failed)?;
        tokens.extend(splits(&words).filter_map(|(_, tokens)| tokens).flatten().map(|token| TokenId(token.id)));
        Ok(())
    }

    /// The text of tokens, as their bytes in the vocabulary and the decoder make it.
    pub(super) fn join<'a>(&self, vocabulary: &Vocabulary, tokens: impl Iterator<Item = &'a TokenId>) -> String {
        let mut tokens = tokens.map(|token| token.0);
        let first = tokens.find_map(|id| Some((id, self.library.id_to_token(id)?)));
        let Some((first, text)) = first else { return String::new() };
        let mut bytes = self.decoder.first(&text).unwrap_or_else(|| vocabulary.bytes(first).to_vec());
        bytes.extend(tokens.flat_map(|id| vocabulary.bytes(id)));
        self.decoder.opened(&String::from_utf8_lossy(&bytes)).to_owned()
    }
}

/// An added token: found in the text before any splitting.
struct Added {
    id: u32,
    token: AddedToken,
    /// As it is found in the text: normalised if the token is.
    pattern: String,
}

impl Added {
    fn new(id: u32, token: AddedToken, library: &Library) -> Added {
        let mut pattern = NormalizedString::from(token.content.as_str());
        if let Some(normalizer) = library.get_normalizer().filter(|_| token.normalized) {
            let _ = normalizer.normalize(&mut pattern); // those that are let in do not fail
        }
        Added { id, pattern: pattern.get().to_owned(), token }
    }

    /// What the crate panics on once the token is met.
    fn check(&self, file: &File) -> Result<(), TextError> {
        let is_blank = |text: &str| text.chars().all(char::is_whitespace);
        if self.pattern.is_empty() {
            return Err(file.wrong("added_tokens", &self.token.content, "text once it is normalised"));
        }
        // Its whitespace may belong to the token before it.
        if self.token.lstrip && (is_blank(&self.token.content) || is_blank(&self.pattern)) {
            return Err(file.wrong("added_tokens", &self.token.content, "more than whitespace, having lstrip"));
        }
        Ok(())
    }
}

/// The bytes of all ids. A vocabulary with the same id twice was refused.
fn vocabulary(file: &File, library: &Library, decoder: &Decoder, added: &[Added]) -> Vocabulary {
    let texts = file.vocabulary().map(|(text, id)| (id, (decoder.bytes(text, false), text)));
    let mut tokens: BTreeMap<u32, (Vec<u8>, &str)> = texts.collect();
    // The crate looks ids up among the added tokens first.
    tokens.extend(
        added.iter().map(|Added { id, token, .. }| (*id, (decoder.bytes(&token.content, true), &*token.content))),
    );
    let special = library.get_added_vocabulary();
    Vocabulary::of_ids(tokens.into_iter().map(|(id, (bytes, text))| (id, bytes, special.is_special_token(text))))
}

impl Around {
    /// Of what is checked to have the text once: processors see no text, and do the same to any.
    fn of(library: &Library) -> tokenizers::Result<Around> {
        const TEXT: u32 = u32::MAX; // no token
        let mut words = PreTokenizedString::from("text");
        words.tokenize(|word| Ok(vec![Token::new(TEXT, word.get().to_owned(), (0, word.len()))]))?;
        let encoding = library.post_process(words.into_encoding(None, 0, OffsetType::None)?, None, true)?;
        let mut parts = encoding.get_ids().split(|id| *id == TEXT);
        let mut part = || parts.next().unwrap_or(&[]).iter().copied().map(TokenId).collect();
        Ok(Around { before: part(), after: part() })
    }
}

/// Words, and tokens of those that have some.
fn splits(words: &PreTokenizedString) -> impl Iterator<Item = (&str, Option<&[Token]>)> {
    let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
    splits.into_iter().map(|(text, _, tokens)| (text, tokens.as_deref()))
}

/// What stopped the crate: a check of ours, or the crate itself.
fn failed(source: tokenizers::Error) -> TextError {
    match source.downcast::<TextError>() {
        Ok(error) => *error,
        Err(source) => TextError::Tokenizer { source },
    }
}
