//! Small helpers on files: atomic writes and removal that is content with what is gone.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Replaces `path` by `content` so that a reader, or a crash, sees the old content or the new.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut file = fs::File::create(&temporary).map_err(Error::io("create", &temporary))?;
    file.write_all(content)
        .map_err(Error::io("write", &temporary))?;
    file.sync_data().map_err(Error::io("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::io("replace", path))
}

/// Reads a JSON file; None if it does not exist.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let value =
        serde_json::from_slice(&bytes).map_err(|error| Error::io("parse", path)(error.into()))?;
    Ok(Some(value))
}

/// Writes a value as JSON, atomically.
pub(crate) fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes =
        serde_json::to_vec(value).map_err(|error| Error::io("encode", path)(error.into()))?;
    write_atomic(path, &bytes)
}

/// Writes a value as JSON, atomically but not synced: for records that matter only while the machine is up, whose readers
/// take a damaged one for none.
pub(crate) fn write_record<T: serde::Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes =
        serde_json::to_vec(value).map_err(|error| Error::io("encode", path)(error.into()))?;
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes).map_err(Error::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::io("replace", path))
}

/// Removes a folder and all in it; what is gone is fine. Never follows symbolic links.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}

/// Makes a folder and its parents.
pub(crate) fn make_dirs(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("make", path))
}
