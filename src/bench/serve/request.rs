//! One request: its body, and the times at which its tokens arrive.

use std::time::Instant;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::args::ServeArgs;
use super::prompts::Prompt;
use super::sse::{SseError, SseParser};
use crate::bench::client::{Client, ClientError};

/// Why a request failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// It could not be sent, or was answered by something else than a stream.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The stream broke off.
    #[error("the stream broke off after {tokens} tokens: {source}")]
    Broken {
        /// Tokens until then.
        tokens: usize,
        /// What broke.
        source: hyper::Error,
    },
    /// The stream is not made of server-sent events.
    #[error("the stream: {0}")]
    Sse(#[from] SseError),
    /// An event that is not a chunk of a completion.
    #[error("an event of the stream is no completion chunk: {0}")]
    Chunk(#[from] serde_json::Error),
    /// The server said so in the stream.
    #[error("the server reports: {error}")]
    Reported {
        /// Its words.
        error: Value,
    },
    /// A stream without a token.
    #[error("the stream ended without a token")]
    NoToken,
    /// A stream that does not say that it is complete.
    #[error("the stream ended after {tokens} tokens without [DONE]")]
    NoEnd {
        /// Tokens until then.
        tokens: usize,
    },
}

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct PreparedRequest {
    pub(super) body: Bytes,
    pub(super) id: String,
    pub(super) prompt_tokens: usize,
}

/// What became of a request. Times in seconds.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Since the run began.
    pub(super) start_s: f64,
    /// From its arrival time until `--max-concurrency` let it go.
    pub(super) queue_s: f64,
    pub(super) ttft_s: f64,
    pub(super) itls_s: Vec<f64>,
    /// From sending to the last token.
    pub(super) latency_s: f64,
    pub(super) prompt_tokens: usize,
    /// By the server's count, or else the number of chunks.
    pub(super) output_tokens: usize,
    pub(super) text: String,
    pub(super) failure: Option<Failure>,
}

/// The part of the body that all requests share.
pub(super) fn common_body(args: &ServeArgs, model: &str) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    if !args.backend.is_chat() {
        body.insert("repetition_penalty".into(), 1.0.into());
        body.insert("logprobs".into(), args.logprobs.into());
    }
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({"include_usage": true}));
    body.insert("ignore_eos".into(), true.into());
    for (name, value) in [("temperature", args.temperature), ("top_p", args.top_p)] {
        value.map(|value| body.insert(name.into(), value.into()));
    }
    args.top_k.map(|value| body.insert("top_k".into(), value.into()));
    body.extend(args.extra_body.iter().flat_map(|object| object.0.clone()));
    body
}

/// Serialises a request.
pub(super) fn prepare(common: &Map<String, Value>, prompt: &Prompt, is_chat: bool, id: String) -> PreparedRequest {
    let mut body = common.clone();
    let (limit, input) = if is_chat {
        let content = json!([{"type": "text", "text": prompt.content}]);
        ("max_completion_tokens", ("messages", json!([{"role": "user", "content": content}])))
    } else {
        ("max_tokens", ("prompt", prompt.content.clone()))
    };
    // `--extra-body` has the last word.
    body.entry(limit).or_insert(prompt.max_tokens.into());
    body.entry(input.0).or_insert(input.1);
    PreparedRequest { body: Bytes::from(Value::Object(body).to_string()), id, prompt_tokens: prompt.tokens }
}

/// Sends a request and follows its stream to the end.
pub(super) async fn run(client: &Client, path: &str, request: &PreparedRequest, run_start: Instant) -> Outcome {
    let start = Instant::now();
    let mut stream = TokenStream::new(start);
    let failure = stream.follow(client, path, request).await.err();
    Outcome {
        start_s: start.duration_since(run_start).as_secs_f64(),
        queue_s: 0.0,
        ttft_s: stream.ttft_s,
        latency_s: stream.last.duration_since(start).as_secs_f64(),
        prompt_tokens: stream.prompt_tokens.unwrap_or(request.prompt_tokens),
        output_tokens: stream.completion_tokens.unwrap_or(stream.chunks),
        itls_s: stream.itls_s,
        text: stream.text,
        failure,
    }
}

