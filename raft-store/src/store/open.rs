//! Brings a member up: checks whose folder it is, opens log and state, starts the consensus, the port and the tasks.

use super::contact::Contact;
use super::health::Health;
use super::leases::LeaseClock;
use super::space::Space;
use super::{
    RaftStore, compare, entries, health, history, leader, maintenance, propose, read, slow, space,
    succession,
};
use crate::config::{Config, OpenError};
use crate::damage;
use crate::db::{Db, Engine, EngineError};
use crate::identity::{self, Identity};
use crate::log::LogStore;
use crate::log::mark::{Mark, Slots};
use crate::membership;
use crate::metrics::Metrics;
use crate::net::{self, Answers, Incoming, Peers, Transport};
use crate::state::{Applied, StateMachine};
use crate::steady::SteadyClock;
use crate::types::{Node, Plan, Raft};
use mvcc::{Hub, LeaderState, Meta};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the parts of a running member share.
pub(crate) struct Inner {
    pub config: Config,
    pub identity: Identity,
    pub raft: Raft,
    pub db: Arc<Db>,
    pub log: LogStore,
    pub hub: Hub,
    pub peers: Arc<Peers>,
    pub metrics: Arc<Metrics>,
    pub space: Space,
    pub health: Health,
    /// Why the member's data must not be used any more.
    pub condemnation: OnceLock<String>,
    /// What a member that was removed says to whoever asks it.
    pub removed: OnceLock<String>,
    /// Hashing reads everything, so one is done after the other.
    pub hashing: Mutex<()>,
    pub contact: Contact,
    pub steady: SteadyClock,
    /// Runs while this member leads.
    pub lease_clock: std::sync::Mutex<Option<LeaseClock>>,
    pub applied: watch::Receiver<Applied>,
    pub leader: watch::Receiver<LeaderState>,
    pub proposals: mpsc::Sender<propose::Proposal>,
    /// Told when the waiting proposals make a large batch.
    pub many_proposals: Notify,
    /// Batches for this member to propose, should it lead.
    pub arrivals: mpsc::Sender<entries::Arrived>,
    pub reads: mpsc::Sender<read::Waiting>,
    pub rounds: mpsc::Sender<read::Asked>,
    /// Told when the leader may have died.
    pub suspicion: Arc<Notify>,
    /// Changes of membership come one after the other.
    pub changing: Mutex<()>,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

/// What a simulated member is made of in the place of files and sockets.
pub struct Parts {
    /// Its disk.
    pub engine: Box<dyn Engine>,
    /// Where it is noted how far its log was synced.
    pub mark: Box<dyn Slots>,
    /// Its network.
    pub transport: Arc<dyn Transport>,
    /// Its steady clock.
    pub clock: SteadyClock,
}

impl RaftStore {
    /// Opens a member. A new folder becomes the member's own; one of another member is refused.
    ///
    /// A new cluster is then begun with [`bootstrap`](Self::bootstrap); a member that was added waits to be fed.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let data_dir = config.data_dir.clone();
        let opened = open_real(config).await;
        if let Err(err) = &opened
            && err.is_damage()
            && damage::noted(&data_dir).is_none()
            && let Err(err) = damage::note(&data_dir, &damage::reason(err))
        {
            tracing::error!(error = %err, "the folder cannot be marked as damaged");
        }
        opened
    }

    /// Opens a member over simulated parts; what it answers the others is returned with it. Its data folder holds nothing but
    /// snapshots on their way.
    pub async fn open_with(config: Config, parts: Parts) -> Result<(Self, Answers), OpenError> {
        let identity = claim(&config)?;
        let db = Db::over(parts.engine).map_err(|source| OpenError::Database {
            path: config.data_dir.display().to_string(),
            source,
        })?;
        let own = Own {
            identity,
            db,
            space: Space::default(),
            mark: Mark::over(parts.mark),
            steady: parts.clock,
        };
        let starting = start(config, own, Some(parts.transport));
        let (store, incoming) = parts.clock.times(starting).await?;
        let answers = net::server::answers(&store.inner, incoming);
        Ok((store, answers))
    }
}

/// Opens a member over files and sockets.
async fn open_real(config: Config) -> Result<RaftStore, OpenError> {
    config.raft()?;
    check_header(&config.cluster_id)?;
    let data_dir = config.data_dir.clone();
    let identity = claim(&config)?;
    let space = Space::open(&data_dir, config.limits.disk_reserve_bytes);
    let db = open_db(&data_dir)?;
    let mark = Mark::open(&identity::mark_path(&data_dir)).map_err(|source| OpenError::Folder {
        path: data_dir.display().to_string(),
        source,
    })?;
    identity.store(&data_dir)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| OpenError::Listen {
            address: config.listen,
            source,
        })?;
    let own = Own {
        identity,
        db,
        space,
        mark,
        steady: SteadyClock::default(),
    };
    let (store, incoming) = start(config, own, None).await?;
    store.inner.serve(listener, incoming);
    Ok(store)
}

