//! TLS settings of a client: trust in one CA, by its certificate or by its hash.

use crate::pem::{self, unusable};
use crate::{ConfigError, Identity};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::sync::{Arc, PoisonError, RwLock};

/// Trusts servers whose certificate the CA issued; shows `identity` when asked.
pub fn trusting_ca(ca_pem: &str, identity: Option<Shown>) -> Result<ClientConfig, ConfigError> {
    let builder = builder()?.with_root_certificates(pem::roots(ca_pem)?);
    Ok(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
    })
}

/// The certificate that a client shows; cheap to clone, and all clones follow [`Shown::replace`].
#[derive(Clone, Debug)]
pub struct Shown(Arc<RwLock<Arc<CertifiedKey>>>);

impl Shown {
    /// Shows this one.
    pub fn new(identity: &Identity) -> Result<Self, ConfigError> {
        Ok(Shown(Arc::new(RwLock::new(Arc::new(certified(identity)?)))))
    }

    /// Shows this one from the next connection on. On an error nothing changes.
    pub fn replace(&self, identity: &Identity) -> Result<(), ConfigError> {
        let certified = Arc::new(certified(identity)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(
            self.0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(identity: &Identity) -> Result<CertifiedKey, ConfigError> {
    let chain = pem::certificates("the client's certificate", &identity.certificate_pem)?;
    let key = pem::key("the client's key", &identity.key_pem)?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| unusable("the client's certificate", error))
}

/// Trusts servers that show, in their chain, the CA whose DER has this SHA-256, and a certificate issued by it.
pub fn trusting_hash(ca_sha256: [u8; 32]) -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = trust::servers(provider.clone(), move |shown| {
        issued_by_pinned(&ca_sha256, &provider, shown)
    });
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(config.with_no_client_auth())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, ConfigError> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS", error))
}

/// Finds the pinned CA in the server's chain, then verifies as usual with that CA as the only root.
fn issued_by_pinned(
    ca_sha256: &[u8; 32],
    provider: &Arc<CryptoProvider>,
    shown: trust::Shown<'_>,
) -> Result<(), rustls::Error> {
    let mut sent = shown.intermediates.iter();
    let pinned = sent.find(|certificate| Sha256::digest(certificate)[..] == *ca_sha256);
    let Some(ca) = pinned else {
        return Err(CertificateError::UnknownIssuer.into());
    };
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chains = chains
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    shown.verify_with(&*chains)
}
