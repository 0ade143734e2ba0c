//! From `tokenizer.*` metadata to a [`VocabularySpec`].

use super::metadata::Metadata;
use crate::weights::{DIMENSION_MAX, TokenKind, VocabularySpec, WeightsError};

/// Reads what the tokenizer is made from.
pub(super) fn read(metadata: &Metadata<'_>) -> Result<VocabularySpec, WeightsError> {
    const MODEL: &str = "tokenizer.ggml.model";
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let model = metadata.text(MODEL)?.ok_or_else(|| metadata.missing(MODEL))?;
    let tokens = metadata.strings(TOKENS)?.ok_or_else(|| metadata.missing(TOKENS))?;
    if tokens.len() == 0 || tokens.len() > DIMENSION_MAX {
        return Err(metadata.wrong(TOKENS, "at least one token, and as many as a model can have"));
    }
    let id = |key: &str| -> Result<Option<u32>, WeightsError> {
        match metadata.unsigned(key)? {
            Some(id) if id >= tokens.len() as u64 => Err(metadata.wrong(key, "the number of a token")),
            id => Ok(id.map(|id| id as u32)),
        }
    };
    Ok(VocabularySpec {
        model: model.to_owned(),
        pre_tokenizer: metadata.text("tokenizer.ggml.pre")?.map(str::to_owned),
        scores: scores(metadata, tokens.len())?,
        kinds: kinds(metadata, tokens.len())?,
        merges: metadata.strings("tokenizer.ggml.merges")?.unwrap_or_default(),
        bos: id("tokenizer.ggml.bos_token_id")?,
        eos: id("tokenizer.ggml.eos_token_id")?,
        end_of_turn: id("tokenizer.ggml.eot_token_id")?,
        end_of_message: id("tokenizer.ggml.eom_token_id")?,
        unknown: id("tokenizer.ggml.unknown_token_id")?,
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token")?,
        add_eos: metadata.bool("tokenizer.ggml.add_eos_token")?,
        add_space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix")?,
        chat_template: metadata.text("tokenizer.chat_template")?.map(str::to_owned),
        tokens,
    })
}

fn scores(metadata: &Metadata<'_>, tokens: usize) -> Result<Vec<f32>, WeightsError> {
    const KEY: &str = "tokenizer.ggml.scores";
    match metadata.floats(KEY)? {
        Some(scores) if scores.len() != tokens || scores.iter().any(|score| score.is_nan()) => {
            Err(metadata.wrong(KEY, "as long as tokenizer.ggml.tokens, of numbers"))
        }
        scores => Ok(scores.unwrap_or_default()),
    }
}

fn kinds(metadata: &Metadata<'_>, tokens: usize) -> Result<Vec<TokenKind>, WeightsError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let Some(numbers) = metadata.integers(KEY)? else {
        return Ok(vec![TokenKind::Normal; tokens]);
    };
    if numbers.len() != tokens {
        return Err(metadata.wrong(KEY, "as long as tokenizer.ggml.tokens"));
    }
    let kinds = numbers.into_iter().map(TokenKind::from_gguf).collect::<Option<Vec<_>>>();
    kinds.ok_or_else(|| metadata.wrong(KEY, "of token types 0 to 6"))
}
