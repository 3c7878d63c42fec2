//! The cluster behind `/cluster/v1/`: membership, joining, snapshots, explanations; over the store of this master.

use crate::keyring::KeyRing;
use crate::pki::{Authority, Subject};
use crate::settings::{self, MasterIdentity};
use crate::vault::{self, Holder, Keys};
use crate::{clock, snapshots, tokens};
use api::{Archive, Check, Cluster, Proof, SnapshotKeys};
use async_trait::async_trait;
use bytes::Bytes;
use client::JoinToken;
use etcd::Numbers;
use futures::{FutureExt, StreamExt};
use mvcc::{Store, StoreError};
use objects::cluster::{
    ClusterStatus, JoinRequest, JoinResponse, KeyRotation, KeysRotated, Member, MemberAdd,
    MemberCheck, MemberList, MemberReplace, Replacement,
};
use objects::identities::{NODES_GROUP, node_user};
use objects::past::HistoryKeep;
use objects::snapshots::{
    SnapshotList, SnapshotRequested, SnapshotScheduleList, SnapshotSchedulePut,
    SnapshotScheduleStatus,
};
use objects::{ObjectKey, Reason, Status, names};
use raft_store::archive::StateKey;
use raft_store::{MembershipError, RaftStore};
use runtime::Runtime;
use std::net::IpAddr;
use std::sync::Arc;

/// The cluster as this master knows it.
pub struct Masters {
    /// The schedules of snapshots.
    pub snapshots: snapshots::Settings,
    /// This master's numbers for Prometheus.
    pub numbers: Numbers,
    /// The store.
    pub store: RaftStore,
    /// Who this master is.
    pub identity: MasterIdentity,
    /// The CA.
    pub authority: Authority,
    /// The key ring.
    pub ring: KeyRing,
    /// For explanations.
    pub runtime: Runtime,
}

#[async_trait]
impl Cluster for Masters {
    async fn status(&self) -> Result<ClusterStatus, Status> {
        Ok(self.store.status().await)
    }

    async fn members(&self) -> Result<MemberList, Status> {
        Ok(MemberList {
            cluster_id: self.identity.cluster_id.clone(),
            members: self.store.members(),
        })
    }

    async fn add_member(&self, add: MemberAdd) -> Result<Member, Status> {
        check_name("the master's name", &add.name)?;
        self.store.add_member(add).await.map_err(refused)
    }

    async fn remove_member(&self, name_or_id: &str) -> Result<(), Status> {
        self.store.remove_member(name_or_id).await.map_err(refused)
    }

    async fn replace_member(
        &self,
        name_or_id: &str,
        replace: MemberReplace,
    ) -> Result<Replacement, Status> {
        check_name("the new master's name", &replace.by)?;
        let replaced = self
            .store
            .replace_member(name_or_id, &replace.by)
            .await
            .map_err(refused)?;
        let token = self
            .authority
            .sha256()
            .map(|sha256| tokens::create(&self.store, sha256))
            .map_err(Status::internal)?
            .await
            .map_err(|error| Status::unavailable(format!("{error:#}")))?;
        let members = self.store.members();
        let is_new = |member: &&Member| member.name == replace.by && member.id != replaced.id;
        let others = members.iter().filter(|member| member.id != replaced.id);
        Ok(Replacement {
            by: members.iter().find(is_new).cloned(),
            servers: others
                .filter(|member| member.voter)
                .map(|member| member.api_url.clone())
                .collect(),
            token: token.to_string().into(),
            replaced,
        })
    }

    async fn check_members(&self) -> Result<Vec<MemberCheck>, Status> {
        self.store.compare_members().await.map_err(unavailable)
    }

