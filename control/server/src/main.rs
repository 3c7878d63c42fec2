//! `control`: a master. This crate is the only place that knows everyone: it reads the configuration, opens the store, puts
//! API server, controllers and scheduler on top of it, and ends them in order.

mod audit;
mod boot;
mod cli;
mod clock;
mod cluster;
mod create;
mod former;
mod front;
mod front_proxy;
mod keyring;
mod oidc;
mod on_etcd;
mod operator;
mod peers;
mod pki;
mod recover;
mod rejoin;
mod restore;
mod run;
mod settings;
mod shell;
mod signing;
mod snapshots;
mod source;
mod tokens;
mod usage;
mod vault;
mod verify;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command, LogFormat};
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says which library of cryptography those use that leave it open: the one that the whole project uses.
fn use_ring() {
    // Only the first choice counts, and it is the same each time.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // openraft warns of every retry to a member that is down; what matters of that, the store tells itself.
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => log.with_ansi(colours).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    use_ring();
    let done = match cli.command {
        Command::Run(args) => run::run(*args),
        Command::Restore(args) => restore::restore(&args),
        Command::Recover(args) => recover::recover(&args),
        Command::SnapshotStatus(args) => verify::status(&args),
        Command::SnapshotVerify(args) => verify::verify(&args),
        Command::SnapshotPut(args) => source::put(&args),
        Command::SnapshotKeygen(args) => source::keygen(&args),
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "control",
                &mut std::io::stdout(),
            );
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
