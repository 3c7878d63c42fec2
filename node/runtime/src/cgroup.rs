//! Control groups of pods and containers, of version 1 (hybrid too) and 2.
//!
//! ```text
//! ROOT/guaranteed|burstable|besteffort/podUID/CONTAINER
//! ```
//! Makes, limits, reads and removes groups below ROOT (`trireme` unless configured) and touches no other. The container's
//! own group is made by libcontainer. Blocking: files of the kernel, and a bounded wait at removal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::error::{Error, Result};
use crate::types::{Limits, Qos, Stats};

/// A killed process is gone in milliseconds, unless it hangs in the kernel.
const REMOVE_TIME_MAX: Duration = Duration::from_secs(10);
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The node's cgroup tree.
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: String,
    layout: Layout,
}

#[derive(Clone, Debug)]
enum Layout {
    /// Controller name (or names joined by commas) and mount point.
    V1(Vec<(String, PathBuf)>),
    V2(PathBuf),
}

impl Cgroups {
    /// Finds out how this machine is set up. `root` is one path component.
    pub fn detect(root: &str) -> Result<Self> {
        if root.is_empty() || root.contains(['/', '.']) {
            return Err(Error::Config(format!(
                "cgroup root {root:?} must be one name without dots and slashes"
            )));
        }
        let mount = Path::new("/sys/fs/cgroup");
        let kind = rustix::fs::statfs(mount)
            .map_err(Error::errno("examine", mount))?
            .f_type;
        let layout = if u64::try_from(kind).is_ok_and(|kind| kind == CGROUP2_MAGIC) {
            Layout::V2(mount.to_path_buf())
        } else {
            let mounts = fs::read_to_string("/proc/self/mounts")
                .map_err(Error::io("read", "/proc/self/mounts"))?;
            Layout::V1(v1_controllers(&mounts))
        };
        Ok(Self {
            root: root.into(),
            layout,
        })
    }

    /// Version 2, and not a hybrid.
    pub fn is_v2(&self) -> bool {
        matches!(self.layout, Layout::V2(_))
    }

    /// A pod's group, absolute in the tree.
    pub fn pod_path(&self, qos: Qos, uid: &str) -> String {
        let class = match qos {
            Qos::Guaranteed => "guaranteed",
            Qos::Burstable => "burstable",
            Qos::BestEffort => "besteffort",
        };
        format!("/{}/{class}/pod{uid}", self.root)
    }

    /// Makes a group and its parents and sets its limits. Again is fine.
    pub fn create(&self, path: &str, limits: &Limits) -> Result<()> {
        match &self.layout {
            Layout::V1(controllers) => {
                for (name, mount) in controllers {
                    make_v1(mount, path, name.contains("cpuset"))?;
                }
            }
            Layout::V2(mount) => make_v2(mount, path)?,
        }
        self.set(path, limits)
    }

    /// Sets limits, of a running container too.
    pub fn set(&self, path: &str, limits: &Limits) -> Result<()> {
        for (controller, file, value) in self.settings(limits) {
            let Some(folder) = self.folder(controller, path) else {
                continue;
            };
            write(&folder.join(file), &value)?;
        }
        Ok(())
    }

