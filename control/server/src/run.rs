//! A master's life: make or find it, open the store, serve, and leave in order.

use crate::cli::{Run, StoreKind};
use crate::cluster::Masters;
use crate::create::{self, host_port};
use crate::front::Front;
use crate::pki::Authority;
use crate::settings::{self, DataDir, MasterIdentity};
use crate::snapshots::{Counters, Scheduler, Settings, SnapshotRunner};
use crate::{on_etcd, peers, rejoin, shell};
use anyhow::{Context, Result, anyhow, bail};
use client::Identity;
use etcd::Numbers;
use mvcc::HistoryLimits;
use objects::past::HistoryKeep;
use raft_store::{Config, Limits, MembershipError, RaftStore, Timings};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// When a part ends by itself, whether the store did is known within this.
const STORE_ENDS: Duration = Duration::from_millis(300);

/// Runs until SIGTERM or SIGINT.
pub fn run(args: Run) -> Result<()> {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads can be started")?;
    tokio.block_on(async {
        if args.store == StoreKind::Etcd {
            return on_etcd::master(args).await;
        }
        // Opened again, a damaged store is set aside, and this master comes back as a new member.
        while master(args.clone()).await? == Ended::Damaged {}
        Ok(())
    })
}

/// Why a master ended in order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Asked,
    Damaged,
}

async fn master(args: Run) -> Result<Ended> {
    let name = shell::name_or_hosts(args.name.as_deref())?;
    let dir = DataDir::open(&args.data_dir)?;
    // The ports first: nothing is made where they cannot be had.
    let api_listener = listen(&args, args.api_port, "the API").await?;
    drop(listen(&args, args.peer_port, "the other masters").await?);
    let etcd_listener = match args.etcd_port {
        Some(port) => Some(listen(&args, port, "etcd's API").await?),
        None => None,
    };
    let identity = create::identity(&dir, &args, &name).await?;
    let authority = dir.authority()?;
    let certificate = create::master_certificate(&authority, &identity, args.address)?;
    dir.keep_certificate(&certificate)?;
    let keys = Keys {
        authority,
        certificate,
    };
    let (identity, store) = open_store(&args, &dir, identity, &keys).await?;
    if identity.founder {
        match store.bootstrap().await {
            Ok(()) => keep_history(&store, &args).await?,
            Err(MembershipError::AlreadyBegun) => {}
            Err(error) => return Err(error).context("the new cluster could not begin"),
        }
    }
    let snapshot_runs = Arc::new(Counters::default());
    let counted = snapshot_runs.clone();
    let master = Master {
        numbers: Numbers::new(store.clone()).with(move || counted.families()),
        snapshot_runs,
        args,
        dir,
        identity,
        authority: keys.authority,
        certificate: keys.certificate,
        store,
    };
    master.serve(api_listener, etcd_listener).await
}

/// Sets how much of the past the new cluster keeps, if that was said.
async fn keep_history(store: &RaftStore, args: &Run) -> Result<()> {
    let keep = HistoryKeep {
        seconds: args.history.map(|history| history.as_secs()),
        bytes: args.history_bytes,
    };
    if keep == HistoryKeep::default() {
        return Ok(());
    }
    let limits = settings::history_limits(&keep, HistoryLimits::default())?;
    store
        .keep_history(limits)
        .await
        .context("the new cluster could not be told how much history to keep")
}

/// What a master proves itself with.
struct Keys {
    authority: Authority,
    certificate: Identity,
}

/// Opens the store. One that was lost or is damaged is set aside, and this master comes back as a new member.
async fn open_store(
    args: &Run,
    dir: &DataDir,
    mut identity: MasterIdentity,
    keys: &Keys,
) -> Result<(MasterIdentity, RaftStore)> {
    let is_lost = identity.opened && !raft_store::identity::is_member(&dir.store(&identity));
    let reason = match is_lost {
        true => format!("its store in {} is gone", dir.store(&identity).display()),
        false => match RaftStore::open(store_config(args, dir, &identity, keys)?).await {
            Ok(store) => return keep_opened(dir, identity, store),
            Err(error) if error.is_damage() => format!("{:#}", anyhow!(error)),
            Err(error) => return Err(error.into()),
        },
    };
    identity = rejoin::rejoin(dir, args, &identity, &reason).await?;
    let store = RaftStore::open(store_config(args, dir, &identity, keys)?).await?;
    keep_opened(dir, identity, store)
}

fn keep_opened(
    dir: &DataDir,
    mut identity: MasterIdentity,
    store: RaftStore,
) -> Result<(MasterIdentity, RaftStore)> {
    if !identity.opened {
        identity.opened = true;
        dir.keep_identity(&identity)?;
    }
    Ok((identity, store))
}

