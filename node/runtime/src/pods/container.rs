//! Starts containers and ends them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rpc::shim::{Run, Signal, reply, request};
use serde_json::Value;

use super::{ContainerEntry, Pod, Pods, REQUEST_TIME_MAX, disk};
use crate::clock;
use crate::error::{Error, Result};
use crate::image::{Image, blocking};
use crate::shim::Connection;
use crate::spec::{self, HostDevice, Surroundings};
use crate::stream::clarify;
use crate::types::{ContainerId, ContainerSpec, ContainerState, Exit, Mount, PidNamespace};
use crate::{files, mounts, user};

/// A start takes milliseconds; the shim gives up its helper after a minute.
const START_TIME_MAX: Duration = Duration::from_secs(70);
/// After SIGKILL, for the kernel to end the process.
const KILL_TIME_MAX: Duration = Duration::from_secs(10);

impl Pods {
    /// Starts a container and returns its id. The image must be on this node.
    pub async fn start_container(&self, uid: &str, spec: ContainerSpec) -> Result<ContainerId> {
        let pod = self.pod(uid)?;
        let image = self
            .inner
            .images
            .resolve(&spec.image)?
            .ok_or_else(|| Error::ImageMissing(spec.image.clone()))?;
        let id = hex::encode(rand::random::<[u8; 32]>());
        let record = disk::ContainerRecord {
            id: id.clone(),
            spec,
            image_id: image.id.clone(),
            image_digest: image.repo_digest(),
            layers: image.layers.clone(),
            created_at: clock::now(),
        };
        self.inner.images.hold(&image.layers);
        pod.lock().insert(
            id.clone(),
            ContainerEntry {
                record: record.clone(),
                state: ContainerState::Created,
            },
        );
        let started = self.prepare_and_run(&pod, &image, record).await;
        if let Err(error) = started {
            self.remove_container(uid, &id).await?;
            return Err(error);
        }
        Ok(id)
    }

    async fn prepare_and_run(
        &self,
        pod: &Arc<Pod>,
        image: &Image,
        record: disk::ContainerRecord,
    ) -> Result<()> {
        let run = run_request(self, pod, &record);
        let (pods, shim_pid) = (self.clone(), read_pid(&pod.folder.join("shim.pid"))?);
        let (preparing, image, name) = (pod.clone(), image.clone(), record.spec.name.clone());
        blocking(move || prepare(&pods, &preparing, &image, &record, shim_pid)).await?;
        let connection = self.connection(pod).await?;
        let reply = connection
            .request(request::Body::Run(run), START_TIME_MAX)
            .await;
        match reply {
            Ok(reply::Body::Container(container)) => {
                self.observe(pod, &container);
                Ok(())
            }
            Ok(_) => Err(pod.shim_error("it gave an answer to another question")),
            Err(error) => Err(Error::Start {
                name,
                message: clarify(&error.to_string()),
            }),
        }
    }

    pub(super) async fn connection(&self, pod: &Pod) -> Result<Arc<Connection>> {
        pod.connection
            .lock()
            .await
            .clone()
            .ok_or_else(|| pod.shim_error("it is gone; remove the pod and create it again"))
    }

    /// Sends a signal to a container's first process. One that ended is fine.
    pub async fn signal(&self, uid: &str, container: &str, signal: i32) -> Result<()> {
        let pod = self.pod(uid)?;
        if matches!(pod.entry(container)?.state, ContainerState::Exited(_)) {
            return Ok(());
        }
        let request = request::Body::Signal(Signal {
            id: container.into(),
            signal,
        });
        self.connection(&pod)
            .await?
            .request(request, REQUEST_TIME_MAX)
            .await
            .map_err(|error| pod.shim_error(error))?;
        Ok(())
    }

    /// Stops a container: the image's stop signal (SIGTERM unless it names another), then, after `grace`, SIGKILL.
    /// Returns when it has ended. One that ended is fine.
    pub async fn stop(&self, uid: &str, container: &str, grace: Duration) -> Result<Exit> {
        let pod = self.pod(uid)?;
        let entry = pod.entry(container)?;
        if !grace.is_zero() {
            self.signal(uid, container, self.stop_signal(&entry))
                .await?;
            if let Ok(exit) = tokio::time::timeout(grace, self.wait(uid, container)).await {
                return exit;
            }
        }
        self.signal(uid, container, 9).await?;
        match tokio::time::timeout(KILL_TIME_MAX, self.wait(uid, container)).await {
            Ok(exit) => exit,
            Err(_) => Err(Error::Deadline {
                what: format!("the kill of container {container}"),
                after: KILL_TIME_MAX,
            }),
        }
    }

    fn stop_signal(&self, entry: &ContainerEntry) -> i32 {
        let image = self
            .inner
            .images
            .resolve(&entry.record.spec.image)
            .ok()
            .flatten();
        image
            .and_then(|image| parse_signal(&image.config.stop_signal))
            .unwrap_or(15)
    }
}

/// `SIGQUIT`, `QUIT` or `3`.
fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    name.parse::<nix::sys::signal::Signal>()
        .ok()
        .map(|signal| signal as i32)
}

fn run_request(pods: &Pods, pod: &Pod, record: &disk::ContainerRecord) -> Run {
    let spec = &record.spec;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Run {
        id: record.id.clone(),
        bundle: text(&pod.container_folder(&record.id)),
        log_path: spec.log_path.as_deref().map(text).unwrap_or_default(),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        oom_path: pods
            .inner
            .cgroups
            .oom_path(&pod.container_cgroup(&record.id))
            .as_deref()
            .map(text)
            .unwrap_or_default(),
        log_bytes_max: spec.log_limits.bytes_max,
        log_files_max: spec.log_limits.files_max,
    }
}

