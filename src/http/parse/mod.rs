//! From bodies to requests: every field has a type, a range and a name that errors use; an unknown one is refused.

pub(crate) mod chat;
pub(crate) mod completion;
pub(crate) mod fields;
pub(crate) mod generation;
pub(crate) mod neutral;
pub(crate) mod nodes;
pub(crate) mod profile;
pub(crate) mod tokenize;

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use proptest::prelude::*;

    use super::chat::ChatRequest;
    use super::completion::CompletionRequest;
    use super::generation::Model;
    use super::profile::{StartProfileRequest, StopProfileRequest};
    use super::tokenize::{DetokenizeRequest, TokenizeRequest};
    use crate::http::error::ApiError;
    use crate::request::SamplingDefaults;

    const BODY: &str = r#"{"prompt":[[1,2],[3]],"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],
        "temperature":0.5,"seed":-1,"stop":["x"],"stream":true,"stream_options":{"include_usage":true},"tokens":[1]}"#;

    fn check<T>(parsed: Result<T, ApiError>) {
        if let Err(error) = parsed {
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{error}");
            let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
            assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
        }
    }

    fn check_all(body: &[u8]) {
        let model = Model { vocab: 100, sampling: &SamplingDefaults::default() };
        check(CompletionRequest::parse(body, model));
        check(ChatRequest::parse(body, model));
        check(TokenizeRequest::parse(body));
        check(DetokenizeRequest::parse(body, 100));
        check(StartProfileRequest::parse(body, 1 << 20));
        check(StopProfileRequest::parse(body));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            check_all(&body);
        }

        #[test]
        fn a_damaged_body_is_parsed_or_refused(
            at in 0..BODY.len(),
            bytes in "[\\[\\]{}\",:0-9a-eé \\\\]{0,3}",
            cut in 0..8usize,
        ) {
            let mut body = BODY.as_bytes().to_vec();
            body.splice(at..(at + cut).min(BODY.len()), bytes.into_bytes());
            check_all(&body);
        }
    }
}
