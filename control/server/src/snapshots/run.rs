//! One run: the archive is written to its target, and restored from there into a scratch folder when that is asked.

use super::plan;
use super::target::Target;
use crate::clock;
use crate::pki::Authority;
use crate::settings::MasterIdentity;
use crate::vault::{self, Holder, Keys};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::StreamExt;
use objects::Timestamp;
use objects::snapshots::{
    S3Target, SavedSnapshot, SnapshotPhase, SnapshotSchedule, SnapshotTarget,
};
use raft_store::archive::StateKey;
use raft_store::{RaftStore, archive};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// How long a run may take in all.
const RUN_MAX: Duration = Duration::from_secs(6 * 3600);

/// How far a run is; read by others while it goes on.
pub struct Progress {
    phase: Mutex<SnapshotPhase>,
    bytes: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Progress {
            phase: Mutex::new(SnapshotPhase::Saving),
            bytes: AtomicU64::new(0),
        }
    }
}

impl Progress {
    /// What it does, and how many bytes are written.
    pub fn now(&self) -> (SnapshotPhase, u64) {
        let phase = *self.phase.lock().expect("no holder of the lock panics");
        (phase, self.bytes.load(Ordering::Relaxed))
    }

    fn enter(&self, phase: SnapshotPhase) {
        *self.phase.lock().expect("no holder of the lock panics") = phase;
    }
}

/// What runs need.
#[derive(Clone)]
pub struct Runner {
    pub store: RaftStore,
    pub identity: MasterIdentity,
    pub authority: Authority,
    /// Where snapshots are restored to be verified.
    pub scratch: PathBuf,
}

impl Runner {
    /// Saves the snapshot for `due`. What is returned is whole; of what failed nothing is left that looks like a snapshot.
    pub async fn save(
        &self,
        schedule: &SnapshotSchedule,
        due: Timestamp,
        progress: &Progress,
    ) -> Result<SavedSnapshot> {
        tokio::time::timeout(RUN_MAX, self.save_and_verify(schedule, due, progress))
            .await
            .context("the run took too long and was given up")?
    }

    async fn save_and_verify(
        &self,
        schedule: &SnapshotSchedule,
        due: Timestamp,
        progress: &Progress,
    ) -> Result<SavedSnapshot> {
        let target = self.target(&schedule.target)?;
        let name = plan::name(&self.identity.cluster_id, &schedule.name, due);
        let holder = Holder::of_seal(&schedule.seal)?;
        let sealed = holder
            .as_ref()
            .map(|holder| self.sealed_keys(holder))
            .transpose()?;
        let (extra, key) = sealed.unzip();
        let mut saved = SavedSnapshot {
            name: name.clone(),
            schedule: schedule.name.clone(),
            place: schedule.target.place(),
            on: matches!(target, Target::Folder(_)).then(|| self.identity.name.clone()),
            saved: clock::now(),
            cluster_id: self.identity.cluster_id.clone(),
            revision: 0,
            bytes: 0,
            verified: false,
            keys: vault::describe(extra.as_deref()).to_owned(),
        };
        let mut archive = self
            .store
            .archive(extra, key.clone())
            .await
            .context("the archive cannot begin")?
            .boxed();
        let first = archive
            .next()
            .await
            .context("the archive is empty")?
            .context("the archive broke off")?;
        saved.revision = archive::Reader::new(&first[..])?.header().revision.0;
        let whole = futures::stream::once(std::future::ready(Ok(first)))
            .chain(archive)
            .boxed();
        let wrote = |chunk: &Bytes| {
            let bytes = chunk.len() as u64;
            progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        saved.bytes = target.put(&name, whole, &wrote).await?;
        if schedule.verify {
            progress.enter(SnapshotPhase::Verifying);
            if let Err(error) = self.verify(&target, &saved, key).await {
                let deleted = target.delete(&name).await;
                if let Err(error) = deleted {
                    tracing::error!(name, %error, "a snapshot that does not verify could not be deleted");
                }
                return Err(error).context("what was saved does not verify, and was deleted");
            }
            saved.verified = true;
        }
        saved.saved = clock::now();
        Ok(saved)
    }

    /// Deletes a snapshot. Only from a bucket or this master's own folder.
    pub async fn delete(&self, schedule: &SnapshotSchedule, saved: &SavedSnapshot) -> Result<()> {
        ensure!(
            saved.place == schedule.target.place(),
            "the snapshot {} lies elsewhere",
            saved.name
        );
        self.target(&schedule.target)?.delete(&saved.name).await
    }

    /// Only this master, and only now, can open the state without what its keys are sealed for.
    async fn verify(
        &self,
        target: &Target,
        saved: &SavedSnapshot,
        key: Option<StateKey>,
    ) -> Result<()> {
        let stream = target.get(&saved.name).await?;
        let reader = SyncIoBridge::new(StreamReader::new(stream));
        let scratch = self.scratch.clone();
        let rehearsed = tokio::task::spawn_blocking(move || {
            archive::rehearse(reader, key.as_ref(), &scratch, &mut |_| ())
        });
        let found = rehearsed.await.context("the verification broke")??;
        let header = &found.restored.header;
        if header.revision.0 != saved.revision || header.cluster_id != saved.cluster_id {
            bail!(
                "it holds revision {} of cluster {}",
                header.revision,
                header.cluster_id
            );
        }
        ensure!(
            found.restored.compared,
            "it does not tell the hashes of its source"
        );
        Ok(())
    }

    /// The sealed keys, and what seals the snapshot's state.
    fn sealed_keys(&self, holder: &Holder) -> Result<(Bytes, StateKey)> {
        let settings = self.identity.settings.clone();
        let (keys, state_key) = Keys::new(self.authority.clone(), settings);
        Ok((vault::lock(&keys, holder)?.into(), state_key))
    }

    fn target(&self, target: &SnapshotTarget) -> Result<Target> {
        let mut target = target.clone();
        if let SnapshotTarget::S3(S3Target {
            secret_access_key: Some(secret),
            ..
        }) = &mut target
        {
            secret.0 = vault::unlock_for_masters(&self.authority, &secret.0)?;
        }
        Target::open(&target)
    }
}
