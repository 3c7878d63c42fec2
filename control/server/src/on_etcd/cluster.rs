//! The cluster behind `/cluster/v1/` where the store is an etcd: who the masters are, joining, explanations. What etcd itself
//! must be asked is refused.

use crate::keyring::KeyRing;
use crate::pki::Authority;
use crate::settings::MasterIdentity;
use crate::{cluster, tokens};
use api::{Archive, Check, Cluster, Proof, SnapshotKeys};
use async_trait::async_trait;
use client::JoinToken;
use etcd_store::{Announced, EtcdStore};
use mvcc::Store;
use objects::cluster::{
    ClusterStatus, JoinRequest, JoinResponse, KeyRotation, KeysRotated, Member, MemberAdd,
    MemberCheck, MemberList, MemberReplace, MemberStatus, Replacement,
};
use objects::past::HistoryKeep;
use objects::snapshots::{
    SnapshotList, SnapshotRequested, SnapshotScheduleList, SnapshotSchedulePut,
    SnapshotScheduleStatus,
};
use objects::{Reason, Status};
use runtime::Runtime;
use std::sync::Arc;

/// The cluster as this master knows it.
pub struct Masters {
    /// The store.
    pub store: EtcdStore,
    /// Who this master is.
    pub identity: MasterIdentity,
    /// The CA.
    pub authority: Authority,
    /// The key ring.
    pub ring: KeyRing,
    /// For explanations.
    pub runtime: Runtime,
}

fn ask_etcd(what: &str) -> Status {
    let message = format!(
        "{what} cannot be had here: the masters run on an etcd, whose own affair that is; ask it with etcdctl"
    );
    Status::failure(405, Reason::MethodNotAllowed, message)
}

impl Masters {
    /// A master is no member of a Raft group; its id is its place among those that live.
    fn living(&self) -> Vec<Member> {
        let member = |(place, master): (usize, Announced)| Member {
            id: place as u64 + 1,
            name: master.name,
            peer_address: String::new(),
            api_url: master.api_url,
            voter: true,
            replaces: None,
            replaced_by: None,
        };
        self.store
            .masters()
            .into_iter()
            .enumerate()
            .map(member)
            .collect()
    }

    fn urls(&self) -> Vec<String> {
        let masters = self.store.masters().into_iter();
        masters.map(|master| master.api_url).collect()
    }
}

#[async_trait]
impl Cluster for Masters {
    async fn status(&self) -> Result<ClusterStatus, Status> {
        let (state, leader) = self.store.leads();
        let is_leader = |member: &Member| Some(&member.name) == leader.as_ref();
        let members = self.living();
        Ok(ClusterStatus {
            cluster_id: self.identity.cluster_id.clone(),
            term: state.term.0,
            leader: members
                .iter()
                .find(|member| is_leader(member))
                .map(|member| member.id),
            members: members
                .into_iter()
                .map(|member| MemberStatus {
                    leader: is_leader(&member),
                    // Its key would have ended with its lease.
                    healthy: true,
                    last_log_index: None,
                    applied_index: None,
                    revision: (member.name == self.identity.name)
                        .then(|| self.store.applied_revision().0),
                    db_size_bytes: None,
                    problem: None,
                    alarms: vec![],
                    figures: None,
                    member,
                })
                .collect(),
        })
    }

    async fn members(&self) -> Result<MemberList, Status> {
        Ok(MemberList {
            cluster_id: self.identity.cluster_id.clone(),
            members: self.living(),
        })
    }

    async fn add_member(&self, _: MemberAdd) -> Result<Member, Status> {
        Err(ask_etcd("a change of the store's members"))
    }

    async fn remove_member(&self, _: &str) -> Result<(), Status> {
        Err(ask_etcd("a change of the store's members"))
    }

    async fn replace_member(&self, _: &str, _: MemberReplace) -> Result<Replacement, Status> {
        Err(ask_etcd("a change of the store's members"))
    }

    async fn check_members(&self) -> Result<Vec<MemberCheck>, Status> {
        Err(ask_etcd("a comparison of the store's members"))
    }

