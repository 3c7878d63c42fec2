//! Time and ids for the registry.

use crate::clock;
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
