//! TLS of the agent: its server's settings with the masters' certificates required, and unverified connections for probes.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;

use crate::data_dir::Credentials;

/// The certificate of the kubelet's server, which may be replaced while it serves.
#[derive(Debug)]
pub struct Serving(RwLock<Arc<CertifiedKey>>);

impl Serving {
    /// That of these credentials.
    pub fn new(credentials: &Credentials) -> anyhow::Result<Self> {
        Ok(Serving(RwLock::new(Arc::new(certified(credentials)?))))
    }

    /// Shows that of these credentials from the next connection on. On an error nothing changes.
    pub fn replace(&self, credentials: &Credentials) -> anyhow::Result<()> {
        let certified = Arc::new(certified(credentials)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(
            self.0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

fn certified(credentials: &Credentials) -> anyhow::Result<CertifiedKey> {
    let pem = credentials
        .serving_pem
        .as_ref()
        .unwrap_or(&credentials.certificate_pem);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes())
        .context("node.key is damaged")?;
    let chain = chain.context("the node's certificate is damaged")?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .context("the node's certificate and node.key do not fit together")
}

/// The kubelet API's TLS. A client without a certificate gets as far as HTTP, where it is told 401.
pub fn server(credentials: &Credentials, serving: Arc<Serving>) -> anyhow::Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(credentials.ca_pem.as_bytes()) {
        roots
            .add(certificate.context("ca.crt is damaged")?)
            .context("ca.crt is damaged")?;
    }
    let provider = Arc::new(ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .context("ca.crt cannot be used")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(serving);
    // Upgrades of exec need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Connects without a look at the server's certificate.
pub async fn connect_unverified(
    stream: TcpStream,
    host: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = trust::anybody(provider.clone());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())
}
