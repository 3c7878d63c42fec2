//! Quantities of resources: `500m`, `1.5Gi`, `12e6`. Semantics and canonical text: apimachinery's `resource.Quantity`.
//! Exact: a number of billionths, so that sums and comparisons never round.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANOS: i128 = 1_000_000_000;
/// The largest value that is kept; larger ones are cut to it, as Kubernetes does.
const VALUE_MAX: i128 = i64::MAX as i128;

/// An amount of CPU, memory or another resource.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// In which family of suffixes a quantity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`, …
    BinarySi,
    /// `n`, `u`, `m`, none, `k`, `M`, …
    DecimalSi,
    /// `e3`, `e6`, …
    DecimalExponent,
}

/// The text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct QuantityError;

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        format: Format::DecimalSi,
    };

    /// Reads a quantity's text.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let digits_end = unsigned
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError);
        }
        let (scale, format) = Scale::parse(suffix).ok_or(QuantityError)?;
        let magnitude = scale.nanos(whole, fraction);
        let nanos = if negative { -magnitude } else { magnitude };
        Ok(Quantity { nanos, format })
    }

    /// So many whole units.
    pub fn from_units(units: i64) -> Self {
        Quantity {
            nanos: i128::from(units) * NANOS,
            format: Format::DecimalSi,
        }
    }

    /// So many thousandths, as CPU is counted.
    pub fn from_milli(milli: i64) -> Self {
        Quantity {
            nanos: i128::from(milli) * (NANOS / 1000),
            format: Format::DecimalSi,
        }
    }

    /// So many bytes, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Quantity {
            nanos: i128::from(bytes) * NANOS,
            format: Format::BinarySi,
        }
    }

    /// Whole units, rounded up.
    pub fn units(self) -> i64 {
        saturate(div_up(self.nanos, NANOS))
    }

    /// Thousandths, rounded up.
    pub fn milli(self) -> i64 {
        saturate(div_up(self.nanos, NANOS / 1000))
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// The sum; a zero takes the other's way of writing.
    #[must_use]
    pub fn plus(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() {
            other.format
        } else {
            self.format
        };
        Quantity {
            nanos: clamp(self.nanos + other.nanos),
            format,
        }
    }

    /// The difference, which may be negative.
    #[must_use]
    pub fn minus(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() {
            other.format
        } else {
            self.format
        };
        Quantity {
            nanos: clamp(self.nanos - other.nanos),
            format,
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Quantity::ZERO
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Quantity::parse(text)
    }
}

/// The canonical text: the largest suffix that leaves no fraction.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANOS;
        match self.format {
            Format::BinarySi if !small && self.is_whole() => write_binary(f, self.nanos / NANOS),
            Format::DecimalExponent => write_decimal(f, self.nanos, exponent_suffix),
            _ => write_decimal(f, self.nanos, decimal_suffix),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From a text or, as Kubernetes allows, a bare number.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            other => return Err(serde::de::Error::custom(format!("{other} is no quantity"))),
        };
        Quantity::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// What a suffix multiplies by: a power of two, or a power of ten.
enum Scale {
    Two(u32),
    Ten(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<(Scale, Format)> {
        let scale = match suffix {
            "Ki" => (Scale::Two(10), Format::BinarySi),
            "Mi" => (Scale::Two(20), Format::BinarySi),
            "Gi" => (Scale::Two(30), Format::BinarySi),
            "Ti" => (Scale::Two(40), Format::BinarySi),
            "Pi" => (Scale::Two(50), Format::BinarySi),
            "Ei" => (Scale::Two(60), Format::BinarySi),
            "n" => (Scale::Ten(-9), Format::DecimalSi),
            "u" => (Scale::Ten(-6), Format::DecimalSi),
            "m" => (Scale::Ten(-3), Format::DecimalSi),
            "" => (Scale::Ten(0), Format::DecimalSi),
            "k" => (Scale::Ten(3), Format::DecimalSi),
            "M" => (Scale::Ten(6), Format::DecimalSi),
            "G" => (Scale::Ten(9), Format::DecimalSi),
            "T" => (Scale::Ten(12), Format::DecimalSi),
            "P" => (Scale::Ten(15), Format::DecimalSi),
            "E" => (Scale::Ten(18), Format::DecimalSi),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
                (Scale::Ten(exponent), Format::DecimalExponent)
            }
        };
        Some(scale)
    }

    /// `whole.fraction` times the scale in billionths: rounded up below one billionth, cut at the largest value.
    fn nanos(&self, whole: &str, fraction: &str) -> i128 {
        match self {
            Scale::Ten(exponent) => shift_decimal(whole, fraction, exponent.saturating_add(9)),
            Scale::Two(power) => {
                let factor = 1i128 << power;
                let whole = shift_decimal(whole, "", 0)
                    .saturating_mul(NANOS)
                    .saturating_mul(factor);
                // Eighteen digits of a fraction are enough: the rest is below a billionth of a byte.
                let fraction = shift_decimal("", fraction, 18).saturating_mul(factor);
                whole
                    .saturating_add(div_up(fraction, NANOS))
                    .min(VALUE_MAX * NANOS)
            }
        }
    }
}

/// The decimal number `whole.fraction` times ten to the `places`, rounded up to a whole number, cut at the largest value.
fn shift_decimal(whole: &str, fraction: &str, places: i32) -> i128 {
    let limit = VALUE_MAX * NANOS;
    let point = i64::try_from(whole.len())
        .unwrap_or(i64::MAX)
        .saturating_add(i64::from(places));
    let mut value: i128 = 0;
    let mut position: i64 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if position >= point {
            if digit != b'0' {
                return (value + 1).min(limit);
            }
        } else {
            value = (value * 10 + i128::from(digit - b'0')).min(limit);
        }
        position += 1;
    }
    while position < point && value != 0 && value < limit {
        value = (value * 10).min(limit);
        position += 1;
    }
    value
}

