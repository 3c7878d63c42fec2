//! A certificate and its key, as PEM.

use std::fmt;

/// What proves to a peer who we are.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate chain, our own first.
    pub certificate_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(key not shown)")
    }
}
