//! What names, labels and keys may look like, with Kubernetes' own words for what is wrong.
//! Never looks at an object: callers know the field. Rules and texts: apimachinery's `util/validation`.
//!
//! Every check returns the faults of one text; an empty list means that it is good.

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const CONFIG_KEY_TEXT: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_TEXT: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// A DNS-1123 label: names of namespaces and containers; at most 63 bytes.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut faults = too_long(text, 63);
    if !is_label(text) {
        faults.push(LABEL_TEXT.to_owned());
    }
    faults
}

/// A DNS-1123 subdomain: names of most objects; at most 253 bytes.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut faults = too_long(text, 253);
    if !text.split('.').all(is_label) {
        faults.push(SUBDOMAIN_TEXT.to_owned());
    }
    faults
}

/// A DNS-1035 label: names of services; at most 63 bytes.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut faults = too_long(text, 63);
    if !is_label(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        faults.push(DNS1035_TEXT.to_owned());
    }
    faults
}

/// A label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut faults = too_long(text, 63);
    if !text.is_empty() && !is_word(text) {
        faults.push(LABEL_VALUE_TEXT.to_owned());
    }
    faults
}

/// A label's key, an annotation's key, a finalizer: a name with an optional subdomain and slash before it.
pub fn qualified_name(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (prefix, name) = match parts[..] {
        [name] => (None, name),
        [prefix, name] => (Some(prefix), name),
        _ => {
            let optional =
                "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!(
                "a valid qualified name {QUALIFIED_TEXT} {optional}"
            )];
        }
    };
    let mut faults = Vec::new();
    match prefix {
        Some("") => faults.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            faults.extend(
                dns1123_subdomain(prefix)
                    .iter()
                    .map(|fault| format!("prefix part {fault}")),
            );
        }
        None => {}
    }
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        faults.extend(
            too_long(name, 63)
                .iter()
                .map(|fault| format!("name part {fault}")),
        );
    }
    if !is_word(name) {
        faults.push(format!("name part {QUALIFIED_TEXT}"));
    }
    faults
}

/// A key of a ConfigMap's or Secret's data.
pub fn config_key(text: &str) -> Vec<String> {
    let mut faults = too_long(text, 253);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(allowed) {
        faults.push(CONFIG_KEY_TEXT.to_owned());
    }
    match text {
        "." => faults.push("must not be '.'".to_owned()),
        ".." => faults.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// An environment variable's name.
pub fn env_name(text: &str) -> Vec<String> {
    let printable = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    if !text.is_empty() && text.bytes().all(printable) {
        return Vec::new();
    }
    vec![ENV_TEXT.to_owned()]
}

/// A port's name, as IANA has service names: at most 15 bytes.
pub fn port_name(text: &str) -> Vec<String> {
    let mut faults = too_long(text, 15);
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        faults.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        faults.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        faults.push("must not begin or end with a hyphen".to_owned());
    }
    faults
}

/// A part of a path: names that are not DNS names, such as those of events' reporters.
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => ["/", "%"]
            .iter()
            .filter(|part| text.contains(**part))
            .map(|part| format!("may not contain '{part}'"))
            .collect(),
    }
}

/// A port's number.
pub fn port_number(number: i64) -> Vec<String> {
    if (1..=65535).contains(&number) {
        return Vec::new();
    }
    vec!["must be between 1 and 65535, inclusive".to_owned()]
}

fn too_long(text: &str, limit: usize) -> Vec<String> {
    if text.len() <= limit {
        return Vec::new();
    }
    vec![format!("must be no more than {limit} bytes")]
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses_as_kubernetes() {
        type Check = fn(&str) -> Vec<String>;
        let cases: &[(Check, &[&str], &[&str])] = &[
            (
                dns1123_label,
                &["a", "web-0", "0"],
                &["", "-a", "a-", "A", "a.b", "a_b"],
            ),
            (
                dns1123_subdomain,
                &["a", "a.b-c.d"],
                &["", "a..b", ".a", "a.", "A.b"],
            ),
            (dns1035_label, &["a", "a0"], &["0a", "", "a-"]),
            (label_value, &["", "A_b.c", "1"], &["_a", "a b", "a-"]),
            (
                qualified_name,
                &["a", "example.com/A", "a.b"],
                &["", "/", "a/", "/a", "a/b/c", "E/x"],
            ),
            (
                config_key,
                &["a", ".a", "A_B"],
                &["", ".", "..", "..a", "a/b"],
            ),
            (env_name, &["A", "a.b-c d"], &["", "A=B", "\n", "ä"]),
            (
                port_name,
                &["http", "a-1"],
                &["", "1", "a--b", "-a", "HTTP", "sixteen-letters-"],
            ),
        ];
        for (check, good, bad) in cases {
            for text in *good {
                assert_eq!(check(text), Vec::<String>::new(), "{text:?}");
            }
            for text in *bad {
                assert_ne!(check(text), Vec::<String>::new(), "{text:?}");
            }
        }
        assert_eq!(
            dns1123_label(&"a".repeat(64)),
            ["must be no more than 63 bytes"]
        );
    }
}
