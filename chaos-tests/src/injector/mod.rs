//! Answers system calls of a member in the kernel's place: fsync, fdatasync and writes to its disk fail or take their time, in a
//! program that knows nothing of it.
//!
//! A launcher ([`launch`]) installs a seccomp filter and becomes the member; the kernel then stops the member at each such call and
//! asks a thread here (`answer`), which lets it go on, fails it, or waits first. A call on a file that is not on the member's
//! disk is never touched. Source of the rule: seccomp_unotify(2).

mod answer;
pub mod launch;

use answer::{Answers, State};
use anyhow::{Context, Result};
use nix::errno::Errno;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// fsync, fdatasync, sync_file_range.
    Sync,
    /// write, pwrite64, pwritev, fallocate.
    Write,
}

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// They fail and do nothing.
    Fail(Errno),
    /// They happen this much later.
    Delay(Duration),
}

/// Answers the calls of one member, over all its starts.
pub struct Injector {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Injector {
    /// Waits for launchers of the member; only calls on files below `disk` are touched.
    pub fn new(folder: &Path, name: &str, disk: &Path) -> Result<Self> {
        let socket = folder.join(format!("{name}.calls"));
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot listen at {}", socket.display()))?;
        let state = Arc::new(Mutex::new(State::default()));
        let answers = Answers {
            state: Arc::downgrade(&state),
            disk: disk.to_owned(),
        };
        std::thread::Builder::new()
            .name(format!("calls-{name}"))
            .spawn(move || answers.serve(&listener))
            .context("no thread can be started")?;
        Ok(Injector { socket, state })
    }

    /// What comes before a program on its command line, so that its calls are answered here.
    pub fn command(&self) -> Result<Vec<String>> {
        let launcher = launch::program()?;
        Ok(vec![
            launcher.display().to_string(),
            launch::SUBCOMMAND.to_owned(),
            self.socket.display().to_string(),
        ])
    }

    /// From now on such calls have this effect.
    pub fn set(&self, calls: Calls, effect: Effect) {
        self.state().effect = Some((calls, effect));
    }

    /// From now on every call goes on.
    pub fn heal(&self) {
        self.state().effect = None;
    }

    /// How many calls were failed or delayed so far.
    pub fn touched(&self) -> u64 {
        self.state().touched
    }

    /// How many calls were asked about so far.
    pub fn asked(&self) -> u64 {
        self.state().asked
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the state")
    }
}

impl Drop for Injector {
    /// Another member may come under this one's name.
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.socket) {
            eprintln!("warning: {} stays: {error}", self.socket.display());
        }
    }
}
