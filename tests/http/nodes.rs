//! GET /profile/nodes of an engine that samples nothing.

use serde_json::Value;
use vitrum::engine::CAN_RECORD;

use crate::client::{get, post};
use crate::scripted::Harness;

#[tokio::test]
async fn node_times_that_are_not_sampled_are_refused_in_words() {
    let server = Harness::start().await;
    let (status, words) = match CAN_RECORD {
        true => (403, "start the server with --profile-sample N"),
        false => (501, "was built without its recorder"),
    };
    let replies = [get(server.address, "/profile/nodes").await, post(server.address, "/profile/nodes/reset", "").await];
    for reply in replies {
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (status, &Value::Null), "{}", reply.text());
        assert!(reply.text().contains(words), "{}", reply.text());
    }
    assert_eq!(get(server.address, "/profile/nodes?by=colour").await.status, 400);
    assert_eq!(post(server.address, "/profile/nodes", "").await.status, 405);
}
