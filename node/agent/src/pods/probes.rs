//! Asks one probe: HTTP, TCP, gRPC, or a command in the container. What the answer means is `lifecycle`'s.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::grpc;
use crate::context::Context;

/// What is read of an answer, for the event.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// Whom a probe asks.
pub struct Asked<'a> {
    /// The pod.
    pub uid: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// As the API has it, for the names of its ports.
    pub container: &'a Container,
    /// The pod's address.
    pub ip: &'a str,
}

/// Asks; the error is what the event says.
pub async fn ask(
    context: &Context,
    asked: &Asked<'_>,
    probe: &Probe,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(exec) = &probe.exec {
        return command(
            context,
            asked,
            exec.command.as_deref().unwrap_or_default(),
            timeout,
        )
        .await;
    }
    let network = async {
        if let Some(get) = &probe.http_get {
            return http_get(asked, get).await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            let host = tcp
                .host
                .as_deref()
                .filter(|host| !host.is_empty())
                .unwrap_or(asked.ip);
            return connect(host, port(&tcp.port, asked.container)?)
                .await
                .map(drop);
        }
        if let Some(grpc) = &probe.grpc {
            let port = u16::try_from(grpc.port)
                .map_err(|_| format!("invalid port number: {}", grpc.port))?;
            let stream = connect(asked.ip, port).await?;
            let authority = authority(asked.ip, port);
            let service = grpc.service.as_deref().unwrap_or_default();
            return grpc::check(stream, &authority, service).await;
        }
        Err("the probe names neither exec, httpGet, tcpSocket nor grpc".to_owned())
    };
    match tokio::time::timeout(timeout, network).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "context deadline exceeded: no answer within {timeout:?}"
        )),
    }
}

/// Runs a command in the container; any exit code but 0 is a failure.
pub async fn command(
    context: &Context,
    asked: &Asked<'_>,
    command: &[String],
    timeout: Duration,
) -> Result<(), String> {
    let captured = context
        .pods
        .exec_capture(asked.uid, asked.id, command, timeout, OUTPUT_BYTES_MAX)
        .await
        .map_err(|error| error.to_string())?;
    if captured.code == 0 {
        return Ok(());
    }
    let output = [captured.stdout, captured.stderr].concat();
    let output = String::from_utf8_lossy(&output).trim().to_owned();
    Err(if output.is_empty() {
        format!("command exited with code {}", captured.code)
    } else {
        output
    })
}

/// `host:port` as a URL writes it.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: connect: {error}"))
}

/// A GET; 200 to 399 is success. Certificates of `HTTPS` are not checked, as Kubernetes documents.
pub async fn http_get(asked: &Asked<'_>, get: &HTTPGetAction) -> Result<(), String> {
    let host = get
        .host
        .as_deref()
        .filter(|host| !host.is_empty())
        .unwrap_or(asked.ip);
    let port = port(&get.port, asked.container)?;
    let stream = connect(host, port).await?;
    let path = get
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let mut request = Request::get(&path)
        .header(http::header::USER_AGENT, "kube-probe/1.35")
        .header(http::header::ACCEPT, "*/*");
    let headers = get.http_headers.iter().flatten();
    let named = headers
        .clone()
        .any(|header| header.name.eq_ignore_ascii_case("host"));
    for header in headers {
        request = request.header(header.name.as_str(), header.value.as_str());
    }
    if !named {
        request = request.header(http::header::HOST, authority(host, port));
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("the probe's request cannot be made: {error}"))?;
    if get.scheme.as_deref() == Some("HTTPS") {
        exchange(crate::tls::connect_unverified(stream, host).await?, request).await
    } else {
        exchange(stream, request).await
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<(), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| format!("Get: {error}"));
    let result = match answer {
        Ok(answer) if (200..400).contains(&answer.status().as_u16()) => {
            // The server should not see its answer cut off.
            let _ = Limited::new(answer.into_body(), OUTPUT_BYTES_MAX)
                .collect()
                .await;
            Ok(())
        }
        Ok(answer) => Err(format!(
            "HTTP probe failed with statuscode: {}",
            answer.status().as_u16()
        )),
        Err(error) => Err(error),
    };
    driver.abort();
    result
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("couldn't find port: {port:?}"))
}
