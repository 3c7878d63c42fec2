//! The small texts of cells: ages, label lists, joined names.

use objects::{LabelSelector, Timestamp};
use serde_json::{Map, Value};
use std::time::Duration;

/// What stands for nothing.
pub const NONE: &str = "<none>";
/// What stands for a time that is not known.
pub const UNKNOWN: &str = "<unknown>";

/// The text at a JSON pointer; empty when there is none.
pub fn at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The whole number at a JSON pointer; 0 when there is none.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// The list at a JSON pointer; empty when there is none.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// How many members the map at a JSON pointer has.
pub fn count(object: &Value, pointer: &str) -> usize {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .map_or(0, Map::len)
}

/// The text, or [`NONE`].
pub fn or_none(text: &str) -> &str {
    if text.is_empty() { NONE } else { text }
}

/// How long ago the time at a JSON pointer was.
pub fn age(object: &Value, pointer: &str, now: Timestamp) -> String {
    age_of(at(object, pointer), now)
}

/// How long ago the time of this text was.
pub fn age_of(time: &str, now: Timestamp) -> String {
    Timestamp::parse(time).map_or(UNKNOWN.to_owned(), |time| human(now.since(time)))
}

/// A duration as people want it: two units at most. Rule: apimachinery's `duration.HumanDuration`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => two(years, "y", days % 365, "d"),
        () => format!("{years}y"),
    }
}

/// A map of labels as `a=b,c=d`, or [`NONE`].
pub fn labels(value: Option<&Value>) -> String {
    let mut pairs: Vec<String> = value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    or_none(&pairs.join(",")).to_owned()
}

/// A `LabelSelector` as text, or [`NONE`].
pub fn selector(value: Option<&Value>) -> String {
    let selector = value.and_then(|value| LabelSelector::from_value(value).ok());
    or_none(
        &selector
            .map(|selector| selector.to_string())
            .unwrap_or_default(),
    )
    .to_owned()
}

/// The texts of `member` in a list of maps, joined by commas.
pub fn joined(list: &[Value], member: &str) -> String {
    let texts: Vec<&str> = list
        .iter()
        .filter_map(|entry| entry.get(member)?.as_str())
        .collect();
    texts.join(",")
}

/// The first three of a list, and how many more there are.
pub fn first_three(texts: &[String], when_empty: &str) -> String {
    match texts {
        [] => when_empty.to_owned(),
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first},{second},{third} + {} more...", rest.len())
        }
        texts => texts.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_kubectl() {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (2 * MINUTE, "2m"),
            (2 * MINUTE + 5, "2m5s"),
            (10 * MINUTE + 5, "10m"),
            (179 * MINUTE, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 5 * MINUTE, "3h5m"),
            (8 * HOUR + 5 * MINUTE, "8h"),
            (2 * DAY, "2d"),
            (2 * DAY + HOUR, "2d1h"),
            (8 * DAY + HOUR, "8d"),
            (365 * 2 * DAY, "2y"),
            (365 * 2 * DAY + DAY, "2y1d"),
            (365 * 9 * DAY, "9y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
    }
}
