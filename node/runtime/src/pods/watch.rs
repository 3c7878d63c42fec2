//! Follows each pod's shim: its events become the containers' states. Also what an agent does first: find what is there.

use std::sync::Arc;
use std::time::Duration;

use rpc::shim::{List, Subscribe, reply, request};
use tokio::sync::mpsc;

use super::{ContainerEntry, Pod, Pods, REQUEST_TIME_MAX, disk};
use crate::error::Result;
use crate::image::blocking;
use crate::shim::Connection;
use crate::types::{ContainerState, Event, Exit};
use crate::{clock, files};

/// Events wait here for the watcher, which only updates memory.
const EVENTS_MAX: usize = 64;
/// A shim that lives takes a connection at once; one that does not after these tries is gone.
const CONNECT_TRIES: u32 = 5;
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

impl Pods {
    /// Finds the pods on disk and what became of their containers.
    pub(super) async fn recover(&self) -> Result<()> {
        let folder = self.inner.root.join("pods");
        for uid in disk::names(&folder)? {
            let path = folder.join(&uid);
            let Some(record) = disk::read_pod(&path).ok().flatten() else {
                self.clear_half_made(&uid).await?;
                continue;
            };
            let cgroup_path = self
                .inner
                .cgroups
                .pod_path(record.spec.qos, &record.spec.uid);
            let pod = Pod::new(record, path, cgroup_path);
            self.recover_containers(&pod).await?;
            self.lock().insert(uid, pod.clone());
            if pod.record.boot_id != disk::boot_id() || self.watch(&pod).await.is_err() {
                self.shim_is_lost(&pod).await;
            }
        }
        Ok(())
    }

    /// A folder without a record is of a pod that was being made or removed when the agent died.
    async fn clear_half_made(&self, uid: &str) -> Result<()> {
        for qos in [
            crate::types::Qos::Guaranteed,
            crate::types::Qos::Burstable,
            crate::types::Qos::BestEffort,
        ] {
            let spec = crate::types::PodSpec {
                uid: uid.into(),
                qos,
                ..Default::default()
            };
            let cgroup_path = self.inner.cgroups.pod_path(qos, uid);
            let record = disk::PodRecord {
                spec,
                created_at: clock::now(),
                boot_id: String::new(),
            };
            let pod = Pod::new(record, self.inner.root.join("pods").join(uid), cgroup_path);
            self.take_down(&pod).await?;
        }
        Ok(())
    }

    async fn recover_containers(&self, pod: &Arc<Pod>) -> Result<()> {
        let reader = pod.clone();
        let (records, broken) = blocking(move || disk::read_containers(&reader.folder)).await?;
        for record in records {
            self.inner.images.hold(&record.layers);
            let status = disk::read_status(&pod.container_folder(&record.id));
            let state = status.as_ref().map_or(ContainerState::Created, disk::state);
            pod.lock()
                .insert(record.id.clone(), ContainerEntry { record, state });
        }
        for id in broken {
            let (pod, cgroups) = (pod.clone(), self.inner.cgroups.clone());
            blocking(move || {
                cgroups.remove(&pod.container_cgroup(&id))?;
                pod.unmount_container(&id)?;
                files::remove_tree(&pod.container_folder(&id))
            })
            .await?;
        }
        Ok(())
    }

    /// Connects to the pod's shim and follows it from a task of its own until the pod is removed.
    pub(super) async fn watch(&self, pod: &Arc<Pod>) -> Result<()> {
        let events = self.connect(pod).await?;
        // Weak: dropping the last handle of the pods must end their watchers.
        let (pods, pod) = (Arc::downgrade(&self.inner), pod.clone());
        tokio::spawn(async move {
            let mut events = events;
            loop {
                follow(&pods, &pod, &mut events).await;
                let Some(inner) = pods.upgrade() else { return };
                if *pod.removed.borrow() {
                    return;
                }
                let pods = Pods { inner };
                match pods.connect(&pod).await {
                    Ok(again) => events = again,
                    Err(_) if *pod.removed.borrow() => return,
                    Err(error) => {
                        tracing::error!(pod = %pod.spec().uid, %error, "the pod's shim is gone; its containers are ended");
                        return pods.shim_is_lost(&pod).await;
                    }
                }
            }
        });
        Ok(())
    }

