//! What a client is told when its request is refused, in the words of the OpenAI API.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use thiserror::Error;

use super::places::Throttle;
use crate::engine::ProfileError;
use crate::request::RequestError;
use crate::text::{TemplateError, TextError};
use crate::trace::session::RecordError;

/// Why a request was refused or ended early.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    #[error("the body is not a JSON object: {0}")]
    InvalidJson(serde_json::Error),
    #[error("{param} is required")]
    Missing { param: &'static str },
    #[error("{param} has to be {expected}, and is {given}")]
    Invalid { param: String, expected: Cow<'static, str>, given: String },
    #[error("{param} is not supported: {given} was given, and only {accepted} is accepted")]
    Unsupported { param: String, given: String, accepted: String },
    #[error("{param} is not a parameter of this request")]
    Unknown { param: String },
    #[error("{param} needs {needs}")]
    Needs { param: &'static str, needs: &'static str },
    #[error("the model {model:?} does not exist; this server has {served:?}")]
    ModelNotFound { model: String, served: Vec<String> },
    #[error("this model has no chat template; use /v1/completions")]
    NoChatTemplate,
    #[error("{0}")]
    Text(#[from] TextError),
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error("the body has more than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("all bodies together have {limit} bytes, as many as they may (--max-bodies-bytes): try again")]
    BodiesFull { limit: usize },
    #[error("the answer has {bytes} bytes, and all bodies together may have {limit} (--max-bodies-bytes)")]
    AnswerTooLarge { bytes: usize, limit: usize },
    #[error("more requests wait to be read than there is room for: try again")]
    LaneFull,
    #[error("the prompt has at least {tokens} tokens, and the limit for prompt and answer together is {limit}")]
    PromptTooLong { tokens: usize, limit: usize },
    #[error("the body did not arrive within {seconds} s")]
    BodyTimeout { seconds: u64 },
    #[error("the body could not be read: {0}")]
    BodyRead(axum::Error),
    #[error("too many connections: this one is answered on /health, /metrics and the profile routes only")]
    ConnectionsFull,
    #[error("the expectation {value:?} cannot be met: only \"100-continue\" is known")]
    Expectation { value: String },
    #[error("the transfer coding {value:?} is not undone here: only \"chunked\" is")]
    TransferCoding { value: String },
    #[error("the path cannot be read: {reason}")]
    Path { reason: String },
    #[error("{header} {value:?} is none of this server's names: `vitrum serve --allowed-host NAME` adds one")]
    Foreign { header: HeaderName, value: String },
    #[error(
        "this server does not record: `vitrum serve --profile-dir DIR` (or VITRUM_PROFILE_DIR) starts one that does"
    )]
    ProfileOff,
    #[error(
        "{} has {held} {what}, and {limit} are its limit ({flag}): move some away, nothing is deleted here",
        dir.display()
    )]
    FolderFull { dir: PathBuf, what: &'static str, held: u64, limit: u64, flag: &'static str },
    #[error("the answer was lost")]
    AnswerLost,
    #[error("there is no {path} here")]
    NoRoute { path: String },
    #[error("{path} does not take {method}")]
    WrongMethod { method: Method, path: String },
    #[error(
        "this server was built without its recorder; `cargo build --release --features profiling` builds one with it"
    )]
    NoRecorder,
    #[error("{0}")]
    Profile(ProfileError),
    #[error(
        "the recording {} holds {received} of {expected} node times, and could not be rendered: {source}; {advice}",
        spool.display()
    )]
    Render { spool: PathBuf, received: u64, expected: u64, source: super::RenderError, advice: String },
    #[error("the server ends before the recording {} is rendered; {advice}", spool.display())]
    RenderCancelled { spool: PathBuf, advice: String },
    #[error("there is no profile {id} here: GET /profile/sessions lists those that there are")]
    NoSession { id: String },
    #[error("{0}")]
    Session(Arc<ApiError>),
    #[error("{first} and {second} say different things")]
    Contradiction { first: &'static str, second: &'static str },
    #[error("the recording {} could not be rendered: a bug; `vitrum profile stats` may read it", spool.display())]
    RenderPanicked { spool: PathBuf },
    #[error("the metrics could not be written: {0}")]
    Metrics(#[from] std::fmt::Error),
}

