//! A URL's path and query, taken apart once.

use std::borrow::Cow;

/// Decoded pairs of a query, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part behind the `?`.
    pub fn parse(query: Option<&str>) -> Self {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (
                decode(&name.replace('+', " ")),
                decode(&value.replace('+', " ")),
            )
        };
        Self(
            query
                .into_iter()
                .flat_map(|query| query.split('&'))
                .filter(|part| !part.is_empty())
                .map(pair)
                .collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Whether one of the names is set to yes.
    pub fn is_set(&self, names: &[&str]) -> bool {
        names.iter().any(|name| {
            matches!(
                self.get(name),
                Some("1" | "true" | "True" | "t" | "T" | "TRUE")
            )
        })
    }
}

/// The segments of a path, decoded.
pub fn segments(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode)
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => hex::decode([*high, *low]).ok(),
            _ => None,
        };
        match escaped {
            Some(decoded) => {
                bytes.extend(decoded);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_as_they_were_typed() {
        let query = Query::parse(Some(
            "command=sh&command=-c&command=echo%20%22a%2Bb%22+c&tty=1&input=true",
        ));
        assert_eq!(query.all("command"), ["sh", "-c", "echo \"a+b\" c"]);
        assert!(
            query.is_set(&["stdin", "input"])
                && query.is_set(&["tty"])
                && !query.is_set(&["error"])
        );
        assert_eq!(segments("/exec/ns/a%2Fb/c/"), ["exec", "ns", "a/b", "c"]);
        assert_eq!(decode("100%"), "100%");
    }
}
