//! Leaves of Protobuf bodies that are small messages: quantities, times, time spans, numbers or texts, embedded JSON.

use super::Field;
use super::protobuf::ProtobufError;
use super::wire::{Payload, Reader};
use objects::{Quantity, Timestamp};
use serde_json::Value;

/// The numbers and texts of a small message: up to three fields.
fn small<'a>(field: &Field, message: &'a [u8]) -> Result<[Option<Payload<'a>>; 4], ProtobufError> {
    let mut fields = [None; 4];
    let mut reader = Reader::new(message);
    while let Some((number, payload)) = reader.next()? {
        if matches!(payload, Payload::Fixed32(_) | Payload::Fixed64(_)) {
            return Err(ProtobufError::WrongType(field.name));
        }
        if let Some(slot) = fields.get_mut(number as usize) {
            *slot = Some(payload);
        }
    }
    Ok(fields)
}

fn number(payload: Option<Payload<'_>>) -> i64 {
    match payload {
        Some(Payload::Varint(number)) => number as i64,
        _ => 0,
    }
}

/// `{1: text}`.
pub(super) fn quantity(field: &Field, message: &[u8]) -> Result<Option<Value>, ProtobufError> {
    let Some(Payload::Bytes(bytes)) = small(field, message)?[1] else {
        return Ok(None);
    };
    let quantity = Quantity::parse(&String::from_utf8_lossy(bytes));
    let quantity = quantity.map_err(|error| bad_value(field, error.to_string()))?;
    Ok(Some(Value::String(quantity.to_string())))
}

/// `{1: 0 for a number or 1 for a text, 2: number, 3: text}`.
pub(super) fn int_or_string(field: &Field, message: &[u8]) -> Result<Value, ProtobufError> {
    let fields = small(field, message)?;
    match (number(fields[1]), fields[3]) {
        (0, _) => Ok(Value::Number((number(fields[2]) as i32).into())),
        (1, Some(Payload::Bytes(bytes))) => {
            Ok(Value::String(String::from_utf8_lossy(bytes).into_owned()))
        }
        (1, _) => Ok(Value::String(String::new())),
        _ => Err(bad_value(field, "impossible IntOrString.Type".to_owned())),
    }
}

/// `{1: seconds, 2: nanoseconds}`; both zero means no time.
pub(super) fn time(
    field: &Field,
    message: &[u8],
    write: fn(Timestamp) -> String,
) -> Result<Option<Value>, ProtobufError> {
    let fields = small(field, message)?;
    let (seconds, nanoseconds) = (number(fields[1]), number(fields[2]));
    if seconds == 0 && nanoseconds == 0 {
        return Ok(None);
    }
    let time = i32::try_from(nanoseconds)
        .ok()
        .and_then(|nanoseconds| jiff::Timestamp::new(seconds, nanoseconds).ok())
        .ok_or_else(|| bad_value(field, format!("{seconds} s is no time")))?;
    Ok(Some(Value::String(write(Timestamp(time)))))
}

/// `{1: nanoseconds}`.
pub(super) fn duration(field: &Field, message: &[u8]) -> Result<Value, ProtobufError> {
    let nanoseconds = number(small(field, message)?[1]);
    Ok(Value::String(go_duration(nanoseconds)))
}

/// Nanoseconds as Go writes a duration: `1m30s`, `1.5s`, `10ms`.
fn go_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let decimal = |whole: u64, part: u64, digits: usize, unit: &str| {
        let part = format!("{part:0digits$}");
        match part.trim_end_matches('0') {
            "" => format!("{whole}{unit}"),
            part => format!("{whole}.{part}{unit}"),
        }
    };
    let text = match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{all}ns"),
        1_000..1_000_000 => decimal(all / 1_000, all % 1_000, 3, "µs"),
        1_000_000..1_000_000_000 => decimal(all / 1_000_000, all % 1_000_000, 6, "ms"),
        _ => {
            let (seconds, part) = (all / 1_000_000_000, all % 1_000_000_000);
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let seconds = decimal(seconds % 60, part, 9, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, _) => format!("{minutes}m{seconds}"),
                _ => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// `{1: JSON}`.
pub(super) fn raw(field: &Field, message: &[u8]) -> Result<Option<Value>, ProtobufError> {
    match small(field, message)?[1] {
        Some(Payload::Bytes(bytes)) if !bytes.is_empty() => {
            let value = serde_json::from_slice(bytes);
            Ok(Some(
                value.map_err(|error| bad_value(field, error.to_string()))?,
            ))
        }
        _ => Ok(None),
    }
}

fn bad_value(field: &Field, why: String) -> ProtobufError {
    ProtobufError::BadValue {
        field: field.name,
        why,
    }
}