    async fn join(&self, proof: Proof<'_>, request: JoinRequest) -> Result<JoinResponse, Status> {
        match (proof, &request) {
            (Proof::Token(token), _) => {
                let token: JoinToken = token.parse().map_err(|_| Status::unauthorized())?;
                let known = tokens::is_known(&self.store, &token).await;
                if !known.map_err(cluster::unavailable)? {
                    return Err(Status::unauthorized());
                }
            }
            (Proof::MastersCertificate, JoinRequest::Master { .. }) => {}
            (Proof::MastersCertificate, JoinRequest::Node { .. }) => {
                return Err(Status::unauthorized());
            }
        }
        match request {
            JoinRequest::Node {
                name,
                address,
                csr_pem,
            } => cluster::join_node(
                &self.authority,
                &self.identity,
                self.urls(),
                (&name, &address, &csr_pem),
            ),
            JoinRequest::Master { member, .. } => {
                cluster::check_name("the master's name", &member.name)?;
                if self
                    .store
                    .masters()
                    .iter()
                    .any(|one| one.name == member.name)
                {
                    let message = format!("a master {:?} lives; choose another name", member.name);
                    return Err(Status::failure(409, Reason::AlreadyExists, message));
                }
                tracing::info!(master = member.name, "a master joined");
                Ok(JoinResponse::Master {
                    cluster_id: self.identity.cluster_id.clone(),
                    member_id: 0,
                    ca_pem: self.authority.certificate_pem.clone(),
                    ca_key_pem: self.authority.key_pem.clone().into(),
                    members: self.living(),
                    settings: self.identity.settings.clone(),
                })
            }
        }
    }

    async fn snapshot(&self, _: SnapshotKeys) -> Result<Archive, Status> {
        Err(ask_etcd("a snapshot"))
    }

    async fn snapshot_schedules(&self) -> Result<SnapshotScheduleList, Status> {
        Err(ask_etcd("a schedule of snapshots"))
    }

    async fn snapshot_schedule(&self, _: &str) -> Result<SnapshotScheduleStatus, Status> {
        Err(ask_etcd("a schedule of snapshots"))
    }

    async fn put_snapshot_schedule(
        &self,
        _: &str,
        _: SnapshotSchedulePut,
    ) -> Result<SnapshotScheduleStatus, Status> {
        Err(ask_etcd("a schedule of snapshots"))
    }

    async fn remove_snapshot_schedule(&self, _: &str) -> Result<(), Status> {
        Err(ask_etcd("a schedule of snapshots"))
    }

    async fn run_snapshot_schedule(&self, _: &str) -> Result<SnapshotRequested, Status> {
        Err(ask_etcd("a schedule of snapshots"))
    }

    async fn snapshots(&self) -> Result<SnapshotList, Status> {
        Err(ask_etcd("a list of snapshots"))
    }

    async fn transfer_leader(&self, _: Option<&str>) -> Result<(), Status> {
        let message = "leadership is not handed over while the masters run on an etcd: stop the master that leads, and another follows at once";
        Err(Status::failure(405, Reason::MethodNotAllowed, message))
    }

    async fn explain(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Vec<String>, Status> {
        cluster::explain(&self.runtime, resource, namespace, name).await
    }

    async fn keep_history(&self, _: HistoryKeep) -> Result<(), Status> {
        Err(ask_etcd("history by age and size"))
    }

    async fn rotate_keys(&self, rotation: KeyRotation) -> Result<KeysRotated, Status> {
        cluster::rotate_keys(&self.ring, Arc::new(self.store.clone()), &rotation).await
    }

    async fn metrics(&self) -> Result<String, Status> {
        Err(ask_etcd("the store's metrics"))
    }

    fn removed(&self) -> Option<String> {
        None
    }

    fn readiness(&self) -> Vec<Check> {
        let (state, _) = self.store.leads();
        let leaderless = "no master leads: is etcd reached?";
        vec![Check {
            name: "store",
            problem: (!state.has_leader).then(|| leaderless.to_owned()),
        }]
    }
}