    async fn join(&self, proof: Proof<'_>, request: JoinRequest) -> Result<JoinResponse, Status> {
        match (proof, &request) {
            (Proof::Token(token), _) => self.check_token(token).await?,
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
            } => {
                let members = self.store.members().into_iter();
                let urls = members.map(|member| member.api_url).collect();
                let asked = (&*name, &*address, &*csr_pem);
                join_node(&self.authority, &self.identity, urls, asked)
            }
            JoinRequest::Master { member, replaces } => self.join_master(member, replaces).await,
        }
    }

    async fn snapshot(&self, keys: SnapshotKeys) -> Result<Archive, Status> {
        let sealed = match keys {
            SnapshotKeys::LeftOut => None,
            SnapshotKeys::Sealed(passphrase) => Some(self.sealed_keys(passphrase).await?),
            SnapshotKeys::SealedFor(key) => {
                let holder = Holder::of_public_key(&key).map_err(wrong)?;
                Some(self.locked(&holder).map_err(wrong)?)
            }
        };
        let (extra, key) = sealed.unzip();
        let archive = self.store.archive(extra, key).await.map_err(unavailable)?;
        Ok(archive.boxed())
    }

    async fn snapshot_schedules(&self) -> Result<SnapshotScheduleList, Status> {
        self.snapshots.list().await
    }

    async fn snapshot_schedule(&self, name: &str) -> Result<SnapshotScheduleStatus, Status> {
        self.snapshots.get(name).await
    }

    async fn put_snapshot_schedule(
        &self,
        name: &str,
        schedule: SnapshotSchedulePut,
    ) -> Result<SnapshotScheduleStatus, Status> {
        self.snapshots.put(name, schedule).await
    }

    async fn remove_snapshot_schedule(&self, name: &str) -> Result<(), Status> {
        self.snapshots.remove(name).await
    }

    async fn run_snapshot_schedule(&self, name: &str) -> Result<SnapshotRequested, Status> {
        self.snapshots.request(name).await
    }

    async fn snapshots(&self) -> Result<SnapshotList, Status> {
        self.snapshots.saved().await
    }

    async fn transfer_leader(&self, to: Option<&str>) -> Result<(), Status> {
        self.store.transfer_leadership(to).await.map_err(refused)
    }

    async fn explain(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Vec<String>, Status> {
        explain(&self.runtime, resource, namespace, name).await
    }

    async fn keep_history(&self, keep: HistoryKeep) -> Result<(), Status> {
        let past = self.store.past().await.map_err(unavailable)?;
        let limits = settings::history_limits(&keep, past.limits.unwrap_or_default())
            .map_err(|error| Status::bad_request(error.to_string()))?;
        self.store.keep_history(limits).await.map_err(unavailable)
    }

    async fn rotate_keys(&self, rotation: KeyRotation) -> Result<KeysRotated, Status> {
        rotate_keys(&self.ring, Arc::new(self.store.clone()), &rotation).await
    }

    async fn metrics(&self) -> Result<String, Status> {
        self.numbers.render().await.map_err(Status::internal)
    }

    fn removed(&self) -> Option<String> {
        self.store.removed()
    }

    fn readiness(&self) -> Vec<Check> {
        let leader = self
            .store
            .leader()
            .next()
            .now_or_never()
            .flatten()
            .unwrap_or_default();
        let leaderless = "no leader is known: a majority of the masters is needed";
        let problem = self
            .store
            .removed()
            .or_else(|| (!leader.has_leader).then(|| leaderless.to_owned()));
        vec![Check {
            name: "store",
            problem,
        }]
    }
}

impl Masters {
    async fn check_token(&self, token: &str) -> Result<(), Status> {
        let token: JoinToken = token.parse().map_err(|_| Status::unauthorized())?;
        let known = tokens::is_known(&self.store, &token).await;
        match known.map_err(unavailable)? {
            true => Ok(()),
            false => Err(Status::unauthorized()),
        }
    }

    async fn join_master(
        &self,
        add: MemberAdd,
        replaces: Option<String>,
    ) -> Result<JoinResponse, Status> {
        check_name("the master's name", &add.name)?;
        let member = self
            .store
            .join_member(add, replaces)
            .await
            .map_err(refused)?;
        tracing::info!(master = member.name, id = member.id, "a master joined");
        Ok(JoinResponse::Master {
            cluster_id: self.identity.cluster_id.clone(),
            member_id: member.id,
            ca_pem: self.authority.certificate_pem.clone(),
            ca_key_pem: self.authority.key_pem.clone().into(),
            members: self.store.members(),
            settings: self.identity.settings.clone(),
        })
    }