    fn settings(&self, limits: &Limits) -> Vec<(&'static str, &'static str, String)> {
        let mut settings = vec![];
        let period = limits.cpu_period_us.unwrap_or(100_000);
        if self.is_v2() {
            settings.extend(
                limits
                    .cpu_shares
                    .map(|shares| ("cpu", "cpu.weight", weight(shares).to_string())),
            );
            let quota = |quota: i64| {
                if quota > 0 {
                    quota.to_string()
                } else {
                    "max".into()
                }
            };
            settings.extend(
                limits
                    .cpu_quota_us
                    .map(|value| ("cpu", "cpu.max", format!("{} {period}", quota(value)))),
            );
            settings.extend(
                limits
                    .memory_bytes_max
                    .map(|bytes| ("memory", "memory.max", unlimited(bytes, "max"))),
            );
            settings.extend(
                limits
                    .pids_max
                    .map(|count| ("pids", "pids.max", unlimited(count, "max"))),
            );
        } else {
            settings.extend(
                limits
                    .cpu_shares
                    .map(|shares| ("cpu", "cpu.shares", shares.max(2).to_string())),
            );
            if let Some(quota) = limits.cpu_quota_us {
                settings.push(("cpu", "cpu.cfs_period_us", period.to_string()));
                settings.push((
                    "cpu",
                    "cpu.cfs_quota_us",
                    if quota > 0 {
                        quota.to_string()
                    } else {
                        "-1".into()
                    },
                ));
            }
            settings.extend(
                limits
                    .memory_bytes_max
                    .map(|bytes| ("memory", "memory.limit_in_bytes", unlimited(bytes, "-1"))),
            );
            settings.extend(
                limits
                    .pids_max
                    .map(|count| ("pids", "pids.max", unlimited(count, "max"))),
            );
        }
        settings
    }

    fn folder(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let mount = match &self.layout {
            Layout::V1(controllers) => {
                &controllers
                    .iter()
                    .find(|(name, _)| name.split(',').any(|name| name == controller))?
                    .1
            }
            Layout::V2(mount) => mount,
        };
        Some(mount.join(path.trim_start_matches('/')))
    }

    fn folders(&self, path: &str) -> Vec<PathBuf> {
        let path = path.trim_start_matches('/');
        match &self.layout {
            Layout::V1(controllers) => controllers
                .iter()
                .map(|(_, mount)| mount.join(path))
                .collect(),
            Layout::V2(mount) => vec![mount.join(path)],
        }
    }

