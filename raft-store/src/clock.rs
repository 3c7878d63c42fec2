//! The wall clock: only to tell people when something was.

use crate::runtime;

/// Milliseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell's one place that reads the wall clock"
)]
pub(crate) fn now_ms() -> u64 {
    if let Some(now_ms) = runtime::simulated_wall_ms() {
        return now_ms;
    }
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
