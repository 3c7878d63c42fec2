//! From a container's specification to the OCI runtime's: pure.
//! Written as JSON by hand, since the defaults of oci-spec's builders are not Kubernetes': they set a NOFILE limit, leave
//! the caller's groups and give /dev/null the mode 0066. Defaults here are containerd's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::image::ImageConfig;
use crate::seccomp;
use crate::types::{ContainerSpec, Limits, Mount, Propagation, Rlimit, Seccomp, Security};
use crate::user::User;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_NOFILE: u64 = 1_048_576;

/// containerd's default set.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// By the kernel's number.
const ALL_CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Device nodes of every container: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// What the specification does not say: the image's wishes and the pod's places.
pub(crate) struct Surroundings<'a> {
    pub image: &'a ImageConfig,
    pub user: User,
    /// Root file system, mounted.
    pub rootfs: &'a Path,
    /// Absolute in the cgroup tree.
    pub cgroup_path: &'a str,
    pub cgroup_v2: bool,
    /// Type and path; without a path, a new one.
    pub namespaces: Vec<(&'static str, Option<PathBuf>)>,
    /// Mounts of the pod: hosts, resolv.conf, /dev/shm.
    pub pod_mounts: Vec<Mount>,
    pub sysctls: &'a BTreeMap<String, String>,
    pub host_devices: Vec<HostDevice>,
    pub machine: Machine,
}

/// What this machine, or the sandbox that the agent itself runs in, lets it give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// A bit for each capability, by its number.
    pub capabilities: u64,
    /// Highest hard limit of open files.
    pub nofile_max: u64,
    /// Lowest oom_score_adj.
    pub oom_score_adj_min: i32,
}

impl Machine {
    fn has(&self, name: &str) -> bool {
        ALL_CAPABILITIES
            .iter()
            .position(|known| *known == name)
            .is_some_and(|number| self.capabilities & (1 << number) != 0)
    }
}

/// A device node of this machine, for privileged containers.
pub(crate) struct HostDevice {
    pub path: PathBuf,
    pub block: bool,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
}

/// Kubernetes' rules of what runs: `command` replaces the image's entrypoint and makes its command void, `args` replace
/// the image's command.
pub fn command_line(image: &ImageConfig, command: &[String], args: &[String]) -> Vec<String> {
    let image_part = |part: &Option<Vec<String>>| part.clone().unwrap_or_default();
    let (mut line, rest) = match (command.is_empty(), args.is_empty()) {
        (true, true) => (image_part(&image.entrypoint), image_part(&image.cmd)),
        (true, false) => (image_part(&image.entrypoint), args.to_vec()),
        (false, _) => (command.to_vec(), args.to_vec()),
    };
    line.extend(rest);
    line
}

/// The image's environment with the container's on top; a later value of a name stands where the first stood.
pub fn environment(image: &ImageConfig, own: &[(String, String)]) -> Vec<String> {
    let mut variables: Vec<(String, String)> = vec![];
    let image = image
        .env
        .iter()
        .flatten()
        .filter_map(|line| line.split_once('='));
    let own = own
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in image.chain(own) {
        match variables.iter_mut().find(|(known, _)| known == name) {
            Some(variable) => variable.1 = value.to_string(),
            None => variables.push((name.to_string(), value.to_string())),
        }
    }
    let mut lines: Vec<String> = variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if !lines.iter().any(|line| line.starts_with("PATH=")) {
        lines.push(DEFAULT_PATH.into());
    }
    lines
}

/// The bundle's config.json.
pub(crate) fn runtime_spec(container: &ContainerSpec, around: &Surroundings) -> Result<Value> {
    let security = &container.security;
    let mut capabilities = capabilities(security)?;
    // Asking for one that cannot be given fails the whole start.
    capabilities.retain(|name| around.machine.has(name));
    let mut linux = json!({
        "namespaces": namespaces(around),
        "cgroupsPath": around.cgroup_path,
        "resources": resources(container, around),
        "devices": devices(around),
        "sysctl": around.sysctls,
        "rootfsPropagation": root_propagation(container),
    });
    if !security.privileged && !security.unmasked_proc {
        linux["maskedPaths"] = json!(MASKED_PATHS);
        linux["readonlyPaths"] = json!(READ_ONLY_PATHS);
    }
    if let (false, Some(profile)) = (
        security.privileged,
        seccomp_profile(&security.seccomp, &capabilities),
    ) {
        linux["seccomp"] = profile;
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process(container, around, &capabilities)?,
        "root": { "path": around.rootfs, "readonly": security.read_only_root },
        "mounts": mounts(container, around),
        "linux": linux,
    }))
}