/// What a member has on its disk.
struct Own {
    identity: Identity,
    db: Db,
    space: Space,
    mark: Mark,
    steady: SteadyClock,
}

/// Starts consensus and tasks over an open database.
async fn start(
    config: Config,
    own: Own,
    transport: Option<Arc<dyn Transport>>,
) -> Result<(RaftStore, Incoming), OpenError> {
    let Own {
        identity,
        db,
        space,
        mark,
        steady,
    } = own;
    let raft_config = Arc::new(config.raft()?);
    #[cfg(feature = "planted-bugs")]
    crate::planted::begin(&db)?;
    let db = Arc::new(db);
    let metrics = Arc::new(Metrics::default());
    let log = LogStore::open_marked(db.clone(), metrics.clone(), Some(mark))?;
    let meta = Meta::load(&db.live())?;
    let hub = Hub::new(config.limits.hub, meta.revision, meta.compacted);
    let state = StateMachine::open(
        db.clone(),
        config.cluster_id.clone(),
        identity::tmp_dir(&config.data_dir),
        hub.clone(),
        metrics.clone(),
    )?;
    let applied = state.applied();
    let peers = Arc::new(Peers::new(
        &config.cluster_id,
        config.member_id,
        config.tls.clone(),
        config.timings.connect,
        transport,
    ));
    let network =
        net::client::Network::new(peers.clone(), &config.cluster_id, config.timings.append);
    let raft = Raft::new(config.member_id, raft_config, network, log.clone(), state)
        .await
        .map_err(|err| OpenError::Raft(err.to_string()))?;
    let (proposals, proposals_receiver) = mpsc::channel(config.limits.proposals_queued);
    let (reads, reads_receiver) = mpsc::channel(config.limits.proposals_queued);
    let (arrivals, arrivals_receiver) = mpsc::channel(entries::BATCHES_MAX);
    let (rounds, rounds_receiver) = mpsc::channel(read::ASKED_MAX);
    let (leader_sender, leader) = watch::channel(LeaderState::default());
    let stop = CancellationToken::new();
    let incoming = Incoming::new(&identity.cluster_id, identity.member_id);
    let inner = Arc::new(Inner {
        config,
        identity,
        raft,
        db,
        log,
        hub,
        peers,
        metrics,
        space,
        health: Health::default(),
        contact: Contact::default(),
        steady,
        condemnation: OnceLock::new(),
        removed: OnceLock::new(),
        hashing: Mutex::new(()),
        lease_clock: std::sync::Mutex::default(),
        applied,
        leader,
        proposals,
        many_proposals: Notify::new(),
        arrivals,
        reads,
        rounds,
        suspicion: Arc::default(),
        changing: Mutex::new(()),
        stop: stop.clone(),
        tasks: TaskTracker::new(),
    });
    inner.spawn(propose::run(inner.clone(), proposals_receiver));
    inner.spawn(entries::run(inner.clone(), arrivals_receiver));
    inner.spawn(read::run(inner.clone(), reads_receiver));
    inner.spawn(read::confirm(inner.clone(), rounds_receiver));
    inner.spawn(leader::run(inner.clone(), leader_sender));
    inner.spawn(succession::run(inner.clone()));
    inner.spawn(maintenance::run(inner.clone()));
    inner.spawn(space::run(inner.clone()));
    inner.spawn(slow::hold_back(inner.clone()));
    inner.spawn(history::run(inner.clone()));
    inner.spawn(history::sweep(inner.clone()));
    inner.spawn(health::run(inner.clone()));
    inner.spawn(compare::run(inner.clone()));
    inner.spawn(membership::tell_own_address(inner.clone()));
    inner.spawn(membership::look_whether_removed(inner.clone()));
    inner.elect_if_alone().await;
    inner.spawn_stopper();
    Ok((RaftStore::new(inner, stop), incoming))
}

impl Inner {
    /// How the others know this member.
    pub fn node(&self) -> Node {
        let Config {
            name,
            peer_address,
            api_url,
            ..
        } = &self.config;
        Node {
            name: name.clone(),
            peer_address: peer_address.clone(),
            api_url: api_url.clone(),
            plan: Plan::default(),
        }
    }

