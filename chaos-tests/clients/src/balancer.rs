//! One address for all masters: a connection goes to the next that answers, as a load balancer does it.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// It serves until it is dropped.
pub struct Balancer {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Balancer {
    /// In front of these addresses, on a free port of this machine.
    pub async fn start(masters: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("no port is free")?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, masters));
        Ok(Balancer { address, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, masters: Vec<SocketAddr>) {
    let masters: Arc<[SocketAddr]> = masters.into();
    let next = AtomicUsize::new(0);
    while let Ok((mut client, _)) = listener.accept().await {
        let first = next.fetch_add(1, Ordering::Relaxed);
        let masters = masters.clone();
        tokio::spawn(async move {
            let in_turn = (0..masters.len()).map(|step| masters[(first + step) % masters.len()]);
            for master in in_turn {
                let connected = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(master));
                if let Ok(Ok(mut master)) = connected.await {
                    // Either side may end it at any time; that is what is tested.
                    let _ = copy_bidirectional(&mut client, &mut master).await;
                    return;
                }
            }
        });
    }
}
