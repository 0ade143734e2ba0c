//! What every request that generates can ask for: sampling, stop strings, the way of delivery.

use serde_json::value::RawValue;

use super::fields::{Fields, invalid};
use crate::http::error::ApiError;
use crate::request::{SamplingDefaults, SamplingParameter, SamplingParams, TokenId};

/// What a body is read against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model<'a> {
    /// Token ids below this are in the vocabulary.
    pub(crate) vocab: usize,
    /// What parameters are that a body does not give.
    pub(crate) sampling: &'a SamplingDefaults,
}

/// The part of a generating request that both endpoints share.
#[derive(Debug)]
pub(crate) struct Generation {
    /// The model asked for; any if absent.
    pub(crate) model: Option<String>,
    /// How to draw. `max_tokens` is settled when the prompt's length is known, `logprobs` by the endpoint.
    pub(crate) sampling: SamplingParams,
    /// The limit that the client gave.
    pub(crate) max_tokens: Option<MaxTokens>,
    /// Texts that end the answer.
    pub(crate) stop: Vec<String>,
    /// How the answer is sent.
    pub(crate) delivery: Delivery,
    /// Whether the tokeniser adds its special tokens; the endpoint knows the default.
    pub(crate) add_special_tokens: Option<bool>,
}

/// A limit to the answer's length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaxTokens {
    /// The parameter that gave it.
    pub(crate) name: &'static str,
    /// Tokens.
    pub(crate) value: u32,
}

/// How an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// In one piece.
    Whole,
    /// A chunk per token, with counts where the client wants them.
    Stream(UsageChunks),
}

/// Which chunks of a stream carry token counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageChunks {
    /// None.
    Never,
    /// One more at the end.
    AtEnd,
    /// Every one, and one more at the end.
    Always,
}

/// The most stop strings of a request.
const STOP_STRINGS_MAX: usize = 16;
/// The most bytes of a stop string: that much text is held back.
const STOP_STRING_BYTES_MAX: usize = 1024;
/// The most stop tokens of a request.
const STOP_TOKENS_MAX: usize = 256;

impl Generation {
    /// Takes the shared fields. `limits` are the names of the length limit, the preferred one first.
    pub(super) fn take(
        fields: &mut Fields<'_>,
        limits: &[&'static str],
        model: Model<'_>,
    ) -> Result<Generation, ApiError> {
        let (vocab, defaults) = (model.vocab, model.sampling);
        let max_tokens = max_tokens(fields, limits)?;
        let sampling = SamplingParams {
            temperature: number(fields, SamplingParameter::Temperature)?.unwrap_or(defaults.temperature),
            top_p: number(fields, SamplingParameter::TopP)?.unwrap_or(defaults.top_p),
            top_k: fields.whole("top_k", -1..=i64::from(u32::MAX))?.map_or(defaults.top_k, |k| k.max(0) as u32),
            seed: seed(fields)?,
            stop_token_ids: stop_token_ids(fields, vocab)?,
            ignore_eos: fields.flag("ignore_eos")?,
            ..SamplingParams::default()
        };
        let generation = Generation {
            model: fields.text("model")?,
            sampling,
            max_tokens,
            stop: stop_strings(fields)?,
            delivery: delivery(fields)?,
            add_special_tokens: fields.get("add_special_tokens", "true or false")?,
        };
        generation.check_min_tokens(fields)?;
        Ok(generation)
    }

    /// `min_tokens` holds back the end of sequence, which cannot be done here. Benchmark clients send it along with
    /// `ignore_eos`, where it asks for nothing: the answer has `max_tokens` tokens anyway.
    fn check_min_tokens(&self, fields: &mut Fields<'_>) -> Result<(), ApiError> {
        let Some(raw) = fields.take("min_tokens") else { return Ok(()) };
        let min_tokens: u32 =
            serde_json::from_str(raw.get()).map_err(|_| invalid("min_tokens", "a whole number, 0 or more", raw))?;
        let endless = self.sampling.ignore_eos && self.stop.is_empty() && self.sampling.stop_token_ids.is_empty();
        if min_tokens == 0 || endless && self.max_tokens.is_some_and(|max| min_tokens <= max.value) {
            return Ok(());
        }
        Err(ApiError::Unsupported {
            param: "min_tokens".into(),
            given: min_tokens.to_string(),
            accepted: "0 (or, with ignore_eos and without stop, up to max_tokens)".into(),
        })
    }
}

/// A number that the engine takes for this parameter.
fn number(fields: &mut Fields<'_>, parameter: SamplingParameter) -> Result<Option<f32>, ApiError> {
    fields.number(parameter.name(), parameter.expected(), |value| parameter.check(value.into()).is_ok())
}

/// A whole number that the engine takes for this parameter, which the endpoint calls `name`.
pub(super) fn whole(
    fields: &mut Fields<'_>,
    name: &str,
    parameter: SamplingParameter,
) -> Result<Option<u32>, ApiError> {
    let Some(raw) = fields.take(name) else { return Ok(None) };
    match serde_json::from_str::<u32>(raw.get()) {
        Ok(value) if parameter.check(value.into()).is_ok() => Ok(Some(value)),
        _ => Err(invalid(&fields.path(name), parameter.expected(), raw)),
    }
}

fn max_tokens(fields: &mut Fields<'_>, names: &[&'static str]) -> Result<Option<MaxTokens>, ApiError> {
    let mut chosen: Option<MaxTokens> = None;
    for &name in names {
        let Some(value) = whole(fields, name, SamplingParameter::MaxTokens)? else { continue };
        match &chosen {
            Some(first) if first.value != value => {
                return Err(ApiError::Needs { param: name, needs: "the same value under its other name" });
            }
            Some(_) => {}
            None => chosen = Some(MaxTokens { name, value }),
        }
    }
    Ok(chosen)
}

