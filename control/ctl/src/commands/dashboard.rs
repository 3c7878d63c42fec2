//! `ctl dashboard`: a proxy on this machine's loopback that shows the dashboard in any browser, as the kubeconfig's user.
//!
//! Whoever knows the address acts as that user. It holds 128 random bits, is printed only here, and is answered only under the
//! names of loopback and to the page itself: another site's page can neither guess it nor reach it by a name of its own.

use crate::cli::Dashboard;
use crate::context::Context;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use client::Client;
use http::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN, REFERER, REFERRER_POLICY};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once; a page holds about a dozen. Further ones wait.
const CONNECTIONS_MAX: usize = 256;
const HEADERS_DEADLINE: Duration = Duration::from_secs(30);

type Body = BoxBody<Bytes, hyper::Error>;

/// Serves until it is interrupted.
pub async fn run(context: &Context, args: Dashboard) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
        .await
        .with_context(|| {
            let port = args.port;
            format!(
                "cannot listen at 127.0.0.1:{port}; choose another with --port, or leave it out"
            )
        })?;
    let port = listener.local_addr()?.port();
    let proxy = Arc::new(Proxy {
        client: context.client.clone(),
        gate: Gate {
            hosts: [format!("127.0.0.1:{port}"), format!("localhost:{port}")],
            prefix: format!("/{:032x}", rand::random::<u128>()),
        },
    });
    // So that a cluster that cannot be reached is told here and not by an empty page.
    let _: serde_json::Value = context.client.get("/version").await?;
    println!("http://127.0.0.1:{port}{}/dashboard/", proxy.gate.prefix);
    eprintln!(
        "Open this address in a browser on this machine. Whoever knows it acts as you, until Ctrl-C ends this."
    );
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let proxy = Arc::clone(&proxy);
                async move { Ok::<_, Infallible>(proxy.answer(request).await) }
            });
            // That a browser closes its connections is no news.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_DEADLINE)
                .serve_connection(TokioIo::new(tcp), service)
                .with_upgrades()
                .await;
            drop(place);
        });
    }
}

struct Proxy {
    client: Client,
    gate: Gate,
}

/// By what the page's own requests are known.
struct Gate {
    hosts: [String; 2],
    prefix: String,
}

impl Proxy {
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let Some(uri) = self.gate.admit(request.uri(), request.headers()) else {
            return plain(
                StatusCode::FORBIDDEN,
                "This is not the address that ctl dashboard printed; open that one.\n".to_owned(),
            );
        };
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        for name in [ORIGIN, REFERER, COOKIE] {
            headers.remove(name);
        }
        for name in [
            "sec-fetch-site",
            "sec-fetch-mode",
            "sec-fetch-dest",
            "sec-fetch-user",
        ] {
            headers.remove(name);
        }
        let client_side = hyper::upgrade::on(&mut request);
        let mut response = match self.client.relay(request).await {
            Ok(response) => response,
            Err(error) => return plain(StatusCode::BAD_GATEWAY, format!("{error}\n")),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let server_side = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                if let Ok((client, server)) = tokio::try_join!(client_side, server_side) {
                    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                    // That a side leaves is how it ends.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
        let headers = response.headers_mut();
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response.map(BodyExt::boxed)
    }
}

impl Gate {
    /// The path at the master, if this is a request of the page's.
    fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Option<Uri> {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let host = text(HOST)?;
        let is_ours = self.hosts.iter().any(|known| known == host);
        let from = text(ORIGIN);
        let is_from_us = from.is_none_or(|origin| origin.strip_prefix("http://") == Some(host));
        let path = uri.path_and_query()?.as_str().strip_prefix(&self.prefix)?;
        (is_ours && is_from_us && path.starts_with('/')).then(|| path.parse().ok())?
    }
}

fn plain(code: StatusCode, text: String) -> Response<Body> {
    let body = Full::from(text).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_is_let_in() {
        let gate = Gate {
            hosts: ["127.0.0.1:9000".to_owned(), "localhost:9000".to_owned()],
            prefix: "/secret".to_owned(),
        };
        let admitted = |uri: &str, host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().expect("a header"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().expect("a header"));
            }
            let uri = gate.admit(&uri.parse().expect("a path"), &headers)?;
            Some(uri.to_string())
        };
        let ours = "127.0.0.1:9000";
        assert_eq!(
            admitted("/secret/api/v1/pods?watch=1", ours, None).as_deref(),
            Some("/api/v1/pods?watch=1")
        );
        assert!(
            admitted(
                "/secret/api",
                "localhost:9000",
                Some("http://localhost:9000")
            )
            .is_some()
        );
        assert_eq!(admitted("/api/v1/pods", ours, None), None);
        assert_eq!(admitted("/secretly/api", ours, None), None);
        assert_eq!(admitted("/secret/api", "evil.example:9000", None), None);
        assert_eq!(
            admitted("/secret/api", ours, Some("https://evil.example")),
            None
        );
    }
}
