//! Writes the files of a volume so that a reader sees all old ones or all new ones, as a kubelet's AtomicWriter does:
//!
//! ```text
//! ..7f3a/key          a version
//! ..data -> ..7f3a    swapped by rename
//! key -> ..data/key
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path};

use super::VolumeFile;
use crate::error::{Error, Result};
use crate::files;

const DATA: &str = "..data";

/// Brings `folder` to hold exactly `wanted`. Does nothing if it does.
pub(super) fn write(
    folder: &Path,
    wanted: &BTreeMap<String, VolumeFile>,
    fs_group: Option<u32>,
) -> Result<()> {
    for path in wanted.keys() {
        check_path(path)?;
    }
    if is_current(folder, wanted) {
        return Ok(());
    }
    let version = format!("..{}", hex::encode(rand::random::<[u8; 8]>()));
    write_version(&folder.join(&version), wanted, fs_group)?;
    let old = fs::read_link(folder.join(DATA)).ok();
    let fresh = folder.join("..data_tmp");
    let _ = fs::remove_file(&fresh);
    symlink(&version, &fresh).map_err(Error::io("link", &fresh))?;
    fs::rename(&fresh, folder.join(DATA)).map_err(Error::io("replace", folder.join(DATA)))?;
    link_names(folder, wanted)?;
    match old {
        // Its name came from this folder; only one that is a version of ours is removed.
        Some(old) if old.components().count() == 1 && old.to_string_lossy().starts_with("..") => {
            files::remove_tree(&folder.join(old))
        }
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> Result<()> {
    let normal = Path::new(path)
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if path.is_empty() || !normal || path.starts_with("..") {
        return Err(Error::Config(format!(
            "path {path:?} must be relative and stay in the volume"
        )));
    }
    Ok(())
}

fn is_current(folder: &Path, wanted: &BTreeMap<String, VolumeFile>) -> bool {
    let data = folder.join(DATA);
    let mut found = BTreeSet::new();
    if !data.is_dir() || !list(&data, &data, &mut found) || found.len() != wanted.len() {
        return false;
    }
    wanted.iter().all(|(path, file)| {
        let place = data.join(path);
        fs::read(&place).is_ok_and(|content| content == file.content)
            && mode(&place) == Some(file.mode & 0o777)
    })
}

/// Without the bit that an fsGroup adds.
fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path)
        .ok()
        .map(|metadata| metadata.permissions().mode() & 0o777)
}

fn list(root: &Path, folder: &Path, found: &mut BTreeSet<String>) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !list(root, &path, found) {
                return false;
            }
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.insert(relative.to_string_lossy().into_owned());
        }
    }
    true
}

fn write_version(
    version: &Path,
    wanted: &BTreeMap<String, VolumeFile>,
    fs_group: Option<u32>,
) -> Result<()> {
    files::make_dirs(version)?;
    for (path, file) in wanted {
        let place = version.join(path);
        if let Some(parent) = place.parent() {
            files::make_dirs(parent)?;
        }
        fs::write(&place, &file.content).map_err(Error::io("write", &place))?;
        // The group must be able to read what the mode gives only to the owner.
        let mode = if fs_group.is_some() {
            file.mode | 0o040
        } else {
            file.mode
        };
        chown(&place, None, fs_group).map_err(Error::io("change the group of", &place))?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode & 0o777))
            .map_err(Error::io("change the mode of", &place))?;
    }
    Ok(())
}

/// Makes the names that users see, and removes those of files that went.
fn link_names(folder: &Path, wanted: &BTreeMap<String, VolumeFile>) -> Result<()> {
    let names: BTreeSet<&str> = wanted
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for name in &names {
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(Error::io("link", &link))?;
        }
    }
    for entry in fs::read_dir(folder)
        .map_err(Error::io("list", folder))?
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(name.as_str()) {
            fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(given: &[(&str, &str, u32)]) -> BTreeMap<String, VolumeFile> {
        given
            .iter()
            .map(|(path, content, mode)| {
                (
                    path.to_string(),
                    VolumeFile {
                        content: content.as_bytes().to_vec(),
                        mode: *mode,
                    },
                )
            })
            .collect()
    }

    #[test]
    fn versions_replace_each_other_whole() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).ok();
        write(
            dir.path(),
            &files(&[("a", "1", 0o644), ("sub/b", "2", 0o600)]),
            None,
        )
        .expect("writes");
        assert_eq!(
            (read("a"), read("sub/b"), mode(&dir.path().join("sub/b"))),
            (Some("1".into()), Some("2".into()), Some(0o600))
        );
        let version = fs::read_link(dir.path().join(DATA)).expect("a link");
        write(
            dir.path(),
            &files(&[("a", "1", 0o644), ("sub/b", "2", 0o600)]),
            None,
        )
        .expect("writes");
        assert_eq!(
            fs::read_link(dir.path().join(DATA)).expect("a link"),
            version,
            "nothing changed"
        );
        write(dir.path(), &files(&[("a", "3", 0o444)]), None).expect("writes");
        assert_eq!(
            (read("a"), read("sub/b"), mode(&dir.path().join("a"))),
            (Some("3".into()), None, Some(0o444))
        );
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .expect("lists")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.retain(|name| !name.starts_with("..") || name == DATA);
        names.sort();
        assert_eq!(names, ["..data", "a"]);
        assert_eq!(
            fs::read_dir(dir.path()).expect("lists").count(),
            3,
            "one version"
        );
    }

    #[test]
    fn paths_stay_in_the_volume() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for path in ["", "/etc/passwd", "../x", "a/../../x", "..data", "./."] {
            assert!(
                write(dir.path(), &files(&[(path, "", 0o644)]), None).is_err(),
                "{path:?}"
            );
        }
    }
}
