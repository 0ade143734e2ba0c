//! The body of POST /v1/completions.

use serde_json::value::RawValue;

use super::fields::{Fields, invalid};
use super::generation::{Generation, Model, whole};
use super::neutral;
use crate::http::error::ApiError;
use crate::request::{SamplingParameter, TokenId};

/// What is to be completed, and how.
#[derive(Debug)]
pub(crate) struct CompletionRequest {
    /// One answer each.
    pub(crate) prompts: Vec<Prompt>,
    /// Sampling and delivery.
    pub(crate) generation: Generation,
}

/// A text, or its tokens.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// To be tokenised.
    Text(String),
    /// As it is.
    Tokens(Vec<TokenId>),
}

/// The most prompts of a request.
const PROMPTS_MAX: usize = 1024;

impl CompletionRequest {
    /// Parses a body.
    pub(crate) fn parse(body: &[u8], model: Model<'_>) -> Result<CompletionRequest, ApiError> {
        let mut fields = Fields::parse(body)?;
        let prompts = prompts(fields.take("prompt").ok_or(ApiError::Missing { param: "prompt" })?)?;
        let mut generation = Generation::take(&mut fields, &["max_tokens"], model)?;
        generation.sampling.logprobs = whole(&mut fields, "logprobs", SamplingParameter::Logprobs)?;
        fields.finish(&[neutral::GENERATION, neutral::COMPLETION])?;
        Ok(CompletionRequest { prompts, generation })
    }
}

/// A string, a list of strings, a list of token ids, or a list of lists of token ids: the first characters tell.
fn prompts(raw: &RawValue) -> Result<Vec<Prompt>, ApiError> {
    let text = raw.get();
    let prompts = match text.strip_prefix('[').map(|inside| inside.trim_start().chars().next()) {
        None => serde_json::from_str(text).map(|one| vec![Prompt::Text(one)]),
        Some(Some('"')) => {
            serde_json::from_str::<Vec<String>>(text).map(|all| all.into_iter().map(Prompt::Text).collect())
        }
        Some(Some('[')) => {
            serde_json::from_str::<Vec<Vec<u32>>>(text).map(|all| all.into_iter().map(Prompt::tokens).collect())
        }
        Some(_) => serde_json::from_str::<Vec<u32>>(text).map(|one| vec![Prompt::tokens(one)]),
    };
    match prompts {
        Ok(prompts) if prompts.len() <= PROMPTS_MAX => Ok(prompts),
        _ => {
            let expected = format!(
                "a string, a list of token ids (whole numbers), or a list of at most {PROMPTS_MAX} of either kind"
            );
            Err(invalid("prompt", expected, raw))
        }
    }
}

impl Prompt {
    fn tokens(ids: Vec<u32>) -> Prompt {
        Prompt::Tokens(ids.into_iter().map(TokenId).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_has_four_forms() {
        let parse = |text: &str| prompts(&RawValue::from_string(text.to_owned()).unwrap()).ok();
        let text = |words: &str| Prompt::Text(words.to_owned());
        assert_eq!(parse(r#""a b""#), Some(vec![text("a b")]));
        assert_eq!(parse(r#"[ "a", "b" ]"#), Some(vec![text("a"), text("b")]));
        assert_eq!(parse("[1, 2]"), Some(vec![Prompt::tokens(vec![1, 2])]));
        assert_eq!(parse("[ [1], [2, 3]]"), Some(vec![Prompt::tokens(vec![1]), Prompt::tokens(vec![2, 3])]));
        assert_eq!(parse("[]"), Some(vec![Prompt::Tokens(Vec::new())]));
        for wrong in
            ["1", "{}", "true", "[1, \"a\"]", "[\"a\", 1]", "[-1]", "[1.5]", "[[1], 2]", "[[[1]]]", "[4294967296]"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
