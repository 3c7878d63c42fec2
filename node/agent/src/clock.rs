//! The only place of the agent that asks for the time.

use objects::Timestamp;

/// Now.
pub fn now() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "the agent's one reading of the clock"
    )]
    Timestamp(jiff::Timestamp::now())
}
