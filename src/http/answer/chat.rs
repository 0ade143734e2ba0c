//! The words of /v1/chat/completions.

use std::sync::Arc;

use serde::Serialize;

use super::{Complete, Finish, Generated, Head, Scored, StopReason, Usage, Wording, finite, to_json};
use crate::request::TokenId;
use crate::text::Tokenizer;

/// Words chat answers.
#[derive(Debug)]
pub(crate) struct ChatWording {
    /// Spells tokens in log probabilities.
    pub(crate) tokenizer: Arc<Tokenizer>,
}

impl Wording for ChatWording {
    fn whole(&self, head: &Head, choices: &[Complete], usage: Usage) -> Vec<u8> {
        let choices = choices.iter().enumerate().map(|(index, complete)| {
            let message = Said { role: Some("assistant"), content: &complete.text };
            let said = Message::Message(message);
            self.choice(index, said, &complete.scored, complete.finish.as_ref())
        });
        envelope(head, "chat.completion", choices.collect(), Some(usage))
    }

    /// The role comes with the first token: a chunk of its own would be taken for a token.
    fn chunk(&self, head: &Head, index: usize, generated: &Generated, usage: Option<Usage>) -> Vec<u8> {
        let delta = Said { role: generated.first.then_some("assistant"), content: &generated.text };
        let said = Message::Delta(delta);
        let choice = self.choice(index, said, generated.scored.as_slice(), generated.finish.as_ref());
        envelope(head, "chat.completion.chunk", vec![choice], usage)
    }

    fn usage(&self, head: &Head, usage: Usage) -> Vec<u8> {
        envelope(head, "chat.completion.chunk", Vec::new(), Some(usage))
    }
}

impl ChatWording {
    fn choice<'a>(
        &self,
        index: usize,
        said: Message<'a>,
        scored: &[Scored],
        finish: Option<&'a Finish>,
    ) -> ChatChoice<'a> {
        ChatChoice {
            index,
            said,
            logprobs: (!scored.is_empty())
                .then(|| ChatLogprobs { content: scored.iter().map(|one| self.logprobs(one)).collect() }),
            finish_reason: Finish::reason_of(finish),
            stop_reason: Finish::stop_of(finish),
        }
    }

    fn logprobs(&self, scored: &Scored) -> TokenScore {
        TokenScore {
            drawn: self.spelled(scored.token, scored.logprobs.chosen),
            top_logprobs: scored.logprobs.top.iter().map(|&(token, logprob)| self.spelled(token, logprob)).collect(),
        }
    }

    fn spelled(&self, token: TokenId, logprob: f32) -> Spelled {
        Spelled {
            token: self.tokenizer.token_text(token),
            logprob: finite(logprob),
            bytes: self.tokenizer.token_bytes(token).to_vec(),
        }
    }
}

fn envelope(head: &Head, object: &'static str, choices: Vec<ChatChoice<'_>>, usage: Option<Usage>) -> Vec<u8> {
    let Head { id, created, model } = head;
    to_json(&Envelope { id, object, created: *created, model, choices, usage })
}

#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<ChatChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct ChatChoice<'a> {
    index: usize,
    #[serde(flatten)]
    said: Message<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<&'a StopReason>,
}

/// The field is named for whether the answer is whole.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Message<'a> {
    Message(Said<'a>),
    Delta(Said<'a>),
}

#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    content: &'a str,
}

#[derive(Serialize)]
struct ChatLogprobs {
    content: Vec<TokenScore>,
}

#[derive(Serialize)]
struct TokenScore {
    #[serde(flatten)]
    drawn: Spelled,
    top_logprobs: Vec<Spelled>,
}

#[derive(Serialize)]
struct Spelled {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}
