//! What expressions may cost. A unit is what Kubernetes counts: about one step, or ten letters looked at.

use crate::Error;

/// What one expression may cost.
pub const CALL_UNITS_MAX: u64 = 1_000_000;
/// What all expressions of one request may cost together.
pub const REQUEST_UNITS_MAX: u64 = 10_000_000;
/// What all match conditions of one webhook or policy may cost together.
pub const MATCH_CONDITIONS_UNITS_MAX: u64 = 2_500_000;

/// What is left to spend; shared by the expressions of a request, so that many cheap ones cannot run away either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    left: u64,
    /// Of `left`, what the running expression must leave.
    reserve: u64,
}

impl Budget {
    /// So many units.
    pub fn new(units: u64) -> Self {
        Budget {
            left: units,
            reserve: 0,
        }
    }

    /// The units that are left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Begins an expression, which may cost at most [`CALL_UNITS_MAX`].
    pub(crate) fn begin(&mut self) {
        self.reserve = self.left.saturating_sub(CALL_UNITS_MAX);
    }

    /// Spends units, or says that there are too few.
    pub(crate) fn charge(&mut self, units: u64) -> Result<(), Error> {
        if self.left - self.reserve < units {
            self.left = self.reserve;
            return Err(Error::Cost);
        }
        self.left -= units;
        Ok(())
    }

    /// Spends what looking at so many letters costs.
    pub(crate) fn charge_letters(&mut self, letters: u64) -> Result<(), Error> {
        self.charge(letters.div_ceil(10))
    }
}
