//! What a proxied request is passed on to, and the connection to it.
//!
//! A pod is reached through its node's agent, so that masters need no route to the pods; a kubelet of another make has no such
//! endpoint, and the pod's address is then dialed as a kube-apiserver does it. Certificates of pods and services are not
//! verified, as Kubernetes documents for its proxy.

use super::dial::{self, NodeAddress};
use super::place::unavailable;
use crate::server::keep_alive;
use crate::tls::{NodeClientTls, connect_unverified};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use objects::Status;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// Who is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Whether TLS is spoken; a kubelet's port has its own rule.
    pub https: bool,
    /// The way there.
    pub reach: Reach,
}

/// The way to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A node's kubelet port, with the master's certificate.
    Kubelet(NodeAddress),
    /// A pod.
    Pod(PodBackend),
    /// An address that no pod of the cluster has.
    Direct {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodBackend {
    /// The kubelet of its node.
    pub node: NodeAddress,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

/// A connection, whatever it runs over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Backend {
    /// Connects; the connection lives as long as what is asked over it.
    pub async fn connect<B>(&self, tls: &NodeClientTls) -> Result<SendRequest<B>, Status>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let host = match &self.reach {
            Reach::Kubelet(node) => return node.connect(tls).await,
            Reach::Pod(pod) => pod.address.to_string(),
            Reach::Direct { host, .. } => host.clone(),
        };
        let io = self.reach.dial(tls).await?;
        let io = if self.https {
            let secured = connect_unverified(io, &host);
            match tokio::time::timeout(DIAL_DEADLINE, secured).await {
                Ok(Ok(io)) => Box::new(io) as Box<dyn Io>,
                Ok(Err(error)) => return Err(unreachable(error)),
                Err(_) => return Err(unreachable("no TLS within 10 s")),
            }
        } else {
            io
        };
        let (sender, connection) = handshake(TokioIo::new(io)).await.map_err(unreachable)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a proxied backend ended");
            }
        });
        Ok(sender)
    }

    /// What is told when it does not answer.
    pub fn unreachable(&self, why: impl std::fmt::Display) -> Status {
        match &self.reach {
            Reach::Kubelet(node) => node.unreachable(&why),
            _ => unreachable(why),
        }
    }

    /// What a request's `Host` must be; None leaves the client's.
    pub fn host(&self) -> Result<Option<HeaderValue>, Status> {
        match &self.reach {
            Reach::Kubelet(node) => node.host_header().map(Some),
            _ => Ok(None),
        }
    }
}

impl Reach {
    /// Connects and speaks no word yet.
    pub async fn dial(&self, tls: &NodeClientTls) -> Result<Box<dyn Io>, Status> {
        match self {
            Reach::Kubelet(node) => dial_direct(&node.host, node.port).await,
            Reach::Pod(pod) => pod.dial(tls).await,
            Reach::Direct { host, port } => dial_direct(host, *port).await,
        }
    }
}

impl PodBackend {
    async fn dial(&self, tls: &NodeClientTls) -> Result<Box<dyn Io>, Status> {
        let PodBackend {
            node,
            namespace,
            name,
            address,
            port,
        } = self;
        let uri = format!("/connect/{namespace}/{name}/{port}?address={address}");
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = uri.parse().map_err(Status::internal)?;
        let headers = request.headers_mut();
        headers.insert(HOST, node.host_header()?);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
        let mut sender = node.connect(tls).await?;
        let response = node.send(&mut sender, request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgraded = hyper::upgrade::on(response).await.map_err(unreachable)?;
            return Ok(Box::new(TokioIo::new(upgraded)));
        }
        let refusal = dial::refusal(response).await;
        if refusal.message == "404 page not found" {
            return dial_direct(&address.to_string(), *port).await;
        }
        Err(unreachable(refusal.message))
    }
}

async fn dial_direct(host: &str, port: u16) -> Result<Box<dyn Io>, Status> {
    let connecting = tokio::time::timeout(DIAL_DEADLINE, TcpStream::connect((host, port)));
    let connected = match connecting.await {
        Ok(Ok(tcp)) => tcp
            .set_nodelay(true)
            .and_then(|()| keep_alive(&tcp))
            .map(|()| tcp),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    match connected {
        Ok(tcp) => Ok(Box::new(tcp)),
        Err(error) => Err(unreachable(format!("dial tcp {host}:{port}: {error}"))),
    }
}

/// 503 in the words of apiserver's proxy.
fn unreachable(why: impl std::fmt::Display) -> Status {
    unavailable(format!("error trying to reach service: {why}"))
}
