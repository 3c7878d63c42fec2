//! Whom to trust at a webhook, or at a server of another group: the certificates of its configuration, else those that the machine
//! trusts. A certificate of the bundle that the server shows itself is trusted too, as Go's clients do: many make one that is its
//! own authority.

use crate::tls::ClientIdentity;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The TLS towards whoever this bundle in PEM vouches for; an empty one stands for what the machine trusts.
pub fn config(
    bundle: &[u8],
    identity: Option<&ClientIdentity>,
) -> Result<Arc<ClientConfig>, String> {
    let certificates: Vec<CertificateDer<'static>> = match bundle {
        [] => rustls_native_certs::load_native_certs().certs,
        bundle => CertificateDer::pem_slice_iter(bundle)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the caBundle is no PEM: {error}"))?,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        return Err(
            "neither the caBundle nor this machine holds a certificate to trust".to_owned(),
        );
    }
    let provider = Arc::new(default_provider());
    let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chains = chains.build().map_err(|error| error.to_string())?;
    let believed = match bundle {
        [] => Vec::new(),
        _ => certificates,
    };
    let verifier = trust::servers(provider, move |shown| {
        if !believed.iter().any(|known| known == shown.end_entity) {
            return shown.verify_with(&*chains);
        }
        let certificate = ParsedCertificate::try_from(shown.end_entity)?;
        rustls::client::verify_server_name(&certificate, shown.server_name)?;
        check_time(shown.end_entity, shown.now)
    });
    with_verifier(verifier, identity)
}

/// The TLS towards whoever answers.
pub fn anybody(identity: Option<&ClientIdentity>) -> Result<Arc<ClientConfig>, String> {
    with_verifier(trust::anybody(Arc::new(default_provider())), identity)
}

fn with_verifier(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<&ClientIdentity>,
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(ClientIdentity { chain, key }) => builder
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|error| error.to_string())?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn check_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}
