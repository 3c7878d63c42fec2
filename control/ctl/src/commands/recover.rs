//! `ctl recover --from-survivor`: done by the `control` program on the machine of the stopped master.

use super::control;
use crate::cli::Recover;
use anyhow::Result;
use std::process::ExitCode;

pub fn run(args: &Recover) -> Result<ExitCode> {
    let mut command = control::command("recover")?;
    command.arg("--data-dir").arg(&args.data_dir);
    if args.yes {
        command.arg("--yes");
    }
    if args.dry_run {
        command.arg("--dry-run");
    }
    control::print_as(&mut command, args.output.output);
    control::run(command)
}