    /// The file in which the kernel counts a group's OOM kills.
    pub fn oom_path(&self, path: &str) -> Option<PathBuf> {
        let file = if self.is_v2() {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        Some(self.folder("memory", path)?.join(file))
    }

    /// Kills all that runs in a group, its children's groups included, and removes them. What is gone is fine.
    pub fn remove(&self, path: &str) -> Result<()> {
        let deadline = Instant::now() + REMOVE_TIME_MAX;
        for folder in self.folders(path) {
            loop {
                let _ = fs::write(folder.join("cgroup.kill"), "1");
                match remove_folder(&folder) {
                    Ok(()) => break,
                    Err(error) if Instant::now() > deadline => {
                        return Err(Error::io("remove", &folder)(error));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        }
        Ok(())
    }

    /// Removes the group below the root named by `path` (empty for the root itself) if nothing is in it.
    pub fn remove_if_empty(&self, path: &str) {
        let path = if path.is_empty() {
            format!("/{}", self.root)
        } else {
            path.to_string()
        };
        for folder in self.folders(&path) {
            let _ = fs::remove_dir(folder);
        }
    }

    /// Kills all processes of a group without removing it.
    pub fn kill(&self, path: &str) {
        for folder in self.folders(path) {
            if fs::write(folder.join("cgroup.kill"), "1").is_err() {
                kill_below(&folder);
            }
        }
    }

    /// What a group uses.
    pub fn stats(&self, path: &str) -> Stats {
        let read = |controller: &str, file: &str| {
            self.folder(controller, path)
                .and_then(|folder| fs::read_to_string(folder.join(file)).ok())
                .unwrap_or_default()
        };
        let number = |text: String| text.trim().parse().unwrap_or(0);
        let memory = read("memory", "memory.stat");
        let pids = number(read("pids", "pids.current"));
        let (cpu_ns, usage, inactive, rss, faults, major_faults) = if self.is_v2() {
            let cpu = field(&read("cpu", "cpu.stat"), "usage_usec") * 1000;
            (
                cpu,
                number(read("memory", "memory.current")),
                "inactive_file",
                "anon",
                "pgfault",
                "pgmajfault",
            )
        } else {
            let cpu = number(read("cpuacct", "cpuacct.usage"));
            (
                cpu,
                number(read("memory", "memory.usage_in_bytes")),
                "total_inactive_file",
                "total_rss",
                "total_pgfault",
                "total_pgmajfault",
            )
        };
        Stats {
            cpu_ns,
            memory_bytes: usage,
            memory_working_set_bytes: usage.saturating_sub(field(&memory, inactive)),
            memory_rss_bytes: field(&memory, rss),
            page_faults: field(&memory, faults),
            major_page_faults: field(&memory, major_faults),
            pids,
        }
    }
}

/// Kubernetes' conversion of shares (2 to 262144) to a weight (1 to 10000).
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn unlimited(value: i64, word: &str) -> String {
    if value > 0 {
        value.to_string()
    } else {
        word.to_string()
    }
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn v1_controllers(mounts: &str) -> Vec<(String, PathBuf)> {
    let mut found = vec![];
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, mount, "cgroup", options, ..] = fields.as_slice() else {
            continue;
        };
        let known = [
            "cpu",
            "cpuacct",
            "cpuset",
            "memory",
            "devices",
            "freezer",
            "blkio",
            "pids",
            "hugetlb",
            "net_cls",
            "net_prio",
            "perf_event",
        ];
        let names: Vec<&str> = options
            .split(',')
            .filter(|option| known.contains(option))
            .collect();
        if !names.is_empty() {
            found.push((names.join(","), PathBuf::from(mount)));
        }
    }
    found
}

fn make_v1(mount: &Path, path: &str, cpuset: bool) -> Result<()> {
    let mut folder = mount.to_path_buf();
    for component in path.trim_start_matches('/').split('/') {
        let parent = folder.clone();
        folder.push(component);
        make(&folder)?;
        // A new group of cpuset is empty and takes no process.
        if cpuset {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = fs::read_to_string(parent.join(file))
                    .map_err(Error::io("read", parent.join(file)))?;
                if fs::read_to_string(folder.join(file)).is_ok_and(|own| own.trim().is_empty()) {
                    write(&folder.join(file), value.trim())?;
                }
            }
        }
    }
    Ok(())
}

fn make_v2(mount: &Path, path: &str) -> Result<()> {
    let mut folder = mount.to_path_buf();
    for component in path.trim_start_matches('/').split('/') {
        enable_controllers(&folder)?;
        folder.push(component);
        make(&folder)?;
    }
    enable_controllers(&folder)
}

fn enable_controllers(folder: &Path) -> Result<()> {
    let file = folder.join("cgroup.controllers");
    let there = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
    for controller in ["cpu", "memory", "pids", "io", "cpuset"] {
        if there.split_whitespace().any(|name| name == controller) {
            write(
                &folder.join("cgroup.subtree_control"),
                &format!("+{controller}"),
            )?;
        }
    }
    Ok(())
}

fn make(folder: &Path) -> Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io("make", folder)(error))
        }
        _ => Ok(()),
    }
}

fn write(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).map_err(Error::io("write", file))
}

/// Removes a group and those below it; processes that are in the way are killed, for the next try.
fn remove_folder(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_folder(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            kill_below(folder);
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

fn kill_below(folder: &Path) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter_map(Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        kill_below(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_spans_its_range() {
        assert_eq!([2, 1024, 262_144, 0].map(weight), [1, 39, 10_000, 1]);
    }

    #[test]
    fn finds_the_controllers_of_version_1() {
        let mounts = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0\n\
            cgroup /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let found: Vec<String> = v1_controllers(mounts)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(found, ["cpu,cpuacct", "memory"]);
    }

    #[test]
    fn a_root_stays_a_name() {
        for root in ["", "..", "a/b", "a.b"] {
            assert!(Cgroups::detect(root).is_err(), "{root:?}");
        }
    }
}
