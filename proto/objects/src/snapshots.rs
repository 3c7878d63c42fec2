//! Snapshots of the cluster and their schedules, as masters and `ctl` tell one another about them under `/cluster/v1/snapshots`.

use crate::{Secret, Timestamp};
use serde::{Deserialize, Serialize};

/// When to save a snapshot, where to put it, and how long to keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSchedule {
    /// Its name.
    pub name: String,
    /// Every so many seconds, counted from midnight UTC of 1970: every 6 h is at 00:00, 06:00, 12:00 and 18:00 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_seconds: Option<u64>,
    /// Every day at these times, `HH:MM` UTC; beside or in the place of `every_seconds`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<String>,
    /// The newest so many are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// Those younger than so many days are kept, however many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<u32>,
    /// Where they go.
    pub target: SnapshotTarget,
    /// Whether each is restored into a scratch folder and compared before it counts.
    #[serde(default)]
    pub verify: bool,
    /// For whom the cluster's keys are sealed.
    #[serde(default)]
    pub seal: SnapshotSeal,
}

/// Where snapshots go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum SnapshotTarget {
    /// A folder of the master that leads when the snapshot is due.
    Folder {
        /// Its absolute path.
        path: String,
    },
    /// A bucket of an S3-compatible service.
    S3(S3Target),
}

/// A bucket, and how to get at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Target {
    /// Its name.
    pub bucket: String,
    /// What the objects' names begin with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The service's URL; AWS's own where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region; `us-east-1` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the bucket is told by the host's name, as AWS asks, rather than in the path, as most other services do.
    #[serde(default)]
    pub virtual_hosted: bool,
    /// The CA of the service in PEM, where the machine does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// The access key; where there is none, what the leader's environment gives (`AWS_…`, or the machine's role).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// Its secret. Only ever sent to a master, never told by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
}

impl SnapshotTarget {
    /// For people, and equal for equal places: `/var/backup`, `s3://bucket/prefix`.
    pub fn place(&self) -> String {
        match self {
            SnapshotTarget::Folder { path } => path.trim_end_matches('/').to_owned(),
            SnapshotTarget::S3(S3Target { bucket, prefix, .. }) => {
                let place = format!("s3://{bucket}/{prefix}");
                place.trim_end_matches('/').to_owned()
            }
        }
    }
}

/// For whom the cluster's keys in a snapshot are sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum SnapshotSeal {
    /// For nobody: they are left out, and a restore needs them from elsewhere.
    #[default]
    LeftOut,
    /// For the holder of a key file.
    #[serde(rename_all = "camelCase")]
    KeyFile {
        /// The file's public key, hexadecimal: it only seals.
        public_key: String,
    },
    /// For whoever knows a passphrase.
    #[serde(rename_all = "camelCase")]
    Passphrase {
        /// What goes into the key beside the passphrase, hexadecimal.
        salt: String,
        /// The public key that follows from both, hexadecimal: it only seals.
        public_key: String,
    },
}

/// Body of `PUT /cluster/v1/snapshots/schedules/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSchedulePut {
    /// What is wanted. An S3 secret that is left out stays as it is.
    #[serde(flatten)]
    pub schedule: SnapshotSchedule,
    /// The passphrase to seal under, in the place of `seal`. It is used once, to make a key that only seals, and never kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SnapshotPhase {
    /// The archive is being written.
    Saving,
    /// It is being restored into a scratch folder and compared.
    Verifying,
}

/// A run that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotProgress {
    /// The moment for which it runs.
    pub due: Timestamp,
    /// On which master.
    pub by: String,
    /// Since when.
    pub started: Timestamp,
    /// What it does.
    pub phase: SnapshotPhase,
    /// Bytes of the archive written so far.
    pub bytes: u64,
}

/// A snapshot that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedSnapshot {
    /// Its name within its place.
    pub name: String,
    /// The schedule that made it.
    pub schedule: String,
    /// The folder or bucket.
    pub place: String,
    /// The master whose folder it is; None for a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// When it was complete.
    pub saved: Timestamp,
    /// The cluster that it is of.
    pub cluster_id: String,
    /// The revision that it holds.
    pub revision: u64,
    /// Its size.
    pub bytes: u64,
    /// Whether it was restored into a scratch folder and compared.
    pub verified: bool,
    /// For whom the keys are sealed: `key file`, `passphrase`, or `left out`.
    pub keys: String,
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRun {
    /// The moment for which it ran.
    pub due: Timestamp,
    /// On which master.
    pub by: String,
    /// Since when.
    pub started: Timestamp,
    /// Until when.
    pub ended: Timestamp,
    /// What came of it, when it went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<SavedSnapshot>,
    /// Why nothing came of it, otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A schedule and how it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotScheduleStatus {
    /// What is wanted, without the secret.
    #[serde(flatten)]
    pub schedule: SnapshotSchedule,
    /// When it is due next; after a failure, when it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// The run that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<SnapshotProgress>,
    /// The last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<SnapshotRun>,
    /// The last run that went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<SnapshotRun>,
    /// How many failed since.
    pub failures: u32,
}

/// Answer of `GET /cluster/v1/snapshots/schedules`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotScheduleList {
    /// By name.
    pub schedules: Vec<SnapshotScheduleStatus>,
}

/// Answer of `GET /cluster/v1/snapshots`: those that schedules made and that were not deleted by them again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotList {
    /// Newest first.
    pub snapshots: Vec<SavedSnapshot>,
}

/// Answer of `POST /cluster/v1/snapshots/schedules/NAME/run`: the run is over when `last.due` of the schedule is this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRequested {
    /// The moment for which it will run.
    pub due: Timestamp,
}
