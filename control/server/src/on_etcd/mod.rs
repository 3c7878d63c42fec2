//! A master whose store is an etcd that somebody runs already: API server, controllers and scheduler without members,
//! snapshots and history of their own. The cluster's id in etcd ties data directories to it.

mod cluster;

use crate::cli::{OnEtcd, Run};
use crate::create::{self, host_port};
use crate::front::Front;
use crate::settings::{DataDir, MasterIdentity};
use crate::{run, shell};
use anyhow::{Context, Result, anyhow, bail, ensure};
use etcd_store::{Config, EtcdStore, Tls};
use mvcc::{Compare, Op, OpResult, Store, Txn};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Holds the id of the cluster whose objects are there.
const CLUSTER_KEY: &str = "/trireme/cluster";

/// Runs until SIGTERM or SIGINT.
pub async fn master(args: Run) -> Result<()> {
    refuse_what_is_our_stores(&args)?;
    let name = shell::name_or_hosts(args.name.as_deref())?;
    let dir = DataDir::open(&args.data_dir)?;
    let listener = run::listen(&args, args.api_port, "the API").await?;
    // Before any other master is asked to let this one in.
    let store = EtcdStore::open(config(&args.etcd, &name)?).await?;
    let identity = create::identity(&dir, &args, &name).await?;
    let identity = claim(&store, &dir, identity).await?;
    let authority = dir.authority()?;
    let certificate = create::master_certificate(&authority, &identity, args.address)?;
    dir.keep_certificate(&certificate)?;
    let api_url = format!("https://{}", host_port(args.address, args.api_port));
    let known = store.clone();
    let front = Front {
        store: Arc::new(store.clone()),
        api_urls: Arc::new(move || {
            let masters = known.masters().into_iter();
            masters.map(|master| master.api_url).collect()
        }),
        identity: identity.clone(),
        authority: authority.clone(),
        certificate,
        dir,
        args,
    };
    let stop = CancellationToken::new();
    let of_etcd = store.clone();
    let mut parts = front.start(listener, &stop, move |runtime, ring| {
        Arc::new(cluster::Masters {
            store: of_etcd,
            identity,
            authority,
            ring,
            runtime,
        })
    })?;
    let (standing, announcing) = (store.clone(), store);
    let (stops_standing, stops_announcing) = (stop.clone(), stop.clone());
    let url = api_url.clone();
    parts.spawn(async move { announcing.announce(&url, stops_announcing).await });
    parts.spawn(async move { standing.stand(stops_standing).await });
    tracing::info!(name, api = api_url, "this master serves, on an etcd");
    let outcome = tokio::select! {
        signal = run::wait_for_signal() => signal,
        Some(ended) = parts.join_next() => match ended {
            Ok(()) => Err(anyhow!("a part of this master ended by itself; start it again")),
            Err(error) => Err(anyhow!(error).context("a part of this master broke; start it again")),
        },
    };
    tracing::info!("stopping: giving leadership up, then letting requests finish");
    stop.cancel();
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a part of this master ended badly");
        }
    }
    outcome
}

/// Options that say something of a store of our own.
fn refuse_what_is_our_stores(args: &Run) -> Result<()> {
    let given = [
        ("--etcd-port", args.etcd_port.is_some()),
        ("--history", args.history.is_some()),
        ("--history-bytes", args.history_bytes.is_some()),
        ("--replace", args.replace.is_some()),
        ("--rejoin", args.rejoin),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((name, _)) => {
            bail!("{name} is about the masters' own store, and these run on an etcd: leave it out")
        }
        None => Ok(()),
    }
}

fn config(args: &OnEtcd, name: &str) -> Result<Config> {
    let read = |what: &str, path: &Path| {
        std::fs::read_to_string(path)
            .with_context(|| format!("cannot read etcd's {what} {}", path.display()))
    };
    let identity = match (&args.etcd_cert, &args.etcd_key) {
        (Some(certificate), Some(key)) => Some((
            read("client certificate", certificate)?,
            read("client key", key)?,
        )),
        _ => None,
    };
    let tls = match &args.etcd_ca {
        Some(ca) => Some(Tls {
            ca: read("CA", ca)?,
            identity,
        }),
        None => {
            let is_tls = |url: &String| url.starts_with("https:");
            ensure!(
                !args.etcd_endpoints.iter().any(is_tls),
                "an https endpoint of etcd needs --etcd-ca, the CA that signed its certificate"
            );
            None
        }
    };
    Ok(Config {
        endpoints: args.etcd_endpoints.clone(),
        tls,
        name: name.to_owned(),
    })
}

/// Makes sure that the etcd holds this master's cluster; a founder's first start makes it so.
async fn claim(
    store: &EtcdStore,
    dir: &DataDir,
    mut identity: MasterIdentity,
) -> Result<MasterIdentity> {
    let makes = identity.founder && !identity.opened;
    let put = Op::put(CLUSTER_KEY, identity.cluster_id.clone());
    let answer = store
        .txn(Txn {
            compare: vec![Compare::absent(CLUSTER_KEY)],
            success: if makes { vec![put] } else { vec![] },
            failure: vec![Op::get(CLUSTER_KEY)],
            fence: None,
        })
        .await
        .context("the etcd does not say which cluster it holds")?;
    match (answer.succeeded, answer.results.first()) {
        (true, _) => ensure!(
            makes,
            "the etcd holds no cluster, though this master belongs to {}; is it the right etcd?",
            identity.cluster_id
        ),
        (false, Some(OpResult::Range(found))) => {
            let held = found
                .kvs
                .first()
                .map(|kv| String::from_utf8_lossy(&kv.value));
            ensure!(
                held.as_deref() == Some(identity.cluster_id.as_str()),
                "the etcd holds the cluster {}, and this master belongs to {}: name its own etcd, or join the other cluster with an empty data directory and --join",
                held.unwrap_or_default(),
                identity.cluster_id
            );
        }
        (false, _) => bail!("the etcd does not say which cluster it holds"),
    }
    if !identity.opened {
        identity.opened = true;
        dir.keep_identity(&identity)?;
    }
    Ok(identity)
}
