//! Debian's etcd, one process on ports of loopback, to compare with.

use super::members::{free_address, wait_for};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running etcd; ended when dropped.
pub struct Etcd {
    pub address: SocketAddr,
    process: Child,
    _dir: TempDir,
}

impl Etcd {
    /// Starts it with its default settings.
    pub async fn start() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let (client, peer) = (free_address(), free_address());
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.path())
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd runs; install Debian's package etcd-server");
        let etcd = Etcd {
            address: client,
            process,
            _dir: dir,
        };
        wait_for("etcd listens", || TcpStream::connect(client).is_ok()).await;
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // A process that has ended by itself needs no end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
