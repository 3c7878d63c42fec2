//! `nodes/NAME/proxy/PATH`: any request to a node's kubelet port, streamed both ways without a bound on size.

use super::pod::{bounded, set_host};
use super::{remove_hop_headers, tunnel};
use crate::ApiServer;
use crate::answer::{Answer, Content};
use crate::body::Upload;
use crate::flow::Place;
use crate::path::ResourcePath;
use crate::query::Query;
use http::Request;
use http::header::{AUTHORIZATION, EXPECT, UPGRADE};
use objects::Status;

/// Passes the request on and the answer back, whatever it is.
pub async fn proxy(
    server: &ApiServer,
    path: &ResourcePath,
    query: &Query,
    mut request: Request<Upload>,
    place: Place,
) -> Result<Answer, Status> {
    // Kubernetes also takes `NAME:PORT`; a node of ours has one port.
    let name = path.name.as_deref().unwrap_or_default();
    let node = server
        .node_address(name.split(':').next().unwrap_or(name))
        .await?;
    let mut uri = format!("/{}", path.tail.as_deref().unwrap_or_default());
    let options = query.encode();
    if !options.is_empty() {
        uri = format!("{uri}?{options}");
    }
    if request.headers().contains_key(UPGRADE) {
        return tunnel::open(
            &node,
            server.node_tls(),
            &uri,
            request,
            place,
            server.draining(),
        )
        .await;
    }
    *request.uri_mut() = uri.parse().map_err(Status::internal)?;
    *request.version_mut() = http::Version::HTTP_11;
    remove_hop_headers(request.headers_mut());
    request.headers_mut().remove(AUTHORIZATION);
    request.headers_mut().remove(EXPECT);
    set_host(&mut request, &node)?;
    let mut sender = node.connect(server.node_tls()).await?;
    // The node may read the whole body before it answers: no deadline but the connection's own.
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| node.unreachable(&error))?;
    let (mut parts, body) = response.into_parts();
    remove_hop_headers(&mut parts.headers);
    Ok(Answer {
        code: parts.status,
        headers: parts.headers,
        content: Content::Stream(bounded(body, None, server, place)),
    })
}
