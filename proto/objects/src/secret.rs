//! A text that no log may show.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A key, a token or a passphrase. It is plain text in JSON and to whoever asks for it, but never in `Debug`, so that
/// whatever holds one may be logged.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_plain_in_json_and_hidden_in_logs() {
        let secret = Secret("abc".to_owned());
        assert_eq!(serde_json::to_string(&secret).expect("JSON"), r#""abc""#);
        assert!(!format!("{:?}", Some(&secret)).contains("abc"));
    }
}
