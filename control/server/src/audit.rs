//! The audit log's file: lines from a bounded queue, written by a thread of its own; a file that grew large is set aside under
//! the time, and the oldest of those go.

use crate::cli::AuditFlags;
use crate::clock;
use anyhow::{Context, Result};
use api::Audit;
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Events that wait to be written; what comes beyond is lost, and counted.
const QUEUE: usize = 10_000;

impl AuditFlags {
    /// The log; None where no policy is named.
    pub fn log(&self) -> Result<Option<Audit>> {
        let Some(policy) = &self.audit_policy_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(policy)
            .with_context(|| format!("cannot read the audit policy {}", policy.display()))?;
        let (lines, queue) = mpsc::channel(QUEUE);
        let audit = Audit::new(&text, lines)?;
        let path = self.audit_log_path.clone().unwrap_or_default();
        let mut log = Log::open(
            &path,
            self.audit_log_maxsize << 20,
            self.audit_log_maxbackup,
        )?;
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || log.write_all(queue))
            .context("no thread for the audit log can be started")?;
        Ok(Some(audit))
    }
}

/// A log and its files; without a file the lines go to standard output.
struct Log {
    path: Option<PathBuf>,
    out: Box<dyn Write + Send>,
    bytes: u64,
    bytes_max: u64,
    kept: usize,
    failed: bool,
}

impl Log {
    fn open(path: &Path, bytes_max: u64, kept: usize) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Log {
                path: None,
                out: Box::new(io::stdout()),
                bytes: 0,
                bytes_max,
                kept,
                failed: false,
            });
        }
        let (out, bytes) =
            open(path).with_context(|| format!("cannot write the audit log {}", path.display()))?;
        Ok(Log {
            path: Some(path.to_owned()),
            out: Box::new(out),
            bytes,
            bytes_max,
            kept,
            failed: false,
        })
    }

    /// Writes until the queue's other end is gone.
    fn write_all(&mut self, mut lines: mpsc::Receiver<Bytes>) {
        while let Some(line) = lines.blocking_recv() {
            match self.write(&line) {
                Ok(()) => self.failed = false,
                Err(error) => {
                    if !self.failed {
                        tracing::error!(%error, "the audit log cannot be written");
                    }
                    self.failed = true;
                }
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let size = line.len() as u64;
        if self.bytes > 0 && self.bytes + size > self.bytes_max {
            self.rotate()?;
        }
        self.out.write_all(line)?;
        self.bytes += size;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let stamp = clock::now().to_milli_time().replace(':', "-");
        std::fs::rename(path, path.with_added_extension(stamp))?;
        let (out, bytes) = open(path)?;
        (self.out, self.bytes) = (Box::new(out), bytes);
        for old in set_aside(path)?.into_iter().rev().skip(self.kept) {
            std::fs::remove_file(old)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// The files that were set aside, the oldest first: their names end in the time.
fn set_aside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let prefix = path
        .file_name()
        .map(|name| format!("{}.", name.to_string_lossy()));
    let prefix = prefix.unwrap_or_default();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_set_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let mut log = Log::open(&path, 100, 2).expect("opens");
        for at in 0..5 {
            let line = format!("{at}{}\n", "x".repeat(60));
            log.write(line.as_bytes()).expect("writes");
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
        let old = set_aside(&path).expect("lists");
        assert_eq!(old.len(), 2, "{old:?}");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert!(text.starts_with('4') && text.lines().count() == 1, "{text}");
        let text = std::fs::read_to_string(&old[1]).expect("reads");
        assert!(text.starts_with('3'), "{text}");
    }
}
