//! Members of the store in this process, each serving etcd's API on a port of loopback.

#![expect(dead_code, reason = "each test binary uses its part of the harness")]

pub mod http;
#[path = "../../../tests/common/mod.rs"]
pub mod members;
pub mod real;

use members::Cluster;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Members that serve etcd's API.
pub struct Served {
    pub cluster: Cluster,
    pub addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    serving: JoinSet<()>,
}

impl Served {
    /// Three members, all of them voters.
    pub async fn three() -> Self {
        Served::new(3).await
    }

    pub async fn new(count: usize) -> Self {
        let mut served = Served {
            cluster: Cluster::new(count).await,
            addresses: vec![],
            stop: CancellationToken::new(),
            serving: JoinSet::new(),
        };
        for place in 0..count {
            served.serve(place).await;
        }
        served
    }

    async fn serve(&mut self, place: usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        self.addresses
            .push(listener.local_addr().expect("it is bound"));
        let serving = etcd::serve(
            etcd::Numbers::new(self.cluster.member(place).clone()),
            listener,
            None,
            self.stop.clone(),
        );
        self.serving
            .spawn(async move { serving.await.expect("it serves until it is stopped") });
    }

    /// Where all of them serve, as etcdctl takes it. Without `http://`: etcdctl 3.4 would send that as the name of the host
    /// when it dials one member, which HTTP/2 forbids.
    pub fn endpoints(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        addresses.join(",")
    }

    /// Ends serving, then the members.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.serving.join_next().await {
            ended.expect("no server panics");
        }
        for place in 0..self.cluster.members.len() {
            if self.cluster.members[place].is_some() {
                self.cluster.kill(place).await;
            }
        }
    }
}
