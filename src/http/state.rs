//! What the handlers share: the engine, the tokeniser, the options, and how many answers are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::Request;

use super::ServeOptions;
use super::answer::{Choice, Head, Rules};
use super::body;
use super::error::ApiError;
use super::parse::generation::{Generation, MaxTokens};
use super::sessions::Sessions;
use crate::engine::Engine;
use crate::request::{RequestError, TokenId};
use crate::text::{ChatMessage, ChatRenderer, Tokenizer};

/// The handlers' shared state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: ServeOptions,
    pub(crate) engine: Engine,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Its recordings.
    pub(crate) sessions: Sessions,
    /// In seconds of the Unix clock.
    pub(crate) started: u64,
    template: Option<ChatRenderer>,
    draining: AtomicBool,
    in_flight: Arc<AtomicUsize>,
}

/// An answer under way, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl State {
    pub(super) fn new(
        options: ServeOptions,
        engine: Engine,
        tokenizer: Arc<Tokenizer>,
        template: Option<ChatRenderer>,
    ) -> State {
        State {
            options,
            engine,
            tokenizer,
            template,
            sessions: Sessions::default(),
            started: super::answer::unix_seconds(),
            draining: AtomicBool::new(false),
            in_flight: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Reads a request's body.
    pub(crate) async fn body(&self, request: Request) -> Result<Vec<u8>, ApiError> {
        body::read(request, self.options.body_bytes_max, self.options.body_timeout).await
    }

    /// Counts an answer, or refuses it because the server drains.
    pub(crate) fn admit(&self) -> Result<InFlight, ApiError> {
        if self.draining.load(Ordering::Acquire) {
            return Err(RequestError::ShuttingDown.into());
        }
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Ok(InFlight(self.in_flight.clone()))
    }

    /// From now on nothing is admitted.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Answers under way.
    pub(crate) fn load(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Whether requests are taken and can be answered.
    pub(crate) fn healthy(&self) -> bool {
        self.engine.is_alive() && !self.draining.load(Ordering::Acquire)
    }

    /// The name to answer with: the one asked for, or the first that is served.
    pub(crate) fn model(&self, asked: Option<&str>) -> Result<String, ApiError> {
        let served = &self.options.served_model_names;
        match asked {
            None => Ok(served.first().cloned().unwrap_or_default()),
            Some(name) if served.iter().any(|known| known == name) => Ok(name.to_owned()),
            Some(name) => Err(ApiError::ModelNotFound { model: name.to_owned(), served: served.clone() }),
        }
    }

    /// Token ids below this are in the vocabulary.
    pub(crate) fn vocab(&self) -> usize {
        self.engine.info().model.vocab
    }

    /// A conversation as a prompt. Waits for another process, at most as long as the renderer's deadline.
    pub(crate) fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, ApiError> {
        let template = self.template.as_ref().ok_or(ApiError::NoChatTemplate)?;
        Ok(template.render(messages, add_generation_prompt)?)
    }

    /// A text's tokens. A long text is tokenised off the threads that serve connections.
    pub(crate) async fn encode(&self, text: String, add_special_tokens: bool) -> Result<Vec<TokenId>, ApiError> {
        const INLINE_BYTES_MAX: usize = 16 << 10; // longer texts would hold up the tokens of other streams
        if text.len() <= INLINE_BYTES_MAX {
            return Ok(self.tokenizer.encode(&text, add_special_tokens)?);
        }
        let tokenizer = self.tokenizer.clone();
        Ok(blocking(move || tokenizer.encode(&text, add_special_tokens)).await?)
    }

    /// Hands a prompt to the engine, of the request that its client calls `name`. `default_max_tokens`: as many as fit
    /// if `None`.
    pub(crate) fn submit(
        &self,
        name: &str,
        prompt: Vec<TokenId>,
        generation: &Generation,
        default_max_tokens: Option<u32>,
    ) -> Result<Choice, ApiError> {
        let mut sampling = generation.sampling.clone();
        let prompt_tokens = prompt.len();
        sampling.max_tokens = self.max_tokens(prompt_tokens, generation.max_tokens, default_max_tokens)?;
        let model = &self.engine.info().model;
        let rules = Rules {
            eos: if sampling.ignore_eos { Vec::new() } else { model.eos_tokens.iter().copied().map(TokenId).collect() },
            stop_token_ids: sampling.stop_token_ids.clone(),
            stop: generation.stop.clone(),
            max_tokens: sampling.max_tokens,
        };
        let stream = self.engine.submit_named(name.to_owned(), prompt, sampling)?;
        Ok(Choice::new(stream, self.tokenizer.clone(), prompt_tokens, rules))
    }

    /// A limit that the client gave and that does not fit is refused, as vLLM does; a default is made to fit.
    fn max_tokens(&self, prompt: usize, given: Option<MaxTokens>, default: Option<u32>) -> Result<u32, ApiError> {
        let limit = self.engine.info().limits.max_model_len;
        if prompt >= limit {
            return Err(RequestError::PromptTooLong { tokens: prompt, limit }.into());
        }
        let room = limit - prompt;
        match given {
            Some(MaxTokens { name, value }) if value as usize > room => Err(ApiError::Invalid {
                param: name.to_owned(),
                expected: format!("at most {room}, which a prompt of {prompt} tokens leaves of {limit}").into(),
                given: value.to_string(),
            }),
            Some(MaxTokens { value, .. }) => Ok(value),
            None => Ok(default.map_or(room, |default| room.min(default as usize)) as u32),
        }
    }

    /// The head of an answer to the request of this id.
    pub(crate) fn head(&self, kind: &str, request_id: &str, model: String) -> Head {
        Head::new(format!("{kind}-{request_id}"), model)
    }
}

/// Runs something that takes long on a thread of its own. Its panic is ours.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()), // it cannot be cancelled: nobody has its handle
    }
}
