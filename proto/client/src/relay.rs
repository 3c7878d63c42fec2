//! Requests of somebody else's, passed on as they are under our identity: what a local proxy does.
//!
//! Each goes over a connection of its own by HTTP/1.1, so that one that upgrades is no special case. A master that takes no
//! connection is passed over; once a request was sent it is never sent again.

use crate::http::chain;
use crate::socket::connect;
use crate::{Client, Error};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use std::time::Duration;

/// Until the head of the answer: longer than a master takes at most.
const HEAD_DEADLINE: Duration = Duration::from_secs(90);

impl Client {
    /// Sends the request, whose URI is a path with its query, to a master, and gives the answer whatever it is. After a 101 both
    /// messages can be upgraded.
    pub async fn relay<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let what = format!("{} {}", request.method(), request.uri().path());
        let mut failure = None;
        for server in self.servers_in_order() {
            let uri: Uri = match server.parse() {
                Ok(uri) => uri,
                Err(_) => continue,
            };
            let (Some(host), port) = (uri.host(), uri.port_u16().unwrap_or(443)) else {
                continue;
            };
            let bare = host.trim_matches(['[', ']']).to_owned();
            let stream = match connect(self, &server, bare, port).await {
                Ok(stream) => stream,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            self.prefer(&server);
            let interrupted = |reason: String| Error::Interrupted {
                server: server.clone(),
                what: what.clone(),
                reason,
                write: request_writes(&what),
            };
            if let Ok(host) = HeaderValue::from_str(&format!("{host}:{port}")) {
                request.headers_mut().insert(HOST, host);
            }
            let authorization = self.authorization();
            if let Some(value) = authorization.and_then(|text| HeaderValue::from_str(text).ok()) {
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| interrupted(chain(&error)))?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "a relayed connection ended");
                }
            });
            let sent = tokio::time::timeout(HEAD_DEADLINE, sender.send_request(request));
            return match sent.await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) => Err(interrupted(chain(&error))),
                Err(_) => Err(interrupted(format!("no answer within {HEAD_DEADLINE:?}"))),
            };
        }
        Err(failure.unwrap_or_else(|| Error::Unreachable {
            servers: self.servers().join(", "),
            reason: "no server is known".to_owned(),
        }))
    }
}

fn request_writes(what: &str) -> bool {
    !(what.starts_with("GET ") || what.starts_with("HEAD "))
}
