//! The rules of the software CUPTI, through the library that programs load.

mod buffers;
mod captures;
mod collect;
mod failing;
mod identity;
#[path = "../driver/process.rs"]
mod process;
mod records;
mod rules;

/// Each of these words is in a line of softcuda's, in this order, and there are no other lines.
fn told(lines: &[String], words: &[&str]) {
    assert!(
        lines.len() == words.len() && lines.iter().zip(words).all(|(line, word)| line.contains(word)),
        "{lines:#?}, expected {words:?}"
    );
}
