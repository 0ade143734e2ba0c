//! The HTTP server over real sockets, with an engine that follows a script: what clients send, what they get back byte
//! by byte, and what happens when either side misbehaves.

mod answers;
#[path = "../support/client.rs"]
mod client;
mod lifecycle;
mod metrics;
mod nodes;
mod probes;
mod profile;
mod refusals;
mod scripted;
mod streams;
