//! What the handlers share: the engine, the tokeniser, the options, threads for long work, and how many answers are
//! under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::Request;
use axum::response::Response;

use super::access::KnownHosts;
use super::answer::{Choice, Head, json, json_with};
use super::body::{self, Body, SHORT_BYTES_MAX};
use super::budget::Budget;
use super::connections::{Peer, SPARE_BODY_TIMEOUT};
use super::error::ApiError;
use super::lanes::{Abandoned, Lane, Lanes};
use super::parse::generation::{Generation, MaxTokens, Model};
use super::sessions::Sessions;
use super::{ProfileOptions, ServeOptions};
use crate::engine::Engine;
use crate::request::{RequestError, TokenId};
use crate::text::{ChatMessage, ChatRenderer, TextError, Tokenizer};

/// Answers up to this length are not counted: a connection takes as much at once.
const SHORT_ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bodies up to this length take milliseconds to parse and to tokenise.
const QUICK_BYTES_MAX: usize = 128 << 10;

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
    pub(crate) lanes: Lanes,
    /// For bodies and long answers.
    budget: Arc<Budget>,
    pub(crate) known_hosts: KnownHosts,
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
    ) -> std::io::Result<State> {
        Ok(State {
            lanes: Lanes::start()?,
            budget: Arc::new(Budget::new(options.bodies_bytes_max)),
            known_hosts: KnownHosts::new(&options.host, &options.allowed_hosts),
            options,
            engine,
            tokenizer,
            template,
            sessions: Sessions::default(),
            started: super::answer::unix_seconds(),
            draining: AtomicBool::new(false),
            in_flight: Arc::new(AtomicUsize::new(0)),
        })
    }

    /// Reads a request's body.
    pub(crate) async fn body(&self, request: Request) -> Result<Body, ApiError> {
        let is_spare = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_spare);
        let timeout = if is_spare { SPARE_BODY_TIMEOUT } else { self.options.body_timeout };
        body::read(request, self.options.body_bytes_max, timeout, self.budget.reserve()).await
    }

    /// What is to be done with a body before the engine has its request: here if it is short, else beside the threads
    /// that serve connections, where it would hold up the tokens of other streams.
    pub(crate) async fn prepare<T: Send + 'static>(
        self: &Arc<Self>,
        body: Body,
        work: impl FnOnce(&State, &[u8], &Abandoned) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        match body.bytes.len() {
            ..=SHORT_BYTES_MAX => work(self, &body.bytes, &Abandoned::default()),
            _ => self.prepare_beside(Lane::Short, body, work).await,
        }
    }

    /// The same, beside those threads in any case: on a lane of its own for work that a model's template does.
    pub(crate) async fn prepare_beside<T: Send + 'static>(
        self: &Arc<Self>,
        lane: Lane,
        body: Body,
        work: impl FnOnce(&State, &[u8], &Abandoned) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let lane = if body.bytes.len() <= QUICK_BYTES_MAX { lane } else { Lane::Long };
        let state = self.clone();
        let bytes = body.bytes.len();
        self.lanes.run_sized(lane, bytes, move |abandoned| work(&state, &body.bytes, abandoned)).await?
    }

    /// A JSON response that has its share of what all bodies may have, until it has been sent.
    pub(crate) fn counted(&self, body: Vec<u8>) -> Result<Response, ApiError> {
        if body.len() <= SHORT_ANSWER_BYTES_MAX {
            return Ok(json(body));
        }
        let mut reserved = self.budget.reserve();
        reserved.grow_to(body.len())?;
        Ok(json_with(body, reserved))
    }

    /// How to record, if this server does.
    pub(crate) fn profile(&self) -> Result<&ProfileOptions, ApiError> {
        self.options.profile.as_ref().ok_or(ApiError::ProfileOff)
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

    /// What a body that generates is read against.
    pub(crate) fn read_against(&self) -> Model<'_> {
        Model { vocab: self.vocab(), sampling: &self.options.sampling }
    }

    /// A conversation as a prompt. Waits for another process, at most as long as the renderer's deadline, or until the
    /// client leaves.
    pub(crate) fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
        abandoned: &Abandoned,
    ) -> Result<String, ApiError> {
        let template = self.template.as_ref().ok_or(ApiError::NoChatTemplate)?;
        Ok(template.render_while(messages, add_generation_prompt, &|| !abandoned.is_set())?)
    }

    /// A prompt's tokens. One that is too long for the model is refused unread if its bytes tell, or else as soon as it
    /// is known to be far too long. How long a short one is, is counted.
    pub(crate) fn encode_prompt(
        &self,
        text: &str,
        add_special_tokens: bool,
        abandoned: &Abandoned,
    ) -> Result<Vec<TokenId>, ApiError> {
        let limit = self.engine.info().limits.max_model_len;
        let tokens = self.tokenizer.tokens_min(text);
        if tokens > limit && text.len() > SHORT_BYTES_MAX {
            return Err(ApiError::PromptTooLong { tokens, limit });
        }
        match self.encode(text, add_special_tokens, limit.saturating_mul(2).max(SHORT_BYTES_MAX), abandoned) {
            Err(ApiError::Text(TextError::TooManyTokens { limit: tokens })) => {
                Err(ApiError::PromptTooLong { tokens, limit })
            }
            encoded => encoded,
        }
    }

    /// A text's tokens, unless they are too many or the client leaves.
    pub(crate) fn encode(
        &self,
        text: &str,
        add_special_tokens: bool,
        tokens_max: usize,
        abandoned: &Abandoned,
    ) -> Result<Vec<TokenId>, ApiError> {
        let check = |tokens: usize| match () {
            () if abandoned.is_set() => Err(TextError::Abandoned),
            () if tokens > tokens_max => Err(TextError::TooManyTokens { limit: tokens_max }),
            () => Ok(()),
        };
        Ok(self.tokenizer.encode_while(text, add_special_tokens, &check)?)
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
        let stream = self.engine.submit_named(name.to_owned(), prompt, sampling)?;
        Ok(Choice::new(stream, self.tokenizer.clone(), prompt_tokens, generation.stop.clone()))
    }

    /// A limit that the client gave and that does not fit is refused, as vLLM does; a default is made to fit. The
    /// server's own limit is kept without a word, as vLLM keeps `max_new_tokens` of a generation_config.json.
    fn max_tokens(&self, prompt: usize, given: Option<MaxTokens>, default: Option<u32>) -> Result<u32, ApiError> {
        let limit = self.engine.info().limits.max_model_len;
        if prompt >= limit {
            return Err(RequestError::PromptTooLong { tokens: prompt, limit }.into());
        }
        let room = limit - prompt;
        let most = self.options.sampling.max_tokens_limit.unwrap_or(u32::MAX);
        match given {
            Some(MaxTokens { name, value }) if value as usize > room => Err(ApiError::Invalid {
                param: name.to_owned(),
                expected: format!("at most {room}, which a prompt of {prompt} tokens leaves of {limit}").into(),
                given: value.to_string(),
            }),
            Some(MaxTokens { value, .. }) => Ok(most.min(value)),
            None => Ok(most.min(default.map_or(room, |default| room.min(default as usize)) as u32)),
        }
    }

    /// The head of an answer to the request of this id.
    pub(crate) fn head(&self, kind: &str, request_id: &str, model: String) -> Head {
        Head::new(format!("{kind}-{request_id}"), model)
    }
}
