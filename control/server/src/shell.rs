//! Time and ids for the registry.

use crate::clock;
use anyhow::Context;
use objects::{Timestamp, Uid};
use registry::Shell;

/// This machine's clock and randomness.
pub struct MachineShell;

impl Shell for MachineShell {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn uid(&self) -> Uid {
        clock::new_uid()
    }

    fn name_suffix(&self) -> String {
        clock::name_suffix()
    }
}

/// A master's name: what is given, or else the machine's.
pub fn name_or_hosts(given: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = given {
        return Ok(name.to_owned());
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("this machine has no name; give one with --name")?;
    Ok(text.trim().to_lowercase())
}