fn div_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    match (value % by).cmp(&0) {
        Ordering::Greater => quotient + 1,
        Ordering::Less => quotient - 1, // Away from zero, as Kubernetes rounds.
        Ordering::Equal => quotient,
    }
}

fn clamp(nanos: i128) -> i128 {
    nanos.clamp(-VALUE_MAX * NANOS, VALUE_MAX * NANOS)
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn write_binary(f: &mut fmt::Formatter<'_>, units: i128) -> fmt::Result {
    let mut mantissa = units;
    let mut suffixes = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter();
    let mut suffix = "";
    while mantissa % 1024 == 0 {
        let Some(next) = suffixes.next() else { break };
        mantissa /= 1024;
        suffix = next;
    }
    write!(f, "{mantissa}{suffix}")
}

fn write_decimal(
    f: &mut fmt::Formatter<'_>,
    nanos: i128,
    suffix: fn(i32) -> String,
) -> fmt::Result {
    let mut mantissa = nanos;
    let mut exponent = -9;
    while mantissa % 1000 == 0 && exponent < 18 {
        mantissa /= 1000;
        exponent += 3;
    }
    write!(f, "{mantissa}{}", suffix(exponent))
}

fn decimal_suffix(exponent: i32) -> String {
    let suffix = match exponent {
        -9 => "n",
        -6 => "u",
        -3 => "m",
        3 => "k",
        6 => "M",
        9 => "G",
        12 => "T",
        15 => "P",
        18 => "E",
        _ => "",
    };
    suffix.to_owned()
}

fn exponent_suffix(exponent: i32) -> String {
    if exponent == 0 {
        String::new()
    } else {
        format!("e{exponent}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_canonically() {
        let cases = [
            ("0", "0"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1023Ki", "1023Ki"),
            ("1000", "1k"),
            ("12500", "12500"),
            ("-1k", "-1k"),
            ("12e6", "12e6"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("100n", "100n"),
            ("0.1n", "1n"),
            ("1.2345678901", "1234567891n"),
            ("1e100", "9223372036854775807e0"),
        ];
        for (text, canonical) in cases {
            let written = Quantity::parse(text).expect(text).to_string();
            assert_eq!(written, canonical.trim_end_matches("e0"), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in [
            "", "a", "1.2.3", "1KiB", "1 Gi", "--1", ".", "1e", "1mi", "0x1",
        ] {
            assert_eq!(Quantity::parse(text), Err(QuantityError), "{text}");
        }
    }

    #[test]
    fn reads_and_rounds_up() {
        assert_eq!(Quantity::parse("1001u").expect("parses").milli(), 2);
        assert_eq!(Quantity::parse("100m").expect("parses").units(), 1);
        assert_eq!(Quantity::parse("2Gi").expect("parses").units(), 2 << 30);
    }

    proptest! {
        #[test]
        fn text_round_trips(nanos in -(1i128 << 70)..(1i128 << 70), binary: bool) {
            let format = if binary { Format::BinarySi } else { Format::DecimalSi };
            let quantity = Quantity { nanos, format };
            let text = quantity.to_string();
            let read = Quantity::parse(&text).expect("canonical text parses");
            prop_assert_eq!(read, quantity);
            prop_assert_eq!(read.to_string(), text);
        }

        #[test]
        fn order_agrees_with_difference(a in any::<i64>(), b in any::<i64>()) {
            let (a, b) = (Quantity::from_milli(a), Quantity::from_milli(b));
            prop_assert_eq!(a < b, a.minus(b).is_negative());
            prop_assert_eq!(a.plus(b).minus(b), a);
        }

        #[test]
        fn never_panics(text in "[-+]?[0-9.]{0,30}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,12}") {
            let _ = Quantity::parse(&text).map(|quantity| (quantity.to_string(), quantity.milli()));
        }
    }
}
