//! A master's life: make or find it, open the store, serve, and leave in order.

use crate::cli::Run;
use crate::cluster::Masters;
use crate::create::{self, host_port};
use crate::operator::OperatorFiles;
use crate::pki::Authority;
use crate::settings::{self, DataDir, MasterIdentity};
use crate::shell::MachineShell;
use crate::{boot, peers};
use anyhow::{Context, Result};
use api::{ApiConfig, ApiServer, NodeClientTls, PemBundle, ServerTls};
use client::Identity;
use mvcc::Store;
use raft_store::{Config, Limits, MembershipError, RaftStore, Timings};
use registry::{Pipeline, Registry, Shell};
use runtime::Runtime;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs until SIGTERM or SIGINT.
pub fn run(args: Run) -> Result<()> {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads can be started")?;
    tokio.block_on(master(args))
}

async fn master(args: Run) -> Result<()> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    let dir = DataDir::open(&args.data_dir)?;
    // The ports first: nothing is made where they cannot be had.
    let api_listener = listen(&args, args.api_port, "the API").await?;
    drop(listen(&args, args.peer_port, "the other masters").await?);
    let identity = create::identity(&dir, &args, &name).await?;
    let authority = dir.authority()?;
    let certificate = create::master_certificate(&authority, &identity, args.address)?;
    dir.keep_certificate(&certificate)?;

    let store = RaftStore::open(store_config(
        &args,
        &dir,
        &identity,
        &authority,
        &certificate,
    )?)
    .await?;
    if identity.founder {
        match store.bootstrap().await {
            Ok(()) | Err(MembershipError::AlreadyBegun) => {}
            Err(error) => return Err(error).context("the new cluster could not begin"),
        }
    }
    let master = Master {
        args,
        dir,
        identity,
        authority,
        certificate,
        store,
    };
    master.serve(api_listener).await
}

struct Master {
    args: Run,
    dir: DataDir,
    identity: MasterIdentity,
    authority: Authority,
    certificate: Identity,
    store: RaftStore,
}

impl Master {
    async fn serve(self, listener: TcpListener) -> Result<()> {
        let shell: Arc<dyn Shell> = Arc::new(MachineShell);
        let registry = Arc::new(Registry::builtin());
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        let pipeline = Arc::new(Pipeline::new(
            store.clone(),
            registry.clone(),
            shell.clone(),
            self.identity.settings.clone(),
        ));
        let runtime = Runtime {
            store,
            pipeline: pipeline.clone(),
            registry: registry.clone(),
            shell,
            controllers: reconcile::controller::all(&self.identity.settings),
        };
        let masters = Masters {
            store: self.store.clone(),
            identity: self.identity.clone(),
            authority: self.authority.clone(),
            runtime: runtime.clone(),
        };
        let pem = PemBundle {
            chain_pem: self.certificate.certificate_pem.clone(),
            key_pem: self.certificate.key_pem.clone(),
            ca_pem: self.authority.certificate_pem.clone(),
        };
        let server = ApiServer::new(
            pipeline.clone(),
            Arc::new(masters),
            NodeClientTls::new(&pem)?,
            ApiConfig::default(),
        );

        let stop = CancellationToken::new();
        let api_address = settings::api_service_address(&self.identity.settings)?.to_string();
        let api = tokio::spawn(api::serve(
            listener,
            ServerTls::new(&pem)?,
            server,
            stop.clone(),
        ));
        let controllers = tokio::spawn(runtime.run(stop.clone()));
        let objects = tokio::spawn(boot::run(
            self.store.clone(),
            pipeline,
            registry,
            api_address,
            stop.clone(),
        ));
        tracing::info!(
            name = self.identity.name,
            member = self.identity.member_id,
            cluster = self.identity.cluster_id,
            api = host_port(self.args.address, self.args.api_port),
            "this master serves"
        );
        let files = OperatorFiles {
            store: self.store.clone(),
            dir: self.dir.clone(),
            authority: self.authority.clone(),
            own_url: format!(
                "https://{}",
                host_port(self.args.address, self.args.api_port)
            ),
        };
        let files = tokio::spawn(files.keep(stop.clone()));

        wait_for_signal().await?;
        tracing::info!("stopping: handing leadership over, then letting requests finish");
        stop.cancel();
        for task in [api, controllers, objects, files] {
            task.await.context("a part of the master ended badly")?;
        }
        self.store.shutdown().await;
        Ok(())
    }
}

fn store_config(
    args: &Run,
    dir: &DataDir,
    identity: &MasterIdentity,
    authority: &Authority,
    certificate: &Identity,
) -> Result<Config> {
    let tls = peers::tls(authority, certificate)?;
    Ok(Config {
        data_dir: dir.store(),
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

async fn listen(args: &Run, port: u16, what: &str) -> Result<TcpListener> {
    let address = SocketAddr::new(args.address, port);
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for {what}; is another process there, or is the address not this machine's?"))
}

fn host_name() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("this machine has no name; give one with --name")?;
    Ok(text.trim().to_lowercase())
}

async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