fn process(
    container: &ContainerSpec,
    around: &Surroundings,
    capabilities: &[String],
) -> Result<Value> {
    let args = command_line(around.image, &container.command, &container.args);
    if args.is_empty() {
        return Err(Error::Config("no command specified: neither the container nor the image says what to run; set command".into()));
    }
    let working_dir = container
        .working_dir
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(&around.image.working_dir);
    let mut env = environment(around.image, &container.env);
    if container.tty && !env.iter().any(|line| line.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    let mut process = json!({
        "terminal": container.tty,
        // Always given: without additionalGids the caller's groups would leak.
        "user": { "uid": around.user.uid, "gid": around.user.gid, "umask": 0o022, "additionalGids": around.user.groups },
        "args": args,
        "env": env,
        "cwd": if working_dir.is_empty() { "/" } else { working_dir },
        // Inheritable and ambient are empty: CVE-2022-24769.
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities, "inheritable": [], "ambient": [] },
        "rlimits": rlimits(&container.rlimits, around.machine.nofile_max),
        "oomScoreAdj": container.oom_score_adj.max(around.machine.oom_score_adj_min),
    });
    // Absent and not false: libcontainer takes a false as a reason to load seccomp after privileges are gone.
    if container.security.no_new_privileges && !container.security.privileged {
        process["noNewPrivileges"] = json!(true);
    }
    Ok(process)
}

/// The process object of an exec: the container's own with another command.
pub(crate) fn exec_process(
    config: &Value,
    command: &[String],
    tty: bool,
    env: &[(String, String)],
) -> Value {
    let mut process = config["process"].clone();
    process["args"] = json!(command);
    process["terminal"] = json!(tty);
    if let Some(lines) = process["env"].as_array_mut() {
        lines.extend(
            env.iter()
                .map(|(name, value)| json!(format!("{name}={value}"))),
        );
        let has_term = lines
            .iter()
            .any(|line| line.as_str().is_some_and(|line| line.starts_with("TERM=")));
        if tty && !has_term {
            lines.push(json!("TERM=xterm"));
        }
    }
    process
}

fn rlimits(given: &[Rlimit], nofile_max: u64) -> Vec<Value> {
    let to_json =
        |limit: &Rlimit| json!({ "type": limit.kind, "soft": limit.soft, "hard": limit.hard });
    let mut limits: Vec<Value> = given.iter().map(to_json).collect();
    if !given.iter().any(|limit| limit.kind == "RLIMIT_NOFILE") {
        let count = DEFAULT_NOFILE.min(nofile_max);
        limits.push(json!({ "type": "RLIMIT_NOFILE", "soft": count, "hard": count }));
    }
    limits
}

/// Dropped first, then added; `ALL` is every one.
fn capabilities(security: &Security) -> Result<Vec<String>> {
    if security.privileged {
        return Ok(ALL_CAPABILITIES
            .iter()
            .map(|name| name.to_string())
            .collect());
    }
    let mut set: BTreeSet<&'static str> = DEFAULT_CAPABILITIES.into_iter().collect();
    for given in &security.capabilities_drop {
        match capability(given)? {
            None => set.clear(),
            Some(name) => drop(set.remove(name)),
        }
    }
    for given in &security.capabilities_add {
        match capability(given)? {
            None => set.extend(ALL_CAPABILITIES),
            Some(name) => drop(set.insert(name)),
        }
    }
    Ok(set.into_iter().map(str::to_string).collect())
}

/// None for `ALL`.
fn capability(given: &str) -> Result<Option<&'static str>> {
    let upper = given.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" {
        return Ok(None);
    }
    let known = ALL_CAPABILITIES.iter().find(|known| &known[4..] == name);
    known.map(|known| Some(*known)).ok_or_else(|| {
        Error::Config(format!(
            "unknown capability {given:?}: use names such as NET_ADMIN or SYS_TIME"
        ))
    })
}

fn seccomp_profile(seccomp: &Seccomp, capabilities: &[String]) -> Option<Value> {
    match seccomp {
        Seccomp::Unconfined => None,
        Seccomp::RuntimeDefault => Some(seccomp::runtime_default(capabilities)),
        Seccomp::Localhost(profile) => Some(profile.clone()),
    }
}

