//! The host ports of this node's pods, gathered from their workers and given to the network as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use network::{HostPort, Network};
use tokio::sync::Notify;

const RETRY_AFTER: Duration = Duration::from_secs(2);
/// After a start the rules of the agent's former self stay until the workers have looked at their pods.
const SETTLE: Duration = Duration::from_secs(1);

/// Who has which host port. Cheap to clone.
#[derive(Clone, Default)]
pub struct HostPorts {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    by_pod: Mutex<BTreeMap<String, Vec<HostPort>>>,
    changed: Notify,
}

impl HostPorts {
    /// Says which host ports a pod has now.
    pub fn set(&self, uid: &str, ports: Vec<HostPort>) {
        let mut by_pod = self
            .inner
            .by_pod
            .lock()
            .expect("no holder of this lock panics");
        let changed = if ports.is_empty() {
            by_pod.remove(uid).is_some()
        } else {
            by_pod.insert(uid.to_owned(), ports.clone()).as_ref() != Some(&ports)
        };
        if changed {
            self.inner.changed.notify_one();
        }
    }

    /// Gives them to the network, for ever. To be started when the first workers run.
    pub async fn sync(self, network: Arc<Network>) {
        tokio::time::sleep(SETTLE).await;
        loop {
            let all: Vec<HostPort> = self
                .inner
                .by_pod
                .lock()
                .expect("no holder of this lock panics")
                .values()
                .flatten()
                .cloned()
                .collect();
            if let Err(error) = network.sync_host_ports(all).await {
                tracing::warn!(%error, "cannot set the rules for host ports; trying again");
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
            self.inner.changed.notified().await;
        }
    }
}
