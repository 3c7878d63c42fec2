//! One a pod: holds its containers so that they outlive the agent.
//!
//! The same binary has four roles. `shim pod` is the long-lived one: a single thread that owns the containers' standard
//! streams, reaps them, writes their logs and their exit status, and answers the agent on a Unix socket in the pod's
//! folder. `shim oci-create` and `shim oci-exec` live for milliseconds: they call libcontainer, which forks and changes
//! its caller in ways that a long-lived process must not suffer, and exit. `shim pause` is the first process of a PID
//! namespace that the pod's containers share. The long-lived roles never call libcontainer, never start a thread and
//! hold no tokio.

mod client;
mod clock;
mod daemon;
mod helper;
mod logfile;
mod oci;
mod pause;
mod pod;
mod process;
mod rest;
mod status;
mod trace;

use std::process::ExitCode;

const USAGE: &str = "usage: shim pod --dir DIR [--hostname NAME] [--host-ipc] [--host-uts] [--share-pid]\n       shim --version";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("--version") => {
            println!("shim {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Some("pod") => daemon::parse(&arguments[1..]).and_then(daemon::run),
        Some("oci-create") => oci::create(),
        Some("oci-exec") => oci::exec(),
        Some("pause") => pause::run(),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
