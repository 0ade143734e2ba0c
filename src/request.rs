//! What a client asks for and what it gets back: the types that cross the engine's boundary.
//!
//! Nothing here knows of HTTP, of a model or of a device.

use thiserror::Error;

/// A token of the model's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct TokenId(pub u32);

/// A request, numbered from 1 in the order of arrival at the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A step of the engine, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u64);

/// How tokens are drawn and when a request ends.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 draws the most likely token (lowest id on a tie).
    pub temperature: f32,
    /// Draw among the k most likely tokens only; 0 is off.
    pub top_k: u32,
    /// Draw among the most likely tokens that together have this probability; 1 is off.
    pub top_p: f32,
    /// Seed of the counter-based generator; `None` takes one from the request's number.
    pub seed: Option<u64>,
    /// The most tokens to generate; at least 1.
    pub max_tokens: u32,
    /// Tokens that end the request besides the model's end-of-sequence tokens.
    pub stop_token_ids: Vec<TokenId>,
    /// Go on past the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Report log probabilities: the sampled token's and those of this many alternatives (at most 20).
    pub logprobs: Option<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            seed: None,
            max_tokens: 16,
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            logprobs: None,
        }
    }
}

impl SamplingParams {
    /// Whether every parameter is in its range.
    pub fn check(&self) -> Result<(), RequestError> {
        SamplingParameter::Temperature.check(self.temperature.into())?;
        SamplingParameter::TopP.check(self.top_p.into())?;
        SamplingParameter::MaxTokens.check(self.max_tokens.into())?;
        self.logprobs.map_or(Ok(()), |alternatives| SamplingParameter::Logprobs.check(alternatives.into()))
    }
}

/// What parameters are for a request that does not give them.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// [`SamplingParams::temperature`].
    pub temperature: f32,
    /// [`SamplingParams::top_k`].
    pub top_k: u32,
    /// [`SamplingParams::top_p`].
    pub top_p: f32,
    /// No answer is longer, whatever its request gives; `None` leaves it to the request.
    pub max_tokens_limit: Option<u32>,
}

impl Default for SamplingDefaults {
    fn default() -> Self {
        let SamplingParams { temperature, top_k, top_p, .. } = SamplingParams::default();
        SamplingDefaults { temperature, top_k, top_p, max_tokens_limit: None }
    }
}

/// The parameters of [`SamplingParams`] that have a range. It is said here and nowhere else: the engine holds every
/// request to it, and HTTP refuses a body by the same check and in the same words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingParameter {
    /// [`SamplingParams::temperature`].
    Temperature,
    /// [`SamplingParams::top_p`].
    TopP,
    /// [`SamplingParams::max_tokens`].
    MaxTokens,
    /// [`SamplingParams::logprobs`].
    Logprobs,
}

/// The most alternatives for which log probabilities are reported.
pub const LOGPROBS_MAX: u32 = 20;

impl SamplingParameter {
    /// Its name in the OpenAI API's completions.
    pub fn name(self) -> &'static str {
        match self {
            SamplingParameter::Temperature => "temperature",
            SamplingParameter::TopP => "top_p",
            SamplingParameter::MaxTokens => "max_tokens",
            SamplingParameter::Logprobs => "logprobs",
        }
    }

    /// Its range, in words that follow "has to be".
    pub fn expected(self) -> &'static str {
        match self {
            SamplingParameter::Temperature => "a number, 0 or more",
            SamplingParameter::TopP => "a number above 0 and up to 1",
            SamplingParameter::MaxTokens => "a whole number from 1 to 4294967295",
            SamplingParameter::Logprobs => "a whole number from 0 to 20",
        }
    }

    /// Whether a value is in its range; not a number is in none.
    pub fn check(self, value: f64) -> Result<(), RequestError> {
        let is_within = match self {
            SamplingParameter::Temperature => value >= 0.0 && value.is_finite(),
            SamplingParameter::TopP => value > 0.0 && value <= 1.0,
            SamplingParameter::MaxTokens => (1.0..=f64::from(u32::MAX)).contains(&value),
            SamplingParameter::Logprobs => (0.0..=f64::from(LOGPROBS_MAX)).contains(&value),
        };
        let wrong = RequestError::InvalidParameter { name: self.name(), value, expected: self.expected() };
        if is_within { Ok(()) } else { Err(wrong) }
    }
}

/// Log probabilities of one generated token, of the logits before temperature and cuts.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The sampled token's log probability.
    pub chosen: f32,
    /// The sampled token's rank among all tokens, from 1.
    pub rank: u32,
    /// The most likely tokens, most likely first.
    pub top: Vec<(TokenId, f32)>,
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// An end-of-sequence token, a stop token or a stop string.
    Stop,
    /// `max_tokens` or the model's length limit.
    Length,
    /// The client left before that.
    Abort,
}

impl FinishReason {
    /// The word that the OpenAI API and vLLM's metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Abort => "abort",
        }
    }
}

/// Why a token is its request's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastToken {
    /// It is one of the model's end-of-sequence tokens. Its text is no part of the answer.
    EndOfSequence,
    /// It is one of the request's stop tokens. Its text is no part of the answer.
    StopToken,
    /// It is the last of `max_tokens`, or the model's length limit is reached. Its text is part of the answer.
    Length,
}

impl LastToken {
    /// Why the request ended.
    pub fn reason(self) -> FinishReason {
        match self {
            LastToken::EndOfSequence | LastToken::StopToken => FinishReason::Stop,
            LastToken::Length => FinishReason::Length,
        }
    }
}

/// What a running request sends to its client, in order. The last one is a token that says why it is, or `Failed`.
#[derive(Clone, Debug)]
pub enum TokenEvent {
    /// One generated token: a stop token, too.
    Token {
        /// The token.
        token: TokenId,
        /// Set if the request asked for log probabilities.
        logprobs: Option<Box<TokenLogprobs>>,
        /// Set on the last token of the request: nothing follows.
        last: Option<LastToken>,
    },
    /// The engine could not go on. Nothing follows.
    Failed(RequestError),
}

/// Why a request was refused or ended early.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum RequestError {
    /// The prompt has no token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt leaves no room for a single generated token.
    #[error("the prompt has {tokens} tokens, and the limit for prompt and answer together is {limit}")]
    PromptTooLong {
        /// The prompt's length in tokens.
        tokens: usize,
        /// `max_model_len`.
        limit: usize,
    },
    /// A token id that the vocabulary does not have.
    #[error("token id {token} at position {position} of the prompt is outside the vocabulary of {vocab}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Its index in the prompt.
        position: usize,
        /// The vocabulary's size.
        vocab: usize,
    },
    /// A sampling parameter outside its range.
    #[error("{name} is {value}, and has to be {expected}")]
    InvalidParameter {
        /// The parameter.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The range, in words.
        expected: &'static str,
    },
    /// The waiting queue is full.
    #[error("the queue is full: {limit} requests are waiting")]
    QueueFull {
        /// The queue's limit.
        limit: usize,
    },
    /// The server is draining.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The device failed; every running request ends with this.
    #[error("the engine stopped: {reason}")]
    EngineStopped {
        /// The device's error.
        reason: String,
    },
}
