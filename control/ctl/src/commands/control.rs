//! The `control` program of this machine, which alone knows a snapshot's format and a master's data directory.

use crate::cli::Output;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// `control` beside this program, or on PATH.
pub fn program() -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("control");
    if beside.exists() {
        return Ok(beside);
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&on_path)
        .map(|folder| folder.join("control"))
        .find(|path| path.exists());
    found.context("the program `control` is neither beside ctl nor on PATH; run this on a master")
}

/// `control SUBCOMMAND`, not yet run.
pub fn command(subcommand: &str) -> Result<Command> {
    let mut command = Command::new(program()?);
    command.arg(subcommand);
    Ok(command)
}

/// Tells it how to print.
pub fn print_as(command: &mut Command, output: Output) {
    if output == Output::Json {
        command.args(["-o", "json"]);
    }
}

/// Runs it with this program's own input and output; its exit code is ours.
pub fn run(mut command: Command) -> Result<ExitCode> {
    let status = command
        .status()
        .context("cannot run the program `control`")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
