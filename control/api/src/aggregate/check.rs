//! Whether the servers behind API services answer: each is asked what it serves, of which discovery and schemas follow, and the
//! master that leads writes the condition `Available`. Reasons and words: kube-aggregator's availability controller.

use super::connect::{Unconnected, connect};
use super::pass::{SELF_GROUP, SELF_USER, identify};
use crate::ApiServer;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::header::{ACCEPT, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use objects::{Reason, Status};
use registry::aggregation::{ApiService, GROUP, RESOURCE, Told};
use registry::openapi::{Document, document_name};
use registry::{Caller, Patch, PatchKind, Target, WriteOptions};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tracing::{debug, warn};

/// Servers that answer are asked again after so long, others sooner.
const AGAIN: Duration = Duration::from_secs(30);
const AGAIN_SOON: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(5);
/// Changes that come together make one round.
const PAUSE: Duration = Duration::from_millis(200);
/// Servers that are asked at once.
const AT_ONCE: usize = 8;
/// The bytes of a list of resources, or of a schema.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// What a condition says beside its status.
struct Verdict {
    is_available: bool,
    reason: &'static str,
    message: String,
}

/// Asks all servers, again and again.
pub async fn keep(server: &ApiServer) {
    // The address of the schema that was read last, which holds its hash.
    let mut schemas = HashMap::new();
    loop {
        let services = server.aggregator().services();
        let remotes: Vec<_> = services.remotes().cloned().collect();
        let asked = remotes.into_iter().map(async |service| {
            let verdict = ask(server, &service).await;
            (service, verdict)
        });
        let mut asked = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        let mut wait = AGAIN;
        while let Some((service, verdict)) = asked.next().await {
            let is_available = verdict.is_available;
            if !is_available {
                wait = AGAIN_SOON;
            } else if let Err(why) = read_schema(server, &service, &mut schemas).await {
                debug!(service = service.name, why, "the server tells no schema");
            }
            if leads(server)
                && let Err(status) = write(server, &service, verdict).await
            {
                warn!(service = service.name, error = %status.message, "an API service's condition could not be written");
                wait = AGAIN_SOON;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = server.aggregator().changed.notified() => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn leads(server: &ApiServer) -> bool {
    let state = server.pipeline().store().leader().next().now_or_never();
    state.flatten().unwrap_or_default().is_leader
}

/// Asks a server what it serves.
async fn ask(server: &ApiServer, service: &ApiService) -> Verdict {
    let path = format!("/apis/{}/{}", service.group, service.version);
    let url = format!(
        "https://{}{path}",
        service.remote.clone().unwrap_or_default().host()
    );
    let failed = |reason, message| Verdict {
        is_available: false,
        reason,
        message,
    };
    let verdict = match fetch(server, service, &path).await {
        Err(Unconnected::Unplaced(none)) => failed(none.reason, none.told),
        Err(Unconnected::Silent(why)) => failed(
            "FailedDiscoveryCheck",
            format!("failing or missing response from {url}: {why}"),
        ),
        Ok((code, _)) if !code.is_success() => failed(
            "FailedDiscoveryCheck",
            format!(
                "failing or missing response from {url}: bad status from {url}: {}",
                code.as_u16()
            ),
        ),
        Ok((_, body)) => {
            let list: Value = serde_json::from_slice(&body).unwrap_or_default();
            let resources = list["resources"].as_array().cloned().unwrap_or_default();
            server.aggregator().tell(
                service,
                Told {
                    resources,
                    is_current: true,
                },
            );
            return Verdict {
                is_available: true,
                reason: "Passed",
                message: "all checks passed".to_owned(),
            };
        }
    };
    let services = server.aggregator().services();
    if let Some(told) = services.told(&service.group, &service.version) {
        let stale = Told {
            is_current: false,
            ..told.clone()
        };
        server.aggregator().tell(service, stale);
    }
    verdict
}

/// Reads the schema of a server's group and version, unless it is known already.
async fn read_schema(
    server: &ApiServer,
    service: &ApiService,
    known: &mut HashMap<String, String>,
) -> Result<(), String> {
    let index = fetch_ok(server, service, "/openapi/v3").await?;
    let index: Value = serde_json::from_slice(&index).map_err(|error| error.to_string())?;
    let name = document_name(&service.group, &service.version);
    let address = index["paths"][&name]["serverRelativeURL"].as_str();
    let address = address.ok_or("its index does not name the version")?;
    let id = format!("{:?}", service.remote);
    if known.get(&id).is_some_and(|it| it == address)
        && server.aggregator().schemas().contains_key(&name)
    {
        return Ok(());
    }
    let document = fetch_ok(server, service, address).await?;
    let document = Document::foreign(document).ok_or("its schema is no JSON")?;
    server.aggregator().tell_schema(service, document);
    known.insert(id, address.to_owned());
    Ok(())
}

async fn fetch_ok(server: &ApiServer, service: &ApiService, path: &str) -> Result<Bytes, String> {
    match fetch(server, service, path).await {
        Ok((StatusCode::OK, body)) => Ok(body),
        Ok((code, _)) => Err(format!("{path} is answered with {code}")),
        Err(Unconnected::Silent(why)) => Err(why),
        Err(Unconnected::Unplaced(none)) => Err(none.told),
    }
}

/// Asks a server in the name of this one.
async fn fetch(
    server: &ApiServer,
    service: &ApiService,
    path: &str,
) -> Result<(StatusCode, Bytes), Unconnected> {
    let told = |error: &dyn std::fmt::Display| Unconnected::Silent(error.to_string());
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().map_err(|error| told(&error))?;
    let host = service.remote.clone().unwrap_or_default().host();
    let host = HeaderValue::from_str(&host).map_err(|error| told(&error))?;
    request.headers_mut().insert(HOST, host);
    request
        .headers_mut()
        .insert(ACCEPT, HeaderValue::from_static("application/json"));
    let own = Caller {
        user: SELF_USER.to_owned(),
        groups: vec![SELF_GROUP.to_owned()],
        ..Caller::default()
    };
    identify(request.headers_mut(), &own).map_err(|error| told(&error.message))?;
    let (mut sender, _) = connect(server, service).await?;
    let asked = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| told(&error))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        Ok((code, body.map_err(|error| told(&error))?.to_bytes()))
    };
    let asked = tokio::time::timeout(DEADLINE, asked).await;
    asked.unwrap_or_else(|_| Err(told(&"context deadline exceeded")))
}

/// Writes the condition where it does not say so already.
async fn write(server: &ApiServer, service: &ApiService, verdict: Verdict) -> Result<(), Status> {
    let pipeline = server.pipeline();
    let registry = pipeline.registry();
    let row = registry.find(GROUP, "v1", RESOURCE);
    let row = row.ok_or_else(crate::cluster::not_found)?;
    let target = Target::object(row, None, &service.name);
    let found = match pipeline.get(&target, None).await {
        Err(status) if status.is(Reason::NotFound) => return Ok(()),
        found => found?,
    };
    let object: Value = serde_json::from_slice(&found).map_err(Status::internal)?;
    if ApiService::read(&object).is_none_or(|now| now.remote != service.remote) {
        return Ok(()); // It was changed meanwhile, and is asked anew.
    }
    let Verdict {
        is_available,
        reason,
        message,
    } = verdict;
    let status = if is_available { "True" } else { "False" };
    let mut conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let known = conditions
        .iter()
        .position(|condition| condition["type"] == "Available");
    let known = known.map(|at| conditions.remove(at)).unwrap_or_default();
    if known["status"] == status && known["reason"] == reason && known["message"] == *message {
        return Ok(());
    }
    let since = match known["status"] == status {
        true => known["lastTransitionTime"].clone(),
        false => json!(pipeline.shell().now()),
    };
    conditions.push(json!({
        "type": "Available", "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
    }));
    let patch = Patch {
        kind: PatchKind::Merge,
        value: json!({
            "metadata": {"resourceVersion": object["metadata"]["resourceVersion"]},
            "status": {"conditions": conditions},
        }),
    };
    let target = Target {
        subresource: Some("status".to_owned()),
        ..target
    };
    let options = WriteOptions::default();
    pipeline
        .patch(&Caller::master(), &target, &patch, &options)
        .await?;
    Ok(())
}
