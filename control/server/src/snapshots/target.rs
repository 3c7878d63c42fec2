//! Where snapshots go: a folder of this machine, or a bucket. A name that can be seen is always that of a whole snapshot.

use super::s3::Bucket;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use objects::snapshots::SnapshotTarget;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

/// Files begin so until they are whole.
const PARTIAL: &str = ".partial-";
const READ_BYTES: usize = 1 << 20;

/// A place for snapshots.
pub enum Target {
    Folder(PathBuf),
    Bucket(Box<Bucket>),
}

impl Target {
    /// The target, with its secret in the clear.
    pub fn open(target: &SnapshotTarget) -> Result<Self> {
        Ok(match target {
            SnapshotTarget::Folder { path } => Target::Folder(PathBuf::from(path)),
            SnapshotTarget::S3(target) => Target::Bucket(Box::new(Bucket::open(target.clone())?)),
        })
    }

    /// Writes the stream under `name`, whole or not at all; returns its size.
    pub async fn put(
        &self,
        name: &str,
        stream: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
        wrote: &(dyn Fn(&Bytes) + Send + Sync),
    ) -> Result<u64> {
        match self {
            Target::Bucket(bucket) => bucket.put(name, stream, wrote).await,
            Target::Folder(folder) => write_file(folder, name, stream, wrote)
                .await
                .with_context(|| format!("cannot write {} in {}", name, folder.display())),
        }
    }

    /// Reads a snapshot.
    pub async fn get(&self, name: &str) -> Result<BoxStream<'static, io::Result<Bytes>>> {
        match self {
            Target::Bucket(bucket) => bucket.get(name).await,
            Target::Folder(folder) => {
                let path = folder.join(name);
                let opened = tokio::fs::File::open(&path).await;
                let file = opened.with_context(|| format!("cannot read {}", path.display()))?;
                Ok(ReaderStream::with_capacity(file, READ_BYTES).boxed())
            }
        }
    }

    /// Deletes a snapshot; one that is not there is no failure.
    pub async fn delete(&self, name: &str) -> Result<()> {
        match self {
            Target::Bucket(bucket) => bucket.delete(name).await,
            Target::Folder(folder) => {
                let path = folder.join(name);
                match tokio::fs::remove_file(&path).await {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    removed => removed.with_context(|| format!("cannot delete {}", path.display())),
                }
            }
        }
    }
}

async fn write_file(
    folder: &Path,
    name: &str,
    mut stream: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    wrote: &(dyn Fn(&Bytes) + Send + Sync),
) -> Result<u64> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    sweep(folder, name)?;
    let partial = Partial(Some(folder.join(format!("{PARTIAL}{name}"))));
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(partial.path())?;
    let mut file = tokio::fs::File::from_std(file);
    let mut bytes = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.context("the archive broke off")?;
        file.write_all(&chunk).await?;
        bytes += chunk.len() as u64;
        wrote(&chunk);
    }
    file.flush().await?;
    file.sync_all().await?;
    tokio::fs::rename(partial.path(), folder.join(name)).await?;
    partial.keep();
    tokio::fs::File::open(folder).await?.sync_all().await?;
    Ok(bytes)
}

/// Removes what earlier runs of this process's kind left unfinished: partial files of the same cluster and schedule.
fn sweep(folder: &Path, name: &str) -> Result<()> {
    let Some((kin, _moment)) = name.rsplit_once('-') else {
        bail!("{name} is no name of a snapshot");
    };
    let kin = format!("{PARTIAL}{kin}-");
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&kin) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A file that goes unless it is kept.
struct Partial(Option<PathBuf>);

impl Partial {
    fn path(&self) -> &Path {
        self.0.as_deref().expect("it is there until it is kept")
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "an unfinished snapshot could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    const NAME: &str = "trireme-c-s-20261128T030000Z.snapshot";

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("readable");
        entries
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    }

    #[tokio::test]
    async fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = Target::Folder(folder.path().join("b"));
        let chunk = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        let broken = stream::iter([chunk("half"), Err(io::Error::other("gone"))]);
        assert!(target.put(NAME, broken, &|_| ()).await.is_err());
        assert!(
            names(&folder.path().join("b")).is_empty(),
            "nothing of a broken one stays"
        );

        let left = folder
            .path()
            .join("b")
            .join(format!("{PARTIAL}trireme-c-s-20261128T020000Z.snapshot"));
        std::fs::write(&left, "of a killed process").expect("writes");
        let whole = stream::iter([chunk("one"), chunk("two")]);
        assert_eq!(target.put(NAME, whole, &|_| ()).await.expect("writes"), 6);
        assert_eq!(names(&folder.path().join("b")), [NAME]);
        let read: Vec<Bytes> = target
            .get(NAME)
            .await
            .expect("reads")
            .map(|chunk| chunk.expect("reads"))
            .collect()
            .await;
        assert_eq!(read.concat(), b"onetwo");
        target.delete(NAME).await.expect("deletes");
        target.delete(NAME).await.expect("it is gone already");
    }
}
