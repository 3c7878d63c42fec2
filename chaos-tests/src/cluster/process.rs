//! One process of ours in a network namespace. The kernel ends it when the harness dies, however that dies.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

/// A running process. Dropping it kills it.
pub struct Process {
    child: Child,
    name: String,
    first_pid: Option<u32>,
}

impl Process {
    /// Starts a program in a namespace; its output is appended to `log`.
    pub fn start(
        name: &str,
        namespace: &str,
        program: &Path,
        args: &[String],
        log: &Path,
    ) -> Result<Self> {
        let log_file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        // nsenter and setpriv become the program, so that the child's id is the program's.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net=/run/netns/{namespace}"))
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().context("a log file has two handles")?)
            .stderr(log_file)
            // Ctrl-C is for the harness, which then cleans up.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Process {
            first_pid: child.id(),
            child,
            name: name.to_owned(),
        })
    }

    /// Its process id; None once it is over.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its process id, which may be another's once it is over.
    pub fn first_pid(&self) -> Option<u32> {
        self.first_pid
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal. The process is our unreaped child, so the id is surely its own.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.child.id() else {
            bail!("{} is not running", self.name);
        };
        kill(Pid::from_raw(pid.cast_signed()), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) -> Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        self.child
            .kill()
            .await
            .with_context(|| format!("cannot kill {}", self.name))
    }

    /// SIGTERM; an error where it did not end well within `deadline` (it is killed then).
    pub async fn stop(self, deadline: Duration) -> Result<()> {
        let name = self.name.clone();
        let status = self.end(deadline).await?;
        if !status.success() {
            bail!("{name} did not stop well: {status}");
        }
        Ok(())
    }

    /// SIGTERM, and how it ended; an error where it did not within `deadline` (it is killed then).
    pub async fn end(mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => status.with_context(|| format!("{} cannot be waited for", self.name)),
            Err(_) => {
                let name = self.name.clone();
                self.kill().await?;
                bail!("{name} did not stop within {deadline:?} of SIGTERM and was killed");
            }
        }
    }
}
