//! Damaged data: how it is told from a disk that merely does not answer, and how a folder is marked so that no later start
//! takes it for good.
//!
//! A member with damaged data neither votes nor answers. Its machine comes back as a new member with an empty folder; what is
//! left of the old one is set aside, for whoever wants to look.

use crate::db::EngineError;
use crate::identity;
use mvcc::TablesError;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "damaged.json";

/// What is wrong with a folder.
#[derive(Debug, Serialize, Deserialize)]
struct Damage {
    reason: String,
}

/// Marks the folder of a member as damaged.
pub fn note(data_dir: &Path, reason: &str) -> io::Result<()> {
    let damage = Damage {
        reason: reason.to_owned(),
    };
    let text = serde_json::to_vec_pretty(&damage)?;
    identity::write_whole(data_dir, &data_dir.join(FILE), &text)
}

/// What is wrong with the folder, if it was marked.
pub fn noted(data_dir: &Path) -> Option<String> {
    let text = std::fs::read(data_dir.join(FILE)).ok()?;
    let damage = serde_json::from_slice(&text);
    Some(damage.map_or_else(
        |_| "it was marked as damaged".to_owned(),
        |damage: Damage| damage.reason,
    ))
}

/// Renames the folder to `NAME.damaged-N`, and removes the ones of earlier times. Returns where it is; None when there was none.
pub fn set_aside(data_dir: &Path) -> io::Result<Option<PathBuf>> {
    let earlier = set_aside_before(data_dir)?;
    if !data_dir.exists() {
        return Ok(None);
    }
    let number = earlier.iter().map(|(number, _)| *number).max().unwrap_or(0) + 1;
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{number}"));
    let aside = data_dir.with_file_name(name);
    std::fs::rename(data_dir, &aside)?;
    if let Some(parent) = data_dir.parent() {
        std::fs::File::open(parent)?.sync_all()?;
    }
    for (_, path) in earlier {
        std::fs::remove_dir_all(path)?;
    }
    Ok(Some(aside))
}

fn set_aside_before(data_dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let Some((parent, name)) = data_dir.parent().zip(data_dir.file_name()) else {
        return Ok(vec![]);
    };
    let prefix = format!("{}.damaged-", name.to_string_lossy());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(number) = name.strip_prefix(&prefix) {
            found.extend(number.parse().ok().map(|number| (number, path.clone())));
        }
    }
    Ok(found)
}

/// Whether the state's tables hold something else than was written.
pub(crate) fn is_damaged_state(err: &TablesError) -> bool {
    match err {
        TablesError::Record { source, .. } => {
            !matches!(source, mvcc::codec::CodecError::UnknownFormat(_))
        }
        TablesError::Storage { source, .. } => is_corruption(source.as_ref()),
    }
}

/// Whether the engine found its files to be other than it wrote them, here or further down the chain of causes.
pub(crate) fn is_corruption(err: &(dyn Error + 'static)) -> bool {
    let mut next = Some(err);
    while let Some(err) = next {
        if let Some(engine) = err.downcast_ref::<EngineError>() {
            return engine.is_corruption();
        }
        next = err.source();
    }
    false
}

/// An error with its causes, as one line.
pub(crate) fn reason(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(err) = next {
        text = format!("{text}: {err}");
        next = err.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_folder_is_set_aside_and_the_last_one_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = dir.path().join("store");
        assert_eq!(set_aside(&store).expect("nothing to do"), None);
        for number in 1..4 {
            std::fs::create_dir(&store).expect("it is made");
            assert_eq!(noted(&store), None);
            note(&store, "flipped").expect("it is marked");
            assert_eq!(noted(&store).as_deref(), Some("flipped"));
            let aside = dir.path().join(format!("store.damaged-{number}"));
            assert_eq!(
                set_aside(&store).expect("it is renamed"),
                Some(aside.clone())
            );
            assert!(aside.join(FILE).exists() && !store.exists());
            let left = std::fs::read_dir(dir.path())
                .expect("it can be read")
                .count();
            assert_eq!(left, 1);
        }
    }
}
