//! The subcommands, a file each.

mod apply;
mod control;
mod dashboard;
mod delete;
mod describe;
mod diff;
mod exec;
mod explain;
mod forward;
mod get;
mod history;
mod image;
mod keys;
mod logs;
mod member;
mod recover;
mod restore;
mod rollout;
mod scale;
mod schedule;
mod snapshot;
mod status;
mod top;
mod wait;

use crate::cli::{Cli, Command};
use crate::context::Context;
use anyhow::Result;
use clap::CommandFactory;
use std::process::ExitCode;

/// Does what was typed.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    if let Command::Completion { shell } = &cli.command {
        clap_complete::generate(*shell, &mut Cli::command(), "ctl", &mut std::io::stdout());
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Snapshot(command) = &cli.command
        && snapshot::is_local(command)
    {
        return snapshot::run_local(command).await;
    }
    if let Command::Recover(args) = &cli.command {
        return recover::run(args);
    }
    let context = Context::new(&cli)?;
    match cli.command {
        Command::Get(args) => get::run(&context, args).await?,
        Command::Describe(args) => describe::run(&context, args).await?,
        Command::History(args) => history::run(&context, args).await?,
        Command::Diff(args) => diff::run(&context, args).await?,
        Command::Restore(args) => return restore::run(&context, args).await,
        Command::Apply(args) => return apply::run(&context, args).await,
        Command::Delete(args) => delete::run(&context, args).await?,
        Command::Logs(args) => logs::run(&context, args).await?,
        Command::Exec(args) => return exec::run(&context, args).await,
        Command::PortForward(args) => forward::run(&context, args).await?,
        Command::Scale(args) => scale::run(&context, args).await?,
        Command::Rollout(command) => rollout::run(&context, command).await?,
        Command::Wait(args) => wait::run(&context, args).await?,
        Command::Explain(args) => explain::run(&context, args).await?,
        Command::Top(args) => top::run(&context, args).await?,
        Command::Status(args) => status::run(&context, args).await?,
        Command::Dashboard(args) => dashboard::run(&context, args).await?,
        Command::Member(command) => member::run(&context, command).await?,
        Command::Keys(command) => keys::run(&context, command).await?,
        Command::Snapshot(command) => snapshot::run(&context, command).await?,
        Command::Image(command) => image::run(&context, command).await?,
        Command::Recover(_) | Command::Completion { .. } => {
            unreachable!("handled above, since they need no cluster")
        }
    }
    Ok(ExitCode::SUCCESS)
}
