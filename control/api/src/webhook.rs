//! Calls of webhooks: one HTTPS request with JSON, one answer with JSON, within a deadline.
//!
//! Where a webhook is, its configuration says: a URL, or a service, of which a ready endpoint is asked directly under the service's
//! name. Who it is, its `caBundle` proves. Shapes: Kubernetes' admissionregistration/v1 `WebhookClientConfig` and
//! apiextensions/v1 `ConversionReview`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use objects::LabelSelector;
use registry::{Converter, ListOptions, Pipeline, Target};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a conversion may take.
const CONVERSION_DEADLINE: Duration = Duration::from_secs(30);
const DIAL_DEADLINE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How many endpoints of a service are tried.
const ENDPOINTS_MAX: usize = 3;

/// Calls webhooks.
#[derive(Clone)]
pub struct Webhooks {
    /// Tells where services are; itself it converts nothing.
    pipeline: Pipeline,
}

/// Where to send a request, and under which name.
struct Place {
    /// Host and port of the connection, in the order in which they are tried.
    dialled: Vec<(String, u16)>,
    /// The name that the certificate must have.
    name: String,
    /// Path and query.
    path: String,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Webhooks {
    /// Webhooks whose services the pipeline knows.
    pub fn new(pipeline: Pipeline) -> Self {
        Webhooks { pipeline }
    }

    /// Posts a body to the webhook that a `clientConfig` names; the error says what went wrong, as Kubernetes tells it.
    pub async fn call(
        &self,
        client: &Value,
        body: &Value,
        deadline: Duration,
    ) -> Result<Value, String> {
        let place = self.place(client).await?;
        let address = format!("https://{}{}", place.name, place.path);
        let told =
            |why: String| format!("Post \"{address}?timeout={}s\": {why}", deadline.as_secs());
        match tokio::time::timeout(deadline, post(client, &place, body)).await {
            Ok(answer) => answer.map_err(|error| told(error.to_string())),
            Err(_) => Err(told("context deadline exceeded".to_owned())),
        }
    }

    async fn place(&self, client: &Value) -> Result<Place, String> {
        if let Some(url) = client["url"].as_str() {
            return of_url(url);
        }
        let service = &client["service"];
        let text = |name: &str| service[name].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let port = service["port"].as_u64().unwrap_or(443);
        Ok(Place {
            dialled: self.endpoints(namespace, name, port).await?,
            name: format!("{name}.{namespace}.svc"),
            path: match text("path") {
                "" => "/".to_owned(),
                path => path.to_owned(),
            },
        })
    }

    /// The ready endpoints of a service's port.
    pub(crate) async fn endpoints(
        &self,
        namespace: &str,
        name: &str,
        port: u64,
    ) -> Result<Vec<(String, u16)>, String> {
        let registry = self.pipeline.registry();
        let row = registry
            .find("", "v1", "services")
            .ok_or("services are not served")?;
        let target = Target::object(row, Some(namespace), name);
        let service = self
            .pipeline
            .get(&target, None)
            .await
            .map_err(|status| status.message)?;
        let service: Value = serde_json::from_slice(&service).map_err(|error| error.to_string())?;
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let own = ports.into_iter().find(|own| own["port"] == port);
        let own =
            own.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
        if service["spec"]["type"] == "ExternalName" {
            let host = service["spec"]["externalName"].as_str().unwrap_or_default();
            return Ok(vec![(host.to_owned(), u16::try_from(port).unwrap_or(443))]);
        }
        let slices = registry
            .find("discovery.k8s.io", "v1", "endpointslices")
            .ok_or("endpoint slices are not served")?;
        let options = ListOptions {
            label_selector: LabelSelector::parse(&format!("kubernetes.io/service-name={name}"))
                .map_err(|error| error.to_string())?,
            ..ListOptions::stale()
        };
        let list = self
            .pipeline
            .list(&Target::collection(slices, Some(namespace)), &options)
            .await;
        let list = list.map_err(|status| status.message)?;
        let mut found = Vec::new();
        for slice in &list.items {
            let slice: Value = serde_json::from_slice(slice).map_err(|error| error.to_string())?;
            found.extend(ready(&slice, own["name"].as_str().unwrap_or_default()));
        }
        match found.is_empty() {
            true => Err(format!("no endpoints available for service {name:?}")),
            false => Ok(found),
        }
    }
}

/// Addresses of ready endpoints with the port of a name.
fn ready(slice: &Value, port_name: &str) -> Vec<(String, u16)> {
    let mut ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports.find(|port| port["name"].as_str().unwrap_or_default() == port_name);
    let port = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
    let Some(port) = port else {
        return Vec::new();
    };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let is_ready = |endpoint: &&Value| endpoint["conditions"]["ready"] != false;
    let addresses = endpoints
        .filter(is_ready)
        .filter_map(|endpoint| endpoint["addresses"][0].as_str());
    addresses
        .map(|address| (address.to_owned(), port))
        .collect()
}

fn of_url(url: &str) -> Result<Place, String> {
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("the webhook's url {url:?} cannot be read: {error}"))?;
    let host = uri
        .host()
        .ok_or_else(|| format!("the webhook's url {url:?} names no host"))?;
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok(Place {
        dialled: vec![(host.clone(), uri.port_u16().unwrap_or(443))],
        name: host,
        path: uri
            .path_and_query()
            .map_or("/".to_owned(), |path| path.as_str().to_owned()),
    })
}

