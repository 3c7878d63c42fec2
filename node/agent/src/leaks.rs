//! `node leaks`: what is left of pods that are no more: mounts, network namespaces, links, addresses, cgroups, shims, folders.
//!
//! It only looks. A pod that is being made or removed at the moment may show; one that stays is a fault, or what a crash left
//! and the next agent removes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::Leaks;
use crate::data_dir::DataDir;

const NAMESPACE_PREFIX: &str = "trireme-";
const LINK_PREFIX: &str = "tri";
/// The prefix, and a hash.
const LINK_LEN: usize = 15;
const CGROUPS: &str = "/sys/fs/cgroup";

/// Prints each leak on a line of its own; true when there is none.
pub fn list(args: &Leaks) -> anyhow::Result<bool> {
    let data = DataDir::open(&args.data_dir)?;
    let Some(settings) = data.settings()? else {
        return Ok(true);
    };
    let folder = data.path("run").join("pods");
    let found = find(&folder, &data, &settings.cgroup_root);
    for leak in &found {
        println!("{leak}");
    }
    Ok(found.is_empty())
}

fn find(folder: &Path, data: &DataDir, cgroup_root: &str) -> Vec<String> {
    let (pods, broken): (Vec<String>, Vec<String>) = names(folder)
        .into_iter()
        .partition(|uid| folder.join(uid).join("pod.json").is_file());
    let pods: BTreeSet<String> = pods.into_iter().collect();
    let mut found: Vec<String> = broken
        .iter()
        .map(|uid| format!("folder {}", folder.join(uid).display()))
        .collect();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    found.extend(of_unknown("mount", mounted(&mounts, folder), &pods));
    found.extend(of_unknown("shim", shims(folder), &pods));
    found.extend(of_unknown("cgroup", cgroups(cgroup_root), &pods));
    found.extend(of_unknown(
        "namespace",
        namespaces(&data.path("netns")),
        &pods,
    ));
    let leases = fs::read_to_string(data.path("network").join("leases.json"));
    found.extend(of_unknown(
        "address",
        leased(&leases.unwrap_or_default()),
        &pods,
    ));
    found.extend(links(&pods));
    found
}

/// What belongs to pods that are not known: each a pod's UID and what it is.
fn of_unknown(kind: &str, all: Vec<(String, String)>, pods: &BTreeSet<String>) -> Vec<String> {
    all.into_iter()
        .filter(|(uid, _)| !pods.contains(uid))
        .map(|(_, what)| format!("{kind} {what}"))
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The first part of a path below a folder.
fn uid_below(path: &Path, folder: &Path) -> Option<String> {
    let below = path.strip_prefix(folder).ok()?;
    let first = below.components().next()?;
    Some(first.as_os_str().to_string_lossy().into_owned())
}

fn mounted(mounts: &str, folder: &Path) -> Vec<(String, String)> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points
        .filter_map(|point| Some((uid_below(Path::new(point), folder)?, point.to_owned())))
        .collect()
}

fn shims(folder: &Path) -> Vec<(String, String)> {
    let of = |pid: String| {
        pid.parse::<u32>().ok()?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<String> = words
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let at = words.iter().position(|word| word == "--dir")?;
        let uid = uid_below(Path::new(words.get(at + 1)?), folder)?;
        Some((uid, format!("process {pid}")))
    };
    names(Path::new("/proc"))
        .into_iter()
        .filter_map(of)
        .collect()
}

/// The pods' groups below the node's own, of every controller that is mounted.
fn cgroups(root: &str) -> Vec<(String, String)> {
    let top = PathBuf::from(CGROUPS);
    let mut mounts: Vec<PathBuf> = names(&top).into_iter().map(|name| top.join(name)).collect();
    mounts.push(top);
    let mut found = vec![];
    for class in ["guaranteed", "burstable", "besteffort"] {
        for folder in mounts.iter().map(|mount| mount.join(root).join(class)) {
            for name in names(&folder) {
                if let Some(uid) = name.strip_prefix("pod") {
                    found.push((uid.to_owned(), folder.join(&name).display().to_string()));
                }
            }
        }
    }
    found
}

fn namespaces(folder: &Path) -> Vec<(String, String)> {
    let of = |name: String| {
        let uid = name.strip_prefix(NAMESPACE_PREFIX)?.to_owned();
        Some((uid, folder.join(&name).display().to_string()))
    };
    names(folder).into_iter().filter_map(of).collect()
}

fn leased(ledger: &str) -> Vec<(String, String)> {
    let ledger: serde_json::Value = serde_json::from_str(ledger).unwrap_or_default();
    let leases = ledger["leases"].as_object().into_iter().flatten();
    leases
        .map(|(uid, address)| (uid.clone(), address.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// The nodes' ends of veth pairs, whose names are hashes of UIDs.
fn links(pods: &BTreeSet<String>) -> Vec<String> {
    let known: BTreeSet<String> = pods
        .iter()
        .filter_map(|uid| network::PodUid::parse(uid.clone()).ok())
        .map(|uid| uid.host_link())
        .collect();
    let is_ours = |name: &String| {
        let hash = name.strip_prefix(LINK_PREFIX);
        name.len() == LINK_LEN
            && hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    // The namespace's own, where /sys shows another's.
    let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let links = text
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    links
        .map(|name| name.trim().to_owned())
        .filter(|name| is_ours(name) && !known.contains(name))
        .map(|name| format!("link {name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_pod_has_is_a_leak() {
        let folder = Path::new("/data/run/pods");
        let mounts = "tmpfs /data/run/pods/a/shm tmpfs rw 0 0\noverlay /data/run/pods/b/c/1/rootfs overlay rw 0 0\nproc /proc proc rw 0 0\n";
        let pods = ["a".to_owned()].into();
        assert_eq!(
            of_unknown("mount", mounted(mounts, folder), &pods),
            ["mount /data/run/pods/b/c/1/rootfs"]
        );
        let ledger =
            r#"{"cidr":"10.0.0.0/24","last":"10.0.0.9","leases":{"a":"10.0.0.2","c":"10.0.0.3"}}"#;
        assert_eq!(
            of_unknown("address", leased(ledger), &pods),
            ["address 10.0.0.3"]
        );
        assert!(leased("").is_empty());
    }
}
