//! What routers, load balancers and dashboards ask.

use serde_json::json;
use vitrum::request::TokenId;

use crate::client::{get, post, post_with};
use crate::scripted::{Harness, MAX_MODEL_LEN, MODEL};

#[tokio::test]
async fn the_models_are_listed() {
    let server = Harness::start().await;
    let mut list = get(server.address, "/v1/models").await.json();
    assert!(list["data"][0]["created"].take().as_u64().unwrap() > 1_700_000_000);
    assert_eq!(
        list["data"][0],
        json!({
            "id": MODEL, "object": "model", "created": null, "owned_by": "vitrum", "root": "/models/counting.gguf",
            "parent": null, "max_model_len": MAX_MODEL_LEN,
        })
    );
    assert_eq!((&list["object"], &list["data"][1]["id"]), (&json!("list"), &json!("alias")));
    assert_eq!(get(server.address, &format!("/v1/models/{MODEL}")).await.json()["id"], MODEL);
    assert_eq!(get(server.address, "/v1/models/other").await.status, 404);
}

#[tokio::test]
async fn probes_answer() {
    let server = Harness::start().await;
    for path in ["/health", "/ping"] {
        let reply = get(server.address, path).await;
        assert_eq!((reply.status, reply.text()), (200, ""));
    }
    assert_eq!(post(server.address, "/ping", "").await.status, 200);
    assert_eq!(get(server.address, "/version").await.json(), json!({"version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(get(server.address, "/load").await.json(), json!({"server_load": 0}));
}

#[tokio::test]
async fn every_response_has_the_requests_id() {
    let server = Harness::start().await;
    for path in ["/health", "/nowhere"] {
        let reply = post_with(server.address, path, "X-Request-Id: mine-7\r\n", "").await;
        assert_eq!(reply.header("x-request-id"), Some("mine-7"), "{path}");
    }
    let (one, other) = (get(server.address, "/health").await, get(server.address, "/health").await);
    let (one, other) = (one.header("x-request-id").unwrap(), other.header("x-request-id").unwrap());
    assert!(one.len() >= 16 && one != other, "{one} {other}");
    let long = format!("x-request-id: {}\r\n", "a".repeat(1000));
    assert!(post_with(server.address, "/health", &long, "").await.header("x-request-id").unwrap().len() < 300);
}

#[tokio::test]
async fn texts_become_tokens_and_back() {
    let server = Harness::start().await;
    let body = json!({"model": MODEL, "prompt": "12 13", "add_special_tokens": false});
    let answer = post(server.address, "/tokenize", body).await.json();
    assert_eq!(answer, json!({"count": 2, "max_model_len": MAX_MODEL_LEN, "tokens": [12, 13], "token_strs": null}));
    let body = json!({"messages": [{"role": "user", "content": "12 13"}], "return_token_strs": true});
    let answer = post(server.address, "/tokenize", body).await.json();
    assert_eq!(answer["count"].as_u64().unwrap() as usize, answer["tokens"].as_array().unwrap().len());
    assert_eq!(answer["token_strs"][0], server.text(12, 12));
    let answer = post(server.address, "/detokenize", json!({"model": MODEL, "tokens": [12, 13]})).await.json();
    assert_eq!(answer, json!({"prompt": server.tokenizer.decode(&[TokenId(12), TokenId(13)])}));
    let bytes = Harness::of_bytes().await;
    let answer = post(bytes.address, "/detokenize", json!({"tokens": [7, 6, 2, 3]})).await.json();
    assert_eq!(answer, json!({"prompt": "t7<|end|>é"}), "as vLLM does, with control tokens");
    for (path, body) in [
        ("/tokenize", json!({})),
        ("/tokenize", json!({"prompt": 3})),
        ("/tokenize", json!({"prompt": "1", "messages": []})),
        ("/tokenize", json!({"prompt": "1", "colour": 1})),
        ("/detokenize", json!({"tokens": [1000]})),
        ("/detokenize", json!({"tokens": "x"})),
        ("/detokenize", json!({})),
    ] {
        assert_eq!(post(server.address, path, &body).await.status, 400, "{path} {body}");
    }
}
