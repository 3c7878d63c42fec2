//! Our masters: `control run` with the port of the etcd API.

use super::probe::Probe;
use super::target::{
    Endpoint, Files, Launch, Member, Saved, Start, Target, TlsMaterial, files_ending, once_possible,
};
use crate::cluster::Binaries;
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use client::Config;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Saving and restoring a test's data takes no longer.
const TOLD_DEADLINE: Duration = Duration::from_secs(60);

/// Masters.
pub struct Control {
    binaries: Binaries,
    /// Where the join token is kept for masters to come.
    token: PathBuf,
    /// Where the administrator's kubeconfig is kept.
    kubeconfig: PathBuf,
    tls: Option<TlsMaterial>,
}

impl Control {
    /// Masters of the programs found; `folder` takes what joining masters need.
    pub fn new(binaries: Binaries, folder: &Path) -> Self {
        Control {
            binaries,
            token: folder.join("join-token"),
            kubeconfig: folder.join("admin.kubeconfig"),
            tls: None,
        }
    }
}

impl Control {
    /// A file with what seals the keys of saved states.
    fn passphrase(&self) -> Result<String> {
        let path = self.token.with_file_name("passphrase");
        std::fs::write(&path, "of a cluster that will be lost").context("cannot write a file")?;
        Ok(path.display().to_string())
    }

    /// What one of the programs prints.
    async fn told(&self, program: &str, args: &[&str]) -> Result<String> {
        let run = tokio::process::Command::new(self.binaries.path(program))
            .args(args)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        let ended = tokio::time::timeout(TOLD_DEADLINE, run)
            .await
            .with_context(|| format!("{program} did not end within {TOLD_DEADLINE:?}"))?
            .with_context(|| format!("{program} cannot be run; is it built?"))?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(
            ended.status.success(),
            "{program} {} failed: {}",
            args.join(" "),
            said.trim()
        );
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }
}

#[async_trait]
impl Target for Control {
    fn name(&self) -> &'static str {
        "control"
    }

    fn version(&self) -> String {
        self.binaries.version()
    }

    fn first_alone(&self) -> bool {
        true
    }

    fn is_ready(&mut self, first: &Member) -> Result<bool> {
        let token = std::fs::read(first.data.join("join-token")).unwrap_or_default();
        let kubeconfig = first.data.join("admin.kubeconfig");
        if token.is_empty() || !kubeconfig.exists() {
            return Ok(false);
        }
        std::fs::write(&self.token, token).context("cannot keep the join token")?;
        std::fs::copy(&kubeconfig, &self.kubeconfig).context("cannot keep the kubeconfig")?;
        let config = Config::load(Some(&kubeconfig), None)?;
        let identity = config
            .identity
            .context("the administrator's kubeconfig has no certificate")?;
        self.tls = Some(TlsMaterial {
            ca: config.ca_pem.into_bytes(),
            certificate: identity.certificate_pem.into_bytes(),
            key: identity.key_pem.into_bytes(),
        });
        Ok(true)
    }

    fn launch(&self, member: &Member, members: &[Member], start: Start) -> Launch {
        let mut args = vec!["run".to_owned()];
        let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
        add("--data-dir", member.data.display().to_string());
        add("--name", member.name.clone());
        add("--address", member.address.to_string());
        add("--etcd-port", "2379".to_owned());
        let is_first = members.first() == Some(member);
        match start {
            Start::New if is_first => args.push("--init".to_owned()),
            Start::New | Start::Joins => {
                let others: Vec<String> = members
                    .iter()
                    .filter(|other| *other != member)
                    .map(|other| format!("https://{}:6443", other.address))
                    .collect();
                add("--join", others.join(","));
                add("--token-file", self.token.display().to_string());
            }
            Start::Again => {}
        }
        Launch {
            program: self.binaries.path("control"),
            args,
        }
    }

    fn endpoint(&self, member: &Member) -> Endpoint {
        Endpoint {
            name: member.name.clone(),
            url: format!("https://{}:2379", member.address),
            tls: self.tls.clone(),
        }
    }

    fn files(&self, data: &Path) -> Result<Files> {
        // Beside the store lie those that were set aside because of earlier damage.
        // RocksDB's logs have a number for a name; a master's own logs do not.
        let db = data.join("store/db");
        let mut logs = files_ending(&db, &[".log"]);
        logs.retain(|path| {
            let stem = path.file_stem().unwrap_or_default().as_encoded_bytes();
            stem.iter().all(u8::is_ascii_digit)
        });
        Ok(Files {
            logs,
            tables: files_ending(&db, &[".sst"]),
        })
    }

    fn tells_votes(&self) -> bool {
        true
    }

    fn clock_problem(&self) -> Option<String> {
        None
    }

    fn restore_problem(&self) -> Option<String> {
        None
    }

    async fn save(&self, to: &Path) -> Result<Saved> {
        let (archive, sealed) = (to.display().to_string(), self.passphrase()?);
        let kubeconfig = self.kubeconfig.display().to_string();
        self.told(
            "ctl",
            &[
                "--kubeconfig",
                &kubeconfig,
                "snapshot",
                "save",
                &archive,
                "--passphrase-file",
                &sealed,
            ],
        )
        .await?;
        let status = self
            .told("ctl", &["snapshot", "status", &archive, "-o", "json"])
            .await?;
        let status: serde_json::Value =
            serde_json::from_str(&status).context("ctl snapshot status prints JSON")?;
        let revision = status["revision"].as_u64();
        Ok(Saved {
            revision: revision.with_context(|| format!("no revision in {status}"))?,
            bytes: std::fs::metadata(to).map_or(0, |file| file.len()),
        })
    }

    async fn restore(&self, from: &Path, first: &Member) -> Result<()> {
        let (archive, sealed) = (from.display().to_string(), self.passphrase()?);
        let (data, address) = (first.data.display().to_string(), first.address.to_string());
        self.told(
            "ctl",
            &[
                "snapshot",
                "restore",
                &archive,
                "--data-dir",
                &data,
                "--name",
                &first.name,
                "--address",
                &address,
                "--passphrase-file",
                &sealed,
            ],
        )
        .await?;
        Ok(())
    }

    /// A master joins by itself.
    async fn admit(&self, _: &Probe, _: &Member) -> Result<()> {
        Ok(())
    }

    async fn expel(&self, probe: &Probe, member: &Member) -> Result<()> {
        once_possible(|| probe.member_remove(&member.name))
            .await
            .with_context(|| format!("{} is not put out", member.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_set_aside_is_not_damaged_again() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("control"), "").expect("a file");
        let binaries = Binaries::in_folder(folder.path()).expect("programs");
        let data = folder.path().join("data");
        for store in ["store", "store.damaged-1"] {
            let db = data.join(store).join("db");
            std::fs::create_dir_all(&db).expect("a folder");
            for name in ["000007.log", "000008.sst", "LOG", "old.log"] {
                std::fs::write(db.join(name), "x").expect("a file");
            }
        }
        let control = Control::new(binaries, folder.path());
        let files = control.files(&data).expect("files");
        let db = data.join("store/db");
        assert_eq!(files.logs, [db.join("000007.log")]);
        assert_eq!(files.tables, [db.join("000008.sst")]);
    }
}