fn namespaces(around: &Surroundings) -> Vec<Value> {
    let entry = |(kind, path): &(&str, Option<PathBuf>)| match path {
        Some(path) => json!({ "type": kind, "path": path }),
        None => json!({ "type": kind }),
    };
    around.namespaces.iter().map(entry).collect()
}

fn mounts(container: &ContainerSpec, around: &Surroundings) -> Vec<Value> {
    let privileged = container.security.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", access] }),
    ];
    // On version 1 a container could write its own limits, even mounted read-only.
    if around.cgroup_v2 {
        mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", access] }));
    }
    let mut binds: Vec<&Mount> = vec![];
    for mount in &around.pod_mounts {
        // The container's own mount of the same place wins.
        if !container
            .mounts
            .iter()
            .any(|own| own.container_path == mount.container_path)
        {
            binds.push(mount);
        }
    }
    binds.extend(&container.mounts);
    // Outer places first: an inner one must be mounted on top of it.
    binds.sort_by_key(|mount| mount.container_path.components().count());
    mounts.extend(
        binds
            .into_iter()
            .map(|mount| bind(mount, container.security.read_only_root)),
    );
    mounts
}

fn bind(mount: &Mount, read_only_root: bool) -> Value {
    let pod_file = read_only_root && mount.container_path.starts_with("/etc");
    let access = if mount.read_only || pod_file {
        "ro"
    } else {
        "rw"
    };
    let propagation = match mount.propagation {
        Propagation::None => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    json!({ "destination": mount.container_path, "type": "bind", "source": mount.host_path, "options": ["rbind", propagation, access] })
}

fn root_propagation(container: &ContainerSpec) -> &'static str {
    let any = |wanted: Propagation| {
        container
            .mounts
            .iter()
            .any(|mount| mount.propagation == wanted)
    };
    if any(Propagation::Bidirectional) {
        "shared"
    } else if any(Propagation::HostToContainer) {
        "slave"
    } else {
        "private"
    }
}

fn devices(around: &Surroundings) -> Vec<Value> {
    let usual = DEVICES.iter().map(|(name, major, minor)| {
        json!({ "path": format!("/dev/{name}"), "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0 })
    });
    let is_usual = |path: &Path| {
        DEVICES
            .iter()
            .any(|(name, _, _)| path == Path::new("/dev").join(name))
    };
    let host = around.host_devices.iter().filter(|device| !is_usual(&device.path)).map(|device| {
        let kind = if device.block { "b" } else { "c" };
        json!({ "path": device.path, "type": kind, "major": device.major, "minor": device.minor, "fileMode": device.mode & 0o7777, "uid": 0, "gid": 0 })
    });
    usual.chain(host).collect()
}

fn resources(container: &ContainerSpec, around: &Surroundings) -> Value {
    let Limits {
        cpu_shares,
        cpu_quota_us,
        cpu_period_us,
        memory_bytes_max,
        pids_max,
    } = container.limits;
    let mut resources = json!({ "devices": device_rules(container.security.privileged) });
    let mut cpu = serde_json::Map::new();
    cpu.extend(cpu_shares.map(|shares| ("shares".into(), json!(shares.max(2)))));
    if let Some(quota) = cpu_quota_us.filter(|quota| *quota > 0) {
        cpu.insert("quota".into(), json!(quota));
        cpu.insert("period".into(), json!(cpu_period_us.unwrap_or(100_000)));
    }
    if !cpu.is_empty() {
        resources["cpu"] = Value::Object(cpu);
    }
    if let Some(bytes) = memory_bytes_max.filter(|bytes| *bytes > 0) {
        resources["memory"] = json!({ "limit": bytes });
        if around.cgroup_v2 {
            // A swap limit equal to the limit does nothing on version 2.
            resources["unified"] = json!({ "memory.swap.max": "0", "memory.oom.group": "1" });
        }
    }
    if let Some(count) = pids_max.filter(|count| *count > 0) {
        resources["pids"] = json!({ "limit": count });
    }
    resources
}

/// Nothing but the usual, or all.
fn device_rules(privileged: bool) -> Vec<Value> {
    if privileged {
        return vec![json!({ "allow": true, "access": "rwm" })];
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for (_, major, minor) in DEVICES {
        rules.push(
            json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }),
        );
    }
    rules
}

#[cfg(test)]
mod tests;
