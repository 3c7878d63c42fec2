//! Who a member is: a small file in its data folder, written once when the member comes into being.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The layout of a data folder that this program reads and writes.
pub const FORMAT: u32 = 1;

const FILE: &str = "member.json";

/// Why an identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be used.
    #[error("the file {path} cannot be used")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what this program writes.
    #[error("the file {path} cannot be understood")]
    Malformed {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Written by a later version.
    #[error(
        "the data folder {path} has format {found}, this program reads format {FORMAT}; use the version that wrote it, or a later one"
    )]
    NewerFormat {
        /// Which.
        path: String,
        /// Its format.
        found: u32,
    },
}

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The layout of the data folder.
    pub format: u32,
    /// Its cluster.
    pub cluster_id: String,
    /// Its number in Raft.
    pub member_id: u64,
    /// Its name.
    pub name: String,
}

impl Identity {
    /// An identity in the format of this program.
    pub fn new(cluster_id: &str, member_id: u64, name: &str) -> Self {
        Identity {
            format: FORMAT,
            cluster_id: cluster_id.to_owned(),
            member_id,
            name: name.to_owned(),
        }
    }

    /// Reads the identity of a data folder; None when it has none yet.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = data_dir.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(IdentityError::File {
                    path: path.display().to_string(),
                    source,
                });
            }
        };
        // A later format may have other fields: its number is read alone, first.
        #[derive(Deserialize)]
        struct OnlyFormat {
            format: u32,
        }
        let malformed = |source| IdentityError::Malformed {
            path: path.display().to_string(),
            source,
        };
        let OnlyFormat { format } = serde_json::from_slice(&text).map_err(malformed)?;
        if format > FORMAT {
            return Err(IdentityError::NewerFormat {
                path: data_dir.display().to_string(),
                found: format,
            });
        }
        serde_json::from_slice(&text).map(Some).map_err(malformed)
    }

    /// Writes it, whole or not at all.
    pub fn store(&self, data_dir: &Path) -> Result<(), IdentityError> {
        let path = data_dir.join(FILE);
        let text = serde_json::to_vec_pretty(self).expect("an identity is plain data");
        write_whole(data_dir, &path, &text).map_err(|source| IdentityError::File {
            path: path.display().to_string(),
            source,
        })
    }
}

/// Whether the folder holds a member.
pub fn is_member(data_dir: &Path) -> bool {
    data_dir.join(FILE).exists()
}

/// Where the file is that keeps room on the disk.
pub(crate) fn reserve_path(data_dir: &Path) -> PathBuf {
    data_dir.join("reserve")
}

/// Where the database is within a data folder.
pub fn db_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("db")
}

/// Where it is noted how far the log was synced.
pub fn mark_path(data_dir: &Path) -> PathBuf {
    data_dir.join("synced")
}

/// Where snapshots that arrive are put together.
pub fn tmp_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("tmp")
}

pub(crate) fn write_whole(dir: &Path, path: &Path, text: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    File::open(dir)?.sync_all()
}
