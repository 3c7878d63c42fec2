//! What a member is opened with.

use crate::damage;
use crate::identity::IdentityError;
use crate::log::LogError;
use crate::net::Tls;
use crate::types::MemberId;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a member is opened with.
#[derive(Clone)]
pub struct Config {
    /// The member's data folder.
    pub data_dir: PathBuf,
    /// The cluster it belongs to; must fit an HTTP header, such as a UUID.
    pub cluster_id: String,
    /// Its number, given by the cluster when it was added; 1 for the first member of a new cluster.
    pub member_id: MemberId,
    /// Its name, unique among the members.
    pub name: String,
    /// Where it listens for other members.
    pub listen: SocketAddr,
    /// `host:port` at which the others reach it.
    pub peer_address: String,
    /// Where its API server answers.
    pub api_url: String,
    /// How members prove to each other who they are; None talks in the clear, for tests only.
    pub tls: Option<Tls>,
    /// How fast it reacts.
    pub timings: Timings,
    /// How much it keeps.
    pub limits: Limits,
}

/// How fast a member reacts.
#[derive(Clone, Debug)]
pub struct Timings {
    /// The leader is heard at least so often.
    pub heartbeat: Duration,
    /// A member that hears no leader for between this
    pub election_min: Duration,
    /// and this tries to lead.
    pub election_max: Duration,
    /// How long a member may take to answer an append, its fsync included, before its connection is made anew.
    pub append: Duration,
    /// A leader whose disk takes longer than this for one write hands leadership over.
    pub slow_disk: Duration,
    /// How long connecting to a member may take.
    pub connect: Duration,
    /// How long a client's request may take.
    pub request: Duration,
    /// How long sending the whole state to a member may take.
    pub snapshot: Duration,
    /// How often the members' data are compared.
    pub compare: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            heartbeat: Duration::from_millis(100),
            // openraft waits for the former leader's lease, which is the longest election timeout, and then for a random one: a
            // killed leader is followed after 1.05 to 1.3 s.
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(650),
            append: Duration::from_millis(1500),
            slow_disk: Duration::from_millis(1500),
            connect: Duration::from_millis(500),
            request: Duration::from_secs(5),
            snapshot: Duration::from_secs(1800),
            compare: Duration::from_secs(600),
        }
    }
}

/// How much a member keeps.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The log is cut when it holds so many applied entries more than `log_entries_kept`.
    pub log_entries_slack: u64,
    /// Applied entries that stay for members that fall behind; one further behind gets the state as a snapshot.
    pub log_entries_kept: u64,
    /// The log is cut to its newest entries, half as many bytes, when it holds more bytes than this.
    pub log_bytes_max: u64,
    /// How much of the past is kept, unless the cluster set it otherwise.
    pub history: mvcc::HistoryLimits,
    /// How often a time is noted: what was not written through the API is dated as exactly as this.
    pub history_step: Duration,
    /// Commands that may wait to be proposed; more are refused.
    pub proposals_queued: usize,
    /// With less room than this on its disk, a member takes only deletes and compactions.
    pub disk_reserve_bytes: u64,
    /// What the watchers may hold in memory.
    pub hub: mvcc::HubLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            log_entries_slack: 50_000,
            log_entries_kept: 10_000,
            log_bytes_max: 24 << 20,
            history: mvcc::HistoryLimits::default(),
            history_step: Duration::from_secs(10),
            proposals_queued: 8192,
            disk_reserve_bytes: 256 << 20,
            hub: mvcc::HubLimits {
                ring_bytes_max: 16 << 20,
                ..mvcc::HubLimits::default()
            },
        }
    }
}

/// Why a member cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder belongs to another member.
    #[error(
        "the data folder {path} belongs to member {found_id} of cluster {found_cluster}, not to member {wanted_id} of \
         cluster {wanted_cluster}; choose its own folder or an empty one"
    )]
    OtherMember {
        /// The folder.
        path: String,
        /// Whose it is.
        found_id: MemberId,
        /// Its cluster.
        found_cluster: String,
        /// Who wants it.
        wanted_id: MemberId,
        /// Its cluster.
        wanted_cluster: String,
    },
    /// Another process runs on it.
    #[error("the data folder {0} is in use by another process; stop it first")]
    InUse(String),
    /// Who the member is cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The folder cannot be used.
    #[error("the data folder {path} cannot be used")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be opened.
    #[error(
        "the database in {path} cannot be opened; if its files are damaged, remove the member and let it join again"
    )]
    Database {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: crate::db::EngineError,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state cannot be read.
    #[error("the state cannot be read; remove the member and let it join again")]
    State(#[from] mvcc::TablesError),
    /// The member's data are damaged, so it may neither vote nor answer.
    #[error(
        "the data in {path} are damaged: {reason}; this member must be fed again by the others, as a new member with an empty folder"
    )]
    Damaged {
        /// The folder.
        path: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The port cannot be used.
    #[error("the members' port {address} cannot be listened on; is another process using it?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A setting makes no sense.
    #[error("the store's settings cannot be used: {0}")]
    Settings(String),
    /// openraft cannot start.
    #[error("the consensus cannot start: {0}")]
    Raft(String),
}

impl OpenError {
    /// Whether what was acknowledged may be missing or changed in the member's folder, rather than only out of reach.
    pub fn is_damage(&self) -> bool {
        match self {
            OpenError::Damaged { .. } => true,
            OpenError::Database { source, .. } => damage::is_corruption(source),
            OpenError::Log(LogError::Storage(err)) => damage::is_corruption(err),
            OpenError::Log(LogError::Thread(_)) => false,
            OpenError::Log(_) => true,
            OpenError::State(err) => damage::is_damaged_state(err),
            _ => false,
        }
    }
}

impl Config {
    pub(crate) fn raft(&self) -> Result<openraft::Config, OpenError> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let Timings {
            heartbeat,
            election_min,
            election_max,
            snapshot,
            ..
        } = &self.timings;
        let config = openraft::Config {
            cluster_name: self.cluster_id.clone(),
            heartbeat_interval: ms(*heartbeat),
            election_timeout_min: ms(*election_min),
            election_timeout_max: ms(*election_max),
            install_snapshot_timeout: ms(*snapshot),
            max_payload_entries: 1024,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(
                self.limits.log_entries_slack.max(1),
            ),
            max_in_snapshot_log_to_keep: self.limits.log_entries_kept,
            purge_batch_size: 1,
            replication_lag_threshold: self.limits.log_entries_kept.max(1),
            enable_pre_vote: Some(true),
            quorum_loss_probe_interval: Some(2 * ms(*election_max) + 200),
            // The state on disk may be behind what was served before a power cut; an election tells how far it must go.
            enable_leader_restore: Some(false),
            backoff: "50ms 100ms 200ms ...500ms".to_owned(),
            ..openraft::Config::default()
        };
        config
            .validate()
            .map_err(|err| OpenError::Settings(err.to_string()))
    }
}