fn read_pid(path: &Path) -> Result<i32> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    text.trim().parse().map_err(|_| {
        Error::io("read a process id from", path)(std::io::ErrorKind::InvalidData.into())
    })
}

/// Makes the bundle: folders, overlay, config.json.
fn prepare(
    pods: &Pods,
    pod: &Pod,
    image: &Image,
    record: &disk::ContainerRecord,
    shim_pid: i32,
) -> Result<()> {
    let folder = pod.container_folder(&record.id);
    let rootfs = folder.join("rootfs");
    for name in ["rootfs", "upper", "work", "empty"] {
        files::make_dirs(&folder.join(name))?;
    }
    disk::write_container(&folder, record)?;
    let mut lower = pods.inner.images.layer_folders(image);
    if lower.is_empty() {
        // An overlay needs a layer below; an image may have none.
        lower.push(folder.join("empty"));
    }
    mounts::overlay(&lower, &folder.join("upper"), &folder.join("work"), &rootfs)?;
    let security = &record.spec.security;
    let file = |path: &str| user::read_in_root(&rootfs, path).unwrap_or_default();
    let user = user::resolve(
        security,
        &image.config.user,
        &file("etc/passwd"),
        &file("etc/group"),
    )?;
    for mount in &record.spec.mounts {
        fs::metadata(&mount.host_path).map_err(Error::io("mount", &mount.host_path))?;
    }
    let surroundings = Surroundings {
        image: &image.config,
        user,
        rootfs: &rootfs,
        cgroup_path: &pod.container_cgroup(&record.id),
        cgroup_v2: pods.inner.cgroups.is_v2(),
        namespaces: namespaces(pod, &record.spec, shim_pid)?,
        pod_mounts: pod_mounts(pod),
        sysctls: &pod.spec().sysctls,
        host_devices: if security.privileged {
            host_devices(Path::new("/dev"), 0)
        } else {
            vec![]
        },
        machine: pods.inner.machine,
    };
    let config = spec::runtime_spec(&record.spec, &surroundings)?;
    write_config(&folder, &config)
}

fn write_config(folder: &Path, config: &Value) -> Result<()> {
    let path = folder.join("config.json");
    let bytes =
        serde_json::to_vec(config).map_err(|error| Error::io("encode", &path)(error.into()))?;
    fs::write(&path, bytes).map_err(Error::io("write", &path))
}

fn namespaces(
    pod: &Pod,
    container: &ContainerSpec,
    shim_pid: i32,
) -> Result<Vec<(&'static str, Option<PathBuf>)>> {
    let spec = pod.spec();
    let of = |pid: i32, name: &str| Some(PathBuf::from(format!("/proc/{pid}/ns/{name}")));
    let mut namespaces = vec![("mount", None)];
    if !spec.host_ipc {
        namespaces.push(("ipc", of(shim_pid, "ipc")));
    }
    if spec.hostname.is_some() {
        namespaces.push(("uts", of(shim_pid, "uts")));
    }
    if let Some(path) = &spec.netns {
        namespaces.push(("network", Some(path.clone())));
    }
    match &container.pid_namespace {
        PidNamespace::Host => {}
        PidNamespace::Own if spec.share_pid => {
            namespaces.push(("pid", of(read_pid(&pod.folder.join("pause.pid"))?, "pid")))
        }
        PidNamespace::Own => namespaces.push(("pid", None)),
        PidNamespace::Container(id) => match pod.entry(id)?.state {
            ContainerState::Running { pid, .. } => namespaces.push(("pid", of(pid, "pid"))),
            _ => {
                return Err(Error::Config(format!(
                    "container {id} does not run, so that its PID namespace cannot be joined"
                )));
            }
        },
    }
    Ok(namespaces)
}

fn pod_mounts(pod: &Pod) -> Vec<Mount> {
    let spec = pod.spec();
    let mount = |host: PathBuf, inside: &str| Mount {
        host_path: host,
        container_path: inside.into(),
        ..Mount::default()
    };
    let shm = if spec.host_ipc {
        "/dev/shm".into()
    } else {
        pod.folder.join("shm")
    };
    let mut mounts = vec![mount(shm, "/dev/shm")];
    for (name, there) in [
        ("hosts", spec.hosts.is_some()),
        ("resolv.conf", spec.resolv_conf.is_some()),
        ("hostname", spec.hostname.is_some()),
    ] {
        if there {
            mounts.push(mount(pod.folder.join(name), &format!("/etc/{name}")));
        }
    }
    mounts
}

/// The device nodes of this machine that a privileged container gets: not terminals, not what is mounted in /dev.
fn host_devices(folder: &Path, depth: usize) -> Vec<HostDevice> {
    const DEPTH_MAX: usize = 8;
    let mut devices = vec![];
    let Ok(entries) = fs::read_dir(folder) else {
        return devices;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        let kind = metadata.file_type();
        if kind.is_dir()
            && depth < DEPTH_MAX
            && !["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts"]
                .iter()
                .any(|skipped| name == *skipped)
        {
            devices.extend(host_devices(&path, depth + 1));
        } else if (kind.is_char_device() || kind.is_block_device())
            && name != "console"
            && name != "ptmx"
        {
            let device = metadata.rdev();
            devices.push(HostDevice {
                path,
                block: kind.is_block_device(),
                major: rustix::fs::major(device),
                minor: rustix::fs::minor(device),
                mode: metadata.mode(),
            });
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn stop_signals() {
        let parsed = ["SIGQUIT", "quit", "3", "", "0", "65", "NOPE"].map(parse_signal);
        assert_eq!(parsed, [Some(3), Some(3), Some(3), None, None, None, None]);
    }
}
