//! `ctl`: the command line of a Trireme cluster. One file a subcommand; what they share lies beside them.

mod cli;
mod commands;
mod context;
mod failure;
mod fields;
mod follow;
mod manifest;
mod output;
mod past;
mod resources;
mod selector;
mod short;

use clap::Parser;
use std::process::ExitCode;
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let level = if cli.verbose { "debug" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    let verbose = cli.verbose;
    let tokio = match Builder::new_current_thread().enable_all().build() {
        Ok(tokio) => tokio,
        Err(error) => return failure::report(&error.into(), verbose),
    };
    let done = tokio.block_on(commands::run(cli));
    // A read of standard input cannot be called off: waiting for it would keep `ctl exec -i` here until Enter is pressed.
    tokio.shutdown_background();
    match done {
        Ok(code) => code,
        Err(error) => failure::report(&error, verbose),
    }
}
