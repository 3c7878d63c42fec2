//! What a watch was asked for and what came through it. Pure.

use serde::{Deserialize, Serialize};

/// A watch as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The first revision wanted; 0 means what comes from now on.
    pub from: u64,
    /// The only key wanted; None wants all keys of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether events carry what was there before.
    pub prev: bool,
    /// Whether puts are filtered out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_put: bool,
    /// Whether deletes are filtered out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_delete: bool,
    /// The watch that this one takes up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<u64>,
}

/// An event of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The key.
    pub key: String,
    /// What was put; None for a delete.
    pub value: Option<u64>,
    /// The revision of the change.
    pub revision: u64,
    /// The revision at which the key came to be; 0 for a delete.
    pub created: u64,
    /// Changes since it came to be; 0 for a delete.
    pub version: u64,
    /// What was there before and the revision of that, where the watch asked and there was anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<(u64, u64)>,
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value {
            Some(value) => write!(f, "revision {}: {} = {value}", self.revision, self.key),
            None => write!(f, "revision {}: {} deleted", self.revision, self.key),
        }
    }
}

/// What came of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "lowercase")]
pub enum WatchPart {
    /// It was asked for.
    Asked {
        /// The member asked.
        server: String,
        /// What was wanted.
        wanted: Wanted,
    },
    /// The member said that it watches.
    Created {
        /// The store's revision then; what comes after it is wanted where no revision was named.
        revision: u64,
    },
    /// Events in one message.
    Events {
        /// The store's revision that the message names.
        revision: u64,
        /// Whether the next message continues this one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        more: bool,
        /// The events.
        events: Vec<Notice>,
    },
    /// A promise that every event up to a revision was sent.
    Progress {
        /// The revision.
        revision: u64,
    },
    /// The wanted revisions are compacted; nothing comes any more.
    Compacted {
        /// The lowest revision that can be had.
        revision: u64,
    },
    /// It ended: the harness closed it, or the connection broke.
    Closed {
        /// Why.
        why: String,
        /// Whether the run was over: then it must have seen everything.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        complete: bool,
    },
}
