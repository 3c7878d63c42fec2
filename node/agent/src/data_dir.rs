//! The agent's folder: who it is, which masters it knows, where everything else lies. Written atomically, readable by root.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What must survive a restart of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The node's name; the certificate is for it.
    pub name: String,
    /// The cluster's identity.
    pub cluster_id: String,
    /// API URLs of the masters.
    pub masters: Vec<String>,
    /// The network of all pods.
    pub cluster_cidr: String,
    /// The network of services' addresses.
    pub service_cidr: String,
    /// The address at which pods ask for names.
    pub dns_address: String,
    /// The domain of services' names.
    pub cluster_domain: String,
    /// The addresses of this node's pods, once a master has assigned them.
    #[serde(default)]
    pub pod_cidr: Option<String>,
    /// The branch of the cgroup tree, for `cleanup`.
    pub cgroup_root: String,
    /// The node's address, for `cleanup`.
    pub address: String,
}

/// Certificates and key in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The cluster's CA.
    pub ca_pem: String,
    /// The node's certificate, by which the API knows it.
    pub certificate_pem: String,
    /// The certificate of the kubelet's server; None while the other one serves both, as a join gives it.
    pub serving_pem: Option<String>,
    /// Its key.
    pub key_pem: String,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Opens the folder; makes it if it is not there.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(root)
            .with_context(|| format!("cannot make the data directory {}", root.display()))?;
        let root = fs::canonicalize(root)
            .with_context(|| format!("cannot open the data directory {}", root.display()))?;
        Ok(Self { root })
    }

    /// A path below it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Takes the folder for this process; another agent on it is an error.
    pub fn lock(&self) -> anyhow::Result<fs::File> {
        let path = self.path("lock");
        let file =
            fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
            |_| {
                anyhow::anyhow!(
                    "another agent uses {}; stop it first, or give another --data-dir",
                    self.root.display()
                )
            },
        )?;
        Ok(file)
    }

    /// What was saved; none before the node has joined.
    pub fn settings(&self) -> anyhow::Result<Option<Settings>> {
        let path = self.path("settings.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| {
                format!("{} is damaged; remove it to join anew", path.display())
            })?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Saves them.
    pub fn save_settings(&self, settings: &Settings) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(settings).context("settings are plain data")?;
        self.write("settings.json", &bytes)
    }

    /// The node's certificate and key.
    pub fn credentials(&self) -> anyhow::Result<Credentials> {
        let read = |name: &str| {
            let path = self.path(name);
            fs::read_to_string(&path).with_context(|| {
                format!(
                    "cannot read {}; remove settings.json beside it to join anew",
                    path.display()
                )
            })
        };
        Ok(Credentials {
            ca_pem: read("ca.crt")?,
            certificate_pem: read("node.crt")?,
            serving_pem: self
                .path("serving.crt")
                .exists()
                .then(|| read("serving.crt"))
                .transpose()?,
            key_pem: read("node.key")?,
        })
    }

    /// Saves them.
    pub fn save_credentials(&self, credentials: &Credentials) -> anyhow::Result<()> {
        self.write("node.key", credentials.key_pem.as_bytes())?;
        // A serving certificate goes with the key: one of a former membership must not be left.
        match &credentials.serving_pem {
            Some(pem) => self.write("serving.crt", pem.as_bytes())?,
            None => match fs::remove_file(self.path("serving.crt")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context("cannot remove the former serving.crt");
                }
                _ => {}
            },
        }
        self.write("node.crt", credentials.certificate_pem.as_bytes())?;
        self.write("ca.crt", credentials.ca_pem.as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let (path, temporary) = (self.path(name), self.path(&format!(".{name}.new")));
        let write = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            fs::File::open(&self.root)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_owner_reads_the_key_and_only_one_agent_runs() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let data = DataDir::open(dir.path()).expect("opens");
        assert!(data.settings().expect("reads").is_none());
        let credentials = Credentials {
            ca_pem: "a".into(),
            certificate_pem: "b".into(),
            serving_pem: None,
            key_pem: "c".into(),
        };
        data.save_credentials(&credentials).expect("saves");
        let mode = fs::metadata(data.path("node.key"))
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let lock = data.lock().expect("is free");
        assert!(data.lock().is_err());
        drop(lock);
        assert!(data.lock().is_ok());
    }
}
