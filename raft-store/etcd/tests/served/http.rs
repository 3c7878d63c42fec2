//! HTTP of both versions on the clients' port, in the clear.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: String,
    pub text: String,
}

/// GETs a path over HTTP/1.1.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, Method::GET, path, Version::HTTP_11).await
}

/// Asks for a path.
pub async fn ask(address: SocketAddr, method: Method, path: &str, version: Version) -> Answer {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let io = TokioIo::new(stream);
    let request = Request::builder()
        .method(method)
        .version(version)
        .header("host", address.to_string());
    let uri = match version {
        Version::HTTP_2 => format!("http://{address}{path}"),
        _ => path.to_owned(),
    };
    let request = request.uri(uri).body(Empty::<Bytes>::new());
    let request = request.expect("a request");
    let response = match version {
        Version::HTTP_2 => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .expect("it speaks HTTP/2");
            tokio::spawn(connection);
            sender.send_request(request).await
        }
        _ => {
            let (mut sender, connection) = http1::handshake(io).await.expect("it speaks HTTP/1.1");
            tokio::spawn(connection);
            sender.send_request(request).await
        }
    };
    read(response.expect("an answer")).await
}

async fn read(response: Response<hyper::body::Incoming>) -> Answer {
    let content_type = response.headers().get("content-type");
    let content_type = content_type.map(|value| value.to_str().expect("text").to_owned());
    let status = response.status();
    let body = response.into_body().collect().await.expect("a whole body");
    Answer {
        status,
        content_type: content_type.unwrap_or_default(),
        text: String::from_utf8(body.to_bytes().to_vec()).expect("text"),
    }
}
