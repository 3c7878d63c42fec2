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
        Etcd::start_in(dir, free_address()).await
    }

    /// Starts it with what a snapshot holds.
    pub async fn restored(snapshot: &str) -> Self {
        let (dir, peer) = (TempDir::new().expect("a temporary folder"), free_address());
        let restored = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore", snapshot, "--data-dir"])
            .arg(dir.path().join("data"))
            .args(["--initial-cluster", &format!("default=http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .output()
            .expect("etcdctl runs; install Debian's package etcd-client");
        assert!(restored.status.success(), "{restored:?}");
        Etcd::start_in(dir, peer).await
    }

    async fn start_in(dir: TempDir, peer: SocketAddr) -> Self {
        let client = free_address();
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.path().join("data"))
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