/// Tokens as they arrive.
struct TokenStream {
    start: Instant,
    last: Instant,
    chunks: usize,
    ttft_s: f64,
    itls_s: Vec<f64>,
    text: String,
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
    done: bool,
}

/// The members of a stream's chunk that are read, in both APIs.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    delta: Option<Delta>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
}

impl TokenStream {
    fn new(start: Instant) -> TokenStream {
        TokenStream {
            start,
            last: start,
            chunks: 0,
            ttft_s: 0.0,
            itls_s: Vec::new(),
            text: String::new(),
            prompt_tokens: None,
            completion_tokens: None,
            done: false,
        }
    }

    async fn follow(&mut self, client: &Client, path: &str, request: &PreparedRequest) -> Result<(), Failure> {
        let mut reply = client.send(Method::POST, path, Some(&request.id), request.body.clone()).await?;
        let status = reply.response.status();
        if status != StatusCode::OK {
            let body = reply.response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let body = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
            return Err(ClientError::Status { method: Method::POST, path: path.to_owned(), status, body }.into());
        }
        let mut parser = SseParser::default();
        while let Some(frame) = reply.response.body_mut().frame().await {
            let arrival = Instant::now(); // before any parsing
            let frame = frame.map_err(|source| Failure::Broken { tokens: self.chunks, source })?;
            if let Some(piece) = frame.data_ref() {
                parser.push(piece, |event| self.event(event, arrival))?;
            }
        }
        client.reuse(reply.into_connection());
        match (self.chunks, self.done) {
            (0, _) => Err(Failure::NoToken),
            (tokens, false) => Err(Failure::NoEnd { tokens }),
            (_, true) => Ok(()),
        }
    }

    /// A chunk with choices is a token; one without may bring the server's counts.
    fn event(&mut self, event: &str, arrival: Instant) -> Result<(), Failure> {
        if event == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_str(event)?;
        if let Some(error) = chunk.error {
            return Err(Failure::Reported { error });
        }
        if let Some(choice) = chunk.choices.into_iter().next() {
            if self.chunks == 0 {
                self.ttft_s = arrival.duration_since(self.start).as_secs_f64();
            } else {
                self.itls_s.push(arrival.duration_since(self.last).as_secs_f64());
            }
            self.chunks += 1;
            self.last = arrival;
            self.text.push_str(choice.text.or(choice.delta.and_then(|delta| delta.content)).as_deref().unwrap_or(""));
        } else if let Some(usage) = chunk.usage {
            self.prompt_tokens = usage.prompt_tokens.or(self.prompt_tokens);
            self.completion_tokens = usage.completion_tokens.or(self.completion_tokens);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn chunks_with_choices_are_tokens_and_usage_is_not() {
        let start = Instant::now();
        let mut stream = TokenStream::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        stream.event(r#"{"choices":[{"text":"a","finish_reason":null}]}"#, at(5)).unwrap();
        stream.event(r#"{"choices":[{"delta":{"content":"b"}}],"usage":null}"#, at(7)).unwrap();
        stream.event(r#"{"choices":[{"delta":{}}]}"#, at(10)).unwrap();
        stream.event(r#"{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":3}}"#, at(90)).unwrap();
        stream.event("[DONE]", at(91)).unwrap();
        assert_eq!((stream.ttft_s, stream.itls_s.as_slice()), (0.005, &[0.002, 0.003][..]));
        assert_eq!((stream.prompt_tokens, stream.completion_tokens, stream.done), (Some(4), Some(3), true));
        assert_eq!((stream.text.as_str(), stream.last), ("ab", at(10)));
    }

    #[test]
    fn an_error_in_the_stream_fails_the_request() {
        let mut stream = TokenStream::new(Instant::now());
        let failure = stream.event(r#"{"error":{"message":"no"}}"#, Instant::now()).unwrap_err();
        assert!(failure.to_string().contains("no"), "{failure}");
        assert!(stream.event("not json", Instant::now()).is_err());
    }

    #[test]
    fn extra_body_has_the_last_word() {
        let mut common = Map::new();
        common.insert("max_tokens".into(), 3.into());
        let prompt = Prompt { content: "x".into(), tokens: 1, max_tokens: 64 };
        let request = prepare(&common, &prompt, false, "id".into());
        assert_eq!(request.body, r#"{"max_tokens":3,"prompt":"x"}"#);
    }
}
