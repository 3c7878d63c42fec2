//! Listens, checks who asks, and hands each request on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::answer::{self, Body};
use super::query::{Query, segments};
use super::streams::{self, Kind};
use super::{images, logs, metrics, pods, ports, summary};
use crate::context::Context;

/// Connections at one time; further ones wait.
const CONNECTIONS_MAX: usize = 512;
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
const HEADERS_TIME_MAX: Duration = Duration::from_secs(30);
const ADMINISTRATORS: &str = "system:masters";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// A master or an administrator.
    Administrator,
    /// Somebody else with a certificate of the cluster.
    Other,
    /// Nobody that could be named.
    Anonymous,
}

/// Takes the port; an error says who may have it.
pub async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}; is another agent or kubelet running here? --kubelet-port takes another port"))
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, tls: rustls::ServerConfig, context: Arc<Context>) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (acceptor, context) = (acceptor.clone(), context.clone());
                tokio::spawn(async move {
                    connection(stream, &acceptor, context).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the kubelet API");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: &TlsAcceptor, context: Arc<Context>) {
    // Without it, typed characters would be gathered.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return,
    };
    let asker = asker(stream.get_ref().1.peer_certificates());
    let service = service_fn(move |request| {
        let context = context.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&context, asker, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the kubelet API ended");
    }
}

fn asker(certificates: Option<&[CertificateDer<'_>]>) -> Asker {
    let Some(certificate) = certificates.and_then(<[_]>::first) else {
        return Asker::Anonymous;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Asker::Anonymous;
    };
    let is_administrator = certificate
        .subject()
        .iter_organization()
        .any(|group| group.as_str() == Ok(ADMINISTRATORS));
    if is_administrator {
        Asker::Administrator
    } else {
        Asker::Other
    }
}

async fn answer(
    context: &Arc<Context>,
    asker: Asker,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = segments(request.uri().path());
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if path == ["healthz"] {
        return answer::text(StatusCode::OK, "ok");
    }
    match asker {
        Asker::Administrator => {}
        Asker::Other => {
            return answer::text(
                StatusCode::FORBIDDEN,
                "the kubelet API is for the group system:masters",
            );
        }
        Asker::Anonymous => {
            return answer::text(
                StatusCode::UNAUTHORIZED,
                "a client certificate of the cluster is required",
            );
        }
    }
    let query = Query::parse(request.uri().query());
    match (request.method(), path.as_slice()) {
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            logs::read(context, namespace, pod, container, &query)
        }
        (&Method::GET | &Method::POST, ["exec", namespace, pod, container]) => {
            streams::open(context, Kind::Exec, namespace, pod, container, request)
        }
        (&Method::GET | &Method::POST, ["attach", namespace, pod, container]) => {
            streams::open(context, Kind::Attach, namespace, pod, container, request)
        }
        (&Method::GET | &Method::POST, ["portForward", namespace, pod]) => {
            ports::forward(context, namespace, pod, request)
        }
        (&Method::GET, ["connect", namespace, pod, port]) => {
            ports::connect(context, namespace, pod, port, request).await
        }
        (&Method::POST, ["images", "import"]) => images::import(context, request).await,
        (&Method::GET, ["images"]) => images::list(context),
        (&Method::GET, ["stats", "summary"]) => {
            let brief = query.is_set(&["only_cpu_and_memory"]);
            answer::json(&summary::document(context, brief))
        }
        (&Method::GET, ["metrics", "resource"]) => {
            answer::typed(metrics::CONTENT_TYPE, metrics::resource(context))
        }
        (&Method::GET, ["metrics", "cadvisor"]) => {
            answer::typed(metrics::CONTENT_TYPE, metrics::cadvisor(context))
        }
        (&Method::GET, ["metrics", "probes"]) => {
            answer::typed(metrics::CONTENT_TYPE, metrics::probes(context))
        }
        (&Method::GET, ["pods"]) => answer::json(&pods::list(context)),
        _ => answer::text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}
