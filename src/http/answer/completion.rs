//! The words of /v1/completions.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Complete, Finish, Generated, Head, Scored, StopReason, Usage, Wording, finite, to_json};
use crate::request::TokenId;
use crate::text::Tokenizer;

/// Words completions.
#[derive(Debug)]
pub(crate) struct CompletionWording {
    /// Spells tokens in log probabilities.
    pub(crate) tokenizer: Arc<Tokenizer>,
}

impl Wording for CompletionWording {
    fn whole(&self, head: &Head, choices: &[Complete], usage: Usage) -> Vec<u8> {
        let choices = choices.iter().enumerate().map(|(index, complete)| {
            let finish = complete.finish.as_ref();
            self.choice(index, &complete.text, &complete.scored, finish)
        });
        envelope(head, choices.collect(), Some(usage))
    }

    fn chunk(&self, head: &Head, index: usize, generated: &Generated, usage: Option<Usage>) -> Vec<u8> {
        let finish = generated.finish.as_ref();
        envelope(head, vec![self.choice(index, &generated.text, generated.scored.as_slice(), finish)], usage)
    }

    fn usage(&self, head: &Head, usage: Usage) -> Vec<u8> {
        envelope(head, Vec::new(), Some(usage))
    }
}

impl CompletionWording {
    fn choice<'a>(
        &self,
        index: usize,
        text: &'a str,
        scored: &[Scored],
        finish: Option<&'a Finish>,
    ) -> CompletionChoice<'a> {
        CompletionChoice {
            index,
            text,
            logprobs: (!scored.is_empty()).then(|| self.logprobs(scored)),
            finish_reason: Finish::reason_of(finish),
            stop_reason: Finish::stop_of(finish),
        }
    }

    fn logprobs(&self, scored: &[Scored]) -> CompletionLogprobs {
        let mut all = CompletionLogprobs::default();
        for Scored { token, text_offset, logprobs } in scored {
            let text = self.spelled(*token);
            let mut top = TopLogprobs::default();
            top.add(text.clone(), logprobs.chosen);
            for &(alternative, logprob) in &logprobs.top {
                top.add(self.spelled(alternative), logprob);
            }
            all.text_offset.push(*text_offset);
            all.token_logprobs.push(finite(logprobs.chosen));
            all.tokens.push(text);
            all.top_logprobs.push(top);
        }
        all
    }

    /// A token's text; bytes that are only a part of a character are spelled as the OpenAI API spells them, so that two
    /// tokens are two names.
    fn spelled(&self, token: TokenId) -> String {
        let bytes = self.tokenizer.token_bytes(token);
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().fold("bytes:".to_owned(), |text, byte| text + &format!("\\x{byte:02x}")),
        }
    }
}

fn envelope(head: &Head, choices: Vec<CompletionChoice<'_>>, usage: Option<Usage>) -> Vec<u8> {
    let Head { id, created, model } = head;
    to_json(&Envelope { id, object: "text_completion", created: *created, model, choices, usage })
}

#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<CompletionChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct CompletionChoice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<&'a StopReason>,
}

/// Four lists of the same length, one entry per token.
#[derive(Default, Serialize)]
struct CompletionLogprobs {
    text_offset: Vec<usize>,
    token_logprobs: Vec<f32>,
    tokens: Vec<String>,
    top_logprobs: Vec<TopLogprobs>,
}

/// Alternatives by their texts. Of two with the same text the first counts: the drawn token, then the likelier one.
#[derive(Default)]
struct TopLogprobs(Vec<(String, f32)>);

impl TopLogprobs {
    fn add(&mut self, text: String, logprob: f32) {
        if self.0.iter().all(|(earlier, _)| *earlier != text) {
            self.0.push((text, finite(logprob)));
        }
    }
}

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}
