//! Recording: the words ([`schema`], [`activity`], [`session`]), their bytes ([`spool`]), all always compiled, and the
//! recorder ([`record`]), which without feature `profiling` is a type with no values.

pub mod activity;
pub mod schema;
pub mod session;
pub mod spool;

#[cfg(not(feature = "profiling"))]
#[path = "absent.rs"]
pub mod record;
#[cfg(feature = "profiling")]
pub mod record;
