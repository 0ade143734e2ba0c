//! Finding stop strings in text that arrives in parts.

/// Looks for several strings in text that arrives in parts. What may be the beginning of one is held back.
///
/// The string that is complete first wins, whatever parts the text arrives in; of two that end at one place, the
/// longer one.
#[derive(Debug)]
pub(super) struct StopFinder {
    strings: Vec<String>,
    /// Text that arrived and was not given out.
    held: String,
    /// The part of `held` in which no string ends is up to here.
    searched: usize,
}

/// What is known after more text arrived.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    /// Text that is certain to come before any stop string.
    pub(super) text: String,
    /// The stop string that ended the text.
    pub(super) stop: Option<String>,
}

impl StopFinder {
    /// Empty strings are left out: they would stop before anything arrives.
    pub(super) fn new(mut strings: Vec<String>) -> StopFinder {
        strings.retain(|string| !string.is_empty());
        StopFinder { strings, held: String::new(), searched: 0 }
    }

    /// Takes more text.
    pub(super) fn push(&mut self, text: &str) -> Found {
        if self.strings.is_empty() {
            return Found { text: text.to_owned(), stop: None };
        }
        self.held.push_str(text);
        if let Some((start, stop)) = self.first_match() {
            let text = self.held[..start].to_owned();
            self.held.clear();
            self.searched = 0;
            return Found { text, stop: Some(stop) };
        }
        let keep = self.held.len() - self.possible_beginning();
        let rest = self.held.split_off(keep);
        self.searched = rest.len();
        Found { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// No more text comes: what was held back is text.
    pub(super) fn finish(&mut self) -> String {
        self.searched = 0;
        std::mem::take(&mut self.held)
    }

    /// The match that ends first, and of those the one that begins first.
    fn first_match(&self) -> Option<(usize, String)> {
        let found = self.strings.iter().filter_map(|string| {
            // A match that is new ends after `searched`.
            let mut from = (self.searched + 1).saturating_sub(string.len());
            while !self.held.is_char_boundary(from) {
                from -= 1;
            }
            let start = from + self.held[from..].find(string.as_str())?;
            Some((start + string.len(), start, string))
        });
        found.min_by_key(|(end, start, _)| (*end, *start)).map(|(_, start, string)| (start, string.clone()))
    }

    /// Length of the longest end of `held` that is the beginning of a stop string.
    fn possible_beginning(&self) -> usize {
        let longest = |string: &String| {
            let cuts = string.char_indices().map(|(cut, _)| cut).rev();
            cuts.into_iter().find(|cut| self.held.ends_with(&string[..*cut])).unwrap_or(0)
        };
        self.strings.iter().map(longest).max().unwrap_or(0)
    }
}
