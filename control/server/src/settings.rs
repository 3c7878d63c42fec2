//! What a master is told on its command line, and what it keeps in its data directory between starts.
//!
//! Layout of the directory: `identity.json` (who this master is in which cluster), `pki/` (the CA and this master's
//! certificate), `store/` (the store; after a recovery, a folder that the identity names), `admin.kubeconfig` and `join-token` for
//! the person who runs it, `former-…/` (what was set aside). Everything is readable by root alone.

use crate::pki::Authority;
use anyhow::{Context, Result};
use client::Identity;
use mvcc::HistoryLimits;
use objects::cluster::ClusterSettings;
use objects::past::HistoryKeep;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The store's folder, where the identity names no other.
pub const STORE: &str = "store";
/// Folders of what was set aside begin so.
const FORMER: &str = "former-";

/// The tenth address of the services' network answers DNS, as in most Kubernetes clusters.
const DNS_HOST: u32 = 10;

/// The network settings of a cluster that asks for nothing else.
pub fn defaults() -> ClusterSettings {
    ClusterSettings {
        cluster_cidr: "10.244.0.0/16".to_owned(),
        service_cidr: "10.96.0.0/16".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        dns_address: "10.96.0.10".to_owned(),
    }
}

/// The settings, if they can be used: two networks apart from one another, and the DNS address in that of the services.
pub fn checked(mut settings: ClusterSettings) -> Result<ClusterSettings> {
    let network = |what: &str, text: &str| {
        let parsed: ipnet::Ipv4Net = text.parse().with_context(|| {
            format!("{what} {text:?} is no IPv4 network, as 10.96.0.0/16 is one")
        })?;
        anyhow::ensure!(
            parsed.prefix_len() <= 24,
            "{what} {text} is too small: it needs at least a /24"
        );
        Ok(parsed.trunc())
    };
    let pods = network("--cluster-cidr", &settings.cluster_cidr)?;
    let services = network("--service-cidr", &settings.service_cidr)?;
    anyhow::ensure!(
        !pods.contains(&services) && !services.contains(&pods),
        "--cluster-cidr {pods} and --service-cidr {services} overlap; choose networks apart from one another"
    );
    settings.cluster_cidr = pods.to_string();
    settings.service_cidr = services.to_string();
    settings.dns_address = Ipv4Addr::from(u32::from(services.network()) + DNS_HOST).to_string();
    Ok(settings)
}

/// The bounds of history with what `keep` says in the place of those that stand.
pub fn history_limits(keep: &HistoryKeep, standing: HistoryLimits) -> Result<HistoryLimits> {
    let keep_ms = match keep.seconds {
        None => standing.keep_ms,
        Some(seconds) => seconds.saturating_mul(1000),
    };
    let keep_bytes = keep.bytes.unwrap_or(standing.keep_bytes);
    anyhow::ensure!(
        keep_ms >= HISTORY_MS_MIN && keep_bytes >= HISTORY_BYTES_MIN,
        "history must be kept for at least {} s and {} MiB: watchers that fall behind go on from it",
        HISTORY_MS_MIN / 1000,
        HISTORY_BYTES_MIN >> 20
    );
    Ok(HistoryLimits {
        keep_ms,
        keep_bytes,
    })
}

/// Shorter history would end the watches of clients that were away for a moment; Kubernetes keeps five minutes.
const HISTORY_MS_MIN: u64 = 5 * 60 * 1000;
const HISTORY_BYTES_MIN: u64 = 16 << 20;

/// The address of the service `kubernetes`: the first of the services' network.
pub fn api_service_address(settings: &ClusterSettings) -> Result<IpAddr> {
    let services: ipnet::Ipv4Net = settings
        .service_cidr
        .parse()
        .context("the services' network is malformed")?;
    Ok(Ipv4Addr::from(u32::from(services.network()) + 1).into())
}

/// Who this master is. Written once, when it is made or joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterIdentity {
    /// The cluster.
    pub cluster_id: String,
    /// Raft's id of this member.
    pub member_id: u64,
    /// The master's name.
    pub name: String,
    /// Whether it made the cluster: then it begins it, also when its first start was cut short.
    pub founder: bool,
    /// Whether its store was opened once: a store that is missing afterwards was lost, and this member with it.
    #[serde(default)]
    pub opened: bool,
    /// What all masters share.
    pub settings: ClusterSettings,
    /// The store's folder within the data directory, where it is not `store`. A recovery fills a new one, and switches to it with
    /// the one write of this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

impl MasterIdentity {
    /// The name of the store's folder.
    pub fn store(&self) -> &str {
        self.store.as_deref().unwrap_or(STORE)
    }
}

