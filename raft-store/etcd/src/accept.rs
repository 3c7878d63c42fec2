//! Connections of etcd's clients: TCP, under TLS where that is asked for. A handshake holds nobody else up, and so many may
//! be under way; more wait in the kernel.

use crate::metrics::Telemetry;
use futures::StreamExt;
use futures::stream::{FuturesUnordered, Stream};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 64;
/// How long to wait after the system had no room for another connection.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A connection that is ready for HTTP. Its bytes are counted.
pub struct ClientIo {
    transport: Transport,
    telemetry: Arc<Telemetry>,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The connections of a listener, those that fail left out.
pub fn connections(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    telemetry: Arc<Telemetry>,
) -> impl Stream<Item = io::Result<ClientIo>> {
    let acceptor = tls.map(TlsAcceptor::from);
    let state = (listener, acceptor, telemetry, FuturesUnordered::new());
    futures::stream::unfold(
        state,
        |(listener, acceptor, telemetry, mut handshakes)| async move {
            loop {
                tokio::select! {
                    accepted = listener.accept(), if handshakes.len() < HANDSHAKES => match accepted {
                        Ok((stream, _)) => handshakes.push(handshake(stream, acceptor.clone())),
                        Err(error) => {
                            tracing::warn!(%error, "an etcd client's connection was not accepted");
                            tokio::time::sleep(RETRY_AFTER).await;
                        }
                    },
                    Some(ready) = handshakes.next(), if !handshakes.is_empty() => {
                        if let Some(transport) = ready {
                            let io = ClientIo { transport, telemetry: telemetry.clone() };
                            return Some((Ok(io), (listener, acceptor, telemetry, handshakes)));
                        }
                    }
                }
            }
        },
    )
}

/// Makes a connection ready; None when the client does not belong here or is too slow.
async fn handshake(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> Option<Transport> {
    let from = stream.peer_addr().ok();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(?from, %error, "an etcd client was gone at once");
        return None;
    }
    let Some(acceptor) = acceptor else {
        return Some(Transport::Plain(stream));
    };
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Transport::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::info!(?from, %error, "an etcd client was refused");
            None
        }
        Err(_) => {
            tracing::info!(?from, "an etcd client's handshake took too long");
            None
        }
    }
}

impl ClientIo {
    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            count(&self.telemetry.sent_bytes, *bytes);
        }
        written
    }
}

fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

impl Connected for ClientIo {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = match &mut this.transport {
            Transport::Plain(io) => Pin::new(io).poll_read(context, buf),
            Transport::Tls(io) => Pin::new(io).poll_read(context, buf),
        };
        count(&this.telemetry.received_bytes, buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.transport {
            Transport::Plain(io) => Pin::new(io).poll_write(context, buf),
            Transport::Tls(io) => Pin::new(io).poll_write(context, buf),
        };
        this.sent(written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(io) => Pin::new(io).poll_flush(context),
            Transport::Tls(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(io) => Pin::new(io).poll_shutdown(context),
            Transport::Tls(io) => Pin::new(io).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.transport {
            Transport::Plain(io) => Pin::new(io).poll_write_vectored(context, bufs),
            Transport::Tls(io) => Pin::new(io).poll_write_vectored(context, bufs),
        };
        this.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(io) => io.is_write_vectored(),
            Transport::Tls(io) => io.is_write_vectored(),
        }
    }
}
