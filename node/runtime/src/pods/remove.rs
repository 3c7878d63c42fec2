//! Removes containers and pods, whatever state they are in, as often as asked.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rpc::shim::{Forget, Shutdown, request};

use super::{Pod, Pods, REQUEST_TIME_MAX};
use crate::error::{Error, Result};
use crate::image::blocking;
use crate::types::ContainerState;
use crate::{files, mounts};

/// A shim that was told to end ends at once; one that does not is killed.
const SHIM_END_TIME_MAX: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

impl Pods {
    /// Removes a container; one that runs is killed. Its log stays. What is gone is fine.
    pub async fn remove_container(&self, uid: &str, container: &str) -> Result<()> {
        let Ok(pod) = self.pod(uid) else {
            return Ok(());
        };
        self.remove_container_of(&pod, container).await
    }

    async fn remove_container_of(&self, pod: &Arc<Pod>, container: &str) -> Result<()> {
        let Ok(entry) = pod.entry(container) else {
            return Ok(());
        };
        if matches!(entry.state, ContainerState::Running { .. }) {
            // The shim sees the end and tells it; the cgroup below takes what is left.
            if let Err(error) = self.stop(&pod.spec().uid, container, Duration::ZERO).await {
                tracing::warn!(%container, %error, "killing by cgroup what could not be stopped");
            }
        }
        let (cgroups, removing, id) = (
            self.inner.cgroups.clone(),
            pod.clone(),
            container.to_string(),
        );
        blocking(move || {
            cgroups.remove(&removing.container_cgroup(&id))?;
            removing.unmount_container(&id)
        })
        .await?;
        if let Ok(connection) = self.connection(pod).await {
            let forget = request::Body::Forget(Forget {
                id: container.into(),
            });
            connection
                .request(forget, REQUEST_TIME_MAX)
                .await
                .map_err(|error| pod.shim_error(error))?;
        }
        let folder = pod.container_folder(container);
        blocking(move || files::remove_tree(&folder)).await?;
        if pod.lock().remove(container).is_some() {
            self.inner.images.release(&entry.record.layers);
        }
        pod.version.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Removes a pod: kills its containers, unmounts all below its folder (its volumes too), removes its cgroups, ends its
    /// shim and removes its folder. What is gone is fine.
    pub async fn remove(&self, uid: &str) -> Result<()> {
        let Ok(pod) = self.pod(uid) else {
            return Ok(());
        };
        let _change = pod.changing.lock().await;
        let ids: Vec<String> = pod.lock().keys().cloned().collect();
        for id in ids {
            self.remove_container_of(&pod, &id).await?;
        }
        self.take_down(&pod).await?;
        self.lock().remove(uid);
        Ok(())
    }

    /// Removes what makes up a pod beside its containers' records.
    pub(super) async fn take_down(&self, pod: &Arc<Pod>) -> Result<()> {
        pod.removed.send_replace(true);
        if let Some(connection) = pod.connection.lock().await.take() {
            // An error is no matter: the shim is killed if it does not end.
            let _ = connection
                .request(request::Body::Shutdown(Shutdown {}), REQUEST_TIME_MAX)
                .await;
        }
        self.end_process(pod, "pause.pid", Duration::ZERO).await?;
        self.end_process(pod, "shim.pid", SHIM_END_TIME_MAX).await?;
        let (cgroups, pod) = (self.inner.cgroups.clone(), pod.clone());
        blocking(move || {
            cgroups.remove(&pod.cgroup_path)?;
            // Without its record the folder is rubbish, also for an agent that starts in between.
            let record = pod.folder.join("pod.json");
            match fs::remove_file(&record) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &record)(error));
                }
                _ => {}
            }
            for point in mounts::mounts_below(&pod.folder) {
                mounts::unmount_all(&point)?;
            }
            files::remove_tree(&pod.folder)
        })
        .await
    }

    /// Waits for the end of the process of a pid file and kills it at the deadline. The file may be of an earlier boot: only
    /// a process that is a shim of this folder is touched.
    async fn end_process(&self, pod: &Pod, file: &str, patience: Duration) -> Result<()> {
        let Some(pid) = fs::read_to_string(pod.folder.join(file))
            .ok()
            .and_then(|text| text.trim().parse::<i32>().ok())
        else {
            return Ok(());
        };
        let is_ours = || is_shim_of(pid, pod);
        let deadline = tokio::time::Instant::now() + patience;
        while is_ours() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
        if is_ours()
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            // It may end between the look and the kill.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        Ok(())
    }
}

/// The process works in the pod's folder, as the shim and its pause process do; containers' processes do not.
fn is_shim_of(pid: i32, pod: &Pod) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == pod.folder)
}
