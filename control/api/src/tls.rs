//! TLS of the API port and towards the nodes: made from PEM, replaceable while connections run.
//!
//! Never reads a file: the binary hands the texts over. A client's certificate is asked for and, when given, must come
//! from the cluster's CA; who gives none is anonymous and decided upon by `auth`.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why PEM texts make no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A text is not the PEM it should be.
    #[error("the {what} is no valid PEM: {source}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What the parser said.
        source: rustls::pki_types::pem::Error,
    },
    /// A text holds no certificate.
    #[error("the {0} holds no certificate")]
    Empty(&'static str),
    /// Certificate, key and CA do not fit together.
    #[error("certificate, key and CA do not fit together: {0}")]
    Rustls(#[from] rustls::Error),
    /// The CA cannot verify clients.
    #[error("the CA cannot be used to verify client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The PEM texts of one party.
#[derive(Clone)]
pub struct PemBundle {
    /// Its certificate, followed by those that lead to the root (and the root itself, for clients that pin it).
    pub chain_pem: String,
    /// The key of the first certificate.
    pub key_pem: String,
    /// The CA by which the other side is verified.
    pub ca_pem: String,
}

/// The API port's TLS; cheap to clone, and all clones follow [`ServerTls::replace`].
#[derive(Clone)]
pub struct ServerTls(Arc<RwLock<Arc<ServerConfig>>>);

impl ServerTls {
    /// Checks the texts and makes the configuration: ALPN h2 and http/1.1, client certificates optional.
    pub fn new(bundle: &PemBundle) -> Result<Self, TlsError> {
        Ok(ServerTls(Arc::new(RwLock::new(Arc::new(server_config(
            bundle,
        )?)))))
    }

    /// From now on new connections use these; running ones keep theirs. On an error nothing changes.
    pub fn replace(&self, bundle: &PemBundle) -> Result<(), TlsError> {
        let config = Arc::new(server_config(bundle)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a master proves itself to a node's kubelet port, and verifies the node; replaceable like [`ServerTls`].
#[derive(Clone)]
pub struct NodeClientTls(Arc<RwLock<Arc<ClientConfig>>>);

impl NodeClientTls {
    /// Checks the texts and makes the configuration: HTTP/1.1, since upgrades need it.
    pub fn new(bundle: &PemBundle) -> Result<Self, TlsError> {
        Ok(NodeClientTls(Arc::new(RwLock::new(Arc::new(
            client_config(bundle)?,
        )))))
    }

    /// From now on new connections use these. On an error nothing changes.
    pub fn replace(&self, bundle: &PemBundle) -> Result<(), TlsError> {
        let config = Arc::new(client_config(bundle)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a client proves itself by.
pub(crate) struct ClientIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl ClientIdentity {
    /// Reads the texts.
    pub fn read(bundle: &PemBundle) -> Result<Self, TlsError> {
        let (chain, key, _) = parse(bundle)?;
        Ok(ClientIdentity { chain, key })
    }
}

fn server_config(bundle: &PemBundle) -> Result<ServerConfig, TlsError> {
    let (chain, key, roots) = parse(bundle)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn client_config(bundle: &PemBundle) -> Result<ClientConfig, TlsError> {
    let (chain, key, roots) = parse(bundle)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

type Parsed = (
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
    RootCertStore,
);

fn parse(bundle: &PemBundle) -> Result<Parsed, TlsError> {
    let chain = certificates(&bundle.chain_pem, "certificate chain")?;
    let key = PrivateKeyDer::from_pem_slice(bundle.key_pem.as_bytes()).map_err(|source| {
        TlsError::Pem {
            what: "private key",
            source,
        }
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&bundle.ca_pem, "CA")? {
        roots.add(certificate)?;
    }
    Ok((chain, key, roots))
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    if chain.is_empty() {
        return Err(TlsError::Empty(what));
    }
    Ok(chain)
}

/// TLS on a stream to whoever answers: certificates of pods and services behind the proxy prove nothing.
pub async fn connect_unverified<S>(
    stream: S,
    host: &str,
) -> Result<TlsStream<S>, Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(trust::anybody(provider))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned())?;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}
