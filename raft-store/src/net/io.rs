//! Connections between members: TCP that notices a silent peer soon, under TLS with a certificate on both sides.

use super::traffic::{Meter, Traffic};
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Unacknowledged bytes end a connection after so long.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(3);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_PROBES: u32 = 3;
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Handshakes and accepted connections that may wait for the server.
const ACCEPTED: usize = 64;

/// How members prove to each other who they are. Both sides must check the other's certificate; the caller says how.
#[derive(Clone)]
pub struct Tls {
    /// For connections to other members.
    pub client: Arc<rustls::ClientConfig>,
    /// For connections of other members.
    pub server: Arc<rustls::ServerConfig>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text cannot be read.
    #[error("the {0} is not a PEM text that can be read")]
    Pem(&'static str, #[source] rustls::pki_types::pem::Error),
    /// The parts do not fit.
    #[error("the certificates of the members' connections cannot be used")]
    Config(#[from] rustls::Error),
    /// The CA cannot check clients.
    #[error("the CA cannot be used to check the members' certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl Tls {
    /// Members whose certificates come from one CA; `certificate` serves both directions and names the member's address.
    pub fn from_pem(ca: &str, certificate: &str, key: &str) -> Result<Self, TlsError> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let certificates = |name, text: &str| -> Result<Vec<CertificateDer<'static>>, TlsError> {
            CertificateDer::pem_slice_iter(text.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|err| TlsError::Pem(name, err))
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates("CA", ca)? {
            roots.add(certificate)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|err| TlsError::Pem("key", err))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            roots.clone(),
            provider.clone(),
        )
        .build()?;
        let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Tls {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A connection, with TLS or without. One that was accepted breaks when the member stops.
pub struct PeerIo {
    io: Pin<Box<dyn Duplex>>,
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    meter: Meter,
}

impl PeerIo {
    fn new(io: impl Duplex + 'static, meter: Meter) -> Self {
        PeerIo {
            io: Box::pin(io),
            stopped: None,
            meter,
        }
    }
}

impl PeerIo {
    fn count_sent(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.meter.sent(*bytes);
        }
    }
}

impl AsyncRead for PeerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(stopped) = &mut self.stopped
            && stopped.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the member stopped",
            )));
        }
        let before = buf.filled().len();
        let read = self.io.as_mut().poll_read(cx, buf);
        self.meter.received(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for PeerIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.io.as_mut().poll_write(cx, buf);
        self.count_sent(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.io.as_mut().poll_write_vectored(cx, bufs);
        self.count_sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl Connected for PeerIo {
    type ConnectInfo = Meter;

    fn connect_info(&self) -> Meter {
        self.meter.clone()
    }
}

/// Connects to `address` (`host:port`).
pub async fn connect(
    address: &str,
    tls: Option<&Tls>,
    limit: Duration,
    meter: Meter,
) -> io::Result<PeerIo> {
    let connecting = async {
        let tcp = TcpStream::connect(address).await?;
        prepare(&tcp)?;
        let Some(tls) = tls else {
            return Ok(PeerIo::new(tcp, meter));
        };
        let host = address
            .rsplit_once(':')
            .map_or(address, |(host, _)| host)
            .trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls.client.clone())
            .connect(name, tcp)
            .await?;
        Ok(PeerIo::new(stream, meter))
    };
    tokio::time::timeout(limit, connecting)
        .await
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{address} did not answer in {limit:?}"),
            ))
        })
}

/// Whether the kernel at `address` says that nobody listens there; silence says nothing.
pub async fn refuses(address: &str, limit: Duration) -> bool {
    let connected = tokio::time::timeout(limit, TcpStream::connect(address)).await;
    matches!(connected, Ok(Err(err)) if err.kind() == io::ErrorKind::ConnectionRefused)
}

/// Accepts connections until the receiver is dropped; a peer that fails its handshake is logged and forgotten.
pub fn accept(
    listener: TcpListener,
    tls: Option<Tls>,
    stop: CancellationToken,
    traffic: Arc<Traffic>,
) -> mpsc::Receiver<io::Result<PeerIo>> {
    let (sender, receiver) = mpsc::channel(ACCEPTED);
    tokio::spawn(async move {
        while let Ok(permit) = sender.clone().reserve_owned().await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((tcp, peer)) => {
                    let (tls, stop) = (tls.clone(), stop.clone());
                    let meter = Meter::unknown(traffic.clone());
                    tokio::spawn(async move {
                        if let Some(mut io) = handshake(tcp, peer, tls, meter).await {
                            io.stopped = Some(Box::pin(stop.cancelled_owned()));
                            permit.send(Ok(io));
                        }
                    });
                }
                // Out of file descriptors or the like: it passes, or the health check tells.
                Err(err) => {
                    tracing::warn!(error = %err, "a member's connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    receiver
}

async fn handshake(
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<Tls>,
    meter: Meter,
) -> Option<PeerIo> {
    let done = async {
        prepare(&tcp)?;
        Ok::<_, io::Error>(match tls {
            None => PeerIo::new(tcp, meter),
            Some(tls) => PeerIo::new(TlsAcceptor::from(tls.server).accept(tcp).await?, meter),
        })
    };
    match tokio::time::timeout(HANDSHAKE_MAX, done).await {
        Ok(Ok(io)) => Some(io),
        Ok(Err(err)) => {
            tracing::warn!(%peer, error = %err, "a connection to the members' port failed its handshake");
            None
        }
        Err(_) => {
            tracing::warn!(%peer, "a connection to the members' port did not finish its handshake in time");
            None
        }
    }
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    tcp.set_nodelay(true)?;
    let unacknowledged_ms = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(tcp, unacknowledged_ms)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_PROBES)?;
    Ok(())
}
