//! How many bytes of bodies and of long answers there may be at a time, of all clients together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::ApiError;

/// A number of bytes that is shared out.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    taken: AtomicUsize,
}

/// Bytes of a budget, given back when they are dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, taken: AtomicUsize::new(0) }
    }

    /// No bytes yet.
    pub(crate) fn reserve(self: &Arc<Self>) -> Reserved {
        Reserved { budget: self.clone(), bytes: 0 }
    }
}

impl Reserved {
    /// Takes as many more as make `bytes`; refuses where there are not so many left.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(self.bytes);
        let Budget { bytes_max, taken } = &*self.budget;
        if bytes > *bytes_max {
            return Err(ApiError::AnswerTooLarge { bytes, limit: *bytes_max });
        }
        let fits = |taken: usize| taken.checked_add(more).filter(|sum| sum <= bytes_max);
        match taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => {
                self.bytes += more;
                Ok(())
            }
            Err(_) => Err(ApiError::BodiesFull { limit: *bytes_max }),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_and_given_back() {
        let budget = Arc::new(Budget::new(10));
        let (mut one, mut two) = (budget.reserve(), budget.reserve());
        one.grow_to(6).unwrap();
        one.grow_to(4).unwrap(); // it has more
        two.grow_to(4).unwrap();
        assert!(matches!(two.grow_to(5), Err(ApiError::BodiesFull { limit: 10 })));
        assert!(matches!(two.grow_to(11), Err(ApiError::AnswerTooLarge { bytes: 11, limit: 10 })));
        drop(one);
        two.grow_to(10).unwrap();
        drop(two);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
