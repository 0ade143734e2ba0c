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
use tokenizers::{AddedToken, Model, ModelWrapper, NormalizedString, Normalizer, OffsetType, PreTokenizer, Token};
use tokenizers::{OffsetReferential, PreTokenizedString, Tokenizer as Library};

use self::decoder::Decoder;
use self::file::File;
use super::TextError;
use super::least::Least;
use super::vocabulary::Vocabulary;
use crate::request::TokenId;
use crate::weights::TokenizerJson;

/// A pipeline that encodes.
pub(super) struct HuggingFace {
    library: Library,
    decoder: Decoder,
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
        Ok(Loaded { pipeline: HuggingFace { library, decoder }, vocabulary, least })
    }

    /// The tokens that the crate's `encode` gives. `check` hears the number of tokens so far, and may end it.
    pub(super) fn encode(
        &self,
        text: &str,
        add_special: bool,
        check: &dyn Fn(usize) -> Result<(), TextError>,
    ) -> Result<Vec<TokenId>, TextError> {
        check(0)?;
        let added = self.library.get_added_vocabulary();
        let mut words = added.extract_and_normalize(self.library.get_normalizer(), text);
        let count = Cell::new(tokens_so_far(&words));
        check(count.get())?;
        if let Some(pre_tokenizer) = self.library.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut words).map_err(failed)?;
        }
        let model = self.library.get_model();
        let tokenize = |word: &NormalizedString| -> tokenizers::Result<Vec<Token>> {
            check(count.get())?;
            let tokens = model.tokenize(word.get())?;
            count.set(count.get() + tokens.len());
            Ok(tokens)
        };
        words.tokenize(tokenize).map_err(failed)?;
        check(count.get())?;
        // Where in the text a token stands is not asked.
        let encoding = words.into_encoding(None, 0, OffsetType::None).map_err(failed)?;
        let encoding = self.library.post_process(encoding, None, add_special).map_err(failed)?;
        Ok(encoding.get_ids().iter().copied().map(TokenId).collect())
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

/// Added tokens that were found.
fn tokens_so_far(words: &PreTokenizedString) -> usize {
    let words = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
    words.iter().filter_map(|(_, _, tokens)| tokens.as_ref()).map(Vec::len).sum()
}

/// What stopped the crate: a check of ours, or the crate itself.
fn failed(source: tokenizers::Error) -> TextError {
    match source.downcast::<TextError>() {
        Ok(error) => *error,
        Err(source) => TextError::Tokenizer { source },
    }
}
