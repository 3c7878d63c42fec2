//! The first process of a PID namespace that a pod's containers share (`shareProcessNamespace`): it only reaps.
//! A helper unshares and forks, since unsharing in the shim would move every later child.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::ForkResult;

/// File in the pod's folder with the process id of the namespace's first process.
pub const PID_FILE: &str = "pause.pid";

/// Starts the namespace; its first process becomes a child of the calling subreaper.
pub fn start() -> Result<()> {
    let status = Command::new("/proc/self/exe")
        .arg0("trireme-pause")
        .arg("pause")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot start the helper")?;
    if !status.success() {
        bail!("the helper ended with {status}");
    }
    Ok(())
}

/// The role `shim pause`: forks the first process of a new PID namespace, writes its id and exits.
pub fn run() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWPID).context("cannot unshare the PID namespace")?;
    // SAFETY: this process has one thread.
    match unsafe { nix::unistd::fork() }.context("cannot fork")? {
        ForkResult::Parent { child } => {
            fs::write(PID_FILE, child.to_string()).context("cannot write pause.pid")
        }
        ForkResult::Child => loop {
            // Signals that would end it are ignored by the kernel for a namespace's first process without handlers.
            let mut waited = nix::sys::signal::SigSet::empty();
            waited.add(Signal::SIGCHLD);
            let _ = waited.thread_block();
            while matches!(nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)),
                Ok(status) if status.pid().is_some())
            {}
            let _ = waited.wait();
        },
    }
}
