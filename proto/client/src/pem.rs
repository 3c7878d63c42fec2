//! PEM texts read for TLS: certificates, keys, and the CA as what to trust.

use crate::ConfigError;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The certificates of a text, of which there must be one at least; `what` names the text in errors.
pub fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| unusable(what, error))?;
    if chain.is_empty() {
        return Err(unusable(what, "there is no certificate in it"));
    }
    Ok(chain)
}

/// The private key of a text.
pub fn key(what: &str, pem: &str) -> Result<PrivateKeyDer<'static>, ConfigError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| unusable(what, error))
}

/// The CA of a text, as the only one that is trusted.
pub fn roots(ca_pem: &str) -> Result<RootCertStore, ConfigError> {
    let what = "the CA's certificate";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, ca_pem)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(what, error))?;
    }
    Ok(roots)
}

pub(crate) fn unusable(what: &str, reason: impl std::fmt::Display) -> ConfigError {
    ConfigError::Unusable {
        what: what.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_what_is_asked_says_which() {
        let error = certificates("the CA's certificate", "").expect_err("empty");
        assert_eq!(
            error.to_string(),
            "the CA's certificate cannot be used: there is no certificate in it"
        );
        let error = key("the client's key", "no PEM").expect_err("no key");
        assert!(
            error
                .to_string()
                .starts_with("the client's key cannot be used"),
            "{error}"
        );
    }
}
