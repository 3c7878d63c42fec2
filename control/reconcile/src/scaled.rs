//! What a count or a percentage comes to, as `maxSurge`, `maxUnavailable` and `minAvailable` state them.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

/// Which way a percentage that is no whole number of pods goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To the next whole number.
    Up,
    /// To the whole number before.
    Down,
}

/// A count, or the percentage of `total`; a negative or unreadable one, which validation refuses, is none.
pub fn scaled(value: &IntOrString, total: usize, round: Round) -> usize {
    match value {
        IntOrString::Int(count) => usize::try_from(*count).unwrap_or(0),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse().ok());
            let parts = total.saturating_mul(percent.unwrap_or(0));
            match round {
                Round::Up => parts.div_ceil(100),
                Round::Down => parts / 100,
            }
        }
    }
}

/// [`scaled`] of a field as it stands in an object's JSON.
pub fn scaled_field(value: &Value, total: usize, round: Round) -> usize {
    match value {
        Value::String(text) => scaled(&IntOrString::String(text.clone()), total, round),
        count => usize::try_from(count.as_u64().unwrap_or(0)).unwrap_or(usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_kubernetes_rounds() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(scaled(&percent("25%"), 10, Round::Up), 3);
        assert_eq!(scaled(&percent("25%"), 10, Round::Down), 2);
        assert_eq!(scaled(&percent("25%"), 1, Round::Down), 0);
        assert_eq!(scaled(&percent("0%"), 10, Round::Up), 0);
        assert_eq!(scaled(&IntOrString::Int(4), 10, Round::Down), 4);
        assert_eq!(scaled(&IntOrString::Int(-1), 10, Round::Down), 0);
        assert_eq!(scaled_field(&Value::from("50%"), 3, Round::Up), 2);
        assert_eq!(scaled_field(&Value::from(7), 3, Round::Up), 7);
    }
}
