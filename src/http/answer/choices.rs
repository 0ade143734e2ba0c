//! Several requests at once: a body with many prompts. Their tokens interleave as they come.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::{Choice, Finish, Generated, Scored, Usage};
use crate::request::RequestError;

/// Requests whose tokens are wanted as they come.
#[derive(Debug)]
pub(crate) struct Choices {
    choices: Vec<Choice>,
    /// Asked first, so that a fast one does not starve the others.
    next: usize,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) text: String,
    /// One per token, if the request asked for log probabilities.
    pub(crate) scored: Vec<Scored>,
    pub(crate) finish: Option<Finish>,
    pub(crate) usage: Usage,
}

impl Choices {
    pub(crate) fn new(choices: Vec<Choice>) -> Choices {
        Choices { choices, next: 0 }
    }

    /// The next token of any of them, with its index; `None` when all have ended.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(usize, Generated), RequestError>>> {
        let count = self.choices.len();
        let mut pending = false;
        for index in (0..count).map(|offset| (self.next + offset) % count) {
            match self.choices[index].poll_next(cx) {
                Poll::Ready(Some(generated)) => {
                    self.next = (index + 1) % count;
                    return Poll::Ready(Some(generated.map(|generated| (index, generated))));
                }
                Poll::Ready(None) => {}
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(None) }
    }

    /// Waits for all of them. The first failure ends the others.
    pub(crate) async fn collect(mut self) -> Result<Vec<Complete>, RequestError> {
        let mut complete: Vec<Complete> = self.choices.iter().map(|choice| Complete::empty(choice.usage())).collect();
        while let Some(next) = poll_fn(|cx| self.poll_next(cx)).await {
            let (index, generated) = next?;
            complete[index].add(generated);
        }
        Ok(complete)
    }

    /// Counts of all of them so far.
    pub(super) fn usage(&self) -> Usage {
        self.choices.iter().fold(Usage::default(), |sum, choice| sum.plus(choice.usage()))
    }
}

impl Complete {
    fn empty(usage: Usage) -> Complete {
        Complete { text: String::new(), scored: Vec::new(), finish: None, usage }
    }

    fn add(&mut self, generated: Generated) {
        self.text += &generated.text;
        self.scored.extend(generated.scored);
        self.finish = generated.finish;
        self.usage = generated.usage;
    }
}
