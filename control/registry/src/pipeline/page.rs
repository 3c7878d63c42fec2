//! The opaque token between two pages of a list: at which revision, after which key.
//! Semantics: Kubernetes' "retrieving large results sets in chunks"; an expired token comes back with one that goes on at
//! the newest revision.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use objects::{Reason, Revision, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The revision of the first page; None to go on at the newest one.
    #[serde(rename = "rv", default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// The last key of the page before, without the collection's prefix.
    #[serde(rename = "after")]
    pub after: String,
}

impl Position {
    /// The token.
    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("a position is plain data");
        URL_SAFE_NO_PAD.encode(json)
    }

    /// The position of a token; a 400 for a text that no server made.
    pub fn decode(token: &str) -> Result<Self, Status> {
        URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or_else(|| Status::bad_request(format!("continue key is not valid: {token:?}")))
    }

    /// 410 for a page whose revision is gone, with a token that goes on without it.
    pub fn expired(&self) -> Status {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
        let mut status = Status::failure(410, Reason::Expired, message);
        let fresh = Position {
            revision: None,
            after: self.after.clone(),
        };
        status
            .metadata
            .insert("continue".to_owned(), Value::String(fresh.encode()));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        for revision in [None, Some(Revision(7))] {
            let position = Position {
                revision,
                after: "default/a".to_owned(),
            };
            assert_eq!(Position::decode(&position.encode()), Ok(position));
        }
        assert_eq!(Position::decode("x").expect_err("no token").code, 400);
    }
}
