//! Connections to a node's kubelet port: TLS with the master's certificate, one connection a request.

use crate::server::keep_alive;
use crate::tls::NodeClientTls;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use objects::{NodeName, Reason, Status};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const DIAL_DEADLINE: Duration = Duration::from_secs(5);
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const KUBELET_PORT: u16 = 10250;
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a node's kubelet port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// Whose.
    pub name: NodeName,
    /// The host: an address or a name.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl NodeAddress {
    /// Reads a Node object.
    pub fn of(node: &[u8]) -> Result<Self, Status> {
        let node: NodeView = serde_json::from_slice(node).map_err(Status::internal)?;
        let of_type = |wanted: &str| {
            let addresses = &node.status.addresses;
            addresses.iter().find(|address| address.kind == wanted)
        };
        let address = ["InternalIP", "ExternalIP", "InternalDNS", "Hostname"]
            .iter()
            .find_map(|kind| of_type(kind))
            .ok_or_else(|| {
                bad_gateway(format!(
                    "node {:?} has told no address yet; check that its agent runs",
                    node.metadata.name
                ))
            })?;
        let port = node.status.daemon_endpoints.kubelet_endpoint.port;
        Ok(NodeAddress {
            name: NodeName(node.metadata.name),
            host: address.address.clone(),
            port: if port == 0 { KUBELET_PORT } else { port },
        })
    }

    /// `host:port` as a URL writes it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The same as a header.
    pub fn host_header(&self) -> Result<HeaderValue, Status> {
        HeaderValue::from_str(&self.authority()).map_err(Status::internal)
    }

    /// Connects. The connection lives as long as what was asked over it.
    pub async fn connect<B>(&self, tls: &NodeClientTls) -> Result<SendRequest<B>, Status>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        match tokio::time::timeout(DIAL_DEADLINE, self.dial(tls)).await {
            Ok(Ok(sender)) => Ok(sender),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(self.unreachable(&"no answer in 5 s")),
        }
    }

    /// Sends a request and waits for the answer's head.
    pub async fn send<B>(
        &self,
        sender: &mut SendRequest<B>,
        request: Request<B>,
    ) -> Result<Response<Incoming>, Status>
    where
        B: Body + Send + 'static,
    {
        match tokio::time::timeout(ANSWER_DEADLINE, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(self.unreachable(&"no answer to the request in 30 s")),
        }
    }

    pub(super) fn unreachable(&self, why: &dyn std::fmt::Display) -> Status {
        bad_gateway(format!(
            "error dialing backend: node {:?} at {}: {why}; check that its agent runs and that this master can reach that address",
            self.name.0,
            self.authority()
        ))
    }

    async fn dial<B>(&self, tls: &NodeClientTls) -> Result<SendRequest<B>, BoxError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        keep_alive(&tcp)?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream = TlsConnector::from(tls.current()).connect(name, tcp).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a node ended");
            }
        });
        Ok(sender)
    }
}

/// 502. It names no time to retry: clients would wait for a dead node again and again before they say so.
fn bad_gateway(message: String) -> Status {
    Status::failure(502, Reason::ServiceUnavailable, message)
}

/// Reads a node's refusal.
pub async fn refusal(response: Response<Incoming>) -> Status {
    let (parts, body) = response.into_parts();
    let body = tokio::time::timeout(
        ANSWER_DEADLINE,
        Limited::new(body, REFUSAL_BYTES_MAX).collect(),
    );
    let body = match body.await {
        Ok(Ok(collected)) => collected.to_bytes(),
        _ => bytes::Bytes::new(),
    };
    super::refusal(parts.status, &body)
}

#[derive(Deserialize)]
struct NodeView {
    metadata: Named,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeStatus {
    addresses: Vec<Address>,
    daemon_endpoints: DaemonEndpoints,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DaemonEndpoints {
    kubelet_endpoint: DaemonEndpoint,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DaemonEndpoint {
    #[serde(rename = "Port")]
    port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_status() {
        let node = br#"{"metadata":{"name":"n1"},"status":{"addresses":[{"type":"Hostname","address":"n1"},{"type":"InternalIP","address":"fd00::1"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":4194}}}}"#;
        assert_eq!(
            NodeAddress::of(node).expect("an address").authority(),
            "[fd00::1]:4194"
        );
        let silent = br#"{"metadata":{"name":"n1"}}"#;
        assert_eq!(NodeAddress::of(silent).expect_err("none").code, 502);
    }
}