impl ApiError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            ApiError::InvalidJson(_)
            | ApiError::Missing { .. }
            | ApiError::Invalid { .. }
            | ApiError::Unsupported { .. }
            | ApiError::Unknown { .. }
            | ApiError::Needs { .. }
            | ApiError::Contradiction { .. }
            | ApiError::NoChatTemplate
            | ApiError::PromptTooLong { .. }
            | ApiError::AnswerTooLarge { .. }
            | ApiError::Path { .. }
            | ApiError::BodyRead(_) => StatusCode::BAD_REQUEST,
            ApiError::ModelNotFound { .. } | ApiError::NoRoute { .. } | ApiError::NoSession { .. } => {
                StatusCode::NOT_FOUND
            }
            ApiError::Session(error) => error.status(),
            ApiError::BodiesFull { .. } | ApiError::LaneFull | ApiError::ConnectionsFull => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ApiError::Expectation { .. } => StatusCode::EXPECTATION_FAILED,
            ApiError::TransferCoding { .. } => StatusCode::NOT_IMPLEMENTED,
            ApiError::Foreign { .. } | ApiError::ProfileOff => StatusCode::FORBIDDEN,
            ApiError::FolderFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
            ApiError::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            ApiError::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::Text(error) => text_status(error),
            ApiError::Request(error) => request_status(error),
            ApiError::NoRecorder => StatusCode::NOT_IMPLEMENTED,
            ApiError::Profile(error) => profile_status(error),
            ApiError::Render { .. } | ApiError::RenderPanicked { .. } | ApiError::Metrics(_) | ApiError::AnswerLost => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            ApiError::RenderCancelled { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The parameter at fault.
    fn param(&self) -> Option<&str> {
        match self {
            ApiError::Missing { param } | ApiError::Needs { param, .. } => Some(param),
            ApiError::Invalid { param, .. } | ApiError::Unsupported { param, .. } | ApiError::Unknown { param } => {
                Some(param)
            }
            ApiError::Contradiction { first, .. } => Some(first),
            ApiError::NoSession { .. } => Some("id"),
            ApiError::Session(error) => error.param(),
            ApiError::ModelNotFound { .. } => Some("model"),
            ApiError::Request(
                RequestError::EmptyPrompt | RequestError::PromptTooLong { .. } | RequestError::TokenOutOfRange { .. },
            )
            | ApiError::PromptTooLong { .. } => Some("prompt"),
            ApiError::Request(RequestError::InvalidParameter { name, .. }) => Some(name),
            _ => None,
        }
    }

    /// The session that stands in the way.
    fn session(&self) -> Option<&str> {
        match self {
            ApiError::Profile(ProfileError::Running { id } | ProfileError::Closing { id }) => Some(id),
            ApiError::Profile(ProfileError::Other { running, .. }) => Some(running),
            ApiError::Session(error) => error.session(),
            _ => None,
        }
    }

    /// `{"error": …}`, also sent as an event by a stream that fails.
    pub(crate) fn body(&self) -> Vec<u8> {
        let status = self.status();
        let body = ErrorBody {
            error: ErrorWords {
                message: self.to_string(),
                kind: kind(status),
                param: self.param(),
                code: status.as_u16(),
            },
            id: self.session(),
        };
        serde_json::to_vec(&body).expect("strings and numbers are JSON")
    }
}

impl From<ProfileError> for ApiError {
    fn from(error: ProfileError) -> ApiError {
        match error {
            ProfileError::Record(RecordError::NotCompiledIn) => ApiError::NoRecorder,
            error => ApiError::Profile(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // Strangers can have as many of these as they want.
            if let Some(unsaid) = BUSY.pass() {
                tracing::warn!(status = status.as_u16(), unsaid, "{self}");
            }
        } else if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), "{self}");
        }
        let mut response = (status, [(header::CONTENT_TYPE, "application/json")], self.body()).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

static BUSY: Throttle = Throttle::new();

const RETRY_AFTER_SECONDS: &str = "1";

fn request_status(error: &RequestError) -> StatusCode {
    match error {
        RequestError::EmptyPrompt
        | RequestError::PromptTooLong { .. }
        | RequestError::TokenOutOfRange { .. }
        | RequestError::InvalidParameter { .. } => StatusCode::BAD_REQUEST,
        RequestError::QueueFull { .. } | RequestError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        RequestError::EngineStopped { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn text_status(error: &TextError) -> StatusCode {
    match error {
        TextError::ChatTemplate(TemplateError::Busy { .. }) => StatusCode::SERVICE_UNAVAILABLE,
        TextError::ChatTemplate(TemplateError::Process { .. }) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn profile_status(error: &ProfileError) -> StatusCode {
    match error {
        ProfileError::Running { .. }
        | ProfileError::Closing { .. }
        | ProfileError::Starting
        | ProfileError::NotRunning
        | ProfileError::Other { .. } => StatusCode::CONFLICT,
        ProfileError::NotSampled => StatusCode::FORBIDDEN,
        ProfileError::Record(RecordError::Prefix { .. } | RecordError::LimitTooSmall { .. }) => StatusCode::BAD_REQUEST,
        ProfileError::Record(_)
        | ProfileError::Device(_)
        | ProfileError::NotClosed { .. }
        | ProfileError::EngineStopped => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// vLLM's names of errors.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "NotFoundError",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowedError",
        StatusCode::CONFLICT => "ConflictError",
        StatusCode::NOT_IMPLEMENTED => "NotImplementedError",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableError",
        StatusCode::FORBIDDEN => "ForbiddenError",
        StatusCode::INSUFFICIENT_STORAGE => "InsufficientStorageError",
        status if status.is_server_error() => "InternalServerError",
        _ => "BadRequestError",
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorWords<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

#[derive(Serialize)]
struct ErrorWords<'a> {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: u16,
}
