//! The query of a request: decoded once, asked by name.
//!
//! Truth of a flag follows apimachinery's conversion: present and neither `0` nor `false` (in any case) is true.

use objects::Status;

/// The parameters in the order in which they came; a name may come more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes what follows the `?`. Percent signs that begin no escape stay as they are.
    pub fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode_form(name), decode_form(value))
            })
            .collect();
        Query(pairs)
    }

    /// The first value of `name`; None when it is absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The first value of `name`, unless it is empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Every value of `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the flag `name` is set.
    pub fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    /// The flag `name`; None when it is absent.
    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        Some(value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// The whole number `name`; absent or empty is None, anything else that is no number is a 400.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        let number = value.parse().map_err(|_| {
            Status::bad_request(format!(
                "strconv.ParseInt: parsing {value:?}: invalid syntax in the query parameter {name}"
            ))
        })?;
        Ok(Some(number))
    }

    /// Appends a parameter.
    pub fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// The parameters for which `keep` holds.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Query {
        Query(
            self.0
                .iter()
                .filter(|(name, _)| keep(name))
                .cloned()
                .collect(),
        )
    }

    /// The text to send after a `?`.
    pub fn encode(&self) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{}={}", encode_component(name), encode_component(value)))
            .collect();
        pairs.join("&")
    }
}

/// Decodes percent escapes; None when the result is no UTF-8.
pub fn decode_segment(text: &str) -> Option<String> {
    String::from_utf8(unescape(text)).ok()
}

/// Escapes everything but unreserved characters.
pub fn encode_component(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn decode_form(text: &str) -> String {
    String::from_utf8_lossy(&unescape(&text.replace('+', " "))).into_owned()
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match escaped_byte(&bytes[at..]) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

fn escaped_byte(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flags_and_numbers_read_as_in_go() {
        let query = Query::parse(
            "watch=&a=false&b=0&c=True&limit=5&bad=x&x=a%2Cb+c%3D%zz&command=1&command=2",
        );
        assert!(query.flag("watch") && query.flag("c"));
        assert!(!query.flag("a") && !query.flag("b") && !query.flag("absent"));
        assert_eq!(query.number("limit").expect("a number"), Some(5));
        assert_eq!(query.number("absent").expect("absent"), None);
        assert_eq!(query.number("bad").expect_err("no number").code, 400);
        assert_eq!(query.get("x"), Some("a,b c=%zz"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["1", "2"]);
    }

    proptest! {
        #[test]
        fn encoding_round_trips(pairs in proptest::collection::vec(("[a-z]{1,4}", ".{0,12}"), 0..6)) {
            let query = Query(pairs);
            prop_assert_eq!(Query::parse(&query.encode()), query);
        }
    }
}
