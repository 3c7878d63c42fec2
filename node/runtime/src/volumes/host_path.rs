//! Host paths and their checks, in a kubelet's words. Rules: kubernetes.io, Volumes, hostPath types.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// What must be at a host path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostPathKind {
    /// Anything, or nothing yet: then a folder is made.
    #[default]
    Any,
    /// A folder; made with mode 0755.
    DirectoryOrCreate,
    /// A folder.
    Directory,
    /// A file; made with mode 0644. Its folder must exist.
    FileOrCreate,
    /// A file.
    File,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl HostPathKind {
    /// From the API's word; None for a word that is none.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "" => Self::Any,
            "DirectoryOrCreate" => Self::DirectoryOrCreate,
            "Directory" => Self::Directory,
            "FileOrCreate" => Self::FileOrCreate,
            "File" => Self::File,
            "Socket" => Self::Socket,
            "CharDevice" => Self::CharDevice,
            "BlockDevice" => Self::BlockDevice,
            _ => return None,
        })
    }
}

/// Checks the path, makes what may be made; the error is for the user.
pub(super) fn prepare(path: &Path, kind: HostPathKind) -> Result<(), String> {
    if !path.is_absolute()
        || path
            .components()
            .any(|component| component == std::path::Component::ParentDir)
    {
        return Err(format!(
            "path {} must be absolute and without '..'",
            path.display()
        ));
    }
    let failed = |error: std::io::Error| format!("cannot make {}: {error}", path.display());
    if !path.exists() {
        match kind {
            HostPathKind::Any | HostPathKind::DirectoryOrCreate => fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(path)
                .map_err(failed)?,
            HostPathKind::FileOrCreate => drop(
                fs::OpenOptions::new()
                    .create_new(true)
                    .write(true)
                    .mode(0o644)
                    .open(path)
                    .map_err(failed)?,
            ),
            _ => {}
        }
    }
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let is = |check: &dyn Fn(fs::FileType) -> bool| found.is_some_and(check);
    let (fits, noun) = match kind {
        HostPathKind::Any => (true, ""),
        HostPathKind::DirectoryOrCreate | HostPathKind::Directory => {
            (is(&|kind| kind.is_dir()), "a directory")
        }
        HostPathKind::FileOrCreate | HostPathKind::File => (is(&|kind| kind.is_file()), "a file"),
        HostPathKind::Socket => (is(&|kind| kind.is_socket()), "a socket file"),
        HostPathKind::CharDevice => (is(&|kind| kind.is_char_device()), "a character device"),
        HostPathKind::BlockDevice => (is(&|kind| kind.is_block_device()), "a block device"),
    };
    if fits {
        Ok(())
    } else {
        Err(format!(
            "hostPath type check failed: {} is not {noun}",
            path.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_takes_only_its_own() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (file, new_dir, new_file) = (
            dir.path().join("f"),
            dir.path().join("a/b"),
            dir.path().join("n"),
        );
        fs::write(&file, "").expect("writes");
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).expect("binds");
        for (path, word, fits) in [
            (dir.path().to_path_buf(), "Directory", true),
            (file.clone(), "Directory", false),
            (file.clone(), "File", true),
            (file, "DirectoryOrCreate", false),
            (dir.path().join("missing"), "Directory", false),
            (dir.path().join("missing"), "File", false),
            (new_dir, "DirectoryOrCreate", true),
            (new_file, "FileOrCreate", true),
            (dir.path().join("s"), "Socket", true),
            ("/dev/null".into(), "CharDevice", true),
            ("/dev/null".into(), "BlockDevice", false),
            ("relative".into(), "", false),
            ("/tmp/../etc".into(), "", false),
        ] {
            let kind = HostPathKind::parse(word).expect("a word of the API");
            assert_eq!(
                prepare(&path, kind).is_ok(),
                fits,
                "{} {word}",
                path.display()
            );
        }
        assert_eq!(HostPathKind::parse("Folder"), None);
    }
}