    /// Connects, subscribes, and takes over what the shim says of its containers now.
    async fn connect(&self, pod: &Arc<Pod>) -> Result<mpsc::Receiver<rpc::shim::Container>> {
        let mut tries = 0;
        let (connection, receiver) = loop {
            let (sender, receiver) = mpsc::channel(EVENTS_MAX);
            match Connection::open(&pod.folder, sender).await {
                Ok(connection) => break (connection, receiver),
                Err(error) if tries >= CONNECT_TRIES || *pod.removed.borrow() => {
                    return Err(pod.shim_error(error));
                }
                Err(_) => tokio::time::sleep(CONNECT_PAUSE).await,
            }
            tries += 1;
        };
        let failed = |error| pod.shim_error(error);
        connection
            .request(request::Body::Subscribe(Subscribe {}), REQUEST_TIME_MAX)
            .await
            .map_err(failed)?;
        let reply = connection
            .request(request::Body::List(List {}), REQUEST_TIME_MAX)
            .await
            .map_err(failed)?;
        if let reply::Body::Containers(list) = reply {
            for container in &list.containers {
                self.observe(pod, container);
            }
            self.end_unknown(pod, &list.containers);
        }
        *pod.connection.lock().await = Some(Arc::new(connection));
        Ok(receiver)
    }

    /// Takes over what a shim says of a container. Again, and late, is fine.
    pub(super) fn observe(&self, pod: &Pod, container: &rpc::shim::Container) {
        self.set_state(pod, &container.id, disk::state(container));
    }

    /// Containers that the shim does not know were never started, or ended before it forgot them.
    fn end_unknown(&self, pod: &Pod, known: &[rpc::shim::Container]) {
        let unknown: Vec<String> = {
            let containers = pod.lock();
            let ids = containers
                .iter()
                .filter(|(_, entry)| !matches!(entry.state, ContainerState::Exited(_)))
                .map(|(id, _)| id);
            ids.filter(|id| !known.iter().any(|container| &container.id == *id))
                .cloned()
                .collect()
        };
        for id in unknown {
            self.end_by_record(pod, &id);
        }
    }

    fn end_by_record(&self, pod: &Pod, id: &str) {
        let status = disk::read_status(&pod.container_folder(id));
        let state = match status.as_ref().map(disk::state) {
            Some(exited @ ContainerState::Exited(_)) => exited,
            Some(_) => ContainerState::Exited(disk::lost(status.as_ref(), clock::now())),
            None => ContainerState::Exited(Exit {
                code: 128,
                reason: "StartError",
                message: "The node's agent ended while it started the container".into(),
                ..disk::lost(None, clock::now())
            }),
        };
        self.set_state(pod, id, state);
    }

    /// Without its shim a container cannot be waited for: what still runs is killed, and told by its last record.
    pub(super) async fn shim_is_lost(&self, pod: &Arc<Pod>) {
        *pod.connection.lock().await = None;
        let running: Vec<String> = pod
            .lock()
            .iter()
            .filter(|(_, entry)| !matches!(entry.state, ContainerState::Exited(_)))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &running {
            let (cgroups, path) = (self.inner.cgroups.clone(), pod.container_cgroup(id));
            if let Err(error) = blocking(move || {
                cgroups.kill(&path);
                Ok(())
            })
            .await
            {
                tracing::warn!(container = %id, %error, "a container without a shim could not be killed");
            }
            self.end_by_record(pod, id);
        }
    }

    fn set_state(&self, pod: &Pod, id: &str, state: ContainerState) {
        {
            let mut containers = pod.lock();
            let Some(entry) = containers.get_mut(id) else {
                return;
            };
            if entry.state == state || matches!(entry.state, ContainerState::Exited(_)) {
                return;
            }
            entry.state = state.clone();
        }
        pod.version.send_modify(|version| *version += 1);
        if let ContainerState::Exited(exit) = state {
            // Nobody may be subscribed.
            let _ = self.inner.events.send(Event::Exited {
                pod: pod.spec().uid.clone(),
                container: id.into(),
                exit,
            });
        }
    }
}

/// Takes events until the connection or the pod ends.
async fn follow(
    pods: &std::sync::Weak<super::Inner>,
    pod: &Pod,
    events: &mut mpsc::Receiver<rpc::shim::Container>,
) {
    let mut removed = pod.removed.subscribe();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = removed.wait_for(|removed| *removed) => return,
        };
        let Some(container) = event else { return };
        let Some(inner) = pods.upgrade() else { return };
        Pods { inner }.observe(pod, &container);
    }
}
