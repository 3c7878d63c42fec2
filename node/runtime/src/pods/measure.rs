//! What pods and their containers use, all at one time.

use std::sync::Arc;

use super::{Pod, Pods};
use crate::cgroup::Cgroups;
use crate::error::Result;
use crate::image::blocking;
use crate::netdev;
use crate::types::{ContainerState, Measured};

impl Pods {
    /// Measures every pod: some files of the kernel for each pod and each running container.
    pub async fn measure(&self) -> Result<Vec<Measured>> {
        let pods: Vec<Arc<Pod>> = self.lock().values().cloned().collect();
        let cgroups = self.inner.cgroups.clone();
        blocking(move || Ok(pods.iter().map(|pod| measure(&cgroups, pod)).collect())).await
    }
}

fn measure(cgroups: &Cgroups, pod: &Pod) -> Measured {
    let status = pod.status();
    let mut measured = Measured {
        usage: cgroups.stats(&pod.cgroup_path),
        containers: [].into(),
        interfaces: vec![],
        status,
    };
    for container in &measured.status.containers {
        let ContainerState::Running { pid, .. } = container.state else {
            continue;
        };
        let stats = cgroups.stats(&pod.container_cgroup(&container.id));
        measured.containers.insert(container.id.clone(), stats);
        if measured.interfaces.is_empty() && measured.status.spec.netns.is_some() {
            measured.interfaces = netdev::interfaces(pid);
        }
    }
    measured
}
