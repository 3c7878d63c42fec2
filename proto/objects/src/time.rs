//! Kubernetes' `Time`: RFC 3339 in UTC with whole seconds. Never asks for the present: that is an argument.

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A moment. It keeps sub-second precision in memory and writes whole seconds, as `metav1.Time` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub jiff::Timestamp);

impl Timestamp {
    /// From seconds since 1970; moments out of range are cut to the nearest that can be written.
    pub fn from_unix(seconds: i64) -> Self {
        Timestamp(jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX))
    }

    /// From milliseconds since 1970.
    pub fn from_unix_ms(milliseconds: i64) -> Self {
        Timestamp(jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX))
    }

    /// Milliseconds since 1970.
    pub fn unix_ms(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Timestamp)
    }

    /// `metav1.MicroTime`: RFC 3339 with six digits, as Lease and Event use it.
    pub fn to_micro_time(self) -> String {
        format!("{:.6}", self.0)
    }

    /// RFC 3339 with three digits: exact enough to come back to.
    pub fn to_milli_time(self) -> String {
        format!("{:.3}", self.0)
    }

    /// The moment `duration` later.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Timestamp(self.0.checked_add(duration).unwrap_or(jiff::Timestamp::MAX))
    }

    /// The moment `duration` before.
    #[must_use]
    pub fn minus(self, duration: std::time::Duration) -> Self {
        let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Timestamp(self.0.checked_sub(duration).unwrap_or(jiff::Timestamp::MIN))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Timestamp) -> std::time::Duration {
        self.0
            .duration_since(earlier.0)
            .try_into()
            .unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0}",
            self.0
                .round(
                    jiff::TimestampRound::new()
                        .smallest(jiff::Unit::Second)
                        .mode(jiff::RoundMode::Floor)
                )
                .unwrap_or(self.0)
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no RFC 3339 time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn writes_whole_seconds_and_micro_time() {
        let time = Timestamp::from_unix_ms(1_700_000_000_987);
        assert_eq!(time.to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(time.to_micro_time(), "2023-11-14T22:13:20.987000Z");
        assert_eq!(time.to_milli_time(), "2023-11-14T22:13:20.987Z");
        assert_eq!(
            time.plus(Duration::from_secs(2))
                .minus(Duration::from_secs(2)),
            time
        );
        assert_eq!(
            time.plus(Duration::from_secs(2)).since(time),
            Duration::from_secs(2)
        );
        assert_eq!(
            time.since(time.plus(Duration::from_secs(2))),
            Duration::ZERO
        );
    }
}
