//! A member's clock, faked by libfaketime: the wall clock jumps while the member runs, or all its clocks run at another rate from
//! its start to its end.
//!
//! Source of the rules: libfaketime's README and a measurement: the monotonic clock may run at another rate, but never jump, since
//! no kernel lets it jump; a jump backwards stopped tokio's timers for good.

use crate::cluster::is_gone;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Where Debian's package puts the library.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// Where the library keeps what its processes share, by the process id after these.
const SHARED: &str = "/dev/shm";
const SHARED_PREFIXES: [&str; 2] = ["faketime_shm_", "sem.faketime_sem_"];

/// The library, or why there is none.
pub fn library() -> Result<&'static Path> {
    LIBRARIES
        .iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .context("libfaketime is missing; install Debian's package libfaketime")
}

/// How a clock goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    /// As the machine's, moved by seconds.
    Moved(i64),
    /// Faster or slower, monotonic clock and timers included.
    Rate(f64),
}

/// A member's clock.
pub struct Clock {
    file: PathBuf,
    pace: Pace,
}

impl Clock {
    /// A clock that is right.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        library()?;
        let mut clock = Clock {
            file: folder.join(format!("{name}.clock")),
            pace: Pace::Moved(0),
        };
        clock.reset()?;
        Ok(clock)
    }

    /// What comes before a program on its command line, so that it has this clock.
    pub fn command(&self) -> Vec<String> {
        let library = library().map_or_else(|_| String::new(), |path| path.display().to_string());
        let mut command = vec![
            "env".to_owned(),
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_CACHE_DURATION=1".to_owned(),
        ];
        if let Pace::Moved(_) = self.pace {
            command.push("FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned());
        }
        command
    }

    /// Moves the wall clock; a running member sees it within a second.
    pub fn jump(&mut self, seconds: i64) -> Result<()> {
        self.set(Pace::Moved(seconds))
    }

    /// Sets the rate at which the clocks run from the member's next start on.
    pub fn set_rate(&mut self, rate: f64) -> Result<()> {
        self.set(Pace::Rate(rate))
    }

    /// Whether the clocks run at a wrong rate, which only ends with the process.
    pub fn has_rate(&self) -> bool {
        matches!(self.pace, Pace::Rate(_))
    }

    /// A right clock again: at once after a jump, after the next start where the rate was wrong.
    pub fn reset(&mut self) -> Result<()> {
        self.set(Pace::Moved(0))
    }

    fn set(&mut self, pace: Pace) -> Result<()> {
        let text = match pace {
            Pace::Moved(seconds) => format!("{seconds:+}\n"),
            Pace::Rate(rate) => format!("+0 x{rate}\n"),
        };
        // Replaced whole, so that a member never reads half of it.
        let new = self.file.with_extension("clock.new");
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        self.pace = pace;
        Ok(())
    }
}

/// Whether a process has the library loaded: where not, its clock is the machine's.
pub fn is_faked(pid: u32) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.contains("libfaketime")
}

/// Removes what the library keeps in memory for a process that was killed.
pub fn forget(pid: u32) {
    for prefix in SHARED_PREFIXES {
        let _ = std::fs::remove_file(Path::new(SHARED).join(format!("{prefix}{pid}")));
    }
}

/// Removes what the library keeps for processes that are no more.
pub fn sweep() {
    for entry in std::fs::read_dir(SHARED).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = SHARED_PREFIXES
            .iter()
            .find_map(|prefix| name.to_str()?.strip_prefix(prefix));
        if pid.is_some_and(is_gone) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
