//! `/portForward` and `/connect`: connections to the ports of a pod.
//!
//! Both are made within the pod's network namespace, so that they reach what listens on its loopback address alone and need no
//! route; those of a pod on the host's network are made on the host's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use network::netns;
use node_runtime::PodStatus;
use streams::forward::{self, Connect, Socket};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::answer::{self, Body};
use super::pods;
use super::query::Query;
use crate::context::Context;

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// What a connection to a pod is, as the upgrade names it.
const TCP: &str = "tcp";

/// `/portForward/NAMESPACE/POD`: upgrades the connection; the streams go on beside.
pub fn forward(
    context: &Context,
    namespace: &str,
    name: &str,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let Some(pod) = pods::find(context, namespace, name) else {
        return absent(name);
    };
    let query = Query::parse(request.uri().query());
    let named = [query.all("port"), query.all("ports")].concat();
    let connect = connector(&pod);
    let accepted = forward::parse_ports(named.iter().map(String::as_str))
        .and_then(|ports| forward::accept(&mut request, &ports, connect));
    let (response, forwarding) = match accepted {
        Ok(accepted) => accepted,
        Err(rejected) => return answer::text(rejected.status, rejected.message),
    };
    tokio::spawn(async move {
        if let Err(error) = forwarding.await {
            tracing::debug!(%error, "a client's ports are forwarded no more");
        }
    });
    response.map(|empty| empty.map_err(|never| match never {}).boxed_unsync())
}

/// `/connect/NAMESPACE/POD/PORT?address=IP`: a plain connection to the pod's address, by which masters reach pods without a
/// route of their own. An endpoint that kubelets of other makes have not.
pub async fn connect(
    context: &Context,
    namespace: &str,
    name: &str,
    port: &str,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let Some(pod) = pods::find(context, namespace, name) else {
        return absent(name);
    };
    let query = Query::parse(request.uri().query());
    let asked = query
        .get("address")
        .and_then(|address| address.parse().ok());
    let (Some(address), Ok(port)) = (asked, port.parse()) else {
        let message = "the path must end with a port, and the query must hold the pod's address";
        return answer::text(StatusCode::BAD_REQUEST, message);
    };
    let target = SocketAddr::new(address, port);
    let socket = match dial(pod.spec.netns.clone(), vec![target]).await {
        Ok(socket) => socket,
        Err(message) => return answer::text(StatusCode::SERVICE_UNAVAILABLE, message),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move { join(upgrade, socket).await });
    let mut response = Response::new(answer::whole(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(TCP));
    response
}

/// Bytes both ways until both sides have closed; keep-alive finds a master that is gone.
async fn join(upgrade: hyper::upgrade::OnUpgrade, mut socket: TcpStream) {
    match upgrade.await {
        Ok(master) => {
            if let Err(error) = copy_bidirectional(&mut TokioIo::new(master), &mut socket).await {
                tracing::debug!(%error, "a master's connection to a pod ended");
            }
        }
        Err(error) => tracing::debug!(%error, "a connection to a pod was not taken over"),
    }
}

fn absent(name: &str) -> Response<Body> {
    answer::text(
        StatusCode::NOT_FOUND,
        format!("pod {name:?} does not run on this node"),
    )
}

/// How the ports of a pod are reached: what `localhost` is there.
fn connector(pod: &PodStatus) -> Connect {
    let (netns, name, uid) = (
        pod.spec.netns.clone(),
        pod.spec.name.clone(),
        pod.spec.uid.clone(),
    );
    Arc::new(move |port| {
        let netns = netns.clone();
        let (name, uid) = (name.clone(), uid.clone());
        Box::pin(async move {
            let targets = [
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]
            .map(|address| SocketAddr::new(address, port));
            match dial(netns, targets.to_vec()).await {
                Ok(socket) => Ok(Box::new(socket) as Box<dyn Socket>),
                Err(why) => Err(format!(
                    "error forwarding port {port} to pod {name}, uid {uid}: {why}"
                )),
            }
        })
    })
}

/// Connects to the first target that answers, in a network namespace or on the host's network; the error is of the first.
async fn dial(netns: Option<PathBuf>, targets: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let connected = tokio::task::spawn_blocking(move || match netns {
        Some(path) => {
            netns::inside(&path, || dial_first(&targets)).map_err(|error| error.to_string())?
        }
        None => dial_first(&targets),
    });
    let socket = connected.await.map_err(|error| error.to_string())??;
    let prepared = socket
        .set_nonblocking(true)
        .and_then(|()| socket.set_nodelay(true))
        .and_then(|()| TcpStream::from_std(socket));
    prepared.map_err(|error| error.to_string())
}

fn dial_first(targets: &[SocketAddr]) -> Result<std::net::TcpStream, String> {
    let mut first = None;
    for target in targets {
        match std::net::TcpStream::connect_timeout(target, CONNECT_DEADLINE) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                first.get_or_insert_with(|| format!("dial tcp {target}: connect: {error}"));
            }
        }
    }
    Err(first.unwrap_or_else(|| "there is no address to connect to".to_owned()))
}