/// vLLM's −1 is no seed; other negative seeds keep their bits.
fn seed(fields: &mut Fields<'_>) -> Result<Option<u64>, ApiError> {
    let Some(raw) = fields.take("seed") else { return Ok(None) };
    match (serde_json::from_str::<i64>(raw.get()), serde_json::from_str::<u64>(raw.get())) {
        (Ok(-1), _) => Ok(None),
        (Ok(signed), _) => Ok(Some(signed as u64)),
        (_, Ok(unsigned)) => Ok(Some(unsigned)),
        _ => Err(invalid("seed", "a whole number of 64 bits", raw)),
    }
}

fn stop_token_ids(fields: &mut Fields<'_>, vocab: usize) -> Result<Vec<TokenId>, ApiError> {
    let Some(raw) = fields.take("stop_token_ids") else { return Ok(Vec::new()) };
    match serde_json::from_str::<Vec<u32>>(raw.get()) {
        Ok(ids) if ids.len() <= STOP_TOKENS_MAX && ids.iter().all(|&id| (id as usize) < vocab) => {
            Ok(ids.into_iter().map(TokenId).collect())
        }
        _ => {
            let expected = format!("a list of at most {STOP_TOKENS_MAX} token ids below {vocab}");
            Err(invalid("stop_token_ids", expected, raw))
        }
    }
}

fn stop_strings(fields: &mut Fields<'_>) -> Result<Vec<String>, ApiError> {
    let Some(raw) = fields.take("stop") else { return Ok(Vec::new()) };
    let strings = match raw.get().starts_with('"') {
        true => serde_json::from_str(raw.get()).map(|one: String| vec![one]),
        false => serde_json::from_str::<Vec<String>>(raw.get()),
    };
    match strings {
        Ok(strings)
            if strings.len() <= STOP_STRINGS_MAX
                && strings.iter().all(|stop| (1..=STOP_STRING_BYTES_MAX).contains(&stop.len())) =>
        {
            Ok(strings)
        }
        _ => {
            let expected = format!(
                "a string or a list of at most {STOP_STRINGS_MAX} strings, each of 1 to {STOP_STRING_BYTES_MAX} bytes"
            );
            Err(invalid("stop", expected, raw))
        }
    }
}

fn delivery(fields: &mut Fields<'_>) -> Result<Delivery, ApiError> {
    let stream = fields.flag("stream")?;
    let options: Option<&RawValue> = fields.take("stream_options");
    let usage = match options {
        None => UsageChunks::Never,
        Some(_) if !stream => {
            return Err(ApiError::Needs { param: "stream_options", needs: "stream to be true" });
        }
        Some(raw) => {
            let mut options = Fields::of(raw, "stream_options")?;
            let (at_end, always) = (options.flag("include_usage")?, options.flag("continuous_usage_stats")?);
            options.finish(&[])?;
            match (at_end, always) {
                (false, false) => UsageChunks::Never,
                (false, true) => {
                    let param = "stream_options.continuous_usage_stats";
                    return Err(ApiError::Needs { param, needs: "stream_options.include_usage to be true" });
                }
                (true, false) => UsageChunks::AtEnd,
                (true, true) => UsageChunks::Always,
            }
        }
    };
    Ok(if stream { Delivery::Stream(usage) } else { Delivery::Whole })
}
