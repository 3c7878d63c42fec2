//! Snapshots as files or objects, for the commands that read them on one machine.

use crate::cli::{S3Args, SnapshotKeygen, SnapshotPut};
use crate::snapshots::s3::{self, Bucket};
use crate::vault;
use anyhow::{Context, Result};
use futures::StreamExt;
use objects::snapshots::S3Target;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempPath;
use tokio_util::io::ReaderStream;

const READ_BYTES: usize = 1 << 20;

/// A snapshot as a file of this machine, for as long as this lives.
pub enum Source {
    /// It was a file all along.
    File(PathBuf),
    /// It was fetched.
    Fetched { path: TempPath, url: String },
}

impl Source {
    /// The snapshot at a path or `s3://bucket/name`; what is fetched is put into `folder`.
    pub fn open(text: &str, args: &S3Args, folder: &Path) -> Result<Self> {
        if !text.starts_with("s3://") {
            return Ok(Source::File(PathBuf::from(text)));
        }
        let (bucket, name) = bucket_of(text, args)?;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let mut file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("cannot write in {}", folder.display()))?;
        runtime()?.block_on(async {
            let mut stream = bucket.get(&name).await?;
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.with_context(|| format!("{text} broke off"))?;
                file.write_all(&chunk)
                    .with_context(|| format!("cannot write in {}", folder.display()))?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(Source::Fetched {
            path: file.into_temp_path(),
            url: text.to_owned(),
        })
    }

    /// For people.
    pub fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Fetched { url, .. } => url.clone(),
        }
    }

    /// Opens it.
    pub fn read(&self) -> Result<File> {
        let path: &Path = match self {
            Source::File(path) => path,
            Source::Fetched { path, .. } => path,
        };
        File::open(path).with_context(|| format!("cannot read the snapshot {}", self.name()))
    }
}

/// `control snapshot-put`.
pub fn put(args: &SnapshotPut) -> Result<()> {
    let (bucket, name) = bucket_of(&args.url, &args.s3)?;
    let bytes = runtime()?.block_on(async {
        let stream = ReaderStream::with_capacity(tokio::io::stdin(), READ_BYTES);
        bucket.put(&name, stream, &|_| ()).await
    })?;
    println!("{bytes}");
    Ok(())
}

/// `control snapshot-keygen`.
pub fn keygen(args: &SnapshotKeygen) -> Result<()> {
    let (text, public) = vault::new_key_file();
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.file);
    let mut file =
        made.with_context(|| format!("cannot make the key file {}", args.file.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write the key file {}", args.file.display()))?;
    println!(
        "wrote {}; keep it apart from the snapshots, and a copy of it elsewhere",
        args.file.display()
    );
    println!("public key {public}");
    Ok(())
}

fn bucket_of(url: &str, args: &S3Args) -> Result<(Bucket, String)> {
    let (bucket, name) = s3::parse_url(url)?;
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the CA file {}", path.display()))
    };
    let target = S3Target {
        bucket,
        endpoint: args.s3_endpoint.clone(),
        region: args.s3_region.clone(),
        virtual_hosted: args.s3_virtual_hosted,
        ca_pem: args.s3_ca_file.as_ref().map(read).transpose()?,
        ..S3Target::default()
    };
    Ok((Bucket::open(target)?, name))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no threads can be started")
}
