//! Asks the members how they are and tells them what to do, through the maintenance and cluster parts of the etcd v3 API.
//! Never repeats a call; every call has a deadline.

use super::target::{Endpoint, TlsMaterial};
use anyhow::{Context, Result, bail};
use futures::future::join_all;
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::cluster_client::ClusterClient;
use rpc::etcd::etcdserverpb::kv_client::KvClient;
use rpc::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

/// A member that lives answers a question within this.
const ASK_DEADLINE: Duration = Duration::from_millis(1500);
/// A change of members is done within this.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// A snapshot of a test's data is read within this.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);

/// A connection to each member.
#[derive(Clone)]
pub struct Probe {
    members: Vec<(String, Channel)>,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The member's name.
    pub name: String,
    /// Its term.
    pub term: u64,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub id: u64,
    /// Who leads by its knowledge; 0 for nobody.
    pub leader: u64,
    /// The term.
    pub term: u64,
    /// The last entry committed by its knowledge.
    pub committed: u64,
    /// The last entry applied.
    pub applied: u64,
    /// Whether it is a learner.
    pub is_learner: bool,
    /// The store's revision.
    pub revision: i64,
    /// What it complains of.
    pub errors: Vec<String>,
}

/// A member, as the members know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub id: u64,
    /// Its name; empty until it was started.
    pub name: String,
    /// Whether it is a learner.
    pub is_learner: bool,
}

impl Leader {
    /// The one of the highest term that any member tells, and that says so itself.
    pub fn of(statuses: &[(String, Option<Status>)]) -> Option<Leader> {
        let (name, status) = statuses
            .iter()
            .filter_map(|(name, status)| Some((name, status.as_ref()?)))
            .filter(|(_, status)| status.leader != 0 && status.leader == status.id)
            .max_by_key(|(_, status)| status.term)?;
        Some(Leader {
            name: name.clone(),
            term: status.term,
        })
    }
}

impl Probe {
    /// Connects to members when they are asked.
    pub fn new(endpoints: &[Endpoint]) -> Result<Self> {
        let members = endpoints
            .iter()
            .map(|endpoint| Ok((endpoint.name.clone(), connect(endpoint)?)))
            .collect::<Result<_>>()?;
        Ok(Probe { members })
    }

    /// What a member says of itself.
    pub async fn status(&self, name: &str) -> Result<Status> {
        let mut client = MaintenanceClient::new(self.channel(name)?);
        let answer = within(ASK_DEADLINE, client.status(pb::StatusRequest {})).await?;
        let header = answer.header.unwrap_or_default();
        Ok(Status {
            id: header.member_id,
            leader: answer.leader,
            term: answer.raft_term,
            committed: answer.raft_index,
            applied: answer.raft_applied_index,
            is_learner: answer.is_learner,
            revision: header.revision,
            errors: answer.errors,
        })
    }

    /// What every member says of itself; None for those that do not answer.
    pub async fn statuses(&self) -> Vec<(String, Option<Status>)> {
        join_all(self.members.iter().map(|(name, _)| async {
            let status = self.status(name).await.ok();
            (name.clone(), status)
        }))
        .await
    }

    /// The leader, when one is known.
    pub async fn leader(&self) -> Option<Leader> {
        Leader::of(&self.statuses().await)
    }

    /// Whether a member answers a linearizable read.
    pub async fn reads(&self, name: &str) -> Result<()> {
        let mut client = KvClient::new(self.channel(name)?);
        let request = pb::RangeRequest {
            key: "chaos/probe".into(),
            ..pb::RangeRequest::default()
        };
        within(CHANGE_DEADLINE, client.range(request)).await?;
        Ok(())
    }

    /// The members by the knowledge of any that answers.
    pub async fn members(&self) -> Result<Vec<Known>> {
        let answer = self
            .any(|channel| async move {
                let mut client = ClusterClient::new(channel);
                within(
                    ASK_DEADLINE,
                    client.member_list(pb::MemberListRequest::default()),
                )
                .await
            })
            .await?;
        let known = answer.members.into_iter().map(|member| Known {
            id: member.id,
            name: member.name,
            is_learner: member.is_learner,
        });
        Ok(known.collect())
    }

