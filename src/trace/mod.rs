//! Recording: the words ([`schema`], [`activity`], [`session`]; [`sample`] for what is read while a server runs), which
//! steps ([`window`]) and how far it is ([`progress`]), their bytes ([`spool`]), all always compiled, and the recorder
//! ([`record`]), which without feature `profiling` is a type with no values.

pub mod activity;
pub mod progress;
pub mod sample;
pub mod schema;
pub mod session;
pub mod spool;
pub mod window;

#[cfg(not(feature = "profiling"))]
#[path = "absent.rs"]
pub mod record;
#[cfg(feature = "profiling")]
pub mod record;
