//! Recording: the words ([`schema`], always compiled) and the recorder (`record`, only with feature `profiling`).

pub mod schema;