/// The data directory of a master.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Opens it, making it when it is absent.
    pub fn open(root: &Path) -> Result<Self> {
        for folder in [root.to_path_buf(), root.join("pki")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .with_context(|| format!("cannot make the data directory {}", folder.display()))?;
        }
        Ok(DataDir {
            root: root.to_path_buf(),
        })
    }

    /// Whether nothing lies there: it is absent or empty.
    pub fn is_vacant(root: &Path) -> Result<bool> {
        match fs::read_dir(root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
            read => Ok(read
                .with_context(|| format!("cannot read {}", root.display()))?
                .next()
                .is_none()),
        }
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the store of this master lies.
    pub fn store(&self, identity: &MasterIdentity) -> PathBuf {
        self.root.join(identity.store())
    }

    /// Where snapshots are restored to be verified.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Moves everything into a folder of its own within the directory, which can then be filled anew; tells its path. Nothing is
    /// deleted. The identity goes first: without it the directory holds no master, so that an interruption leaves either the former
    /// master, or none and what another try sets aside.
    pub fn set_aside(&self) -> Result<PathBuf> {
        let label = match self.identity()? {
            Some(identity) => format!("{}-m{}", &identity.cluster_id, identity.member_id),
            None => "rest".to_owned(),
        };
        let names = (1..).map(|number| match number {
            1 => format!("{FORMER}{label}"),
            _ => format!("{FORMER}{label}-{number}"),
        });
        let folder = names
            .map(|name| self.root.join(name))
            .find(|folder| !folder.exists())
            .expect("the numbers do not end");
        let failed = || {
            format!(
                "cannot set {} aside in {}",
                self.root.display(),
                folder.display()
            )
        };
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(failed)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root).with_context(failed)? {
            names.push(entry.with_context(failed)?.file_name());
        }
        names.retain(|name| name != "lost+found" && !name.to_string_lossy().starts_with(FORMER));
        names.sort_by_key(|name| name != "identity.json");
        for name in names {
            fs::rename(self.root.join(&name), folder.join(&name)).with_context(failed)?;
            fs::File::open(&self.root)
                .and_then(|root| root.sync_all())
                .with_context(failed)?;
        }
        DataDir::open(&self.root)?;
        Ok(folder)
    }

    /// The identity; None when this master was never made.
    pub fn identity(&self) -> Result<Option<MasterIdentity>> {
        let path = self.root.join("identity.json");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let identity = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is damaged; remove the data directory and let this master join again",
                path.display()
            )
        })?;
        Ok(Some(identity))
    }

    /// Keeps the identity; last of all that is written when a master is made, since it says that the rest is whole.
    pub fn keep_identity(&self, identity: &MasterIdentity) -> Result<()> {
        self.write("identity.json", &serde_json::to_string_pretty(identity)?)
    }

    /// Keeps the CA.
    pub fn keep_authority(&self, authority: &Authority) -> Result<()> {
        self.write("pki/ca.crt", &authority.certificate_pem)?;
        self.write("pki/ca.key", &authority.key_pem)
    }

    /// The CA.
    pub fn authority(&self) -> Result<Authority> {
        Ok(Authority {
            certificate_pem: self.read("pki/ca.crt")?,
            key_pem: self.read("pki/ca.key")?,
        })
    }

    /// Keeps this master's certificate.
    pub fn keep_certificate(&self, identity: &Identity) -> Result<()> {
        self.write("pki/master.crt", &identity.certificate_pem)?;
        self.write("pki/master.key", &identity.key_pem)
    }

    /// Writes a file for the person who runs this master, and tells where.
    pub fn keep_for_operator(&self, name: &str, text: &str) -> Result<PathBuf> {
        self.write(name, text)?;
        Ok(self.root.join(name))
    }

    /// A file of the directory, if it is there.
    pub fn read_if_there(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root.join(name)).ok()
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.root.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Writes beside, renames, and syncs both, so that a crash leaves the old file or the new one, and never a later file
    /// without an earlier one.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.root.join(name);
        let beside = path.with_extension("new");
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&beside, &path)?;
                fs::File::open(path.parent().unwrap_or(&self.root))?.sync_all()
            });
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_must_be_usable_together() {
        let with = |pods: &str, services: &str| {
            checked(ClusterSettings {
                cluster_cidr: pods.into(),
                service_cidr: services.into(),
                ..defaults()
            })
        };
        assert_eq!(
            checked(defaults()).expect("the defaults are good"),
            defaults()
        );
        assert_eq!(
            with("10.0.0.0/16", "10.1.2.3/16")
                .expect("good")
                .dns_address,
            "10.1.0.10"
        );
        assert!(with("10.0.0.0/8", "10.96.0.0/16").is_err());
        assert!(with("10.0.0.0/16", "10.1.0.0/30").is_err());
        assert!(with("x", "10.1.0.0/16").is_err());
    }

    #[test]
    fn history_keeps_what_is_not_said_and_has_a_least() {
        let standing = HistoryLimits::default();
        let keep = |seconds, bytes| history_limits(&HistoryKeep { seconds, bytes }, standing);
        assert_eq!(keep(None, None).expect("good"), standing);
        let week = keep(Some(7 * 24 * 3600), None).expect("good");
        assert_eq!(
            (week.keep_ms, week.keep_bytes),
            (7 * 24 * 3_600_000, standing.keep_bytes)
        );
        assert!(keep(Some(10), None).is_err() && keep(None, Some(1)).is_err());
    }

    #[test]
    fn an_identity_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = DataDir::open(&folder.path().join("m1")).expect("opens");
        assert_eq!(dir.identity().expect("reads"), None);
        let identity = MasterIdentity {
            cluster_id: "c".into(),
            member_id: 3,
            name: "m1".into(),
            founder: true,
            opened: false,
            settings: defaults(),
            store: None,
        };
        dir.keep_identity(&identity).expect("writes");
        assert_eq!(dir.identity().expect("reads").as_ref(), Some(&identity));
        fs::create_dir(dir.store(&identity)).expect("makes");
        fs::create_dir(dir.root().join("lost+found")).expect("makes");
        let former = dir.set_aside().expect("moves");
        assert!(former.ends_with("former-c-m3") && former.join("store").is_dir());
        assert_eq!(dir.identity().expect("reads"), None);
        assert!(dir.root().join("lost+found").is_dir() && !dir.root().join("store").exists());
        dir.keep_identity(&identity).expect("writes");
        assert!(
            dir.set_aside().expect("moves").ends_with("former-c-m3-2"),
            "what was set aside before stays"
        );
        assert_eq!(
            fs::read_dir(&former).expect("reads").count(),
            3,
            "identity, pki, store"
        );
        fs::write(dir.root().join("identity.json"), "{").expect("writes");
        assert!(
            dir.identity()
                .expect_err("damaged")
                .to_string()
                .contains("is damaged")
        );
    }
}
