//! The crate's only look at the wall clock.

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where this shell asks the time"
)]
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
