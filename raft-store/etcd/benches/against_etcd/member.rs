//! A process with one member of ours and etcd's service in front of it. Each line of its standard input asks for something, as
//! JSON, and is answered by a line; it ends when its standard input does.

use crate::load::{self, Load};
use anyhow::Result;
use objects::cluster::MemberAdd;
use raft_store::{Config, Limits, RaftStore, Timings};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How a member is started.
#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    id: u64,
    /// Where the other members reach it
    #[arg(long)]
    peer: SocketAddr,
    /// Where clients reach it
    #[arg(long)]
    client: SocketAddr,
    /// Begin a cluster and admit the members at these addresses, whose ids follow
    #[arg(long, value_delimiter = ',')]
    begin_with: Vec<SocketAddr>,
}

/// What a member can be asked.
#[derive(Serialize, Deserialize)]
pub enum Ask {
    /// A round of clients within.
    Load(Load),
    /// Its counters.
    Metrics,
}

/// Runs the member; one line on standard output says that it serves, a second one that all vote.
pub async fn run(args: Args) -> Result<()> {
    let store = RaftStore::open(config(&args)).await?;
    if !args.begin_with.is_empty() {
        store.bootstrap().await?;
    }
    let listener = TcpListener::bind(args.client).await?;
    let stop = CancellationToken::new();
    let server = tokio::spawn(etcd::serve(
        etcd::Numbers::new(store.clone()),
        listener,
        None,
        stop.clone(),
    ));
    println!("serving");
    for (place, address) in args.begin_with.iter().enumerate() {
        let member = MemberAdd {
            name: format!("m{}", place + 2),
            peer_address: address.to_string(),
            api_url: format!("https://m{}:6443", place + 2),
        };
        let member = store.add_member(member).await?;
        println!("admitted {}", member.id);
    }
    let voters = args.begin_with.len() + 1;
    while !args.begin_with.is_empty()
        && store.members().iter().filter(|one| one.voter).count() < voters
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("complete");
    // Whoever started this process holds the other end.
    let mut asked = BufReader::new(tokio::io::stdin()).lines();
    while let Some(ask) = asked.next_line().await? {
        let answer = match serde_json::from_str(&ask)? {
            Ask::Load(load) => serde_json::to_string(&load::within(&load, &store).await?)?,
            Ask::Metrics => serde_json::to_string(&store.metrics())?,
        };
        println!("{answer}");
    }
    stop.cancel();
    server.await??;
    store.kill().await;
    Ok(())
}

fn config(args: &Args) -> Config {
    Config {
        data_dir: args.dir.clone(),
        cluster_id: "bench".to_owned(),
        member_id: args.id,
        name: format!("m{}", args.id),
        listen: args.peer,
        peer_address: args.peer.to_string(),
        api_url: format!("https://m{}:6443", args.id),
        tls: None,
        timings: Timings::default(),
        limits: Limits::default(),
    }
}
