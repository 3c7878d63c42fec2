//! The connection to a server of another group: through its service's endpoints, verified as its API service says, with the front
//! proxy's certificate.

use crate::ApiServer;
use crate::proxy::{Backend, NoBackend, service_backend};
use crate::webhooks::trust;
use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use objects::Status;
use registry::aggregation::ApiService;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_rustls::TlsConnector;

const DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug)]
pub enum Unconnected {
    /// The service leads nowhere.
    Unplaced(Box<NoBackend>),
    /// The server does not answer, or proves the wrong thing; in one line.
    Silent(String),
}

/// Connects to a server; the connection lives as long as what is asked over it.
pub async fn connect<B>(
    server: &ApiServer,
    service: &ApiService,
) -> Result<(SendRequest<B>, Backend), Unconnected>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let remote = service.remote.clone().unwrap_or_default();
    let config = tls(server, service).map_err(Unconnected::Silent)?;
    let backend = service_backend(server, &remote.namespace, &remote.service, remote.port)
        .await
        .map_err(|none| Unconnected::Unplaced(Box::new(none)))?;
    let told = |error: &dyn std::fmt::Display| Unconnected::Silent(error.to_string());
    let name = ServerName::try_from(remote.host()).map_err(|error| told(&error))?;
    let connecting = async {
        let dialed = backend.reach.dial(server.node_tls()).await;
        let io = dialed.map_err(|status: Status| told(&status.message))?;
        let secured = TlsConnector::from(config).connect(name, io).await;
        let io = secured.map_err(|error| told(&format_args!("tls: {error}")))?;
        handshake(TokioIo::new(io))
            .await
            .map_err(|error| told(&error))
    };
    let connected = tokio::time::timeout(DEADLINE, connecting).await;
    let (sender, connection) =
        connected.unwrap_or_else(|_| Err(told(&"no connection within 10 s")))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a server of another group ended");
        }
    });
    Ok((sender, backend))
}

/// How the server is verified, and by what this one proves itself.
fn tls(server: &ApiServer, service: &ApiService) -> Result<Arc<ClientConfig>, String> {
    let aggregator = server.aggregator();
    let identity = aggregator
        .identity
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let identity = identity.ok_or("the front proxy's certificate has not been read yet")?;
    let remote = service.remote.clone().unwrap_or_default();
    let mut known = aggregator
        .tls
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((of, config)) = known.get(&service.served())
        && *of == remote
    {
        return Ok(config.clone());
    }
    let config = match remote.skips_verification {
        true => trust::anybody(Some(&identity))?,
        false => trust::config(&remote.ca_bundle, Some(&identity))?,
    };
    known.insert(service.served(), (remote, config.clone()));
    Ok(config)
}
