//! What masters, agents and `ctl` tell one another about the cluster itself, as JSON under `/cluster/v1/` of the API port.

use crate::Secret;
use serde::{Deserialize, Serialize};

/// A master in the Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Raft's id of the member: new at each join, never used again.
    pub id: u64,
    /// The master's name.
    pub name: String,
    /// Where its peers reach it: `address:port`.
    pub peer_address: String,
    /// Where clients reach its API: `https://address:port`.
    pub api_url: String,
    /// Whether it votes; a learner is still being fed.
    pub voter: bool,
    /// The member that goes when this one votes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
    /// The name of the master that takes this one's place when it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// How far a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Who.
    #[serde(flatten)]
    pub member: Member,
    /// Whether it leads.
    pub leader: bool,
    /// Whether the answering master reached it just now.
    pub healthy: bool,
    /// The last index in its log, when known.
    pub last_log_index: Option<u64>,
    /// The last index that it applied, when known.
    pub applied_index: Option<u64>,
    /// The store's revision on it, when known.
    pub revision: Option<u64>,
    /// Bytes of its data on disk, when known.
    pub db_size_bytes: Option<u64>,
    /// What is wrong with it, for people.
    pub problem: Option<String>,
    /// What is wrong with its disk or data, for programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<Alarm>,
    /// How it works, when it was reached.
    #[serde(default)]
    pub figures: Option<MemberFigures>,
}

/// What is wrong with a member's disk or data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Alarm {
    /// The disk is full: only deletes and compactions are taken, until there is room.
    NoSpace,
    /// The data are damaged; the member will be fed again as a new one.
    Corrupt,
    /// The disk is slow.
    SlowDisk,
}

/// How a member's data compare to the others', at one revision: an element of the answer of `POST /cluster/v1/check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberCheck {
    /// Who.
    #[serde(flatten)]
    pub member: Member,
    /// The revision at which they were compared.
    pub revision: u64,
    /// Whether they are those of the majority; None when that is not known.
    pub same: Option<bool>,
    /// Why it is not known, or what differs.
    pub problem: Option<String>,
}

/// How a member works, since its process began. Times are in microseconds; None before the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberFigures {
    /// Half of the log's writes, fsync included, took no longer.
    pub fsync_p50_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub fsync_p99_us: Option<u64>,
    /// Half of the writes of applied entries took no longer.
    pub commit_p50_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub commit_p99_us: Option<u64>,
    /// Commands of its clients that wait for their reply.
    pub proposals_pending: u64,
    /// Commands of its clients that failed, or whose outcome is unknown.
    pub proposals_failed: u64,
    /// How often it saw another leader.
    pub leader_changes: u64,
    /// Writes of applied entries that took more than 100 ms.
    pub slow_applies: u64,
    /// Watches.
    pub watchers: u64,
    /// Those of them that are behind.
    pub slow_watchers: u64,
    /// Bytes of its data that are still in use.
    pub db_live_bytes: u64,
    /// The size at which its data would leave the disk only its reserve: then writes are refused.
    pub db_bytes_max: u64,
    /// Bytes of its log's entries.
    pub log_bytes: u64,
}

/// Answer of `GET /cluster/v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The cluster's identity; a restore makes a new one.
    pub cluster_id: String,
    /// The Raft term.
    pub term: u64,
    /// The leader's member id, when one is known.
    pub leader: Option<u64>,
    /// All members.
    pub members: Vec<MemberStatus>,
}

/// Answer of `GET /cluster/v1/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberList {
    /// The cluster's identity.
    pub cluster_id: String,
    /// All members.
    pub members: Vec<Member>,
}

/// Body of `POST /cluster/v1/members`: admits a master that is about to start with an empty data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberAdd {
    /// The master's name.
    pub name: String,
    /// Where its peers will reach it: `address:port`.
    pub peer_address: String,
    /// Where clients will reach its API.
    pub api_url: String,
}

/// Body of `POST /cluster/v1/members/NAME/replace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberReplace {
    /// The name of the master that takes the place: a learner, or one that will join under this name.
    pub by: String,
}

/// Answer to it: what was noted, and what the new master needs to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// The member that goes.
    pub replaced: Member,
    /// The one that takes its place, when it is a learner already.
    pub by: Option<Member>,
    /// The masters that it can join: the API's URLs of the others.
    pub servers: Vec<String>,
    /// A token to join with.
    pub token: Secret,
}

/// What a machine asks to become, with a join token: body of `POST /cluster/v1/join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "role")]
pub enum JoinRequest {
    /// A node agent.
    #[serde(rename_all = "camelCase")]
    Node {
        /// The node's name.
        name: String,
        /// The address at which masters reach its kubelet port.
        address: String,
        /// A certificate signing request in PEM; the subject is set by the server.
        csr_pem: String,
    },
    /// A master.
    #[serde(rename_all = "camelCase")]
    Master {
        /// Name and addresses.
        #[serde(flatten)]
        member: MemberAdd,
        /// The name or id of the member whose place it takes: that one goes when this one votes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<String>,
    },
}

/// Answer of `POST /cluster/v1/join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "role")]
pub enum JoinResponse {
    /// For a node.
    #[serde(rename_all = "camelCase")]
    Node {
        /// The cluster's identity.
        cluster_id: String,
        /// The CA's certificate in PEM.
        ca_pem: String,
        /// The node's certificate in PEM: client of the API and server of the kubelet port.
        certificate_pem: String,
        /// The masters' API URLs.
        masters: Vec<String>,
        /// The network of all pods.
        cluster_cidr: String,
        /// The network of services' addresses.
        service_cidr: String,
        /// The address at which pods ask for names.
        dns_address: String,
        /// The domain of services' names.
        cluster_domain: String,
    },
    /// For a master: all that it needs to start and to issue certificates itself.
    #[serde(rename_all = "camelCase")]
    Master {
        /// The cluster's identity.
        cluster_id: String,
        /// The member id that it must use.
        member_id: u64,
        /// The CA's certificate in PEM.
        ca_pem: String,
        /// The CA's key in PEM.
        ca_key_pem: Secret,
        /// The members so far, itself included.
        members: Vec<Member>,
        /// The cluster's settings, which all masters share.
        settings: ClusterSettings,
    },
}

/// What all masters of a cluster must agree on; fixed when the cluster is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSettings {
    /// The network of all pods, `10.244.0.0/16`; every node gets a /24 of it.
    pub cluster_cidr: String,
    /// The network of services' addresses, `10.96.0.0/16`.
    pub service_cidr: String,
    /// The domain of services' names, `cluster.local`.
    pub cluster_domain: String,
    /// The address at which pods ask for names, `10.96.0.10`.
    pub dns_address: String,
}

/// Which keys of the cluster shall be replaced by new ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyRotation {
    /// Those that seal secrets in the store.
    pub secrets: bool,
    /// Those that sign service accounts' tokens.
    pub tokens: bool,
}

/// What a rotation of keys did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeysRotated {
    /// Secrets that were sealed again.
    pub secrets_sealed: u64,
    /// New keys that sign tokens.
    pub token_keys: u64,
    /// Keys that open secrets, the newest and those of the past that history may need.
    pub secret_keys_kept: usize,
    /// Keys that verify tokens.
    pub token_keys_kept: usize,
}
