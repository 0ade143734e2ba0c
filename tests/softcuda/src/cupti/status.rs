//! CUPTI's statuses, and refusals that say why.

use std::ffi::{CStr, c_int};

use crate::driver::say;

pub(super) const SUCCESS: c_int = 0;
pub(super) const INVALID_PARAMETER: c_int = 1;
pub(super) const INVALID_OPERATION: c_int = 7;
pub(super) const PARAMETER_SIZE_NOT_SUFFICIENT: c_int = 10;
pub(super) const MAX_LIMIT_REACHED: c_int = 12;
pub(super) const NOT_INITIALIZED: c_int = 15;
pub(super) const INVALID_KIND: c_int = 21;
pub(super) const NOT_SUPPORTED: c_int = 27;
pub(super) const MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED: c_int = 39;
pub(super) const UNKNOWN: c_int = 999;

const WORDS: &[(c_int, &CStr)] = &[
    (SUCCESS, c"CUPTI_SUCCESS"),
    (INVALID_PARAMETER, c"CUPTI_ERROR_INVALID_PARAMETER"),
    (INVALID_OPERATION, c"CUPTI_ERROR_INVALID_OPERATION"),
    (8, c"CUPTI_ERROR_OUT_OF_MEMORY"),
    (PARAMETER_SIZE_NOT_SUFFICIENT, c"CUPTI_ERROR_PARAMETER_SIZE_NOT_SUFFICIENT"),
    (MAX_LIMIT_REACHED, c"CUPTI_ERROR_MAX_LIMIT_REACHED"),
    (NOT_INITIALIZED, c"CUPTI_ERROR_NOT_INITIALIZED"),
    (INVALID_KIND, c"CUPTI_ERROR_INVALID_KIND"),
    (NOT_SUPPORTED, c"CUPTI_ERROR_NOT_SUPPORTED"),
    (33, c"CUPTI_ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED"),
    (35, c"CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"),
    (MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED, c"CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"),
    (UNKNOWN, c"CUPTI_ERROR_UNKNOWN"),
];

/// The name of a status.
pub(super) fn word(status: c_int) -> Option<&'static CStr> {
    WORDS.iter().find(|(known, _)| *known == status).map(|(_, name)| *name)
}

/// Why a call is refused.
pub(super) struct Refusal {
    pub(super) status: c_int,
    /// Nothing, if nothing is wrong with the caller.
    why: Option<String>,
}

pub(super) type Answer<T = ()> = Result<T, Refusal>;

impl Refusal {
    pub(super) fn new(status: c_int, why: impl Into<String>) -> Refusal {
        Refusal { status, why: Some(why.into()) }
    }

    /// What a program that keeps the rules may run into.
    pub(super) fn quiet(status: c_int) -> Refusal {
        Refusal { status, why: None }
    }

    pub(super) fn report(&self, call: &str) {
        if let Some(why) = &self.why {
            let name = word(self.status).map_or("?", |name| name.to_str().unwrap_or("?"));
            say(&format!("{call}: {why} ({name})"));
        }
    }
}
