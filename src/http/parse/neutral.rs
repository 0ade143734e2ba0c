//! Parameters of the OpenAI API and of vLLM that this server lacks, and the values at which they ask for nothing.
//!
//! Clients send them at their defaults. Any other value would have to change the answer, so it is refused.

use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::excerpt;
use crate::http::error::ApiError;

/// A parameter without an effect here.
#[derive(Debug)]
pub(crate) struct Neutral {
    /// Its name.
    pub(crate) name: &'static str,
    accepted: Accepted,
}

#[derive(Debug)]
enum Accepted {
    /// `null`, and these values as JSON.
    Values(&'static [&'static str]),
    /// Any text: it only says who asks.
    Text,
}

impl Neutral {
    /// Refuses a value that would have an effect.
    pub(super) fn check(&self, path: &str, raw: &RawValue) -> Result<(), ApiError> {
        let accepted = match self.accepted {
            Accepted::Values(values) => values,
            Accepted::Text if raw.get() == "null" || raw.get().starts_with('"') => return Ok(()),
            Accepted::Text => return Err(super::fields::invalid(path, "a string", raw)),
        };
        if raw.get() == "null" || accepted.iter().any(|neutral| same(raw.get(), neutral)) {
            return Ok(());
        }
        let words = std::iter::once("null").chain(accepted.iter().copied()).collect::<Vec<_>>().join(" or ");
        Err(ApiError::Unsupported { param: path.to_owned(), given: excerpt(raw.get()), accepted: words })
    }
}

/// Whether two JSON texts say the same: `1` is `1.0`, and white space is nothing.
fn same(given: &str, neutral: &str) -> bool {
    const BYTES_MAX: usize = 256; // longer than every neutral value with its white space
    if given.len() > BYTES_MAX {
        return false;
    }
    let (Ok(given), Ok(neutral)) = (serde_json::from_str::<Value>(given), serde_json::from_str::<Value>(neutral))
    else {
        return false;
    };
    match (given.as_f64(), neutral.as_f64()) {
        (Some(given), Some(neutral)) => given == neutral,
        _ => given == neutral,
    }
}

const fn at(name: &'static str, values: &'static [&'static str]) -> Neutral {
    Neutral { name, accepted: Accepted::Values(values) }
}

const fn text(name: &'static str) -> Neutral {
    Neutral { name, accepted: Accepted::Text }
}

/// Of every request that generates.
pub(crate) const GENERATION: &[Neutral] = &[
    text("user"),
    text("safety_identifier"),
    text("prompt_cache_key"),
    at("allowed_token_ids", &[]),
    at("bad_words", &["[]"]),
    at("cache_salt", &[]),
    at("detokenize", &["true"]),
    at("echo", &["false"]),
    at("frequency_penalty", &["0"]),
    at("guided_choice", &[]),
    at("guided_decoding_backend", &[]),
    at("guided_grammar", &[]),
    at("guided_json", &[]),
    at("guided_regex", &[]),
    at("guided_whitespace_pattern", &[]),
    at("include_stop_str_in_output", &["false"]),
    at("kv_transfer_params", &[]),
    at("length_penalty", &["1"]),
    at("logit_bias", &["{}"]),
    at("logits_processors", &["[]"]),
    at("min_p", &["0"]),
    at("n", &["1"]),
    at("presence_penalty", &["0"]),
    at("priority", &["0"]),
    at("prompt_logprobs", &[]),
    at("repetition_penalty", &["1"]),
    at("request_id", &[]),
    at("response_format", &[r#"{"type":"text"}"#]),
    at("return_token_ids", &["false"]),
    at("return_tokens_as_token_ids", &["false"]),
    at("service_tier", &[r#""auto""#, r#""default""#]),
    at("skip_special_tokens", &["true"]),
    at("spaces_between_special_tokens", &["true"]),
    at("structural_tag", &[]),
    at("structured_outputs", &[]),
    at("truncate_prompt_tokens", &[]),
    at("use_beam_search", &["false"]),
    at("vllm_xargs", &["{}"]),
];

/// Of /v1/completions alone.
pub(crate) const COMPLETION: &[Neutral] = &[at("best_of", &["1"]), at("prompt_embeds", &[]), at("suffix", &[r#""""#])];

/// Of /v1/chat/completions alone.
pub(crate) const CHAT: &[Neutral] = &[
    at("audio", &[]),
    at("chat_template", &[]),
    at("chat_template_kwargs", &["{}"]),
    at("continue_final_message", &["false"]),
    at("documents", &["[]"]),
    at("function_call", &[r#""none""#, r#""auto""#]),
    at("functions", &["[]"]),
    at("include_reasoning", &["true"]),
    at("media_io_kwargs", &["{}"]),
    at("metadata", &["{}"]),
    at("mm_processor_kwargs", &["{}"]),
    at("modalities", &[r#"["text"]"#]),
    at("parallel_tool_calls", &["true", "false"]),
    at("prediction", &[]),
    at("reasoning_effort", &[r#""none""#]),
    at("store", &["false"]),
    at("thinking_token_budget", &[]),
    at("tool_choice", &[r#""none""#, r#""auto""#]),
    at("tools", &["[]"]),
    at("verbosity", &[]),
    at("web_search_options", &[]),
];

/// Of a chat message.
pub(crate) const MESSAGE: &[Neutral] = &[
    at("annotations", &["[]"]),
    at("audio", &[]),
    at("function_call", &[]),
    at("name", &[]),
    at("reasoning", &[]),
    at("reasoning_content", &[]),
    at("refusal", &[]),
    at("tool_call_id", &[]),
    at("tool_calls", &["[]"]),
];

/// Of /tokenize and /detokenize.
pub(crate) const TOKENIZE: &[Neutral] = &[
    at("chat_template", &[]),
    at("chat_template_kwargs", &["{}"]),
    at("continue_final_message", &["false"]),
    at("mm_processor_kwargs", &["{}"]),
    at("tools", &["[]"]),
];

/// Of /start_profile.
pub(crate) const PROFILE: &[Neutral] = &[
    at("activities", &["[]", r#"["CPU","GPU"]"#, r#"["GPU","CPU"]"#]),
    at("merge_profiles", &["false"]),
    at("output_dir", &[]),
    at("record_shapes", &["true", "false"]), // they are always there
    at("with_stack", &["false"]),
];