async fn post(client: &Value, place: &Place, body: &Value) -> Result<Value, BoxError> {
    let connector = connector(client["caBundle"].as_str().unwrap_or_default())?;
    let tcp = dial(&place.dialled).await?;
    let name = ServerName::try_from(place.name.clone())?;
    let stream = connector.connect(name, tcp).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(&place.path)
        .header(HOST, &place.name)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    let response = sender.send_request(request).await?;
    let code = response.status();
    let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await?
        .to_bytes();
    connection.abort();
    if code != StatusCode::OK {
        return Err(format!("the webhook answered {code}").into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

pub(crate) async fn dial(places: &[(String, u16)]) -> Result<TcpStream, BoxError> {
    let mut failed: BoxError = "there is no address".into();
    for (host, port) in places.iter().take(ENDPOINTS_MAX) {
        let connect = TcpStream::connect((host.as_str(), *port));
        match tokio::time::timeout(DIAL_DEADLINE, connect).await {
            Ok(Ok(tcp)) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Err(error)) => failed = format!("dial tcp {host}:{port}: {error}").into(),
            Err(_) => failed = format!("dial tcp {host}:{port}: i/o timeout").into(),
        }
    }
    Err(failed)
}

/// TLS that trusts the CA of the configuration and nobody else.
fn connector(ca_bundle: &str) -> Result<TlsConnector, BoxError> {
    let pem = STANDARD.decode(ca_bundle)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err("the webhook's configuration has no caBundle, without which its certificate cannot be verified".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Converter for Webhooks {
    fn convert<'a>(
        &'a self,
        webhook: &'a Value,
        api_version: &'a str,
        objects: Vec<Value>,
    ) -> BoxFuture<'a, Result<Vec<Value>, String>> {
        async move {
            let uid = format!("{:032x}", rand::random::<u128>());
            let versions = webhook["conversionReviewVersions"]
                .as_array()
                .into_iter()
                .flatten();
            let known = |version: &&Value| **version == "v1" || **version == "v1beta1";
            let version = versions
                .into_iter()
                .find(known)
                .and_then(Value::as_str)
                .unwrap_or("v1");
            let review = json!({
                "apiVersion": format!("apiextensions.k8s.io/{version}"),
                "kind": "ConversionReview",
                "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
            });
            let mut answer = self
                .call(&webhook["clientConfig"], &review, CONVERSION_DEADLINE)
                .await?;
            let response = &mut answer["response"];
            if response["uid"] != uid.as_str() {
                return Err("expected response.uid to be that of the request".to_owned());
            }
            if response["result"]["status"] != "Success" {
                let why = response["result"]["message"]
                    .as_str()
                    .unwrap_or("it gave no reason");
                return Err(why.to_owned());
            }
            match response["convertedObjects"].take() {
                Value::Array(objects) => Ok(objects),
                _ => Err("it answered without convertedObjects".to_owned()),
            }
        }
        .boxed()
    }
}
