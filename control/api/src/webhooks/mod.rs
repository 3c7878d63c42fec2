//! Calls webhooks: HTTPS to a URL, or to a service of the cluster through its endpoints, with the trust that the configuration
//! gives. Connections are kept for the next call.
//!
//! Bounds: the time that the configuration gives, the bytes of an answer, the connections that wait.

mod conversion;
pub(crate) mod trust;

use crate::ApiServer;
use crate::handler::WeakServer;
use crate::proxy::{Io, dial_service};
use crate::server::keep_alive;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use registry::{WebhookClient, WebhookPlace, Webhooks};
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::error::Error;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The bytes that an answer may have: an object with a patch as long as itself, both in base64.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// The connections that wait for the next call of one webhook.
const IDLE_MAX: usize = 8;
/// The webhooks for which connections wait; beyond, those of all others are closed.
const WEBHOOKS_MAX: usize = 64;
/// How much of a refusal's text is told.
const TEXT_CHARS_MAX: usize = 200;

type Sender = SendRequest<Full<Bytes>>;

/// Calls webhooks over HTTPS.
#[derive(Default)]
pub struct HttpsWebhooks {
    idle: Mutex<HashMap<WebhookClient, Vec<Sender>>>,
    services: OnceLock<WeakServer>,
}

impl HttpsWebhooks {
    /// From now on services of the cluster are reached, the way in which `server` reaches them for its clients.
    pub fn reach_services_by(&self, server: &ApiServer) {
        self.services.get_or_init(|| server.downgrade());
    }

    async fn post(&self, client: &WebhookClient, uri: &Uri, body: Bytes) -> Result<Bytes, String> {
        if let Some(mut sender) = self.take(client)
            && let Ok(answer) = send(&mut sender, uri, body.clone()).await
        {
            self.keep(client, sender);
            return answer;
        }
        // None waited, or it had been closed meanwhile.
        let mut sender = self.connect(client, uri).await?;
        let answer = send(&mut sender, uri, body).await;
        let answer = answer.map_err(|error| told(&error))?;
        self.keep(client, sender);
        answer
    }

    async fn connect(&self, client: &WebhookClient, uri: &Uri) -> Result<Sender, String> {
        let host = uri.host().unwrap_or_default();
        let io: Box<dyn Io> = match &client.place {
            WebhookPlace::Url(_) => {
                let port = uri.port_u16().unwrap_or(443);
                let told = |error: std::io::Error| format!("dial tcp {host}:{port}: {error}");
                let bare = host.trim_matches(['[', ']']);
                let tcp = TcpStream::connect((bare, port)).await.map_err(told)?;
                tcp.set_nodelay(true)
                    .and_then(|()| keep_alive(&tcp))
                    .map_err(told)?;
                Box::new(tcp)
            }
            WebhookPlace::Service {
                namespace,
                name,
                port,
                ..
            } => {
                let server = self.services.get().and_then(WeakServer::upgrade);
                let server = server.ok_or("services of the cluster cannot be reached yet")?;
                let dialed = dial_service(&server, namespace, name, *port).await;
                dialed.map_err(|status| status.message)?
            }
        };
        let name = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let config = trust::config(&client.ca_bundle, None)?;
        let stream = TlsConnector::from(config).connect(name, io).await;
        let stream = stream.map_err(|error| format!("tls: {error}"))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| told(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a webhook ended");
            }
        });
        Ok(sender)
    }

    fn take(&self, client: &WebhookClient) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.get_mut(client)?;
        std::iter::from_fn(|| waiting.pop()).find(|sender| !sender.is_closed())
    }

    fn keep(&self, client: &WebhookClient, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= WEBHOOKS_MAX && !idle.contains_key(client) {
            idle.clear();
        }
        let waiting = idle.entry(client.clone()).or_default();
        if waiting.len() < IDLE_MAX {
            waiting.push(sender);
        }
    }
}

#[async_trait]
impl Webhooks for HttpsWebhooks {
    async fn call(
        &self,
        client: &WebhookClient,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, String> {
        let url = client.url();
        let mark = if url.contains('?') { '&' } else { '?' };
        let asked = format!("{url}{mark}timeout={}s", timeout.as_secs());
        let uri: Uri = asked
            .parse()
            .map_err(|error| format!("{url:?} is no URL: {error}"))?;
        let posted = tokio::time::timeout(timeout, self.post(client, &uri, body)).await;
        match posted {
            Ok(answer) => answer.map_err(|why| format!("Post {asked:?}: {why}")),
            Err(_) => Err(format!("Post {asked:?}: context deadline exceeded")),
        }
    }
}

/// Sends a request and reads the whole answer, so that the connection can be used again. The outer error is the connection's.
async fn send(
    sender: &mut Sender,
    uri: &Uri,
    body: Bytes,
) -> Result<Result<Bytes, String>, hyper::Error> {
    sender.ready().await?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if let Ok(path) = path.parse() {
        *request.uri_mut() = path;
    }
    let headers = request.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(ACCEPT, json.clone());
    headers.insert(CONTENT_TYPE, json);
    headers.insert(USER_AGENT, HeaderValue::from_static("trireme"));
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if let Ok(host) = HeaderValue::from_str(authority) {
        headers.insert(HOST, host);
    }
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
    let body = match body.await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Ok(Err(format!("the answer cannot be read: {error}"))),
    };
    if status == StatusCode::OK {
        return Ok(Ok(body));
    }
    let text: String = String::from_utf8_lossy(&body)
        .trim()
        .chars()
        .take(TEXT_CHARS_MAX)
        .collect();
    Ok(Err(format!("the webhook answered {status}: {text}")))
}

/// An error with its causes.
fn told(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}
