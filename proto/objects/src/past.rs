//! What masters and `ctl` tell one another about the past, as JSON under `/cluster/v1/history` of the API port.
//!
//! Times are RFC 3339 with milliseconds, so that a time that was shown can be asked again.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A revision, and when it was the newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// The revision.
    pub revision: u64,
    /// The time; None for a revision too new for its time to be noted.
    pub time: Option<String>,
}

/// Answer of `GET /cluster/v1/history?at=REVISION|TIME` or `?ago=SECONDS`, each of which may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryStatus {
    /// The point in the past that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Moment>,
    /// The oldest revision that can be asked.
    pub oldest: Moment,
    /// The newest.
    pub newest: Moment,
    /// The bytes of changes written between the two.
    pub bytes: u64,
    /// How much is kept.
    pub keep: HistoryKeep,
}

/// How much of the past is kept; whatever exceeds either goes, the oldest first. Also the body of `PUT /cluster/v1/history`, in
/// which what is left out stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HistoryKeep {
    /// For how long.
    pub seconds: Option<u64>,
    /// The bytes of changes.
    pub bytes: Option<u64>,
}

/// Answer of `GET /cluster/v1/history/object?group=&resource=&namespace=&name=`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectHistory {
    /// The newest first. The last one is what the object was before the first change that is still known.
    pub versions: Vec<ObjectVersion>,
    /// Whether older ones are kept: ask for those before the last one's revision.
    pub more: bool,
}

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectVersion {
    /// The revision that made it.
    pub revision: u64,
    /// When.
    pub time: Option<String>,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Through which program or field manager.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub manager: String,
    /// By which request: `create`, `patch`, `update status`, `delete`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// Whether the object came into being by it.
    pub created: bool,
    /// The object as it was then; None when it was deleted.
    pub object: Option<Value>,
}