    /// Sealing takes a good part of a second by design, so it is kept off the threads that serve.
    async fn sealed_keys(&self, passphrase: Vec<u8>) -> Result<(Bytes, StateKey), Status> {
        let passphrase = String::from_utf8(passphrase)
            .map_err(|_| Status::bad_request("the passphrase is not UTF-8"))?;
        let holder = tokio::task::spawn_blocking(move || Holder::of_passphrase(&passphrase)).await;
        let holder = holder.map_err(Status::internal)?.map_err(wrong)?;
        self.locked(&holder).map_err(wrong)
    }

    /// The sealed keys, and what seals the snapshot's state.
    fn locked(&self, holder: &Holder) -> anyhow::Result<(Bytes, StateKey)> {
        let settings = self.identity.settings.clone();
        let (keys, state_key) = Keys::new(self.authority.clone(), settings);
        Ok((vault::lock(&keys, holder)?.into(), state_key))
    }
}

/// Lets a node in: its name, address and certificate request; `masters` are their APIs' URLs.
pub fn join_node(
    authority: &Authority,
    identity: &MasterIdentity,
    masters: Vec<String>,
    (name, address, csr_pem): (&str, &str, &str),
) -> Result<JoinResponse, Status> {
    check_name("the node's name", name)?;
    let address: IpAddr = address.parse().map_err(|_| {
        Status::bad_request(format!("the node's address {address:?} is no IP address"))
    })?;
    let user = node_user(name);
    let subject = Subject {
        user: &user,
        groups: &[NODES_GROUP],
        addresses: &[address],
        names: &[name],
    };
    let certificate_pem = authority
        .sign_request(csr_pem, &subject)
        .map_err(|error| Status::bad_request(format!("no certificate can be issued: {error:#}")))?;
    tracing::info!(node = name, %address, "a node joined");
    let settings = identity.settings.clone();
    Ok(JoinResponse::Node {
        cluster_id: identity.cluster_id.clone(),
        ca_pem: authority.certificate_pem.clone(),
        certificate_pem,
        masters,
        cluster_cidr: settings.cluster_cidr,
        service_cidr: settings.service_cidr,
        dns_address: settings.dns_address,
        cluster_domain: settings.cluster_domain,
    })
}

/// Puts new keys in the place of those that seal and sign.
pub async fn rotate_keys(
    ring: &KeyRing,
    store: Arc<dyn Store>,
    rotation: &KeyRotation,
) -> Result<KeysRotated, Status> {
    if *rotation == KeyRotation::default() {
        return Err(Status::bad_request(
            "say which keys are to be replaced: secrets, tokens, or both",
        ));
    }
    ring.rotate(&store, rotation)
        .await
        .map_err(|error| Status::unavailable(format!("{error:#}")))
}

/// What the controllers think about an object.
pub async fn explain(
    runtime: &Runtime,
    resource: &str,
    namespace: Option<&str>,
    name: &str,
) -> Result<Vec<String>, Status> {
    let registry = runtime.pipeline.registry();
    let row = registry.by_name(resource).ok_or_else(|| {
        Status::bad_request(format!(
            "the server doesn't have a resource type {resource:?}"
        ))
    })?;
    let namespace = namespace.filter(|_| row.namespaced);
    let key = ObjectKey::new(row.group_resource(), namespace, name);
    runtime::explain(runtime, &key).await
}

/// Refuses what is no name of a machine.
pub fn check_name(what: &str, name: &str) -> Result<(), Status> {
    match names::dns1123_subdomain(name).first() {
        None => Ok(()),
        Some(fault) => Err(Status::bad_request(format!(
            "{what} {name:?} is not valid: {fault}"
        ))),
    }
}

fn wrong(error: anyhow::Error) -> Status {
    Status::bad_request(format!("{error:#}"))
}

fn refused(error: MembershipError) -> Status {
    let message = error.to_string();
    match error {
        MembershipError::Unknown(_) => Status::failure(404, Reason::NotFound, message),
        MembershipError::Unavailable(_) | MembershipError::NotTransferred(_) => {
            Status::unavailable(message)
        }
        // Somebody is there who will not go away by waiting.
        MembershipError::Alive(_) => Status::failure(409, Reason::AlreadyExists, message),
        _ => Status::failure(409, Reason::Conflict, message),
    }
}

/// The store could not be asked.
pub fn unavailable(error: StoreError) -> Status {
    tracing::warn!(%error, at = %clock::now(), "the store did not answer");
    Status::unavailable(error.to_string())
}
