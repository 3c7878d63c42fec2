//! How a failure is told: one line, and an exit code by its kind; `-v` shows the causes.
//!
//! Codes: 1 refused or failed, 2 wrong usage (clap's), 3 no master reached, 4 not found, 5 not in time.

use client::Error;
use std::process::ExitCode;

/// A wait that ended without what was waited for.
#[derive(Debug, thiserror::Error)]
#[error("{what} did not come within {seconds} s; {hint}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// For how long.
    pub seconds: u64,
    /// Where to look.
    pub hint: String,
}

/// Prints the failure and gives the exit code.
pub fn report(error: &anyhow::Error, verbose: bool) -> ExitCode {
    if verbose {
        eprintln!("error: {error:?}");
    } else {
        eprintln!("error: {error:#}");
    }
    let client = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Error>());
    let code = match client {
        Some(
            Error::Unreachable { .. }
            | Error::Untrusted { .. }
            | Error::Interrupted { .. }
            | Error::Config(_),
        ) => 3,
        Some(Error::Api(status)) if status.code == 404 => 4,
        _ if error.chain().any(|cause| cause.is::<TimedOut>()) => 5,
        _ => 1,
    };
    ExitCode::from(code)
}
