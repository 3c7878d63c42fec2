//! `ctl port-forward`: ports of a pod as ports of this machine, until it is stopped. A connection goes to the pod that was found at
//! the start, through any master: the loss of one ends the connections through it, and new ones go through another.

use super::logs::pod_path;
use crate::cli::PortForward;
use crate::context::Context;
use anyhow::{Context as _, Result, bail};
use client::{Client, ForwardReceiver, ForwardSender};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const CHUNK: usize = 32 << 10;
/// Connections at a time; further ones wait.
const CONNECTIONS_MAX: usize = 256;

pub async fn run(context: &Context, args: PortForward) -> Result<()> {
    let pod = context.pod(&args.target).await?;
    let service = match args.target.split_once('/') {
        Some((kind, name)) => service(context, kind, name).await?,
        None => None,
    };
    let path = pod_path(context, &pod).await?;
    let client = Arc::new(context.client.clone());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut listening = JoinSet::new();
    for text in &args.ports {
        let (local, port) = parse(text, &pod, service.as_ref())?;
        let address = SocketAddr::new(args.address, local);
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; another local port is chosen by LOCAL:PORT")
        })?;
        println!("Forwarding from {} -> {port}", listener.local_addr()?);
        let path = format!("{path}/portforward?ports={port}");
        listening.spawn(serve(listener, client.clone(), path, places.clone()));
    }
    match listening.join_next().await {
        Some(ended) => ended?,
        None => bail!("no port was given"),
    }
}

async fn service(context: &Context, kind: &str, name: &str) -> Result<Option<Value>> {
    let resource = context.resources().await?.one(kind)?;
    if resource.plural != "services" {
        return Ok(None);
    }
    let path = resource.object(&context.namespace, name);
    Ok(Some(context.client.get(&path).await?))
}

/// The local port and the pod's.
fn parse(text: &str, pod: &Value, service: Option<&Value>) -> Result<(u16, u16)> {
    let (local, remote) = match text.split_once(':') {
        Some((local, remote)) => (Some(local), remote),
        None => (None, text),
    };
    let (shown, port) = match service {
        Some(service) => of_service(remote, service, pod)?,
        None => {
            let port = of_pod(remote, pod)?;
            (port, port)
        }
    };
    let local = match local {
        None => shown,
        Some("") => 0,
        Some(local) => local
            .parse()
            .with_context(|| format!("{local:?} in {text:?} is no port"))?,
    };
    Ok((local, port))
}

/// A number, or the name of a port of the pod's containers.
fn of_pod(text: &str, pod: &Value) -> Result<u16> {
    if let Ok(port) = text.parse() {
        return Ok(port);
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|it| it["ports"].as_array().into_iter().flatten());
    let found = ports.find(|port| port["name"] == text);
    found
        .and_then(|port| port["containerPort"].as_u64()?.try_into().ok())
        .with_context(|| format!("the pod has no port {text:?}"))
}

/// A service's port, by number or name, and the pod's port behind it.
fn of_service(text: &str, service: &Value, pod: &Value) -> Result<(u16, u16)> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let number: Option<u16> = text.parse().ok();
    let is_meant =
        |port: &&Value| port["name"] == text || number.is_some_and(|number| port["port"] == number);
    let found = ports.clone().find(is_meant);
    let port = found.with_context(|| format!("the service has no port {text:?}"))?;
    let number: u16 = serde_json::from_value(port["port"].clone())?;
    let target = match &port["targetPort"] {
        Value::String(name) => of_pod(name, pod)?,
        Value::Number(target) => target.to_string().parse()?,
        _ => number,
    };
    Ok((number, target))
}

async fn serve(
    listener: TcpListener,
    client: Arc<Client>,
    path: String,
    places: Arc<Semaphore>,
) -> Result<()> {
    loop {
        let place = places.clone().acquire_owned().await?;
        let (local, _) = listener
            .accept()
            .await
            .context("cannot accept connections")?;
        let (client, path) = (client.clone(), path.clone());
        tokio::spawn(async move {
            if let Err(error) = carry(local, &client, &path).await {
                eprintln!("a connection failed: {error:#}");
            }
            drop(place);
        });
    }
}

async fn carry(mut local: TcpStream, client: &Client, path: &str) -> Result<()> {
    local.set_nodelay(true)?;
    let (sender, receiver) = client.forward(path).await?;
    let (read, write) = local.split();
    let up = send_all(read, sender);
    let down = receive_all(write, receiver);
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => ended,
        ended = &mut up => {
            // It must live on: the connection ends with it.
            let _sender = ended?;
            down.await
        }
    }
}

async fn send_all(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: ForwardSender,
) -> Result<ForwardSender> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await? {
            0 => {
                to.end().await?;
                return Ok(to);
            }
            count => to.send(&buffer[..count]).await?,
        }
    }
}

async fn receive_all(
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut from: ForwardReceiver,
) -> Result<()> {
    while let Some(piece) = from.next().await? {
        match piece {
            Ok(bytes) => to.write_all(&bytes).await?,
            Err(failure) => bail!("{failure}"),
        }
    }
    to.shutdown().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_named_by_number_or_name() {
        let pod =
            json!({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"spec": {"ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"port": 90, "targetPort": 9090}, {"port": 91},
        ]}});
        let of_pod = |text| parse(text, &pod, None).expect(text);
        assert_eq!(of_pod("80"), (80, 80));
        assert_eq!(of_pod("8000:http"), (8000, 8080));
        assert_eq!(of_pod(":80"), (0, 80));
        let of_service = |text| parse(text, &pod, Some(&service)).expect(text);
        assert_eq!(of_service("80"), (80, 8080));
        assert_eq!(of_service("1:web"), (1, 8080));
        assert_eq!(of_service("90"), (90, 9090));
        assert_eq!(of_service("91"), (91, 91));
        assert!(parse("92", &pod, Some(&service)).is_err());
        assert!(parse("x:80", &pod, None).is_err());
        assert!(parse("none", &pod, None).is_err());
    }
}