    /// Runs a task until the member stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(self.steady.times(async move {
            stop.run_until_cancelled_owned(task).await;
        }));
    }

    /// What damage this member found in its own files.
    pub fn damage(&self) -> Option<String> {
        self.condemnation
            .get()
            .cloned()
            .or_else(|| self.db.damage())
    }

    /// The member's data must not be used any more: marks the folder and stops.
    pub fn condemned(&self, reason: &str) {
        if self.condemnation.set(reason.to_owned()).is_err() {
            return;
        }
        tracing::error!(
            reason,
            "this member's data are damaged: it stops, and comes back as a new one"
        );
        if let Err(err) = damage::note(&self.config.data_dir, reason) {
            tracing::error!(error = %err, "the folder cannot be marked as damaged");
        }
        self.stop.cancel();
    }

    /// After the consensus stopped: whether it did so because the member's files are damaged.
    pub fn note_damage_found(&self) {
        if let Some(reason) = self.db.damage() {
            self.condemned(&reason);
        }
    }

    /// Why the consensus ended, if it did.
    pub fn why_stopped(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .running_state
            .as_ref()
            .err()
            .map(ToString::to_string)
    }

    /// Stops everything and waits for it.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.hub.close();
        if let Err(err) = self.raft.shutdown().await {
            tracing::warn!(error = %err, "the consensus did not stop in order");
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.peers.close();
    }

    fn serve(self: &Arc<Self>, listener: TcpListener, incoming: Incoming) {
        let connections = net::accept(
            listener,
            self.config.tls.clone(),
            self.stop.clone(),
            self.peers.traffic(),
        );
        self.spawn(net::server::run(self.clone(), incoming, connections));
    }

    /// The only voter has nobody to wait for.
    async fn elect_if_alone(&self) {
        let alone = self.raft.voter_ids().eq([self.identity.member_id]);
        if alone && let Err(err) = self.raft.trigger().elect(false).await {
            tracing::warn!(error = %err, "the only member cannot elect itself yet");
        }
    }

    /// When the last handle is dropped, the member ends.
    fn spawn_stopper(self: &Arc<Self>) {
        let inner = self.clone();
        tokio::spawn(async move {
            inner.stop.cancelled().await;
            inner.stop().await;
        });
    }
}

/// Whose folder it is; a new one becomes this member's.
fn claim(config: &Config) -> Result<Identity, OpenError> {
    let path = config.data_dir.display().to_string();
    let folder = |source| OpenError::Folder {
        path: path.clone(),
        source,
    };
    let wanted = Identity::new(&config.cluster_id, config.member_id, &config.name);
    if let Some(reason) = damage::noted(&config.data_dir) {
        return Err(OpenError::Damaged { path, reason });
    }
    if let Some(found) = Identity::load(&config.data_dir)?
        && (found.cluster_id != wanted.cluster_id || found.member_id != wanted.member_id)
    {
        return Err(OpenError::OtherMember {
            path,
            found_id: found.member_id,
            found_cluster: found.cluster_id,
            wanted_id: wanted.member_id,
            wanted_cluster: wanted.cluster_id,
        });
    }
    std::fs::create_dir_all(identity::db_dir(&config.data_dir)).map_err(folder)?;
    let tmp_dir = identity::tmp_dir(&config.data_dir);
    std::fs::create_dir_all(&tmp_dir).map_err(folder)?;
    Ok(wanted)
}

fn open_db(data_dir: &Path) -> Result<Db, OpenError> {
    let path = identity::db_dir(data_dir);
    let db = Db::open(&path).map_err(|source| match is_lock(&source) {
        true => OpenError::InUse(data_dir.display().to_string()),
        false => OpenError::Database {
            path: path.display().to_string(),
            source,
        },
    })?;
    // What is left of snapshots that were being received; only now is it sure that no other process uses the folder.
    let tmp_dir = identity::tmp_dir(data_dir);
    let folder = |source| OpenError::Folder {
        path: tmp_dir.display().to_string(),
        source,
    };
    for entry in std::fs::read_dir(&tmp_dir).map_err(folder)? {
        std::fs::remove_file(entry.map_err(folder)?.path()).map_err(folder)?;
    }
    Ok(db)
}

/// Whether another process uses the database.
pub(crate) fn is_lock(err: &EngineError) -> bool {
    let text = err.to_string();
    text.contains("/LOCK") || text.contains("lock hold by current process")
}

fn check_header(cluster_id: &str) -> Result<(), OpenError> {
    let is_plain = !cluster_id.is_empty() && cluster_id.bytes().all(|byte| byte.is_ascii_graphic());
    match is_plain {
        true => Ok(()),
        false => Err(OpenError::Settings(format!(
            "the cluster's id {cluster_id:?} must be printable ASCII without spaces"
        ))),
    }
}
