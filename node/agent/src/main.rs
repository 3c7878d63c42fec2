//! A node: watch, one worker a pod, heartbeat, the kubelet's HTTP API.
//!
//! This is wiring. What a pod needs next is `lifecycle`'s to decide; containers are `node_runtime`'s, links and rules
//! `network`'s, the bytes of exec `streams`'. The agent keeps no state that it could not find again: containers live on
//! under their shims when it ends.

mod cleanup;
mod cli;
mod clock;
mod context;
mod data_dir;
mod events;
mod eviction;
mod heartbeat;
mod images;
mod join;
mod kubelet;
mod leaks;
mod machine;
mod net;
mod node_object;
mod pods;
mod register;
mod renew;
mod run;
mod shutdown;
mod stats;
mod tls;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    if matches!(cli.command, cli::Command::Version) {
        println!("{}", node_object::KUBELET_VERSION);
        return ExitCode::SUCCESS;
    }
    if let cli::Command::Leaks(args) = &cli.command {
        return match leaks::list(args) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => failed(&error),
        };
    }
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    match work(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("node: {error:#}");
    ExitCode::FAILURE
}

fn work(command: cli::Command) -> anyhow::Result<()> {
    // The other parts ask for the same; whoever comes first sets it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        match command {
            cli::Command::Run(args) => run::run(*args).await,
            cli::Command::Cleanup(args) => cleanup::cleanup(&args).await,
            // Answered before.
            cli::Command::Version | cli::Command::Leaks(_) => Ok(()),
        }
    });
    // Work on other threads, a pull say, is not waited for.
    runtime.shutdown_background();
    result
}
