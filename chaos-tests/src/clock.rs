//! The only place that reads the wall clock; it dates reports. Histories use a monotonic clock.

/// Now, as text.
#[expect(clippy::disallowed_methods, reason = "a report tells when it was made")]
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Now, as Kubernetes' MicroTime.
#[expect(
    clippy::disallowed_methods,
    reason = "a lease tells when it was renewed"
)]
pub fn micro_time() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