    /// Adds a voter.
    pub async fn member_add(&self, peer_url: &str) -> Result<()> {
        self.any(|channel| async move {
            let mut client = ClusterClient::new(channel);
            let request = pb::MemberAddRequest {
                peer_ur_ls: vec![peer_url.to_owned()],
                is_learner: false,
            };
            within(CHANGE_DEADLINE, client.member_add(request)).await
        })
        .await?;
        Ok(())
    }

    /// Removes the member of a name.
    pub async fn member_remove(&self, name: &str) -> Result<()> {
        let known = self.members().await?;
        let Some(member) = known.iter().find(|member| member.name == name) else {
            bail!("the members know no {name}");
        };
        let id = member.id;
        self.any(|channel| async move {
            let mut client = ClusterClient::new(channel);
            let request = pb::MemberRemoveRequest { id };
            within(CHANGE_DEADLINE, client.member_remove(request)).await
        })
        .await?;
        Ok(())
    }

    /// Hands leadership to a member.
    pub async fn move_leader(&self, leader: &str, to: &str) -> Result<()> {
        let target_id = self.status(to).await?.id;
        let mut client = MaintenanceClient::new(self.channel(leader)?);
        let request = pb::MoveLeaderRequest { target_id };
        within(CHANGE_DEADLINE, client.move_leader(request)).await?;
        Ok(())
    }

    /// Forgets all revisions before `revision`.
    pub async fn compact(&self, name: &str, revision: i64) -> Result<()> {
        let mut client = KvClient::new(self.channel(name)?);
        let request = pb::CompactionRequest {
            revision,
            physical: false,
        };
        within(CHANGE_DEADLINE, client.compact(request)).await?;
        Ok(())
    }

    /// Reads a snapshot to its end; how many bytes it has.
    pub async fn snapshot(&self, name: &str) -> Result<u64> {
        let mut client = MaintenanceClient::new(self.channel(name)?);
        let read = async {
            let mut stream = client.snapshot(pb::SnapshotRequest {}).await?.into_inner();
            let mut bytes = 0;
            while let Some(piece) = stream.message().await? {
                bytes += piece.blob.len() as u64;
            }
            Ok::<u64, tonic::Status>(bytes)
        };
        let bytes = tokio::time::timeout(SNAPSHOT_DEADLINE, read)
            .await
            .with_context(|| format!("no whole snapshot came within {SNAPSHOT_DEADLINE:?}"))?;
        Ok(bytes?)
    }

    /// Asks one member after the other, until one does it.
    async fn any<T, F>(&self, ask: impl Fn(Channel) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut answers = Vec::new();
        for (name, channel) in &self.members {
            match ask(channel.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => answers.push(format!("{name}: {}", told(&error))),
            }
        }
        bail!("no member did it: {}", answers.join("; "))
    }

    fn channel(&self, name: &str) -> Result<Channel> {
        let found = self.members.iter().find(|(member, _)| member == name);
        let (_, channel) = found.with_context(|| format!("there is no member {name}"))?;
        Ok(channel.clone())
    }
}

/// The text of a refusal; tonic's own tells its parts in all their forms.
fn told(error: &anyhow::Error) -> String {
    match error.downcast_ref::<tonic::Status>() {
        Some(status) => format!("{} ({:?})", status.message(), status.code()),
        None => format!("{error:#}"),
    }
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T> {
    let answer = tokio::time::timeout(deadline, call)
        .await
        .with_context(|| format!("no answer within {deadline:?}"))?;
    Ok(answer?.into_inner())
}

/// A connection to a member, made when it is first used.
pub fn connect(endpoint: &Endpoint) -> Result<Channel> {
    let shown = || format!("{} cannot be reached", endpoint.url);
    let mut channel = Channel::from_shared(endpoint.url.clone())
        .with_context(shown)?
        .connect_timeout(ASK_DEADLINE);
    if let Some(tls) = &endpoint.tls {
        channel = channel.tls_config(tls_config(tls)).with_context(shown)?;
    }
    Ok(channel.connect_lazy())
}

fn tls_config(tls: &TlsMaterial) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&tls.ca))
        .identity(Identity::from_pem(&tls.certificate, &tls.key))
}
