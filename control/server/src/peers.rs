//! TLS between masters: beside a certificate of the cluster's CA it asks that the other side be a master. Without that, every
//! node and every client, whose certificates come from the same CA, could speak Raft. The port of etcd's API likewise asks that
//! its clients be allowed everything.

use crate::pki::Authority;
use anyhow::Result;
use client::{Identity, pem};
use objects::identities::{MASTER_USER, MASTERS_GROUP};
use raft_store::Tls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;
use x509_parser::x509::X509Name;

/// How this master and the others prove to each other that they are masters.
pub fn tls(authority: &Authority, identity: &Identity) -> Result<Tls> {
    let roots = Arc::new(pem::roots(&authority.certificate_pem)?);
    let chain = pem::certificates("this master's certificate", &identity.certificate_pem)?;
    let key = pem::key("this master's key", &identity.key_pem)?;
    let provider = Arc::new(ring::default_provider());

    let clients =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(Only {
            verifier: clients,
            admits: is_master,
        }))
        .with_single_cert(chain.clone(), key.clone_key())?;
    let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let masters = trust::servers(provider.clone(), move |shown| {
        shown.verify_with(&*servers)?;
        is_master(shown.end_entity)
    });
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(masters)
        .with_client_auth_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Tls {
        client: Arc::new(client),
        server: Arc::new(server),
    })
}

/// TLS of the port of etcd's API: clients whose certificate, of the cluster's CA, says that they may do everything. What they
/// write passes no admission, and what they read is not checked against their roles.
pub fn etcd_tls(authority: &Authority, identity: &Identity) -> Result<Arc<ServerConfig>> {
    let roots = Arc::new(pem::roots(&authority.certificate_pem)?);
    let chain = pem::certificates("this master's certificate", &identity.certificate_pem)?;
    let key = pem::key("this master's key", &identity.key_pem)?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(Only {
            verifier,
            admits: may_do_everything,
        }))
        .with_single_cert(chain, key)?;
    // Calls are HTTP/2; health and metrics are asked by either.
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

/// Whether the certificate, whose chain was verified already, is a master's.
fn is_master(certificate: &CertificateDer<'_>) -> Result<(), Error> {
    names(certificate, |subject| {
        subject
            .iter_common_name()
            .any(|name| name.as_str() == Ok(MASTER_USER))
    })
}

/// Whether it is of somebody who may do everything.
fn may_do_everything(certificate: &CertificateDer<'_>) -> Result<(), Error> {
    names(certificate, |subject| {
        subject
            .iter_organization()
            .any(|name| name.as_str() == Ok(MASTERS_GROUP))
    })
}

/// Whether its subject is as wanted.
fn names(
    certificate: &CertificateDer<'_>,
    is_wanted: impl Fn(&X509Name<'_>) -> bool,
) -> Result<(), Error> {
    let refused = || Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| refused())?;
    match is_wanted(parsed.subject()) {
        true => Ok(()),
        false => Err(refused()),
    }
}

/// Lets in only those of the CA's clients whom `admits` knows.
#[derive(Debug)]
struct Only {
    verifier: Arc<dyn ClientCertVerifier>,
    admits: fn(&CertificateDer<'_>) -> Result<(), Error>,
}

impl ClientCertVerifier for Only {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .verifier
            .verify_client_cert(end_entity, intermediates, now)?;
        (self.admits)(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Subject;
    use objects::identities::{ADMIN_USER, NODES_GROUP, node_user};

    #[test]
    fn only_who_may_do_everything_speaks_to_the_store() {
        let authority = Authority::generate("c1").expect("generates");
        let certificate = |groups: &[&str]| {
            let subject = Subject {
                user: "somebody",
                groups,
                ..Subject::default()
            };
            let identity = authority.issue(&subject).expect("issues");
            etcd_tls(&authority, &identity).expect("usable");
            pem::certificates("the certificate", &identity.certificate_pem)
                .expect("PEM")
                .remove(0)
        };
        assert!(may_do_everything(&certificate(&[NODES_GROUP, MASTERS_GROUP])).is_ok());
        assert!(may_do_everything(&certificate(&[NODES_GROUP])).is_err());
        assert!(may_do_everything(&certificate(&[])).is_err());
    }

    #[test]
    fn only_masters_pass() {
        let authority = Authority::generate("c1").expect("generates");
        let certificate = |user: &str| {
            let subject = Subject {
                user,
                groups: &[NODES_GROUP],
                ..Subject::default()
            };
            let identity = authority.issue(&subject).expect("issues");
            tls(&authority, &identity).expect("usable");
            pem::certificates("the certificate", &identity.certificate_pem)
                .expect("PEM")
                .remove(0)
        };
        assert!(is_master(&certificate(MASTER_USER)).is_ok());
        for user in [
            node_user("n1"),
            ADMIN_USER.to_owned(),
            format!("x {MASTER_USER}"),
        ] {
            assert!(is_master(&certificate(&user)).is_err(), "{user}");
        }
    }
}