struct Master {
    args: Run,
    dir: DataDir,
    identity: MasterIdentity,
    authority: Authority,
    certificate: Identity,
    store: RaftStore,
    numbers: Numbers,
    snapshot_runs: Arc<Counters>,
}

impl Master {
    async fn serve(self, listener: TcpListener, etcd: Option<TcpListener>) -> Result<Ended> {
        let stop = CancellationToken::new();
        let mut parts = self.start(listener, &stop)?;
        if let Some(listener) = etcd {
            self.serve_etcd(listener, &mut parts, &stop)?;
        }
        tracing::info!(
            name = self.identity.name,
            member = self.identity.member_id,
            cluster = self.identity.cluster_id,
            api = host_port(self.args.address, self.args.api_port),
            "this master serves"
        );
        let outcome = tokio::select! {
            signal = wait_for_signal() => signal.map(|()| Ended::Asked),
            reason = self.store.stopped() => Ok(self.store_ended(&reason)?),
            // Without one of its parts a master only looks alive. A store that stops takes them along.
            Some(ended) = parts.join_next() => {
                match (tokio::time::timeout(STORE_ENDS, self.store.stopped()).await, ended) {
                    (Ok(reason), _) => Ok(self.store_ended(&reason)?),
                    (Err(_), Ok(())) => Err(anyhow!("a part of this master ended by itself; start it again")),
                    (Err(_), Err(error)) => {
                        Err(anyhow!(error).context("a part of this master broke; start it again"))
                    }
                }
            }
        };
        tracing::info!("stopping: handing leadership over, then letting requests finish");
        if self.store.leader_state().is_leader
            && self.store.members().len() > 1
            && let Err(error) = self.store.transfer_leadership(None).await
        {
            tracing::warn!(%error, "leadership was not handed over; the others will elect a leader");
        }
        stop.cancel();
        while let Some(ended) = parts.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of this master ended badly");
            }
        }
        self.store.shutdown().await;
        outcome
    }

    /// Serves the store to etcd's clients.
    fn serve_etcd(
        &self,
        listener: TcpListener,
        parts: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let tls = peers::etcd_tls(&self.authority, &self.certificate)?;
        let serving = etcd::serve(self.numbers.clone(), listener, Some(tls), stop.clone());
        parts.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "etcd's API is served no longer");
            }
        });
        Ok(())
    }

    /// After a failed write nothing is known of what is on disk: only a new start finds out. Damaged data are set aside.
    fn store_ended(&self, reason: &str) -> Result<Ended> {
        match self.store.is_damaged() {
            true => Ok(Ended::Damaged),
            false => bail!("the store stopped: {reason}; start this master again"),
        }
    }

    /// Starts what this master does beside keeping the store; all of it ends by itself after `stop`, and not before.
    fn start(&self, listener: TcpListener, stop: &CancellationToken) -> Result<JoinSet<()>> {
        let known = self.store.clone();
        let front = Front {
            store: Arc::new(self.store.clone()),
            api_urls: Arc::new(move || {
                let members = known.members().into_iter();
                members.map(|member| member.api_url).collect()
            }),
            args: self.args.clone(),
            dir: self.dir.clone(),
            identity: self.identity.clone(),
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
        };
        let mut parts = front.start(listener, stop, |runtime, ring| {
            Arc::new(Masters {
                snapshots: Settings {
                    store: self.store.clone(),
                    authority: self.authority.clone(),
                },
                numbers: self.numbers.clone(),
                store: self.store.clone(),
                identity: self.identity.clone(),
                authority: self.authority.clone(),
                ring,
                runtime,
            })
        })?;
        let scheduler = Scheduler {
            runner: SnapshotRunner {
                store: self.store.clone(),
                identity: self.identity.clone(),
                authority: self.authority.clone(),
                scratch: self.dir.scratch(),
            },
            counters: self.snapshot_runs.clone(),
        };
        parts.spawn(scheduler.run(stop.clone()));
        Ok(parts)
    }
}

fn store_config(
    args: &Run,
    dir: &DataDir,
    identity: &MasterIdentity,
    keys: &Keys,
) -> Result<Config> {
    let tls = peers::tls(&keys.authority, &keys.certificate)?;
    Ok(Config {
        data_dir: dir.store(identity),
        cluster_id: identity.cluster_id.clone(),
        member_id: identity.member_id,
        name: identity.name.clone(),
        listen: SocketAddr::new(args.address, args.peer_port),
        peer_address: host_port(args.address, args.peer_port),
        api_url: format!("https://{}", host_port(args.address, args.api_port)),
        tls: Some(tls),
        timings: Timings::default(),
        limits: Limits::default(),
    })
}

/// The port, bound; `what` is for people.
pub async fn listen(args: &Run, port: u16, what: &str) -> Result<TcpListener> {
    let address = SocketAddr::new(args.address, port);
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for {what}; is another process there, or is the address not this machine's?"))
}

/// Ends when this process is asked to end.
pub async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
