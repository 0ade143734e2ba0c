//! Load that goes on until it is told to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::client::post;
use crate::support::server::Server;

/// Clients that each send one request after the other.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Duration>>>,
}

impl Load {
    /// So many clients, whose answers have so many tokens.
    pub(crate) fn start(server: &Server, clients: usize, tokens: u64) -> Load {
        let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |number: usize| {
            let (is_over, answered, address) = (is_over.clone(), answered.clone(), server.address);
            tokio::spawn(async move {
                let prompt: Vec<usize> = (0..10 + number).collect();
                let body = json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true});
                let mut times = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let reply = post(address, "/v1/completions", &body).await;
                    times.push(start.elapsed());
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    assert_eq!(reply.json()["usage"]["completion_tokens"], tokens);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                times
            })
        };
        let clients = (0..clients).map(client).collect();
        Load { is_over, answered, clients }
    }

    /// Requests answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it at once, with answers under way.
    pub(crate) fn abort(self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }

    /// How long each answer took; none was refused or cut short.
    pub(crate) async fn end(self) -> Vec<Duration> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for client in self.clients {
            times.extend(client.await.expect("every request was answered"));
        }
        times
    }
}
