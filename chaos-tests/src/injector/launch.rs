//! The launcher: installs the filter in itself, hands the kernel's questions to the harness, and becomes the member.

use anyhow::{Context, Result};
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::ffi::OsString;
use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The hidden subcommand of `chaos` that does this.
pub const SUBCOMMAND: &str = "launch";
/// Names another program that has the subcommand.
pub const VARIABLE: &str = "CHAOS_LAUNCHER";

/// The calls of [`super::Calls::Sync`].
pub(super) const SYNCS: [&str; 3] = ["fsync", "fdatasync", "sync_file_range"];
/// The calls of [`super::Calls::Write`].
pub(super) const WRITES: [&str; 4] = ["write", "pwrite64", "pwritev", "fallocate"];
/// Writes of so many bytes wake threads (eventfd) rather than fill files, and are never asked about.
const WAKE_BYTES: u64 = 8;

/// The program that has the subcommand: this one if it is `chaos`, else the one beside the programs under test.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe().context("this program does not know where it lies")?;
    if own.file_name().is_some_and(|name| name == "chaos") {
        return Ok(own);
    }
    let folder = own.parent().context("a program lies in a folder")?;
    let beside = [folder, folder.parent().unwrap_or(folder)].map(|folder| folder.join("chaos"));
    beside.into_iter().find(|path| path.is_file()).with_context(|| {
        format!(
            "the program chaos is not beside {}; build it (cargo build -p trireme-chaos), or name it in ${VARIABLE}",
            own.display()
        )
    })
}

/// Installs the filter, connects to the harness and becomes `command`. Returns only where that fails.
pub fn run(socket: &Path, command: &[OsString]) -> Result<()> {
    let (program, args) = command.split_first().context("name a program")?;
    let mut harness = UnixStream::connect(socket)
        .with_context(|| format!("cannot reach the harness at {}", socket.display()))?;
    let filter = filter().context("the kernel's filter for system calls cannot be made")?;
    filter
        .load()
        .context("the kernel does not take a filter that notifies")?;
    let questions = filter
        .get_notify_fd()
        .context("the filter has nothing to ask")?;
    // Neither sendmsg nor read is asked about, so that this cannot wait for itself.
    let rights = [questions.as_raw_fd()];
    sendmsg::<()>(
        harness.as_raw_fd(),
        &[IoSlice::new(b"q")],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::empty(),
        None,
    )
    .context("cannot hand the questions to the harness")?;
    harness
        .read_exact(&mut [0])
        .context("the harness does not listen")?;
    Err(Command::new(program).args(args).exec())
        .with_context(|| format!("cannot run {}", program.display()))
}

fn filter() -> Result<ScmpFilterContext> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    for name in SYNCS {
        filter.add_rule(ScmpAction::Notify, ScmpSyscall::from_name(name)?)?;
    }
    for name in WRITES {
        let call = ScmpSyscall::from_name(name)?;
        if name == "write" {
            let large = ScmpArgCompare::new(2, ScmpCompareOp::Greater, WAKE_BYTES);
            filter.add_rule_conditional(ScmpAction::Notify, call, &[large])?;
        } else {
            filter.add_rule(ScmpAction::Notify, call)?;
        }
    }
    Ok(filter)
}
