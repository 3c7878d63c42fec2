//! Makes a pod's sandbox: its folder, its cgroup, its files and its shim.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{Pod, Pods, disk};
use crate::clock;
use crate::error::{Error, Result};
use crate::image::blocking;
use crate::types::PodSpec;
use crate::{files, mounts};

/// A shim is ready in milliseconds; a stalled machine is given this much.
const START_TIME_MAX: Duration = Duration::from_secs(30);
const SPAWN_TRIES: u32 = 100;
const SPAWN_PAUSE: Duration = Duration::from_millis(5);
/// It says one word.
const ANSWER_BYTES_MAX: u64 = 100;

impl Pods {
    /// Makes a pod's sandbox. One of the same UID that is there is left as it is.
    pub async fn create(&self, spec: PodSpec) -> Result<()> {
        check_uid(&spec.uid)?;
        let (pod, fresh) = self.register(spec);
        let _change = pod.changing.lock().await;
        if !fresh && pod.folder.join("pod.json").exists() {
            return Ok(());
        }
        let made = self.make(&pod).await;
        if made.is_err() {
            // What is half made would be taken for a pod by the next agent.
            let _ = self.take_down(&pod).await;
            self.lock().remove(&pod.spec().uid);
        }
        made
    }

    fn register(&self, spec: PodSpec) -> (Arc<Pod>, bool) {
        let mut pods = self.lock();
        if let Some(pod) = pods.get(&spec.uid) {
            return (pod.clone(), false);
        }
        let folder = self.inner.root.join("pods").join(&spec.uid);
        let cgroup_path = self.inner.cgroups.pod_path(spec.qos, &spec.uid);
        let record = disk::PodRecord {
            spec,
            created_at: clock::now(),
            boot_id: disk::boot_id(),
        };
        let pod = Pod::new(record, folder, cgroup_path);
        pods.insert(pod.spec().uid.clone(), pod.clone());
        (pod, true)
    }

    async fn make(&self, pod: &Arc<Pod>) -> Result<()> {
        let (pods, prepared) = (self.clone(), pod.clone());
        blocking(move || prepare(&pods, &prepared)).await?;
        self.start_shim(pod).await?;
        let record = pod.clone();
        blocking(move || disk::write_pod(&record.folder, &record.record)).await?;
        self.watch(pod).await
    }

    /// Runs `shim pod` and waits until it answers.
    async fn start_shim(&self, pod: &Pod) -> Result<()> {
        let log = pod.folder.join("shim.log");
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::io("open", &log))?;
        let spec = pod.spec();
        let mut command = Command::new(&self.inner.shim);
        command.args(["pod", "--dir"]).arg(&pod.folder);
        match &spec.hostname {
            Some(hostname) => command.args(["--hostname", hostname]),
            None => command.arg("--host-uts"),
        };
        if spec.host_ipc {
            command.arg("--host-ipc");
        }
        if spec.share_pid {
            command.arg("--share-pid");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(output)
            .env_clear();
        let mut child = spawn(&mut command)
            .await
            .map_err(Error::io("run", &self.inner.shim))?;
        let mut answer = String::new();
        if let Some(stdout) = child.stdout.take() {
            let line = BufReader::new(stdout).take(ANSWER_BYTES_MAX);
            let read = async { BufReader::new(line).read_line(&mut answer).await };
            match tokio::time::timeout(START_TIME_MAX, read).await {
                Ok(read) => drop(read.map_err(Error::io("hear of", &self.inner.shim))?),
                Err(_) => {
                    return Err(Error::Deadline {
                        what: "the start of the pod's shim".into(),
                        after: START_TIME_MAX,
                    });
                }
            }
        }
        // Reaps it, whenever it ends; a later agent leaves that to init.
        tokio::spawn(async move { child.wait().await });
        if answer != "ready\n" {
            let text = fs::read_to_string(&log).unwrap_or_default();
            return Err(pod.shim_error(format!(
                "it did not start: {}",
                text.lines().last().unwrap_or("it said nothing")
            )));
        }
        Ok(())
    }
}

/// A process that another thread has just forked holds the sealed copy open for writing until its own exec; meanwhile the
/// copy is "busy".
async fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut tries = 0;
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < SPAWN_TRIES =>
            {
                tries += 1;
                tokio::time::sleep(SPAWN_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// The UID becomes a path and a cgroup.
fn check_uid(uid: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if uid.is_empty() || uid.len() > 128 || uid.starts_with('.') || !uid.bytes().all(allowed) {
        return Err(Error::Config(format!(
            "pod UID {uid:?} must be letters, digits, '-', '_' and '.'"
        )));
    }
    Ok(())
}

fn prepare(pods: &Pods, pod: &Pod) -> Result<()> {
    let spec = pod.spec();
    files::make_dirs(&pod.folder.join("c"))?;
    files::make_dirs(&pod.folder.join("volumes"))?;
    pods.inner.cgroups.create(&pod.cgroup_path, &spec.limits)?;
    let shm = pod.folder.join("shm");
    files::make_dirs(&shm)?;
    if !spec.host_ipc {
        mounts::tmpfs(&shm, "mode=1777,size=65536k", false)?;
    }
    write_files(&pod.folder, spec)
}

/// The files of /etc that a pod's containers share.
fn write_files(folder: &Path, spec: &PodSpec) -> Result<()> {
    for (name, content) in [("hosts", &spec.hosts), ("resolv.conf", &spec.resolv_conf)] {
        if let Some(content) = content {
            let path = folder.join(name);
            fs::write(&path, content).map_err(Error::io("write", &path))?;
        }
    }
    if let Some(hostname) = &spec.hostname {
        let path = folder.join("hostname");
        fs::write(&path, format!("{hostname}\n")).map_err(Error::io("write", &path))?;
    }
    Ok(())
}
