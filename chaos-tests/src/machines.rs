//! Machines by name, each with a process that may run or have ended: what the harnesses of nodes and of stores look up alike.

use crate::cluster::Process;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// How much of a log's last line is told.
const SAID_MAX: usize = 240;

/// What a process runs on.
pub(crate) trait Machine {
    /// Its process, where one was started and not taken away.
    fn process(&mut self) -> &mut Option<Process>;

    /// The same, to be looked at.
    fn running(&self) -> Option<&Process>;
}

/// Machines and their logs.
pub(crate) struct Machines<M> {
    by_name: BTreeMap<String, M>,
    logs: PathBuf,
}

impl<M: Machine> Machines<M> {
    /// None yet; logs go to a folder, which is made.
    pub fn new(logs: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&logs)
            .with_context(|| format!("cannot make {}", logs.display()))?;
        Ok(Machines {
            by_name: BTreeMap::new(),
            logs,
        })
    }

    /// The folder of the logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// A machine's log.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// A machine.
    pub fn of(&self, name: &str) -> Result<&M> {
        let found = self.by_name.get(name);
        found.with_context(|| format!("there is no machine {name}"))
    }

    /// A machine.
    pub fn of_mut(&mut self, name: &str) -> Result<&mut M> {
        let found = self.by_name.get_mut(name);
        found.with_context(|| format!("there is no machine {name}"))
    }

    /// A machine's process; an error where none was started.
    pub fn running(&self, name: &str) -> Result<&Process> {
        let process = self.of(name)?.running();
        process.with_context(|| format!("{name} does not run"))
    }

    /// Takes a machine's process away, to be ended; an error where none was started.
    pub fn take(&mut self, name: &str) -> Result<Process> {
        let process = self.of_mut(name)?.process().take();
        process.with_context(|| format!("{name} does not run"))
    }

    /// The process id of a machine's process.
    pub fn pid(&self, name: &str) -> Result<u32> {
        let pid = self.running(name)?.pid();
        pid.with_context(|| format!("{name} is over"))
    }

    /// Whether a machine's process was started and did not end.
    pub fn is_running(&mut self, name: &str) -> bool {
        self.by_name
            .get_mut(name)
            .and_then(|machine| machine.process().as_mut())
            .is_some_and(|process| process.ended().is_none())
    }

    /// The machines whose process ended by itself, and how.
    pub fn ended(&mut self) -> Vec<(String, ExitStatus)> {
        let ended = self.by_name.iter_mut().filter_map(|(name, machine)| {
            let process = machine.process().as_mut()?;
            Some((name.clone(), process.ended()?))
        });
        ended.collect()
    }

    /// The last line that a machine's process said, or the beginning of it.
    pub fn last_said(&self, name: &str) -> String {
        let text = std::fs::read(self.log(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.unwrap_or("its log is empty");
        last.chars().take(SAID_MAX).collect()
    }

    /// An error that names a process that ended by itself, with the end of its log.
    pub fn fail_where_ended(&mut self) -> Result<()> {
        match self.ended().first() {
            Some((name, status)) => {
                bail!(
                    "{name} ended by itself ({status}: {})",
                    self.last_said(name)
                )
            }
            None => Ok(()),
        }
    }
}

impl<M> Deref for Machines<M> {
    type Target = BTreeMap<String, M>;

    fn deref(&self) -> &Self::Target {
        &self.by_name
    }
}

impl<M> DerefMut for Machines<M> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.by_name
    }
}
