//! Named network namespaces: made on a thread of its own, kept by a bind mount, as `ip netns` does it.
//!
//! A namespace belongs to a thread, so whatever must happen inside one runs on a thread that enters it and then ends; the
//! caller's thread never changes its own.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

/// Why a namespace could not be made, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the kernel failed.
    #[error("cannot {action} the network namespace {}: {source}", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// Which namespace.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The thread that worked inside ended without an answer.
    #[error("the thread inside the network namespace {} panicked; see the log above", path.display())]
    Panicked {
        /// Which namespace.
        path: PathBuf,
    },
}

fn system(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
    Error::System {
        action,
        path: path.into(),
        source: source.into(),
    }
}

/// True if a namespace is bound at `path`. A plain file is what a crash between creating and mounting leaves.
pub fn exists(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

/// Makes a new namespace bound at `path` and runs `prepare` inside. Blocks for a few milliseconds.
pub fn create<E: Send>(
    path: &Path,
    prepare: impl FnOnce() -> Result<(), E> + Send,
) -> Result<Result<(), E>, Error> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|source| system("make the directory of", path, source))?;
    }
    File::create(path).map_err(|source| system("make the file of", path, source))?;
    on_thread(path, || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|source| system("unshare", path, source))?;
        let prepared = prepare();
        mount(
            Some("/proc/thread-self/ns/net"),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(|source| system("bind", path, source))?;
        Ok(prepared)
    })
}

/// Runs `work` inside the namespace at `path`, on a thread of its own. Blocks until it is done.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let namespace = File::open(path).map_err(|source| system("open", path, source))?;
    on_thread(path, || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|source| system("enter", path, source))?;
        Ok(work())
    })
}

/// Unbinds and removes `path`; nothing to do is success. The kernel frees the namespace with its last process.
pub fn remove(path: &Path) -> Result<(), Error> {
    // A name can be bound more than once, by a crash between two tries.
    while exists(path) {
        umount2(path, MntFlags::MNT_DETACH).map_err(|source| system("unmount", path, source))?;
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(system("remove", path, source))
        }
        _ => Ok(()),
    }
}

fn on_thread<T: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(|source| system("start a thread for", path, source))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::Panicked { path: path.into() }))
    })
}
