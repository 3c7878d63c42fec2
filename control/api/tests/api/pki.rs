//! A cluster's certificates, made for one test.

use api::PemBundle;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

/// A certificate authority.
pub struct Pki(CertifiedIssuer<'static, KeyPair>);

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "trireme test CA");
        let key = KeyPair::generate().expect("a key");
        Pki(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    pub fn ca_pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a user in groups, valid for loopback.
    pub fn issue(&self, user: &str, groups: &[&str]) -> PemBundle {
        self.issue_for(user, groups, &["127.0.0.1", "localhost"])
    }

    /// A certificate that is valid for these names.
    pub fn issue_for(&self, user: &str, groups: &[&str], names: &[&str]) -> PemBundle {
        let sans = names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>();
        let mut params = CertificateParams::new(sans).expect("names");
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.0).expect("signed");
        PemBundle {
            chain_pem: format!("{}{}", leaf.pem(), self.0.pem()),
            key_pem: key.serialize_pem(),
            ca_pem: self.0.pem(),
        }
    }

    /// TLS of a server on loopback.
    pub fn server(&self) -> ServerConfig {
        let (chain, key) = pem(&self.issue("server", &[]));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("fits")
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        roots
    }

    /// TLS of a client, with or without a certificate.
    pub fn client(&self, identity: Option<&PemBundle>, alpn: &str) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots());
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(bundle) => {
                let (chain, key) = pem(bundle);
                builder.with_client_auth_cert(chain, key).expect("fits")
            }
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config
    }
}

pub fn pem(bundle: &PemBundle) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(bundle.chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(bundle.key_pem.as_bytes()).expect("PEM");
    (chain, key)
}
