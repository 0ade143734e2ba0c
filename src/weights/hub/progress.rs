//! The bar that shows how much of a file has come.

use std::borrow::Cow;

use indicatif::{ProgressBar, ProgressStyle};

/// On stderr; hidden where that is no terminal.
pub(super) fn progress_bar(bytes: u64, doing: impl Into<Cow<'static, str>>) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(bytes).with_message(doing);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
