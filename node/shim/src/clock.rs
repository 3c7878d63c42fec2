//! The shim's only look at the wall clock.

/// Nanoseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the shim asks the time"
)]
pub fn now_ns() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        })
}
