//! The HTTP server over real sockets, with an engine that follows a script: what clients send, what they get back byte
//! by byte, and what happens when either side misbehaves.

mod access;
mod answers;
mod crowds;
mod defaults;
mod lifecycle;
mod metrics;
mod nodes;
mod overload;
mod probes;
mod profile;
mod refusals;
mod scripted;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use self::support::{client, temp};
