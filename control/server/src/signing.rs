//! Certificate requests: approves those that a node may make for itself, signs what is approved, and forgets what is old. Runs
//! on the master that leads.
//!
//! Signers: Kubernetes' `kube-apiserver-client`, `kube-apiserver-client-kubelet` and `kubelet-serving`, under their rules for
//! subject, names and usages. Requests of other signers are left to them. One rule is ours: a node's serving certificate is
//! approved when it names nothing but the node and the addresses that the cluster knows of it.

use crate::clock;
use crate::pki::{Authority, Requested};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client_auth::{Signer, check};
use futures::StreamExt;
use mvcc::{LeaderState, Store};
use objects::identities::{NODE_USER_PREFIX, NODES_GROUP};
use objects::{GroupVersionKind, Status, Term, Timestamp};
use registry::rbac::Request;
use registry::{
    Caller, DeleteOptions, ListOptions, Patch, PatchKind, Pipeline, Target, WriteOptions,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

mod client_auth;

const NAME: &str = "certificates";
const RETRY: Duration = Duration::from_millis(500);
/// Everything is looked at again this often: for what was missed, and for what is old.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long requests stay, as in Kubernetes: decided ones, pending ones, and those with a certificate.
const DECIDED_KEPT: Duration = Duration::from_secs(3600);
const PENDING_KEPT: Duration = Duration::from_secs(24 * 3600);
/// The longest life of a certificate.
const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Signs while this master leads, until `stop`.
pub async fn run(
    store: Arc<dyn Store>,
    pipeline: Arc<Pipeline>,
    authority: Authority,
    stop: CancellationToken,
) {
    let mut leader = store.leader();
    let mut state = LeaderState::default();
    let signing = Signing {
        pipeline,
        authority,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = leader.next() => match change {
                Some(change) => state = change,
                None => return,
            },
            () = signing.lead(state.term), if state.is_leader => {}
        }
    }
}

struct Signing {
    pipeline: Arc<Pipeline>,
    authority: Authority,
}

/// A request, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Asked {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Progress,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    uid: String,
    creation_timestamp: Timestamp,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    request: String,
    signer_name: String,
    #[serde(default)]
    expiration_seconds: Option<u64>,
    #[serde(default)]
    usages: Vec<String>,
    #[serde(default)]
    username: String,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Progress {
    certificate: String,
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
}

impl Asked {
    fn is(&self, kind: &str) -> bool {
        let mut conditions = self.status.conditions.iter();
        conditions.any(|condition| condition.kind == kind)
    }

    fn life(&self) -> Duration {
        let asked = self.spec.expiration_seconds.map(Duration::from_secs);
        asked.unwrap_or(LIFE_MAX).min(LIFE_MAX)
    }

    /// Whether nobody needs it any more.
    fn is_old(&self, now: Timestamp) -> bool {
        let age = now.since(self.metadata.creation_timestamp);
        let decided = self.is("Approved") || self.is("Denied") || self.is("Failed");
        age > if decided { DECIDED_KEPT } else { PENDING_KEPT }
    }
}

impl Signing {
    /// Works for ever; whoever calls drops it when the term is over.
    async fn lead(&self, term: Term) {
        let caller = Caller::controller(NAME, term);
        loop {
            if let Err(status) = self.follow(&caller).await {
                tracing::warn!(error = %status, "certificate requests are read anew");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Looks at all requests, then at each that changes, for a while.
    async fn follow(&self, caller: &Caller) -> Result<(), Status> {
        let target = self.target(None)?;
        let listed = self.pipeline.list(&target, &ListOptions::default()).await?;
        for item in &listed.items {
            self.look_at(caller, item).await;
        }
        let options = ListOptions {
            resource_version: Some(listed.revision),
            ..ListOptions::default()
        };
        let mut events = self.pipeline.watch(&target, &options).await?;
        let until = tokio::time::sleep(LOOK_EVERY);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return Ok(()),
                event = events.next() => match event {
                    Some(event) => self.look_at(caller, &event?.object).await,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn look_at(&self, caller: &Caller, object: &[u8]) {
        let Ok(asked) = serde_json::from_slice::<Asked>(object) else {
            return; // Validation lets none in that lacks what is read here.
        };
        if let Err(status) = self.work(caller, &asked).await {
            let name = &asked.metadata.name;
            // What is gone or was changed meanwhile is told again.
            match status.code {
                404 | 409 => {
                    tracing::debug!(name, error = %status, "a certificate request changed")
                }
                _ => tracing::warn!(name, error = %status, "a certificate request waits"),
            }
        }
    }

    async fn work(&self, caller: &Caller, asked: &Asked) -> Result<(), Status> {
        if asked.is_old(clock::now()) {
            return self.forget(caller, asked).await;
        }
        let done = !asked.status.certificate.is_empty() || asked.is("Denied") || asked.is("Failed");
        let Some(signer) = Signer::of(&asked.spec.signer_name).filter(|_| !done) else {
            return Ok(());
        };
        let pem = STANDARD.decode(&asked.spec.request).unwrap_or_default();
        let pem = String::from_utf8(pem).unwrap_or_default();
        let requested = Requested::read(&pem)
            .map_err(|error| format!("{error:#}"))
            .and_then(|requested| {
                check(signer, &requested, &asked.spec.usages, &asked.spec.username)?;
                Ok(requested)
            });
        let is_approved = asked.is("Approved");
        match requested {
            Ok(requested) if is_approved => self.sign(caller, asked, signer, &requested).await,
            Ok(requested) => match self.may_approve(signer, asked, &requested).await? {
                true => self.approve(caller, asked).await,
                false => Ok(()),
            },
            Err(why) if is_approved => self.fail(caller, asked, &why).await,
            Err(_) => Ok(()),
        }
    }

    /// Whether nobody need be asked: a node renews its own certificate, or a machine becomes the node that it is allowed to be.
    async fn may_approve(
        &self,
        signer: Signer,
        asked: &Asked,
        requested: &Requested,
    ) -> Result<bool, Status> {
        let requester = Caller {
            user: asked.spec.username.clone(),
            groups: asked.spec.groups.clone(),
            ..Caller::default()
        };
        let is_itself = requester.user == requested.common_name
            && requester.groups.iter().any(|group| group == NODES_GROUP);
        match signer {
            Signer::Client => Ok(false),
            Signer::NodeClient if is_itself => Ok(true),
            Signer::NodeClient => {
                let request = Request {
                    verb: "create",
                    group: "certificates.k8s.io",
                    resource: "certificatesigningrequests",
                    subresource: "nodeclient",
                    ..Request::default()
                };
                Ok(self
                    .pipeline
                    .access()
                    .decide(&requester, &request)
                    .is_allowed())
            }
            Signer::NodeServing if is_itself => self.knows_names(requested).await,
            Signer::NodeServing => Ok(false),
        }
    }

    /// Whether all that the certificate names is the node's, as the cluster knows it.
    async fn knows_names(&self, requested: &Requested) -> Result<bool, Status> {
        let Some(name) = requested.common_name.strip_prefix(NODE_USER_PREFIX) else {
            return Ok(false);
        };
        let kind = GroupVersionKind::new("", "v1", "Node");
        let registry = self.pipeline.registry();
        let row = registry.by_kind(&kind);
        let row = row.ok_or_else(|| Status::internal("there is no kind Node"))?;
        let node = self
            .pipeline
            .get(&Target::object(row, None, name), None)
            .await;
        let node: Value = match node {
            Ok(node) => serde_json::from_slice(&node).map_err(Status::internal)?,
            Err(status) if status.code == 404 => return Ok(false),
            Err(status) => return Err(status),
        };
        let addresses = node.pointer("/status/addresses").and_then(Value::as_array);
        let known: Vec<&str> = addresses
            .into_iter()
            .flatten()
            .filter_map(|address| address.get("address")?.as_str())
            .chain([name])
            .collect();
        Ok(requested
            .alternative_names()
            .iter()
            .all(|wanted| known.contains(&wanted.as_str())))
    }

    async fn approve(&self, caller: &Caller, asked: &Asked) -> Result<(), Status> {
        let message = "Auto approving kubelet certificate: it is the node's own.";
        let condition = json!({
            "type": "Approved", "status": "True", "reason": "AutoApproved", "message": message,
        });
        self.patch(
            caller,
            asked,
            "approval",
            json!({"conditions": [condition]}),
        )
        .await
    }

    async fn sign(
        &self,
        caller: &Caller,
        asked: &Asked,
        signer: Signer,
        requested: &Requested,
    ) -> Result<(), Status> {
        let serves = signer == Signer::NodeServing;
        let certificate = self.authority.sign(requested, serves, asked.life());
        match certificate {
            Ok(pem) => {
                let status = json!({"certificate": STANDARD.encode(pem)});
                self.patch(caller, asked, "status", status).await
            }
            Err(error) => self.fail(caller, asked, &format!("{error:#}")).await,
        }
    }

    async fn fail(&self, caller: &Caller, asked: &Asked, why: &str) -> Result<(), Status> {
        // The conditions that are there stay: a merge patch replaces the list.
        let target = self.target(Some(&asked.metadata.name))?;
        let stored = self.pipeline.get(&target, None).await?;
        let stored: Value = serde_json::from_slice(&stored).map_err(Status::internal)?;
        let known = stored.pointer("/status/conditions").cloned();
        let mut conditions = known.unwrap_or_else(|| json!([]));
        let now = clock::now();
        if let Value::Array(conditions) = &mut conditions {
            conditions.push(json!({
                "type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why,
                "lastUpdateTime": now, "lastTransitionTime": now,
            }));
        }
        self.patch(caller, asked, "status", json!({ "conditions": conditions }))
            .await
    }

    async fn patch(
        &self,
        caller: &Caller,
        asked: &Asked,
        subresource: &str,
        status: Value,
    ) -> Result<(), Status> {
        let target = self
            .target(Some(&asked.metadata.name))?
            .subresource(subresource);
        let patch = Patch {
            kind: PatchKind::Merge,
            value: json!({"metadata": {"uid": asked.metadata.uid}, "status": status}),
        };
        self.pipeline
            .patch(caller, &target, &patch, &WriteOptions::default())
            .await
            .map(drop)
    }

    async fn forget(&self, caller: &Caller, asked: &Asked) -> Result<(), Status> {
        let target = self.target(Some(&asked.metadata.name))?;
        let options = DeleteOptions {
            uid: Some(objects::Uid(asked.metadata.uid.clone())),
            ..DeleteOptions::default()
        };
        self.pipeline
            .delete(caller, &target, &options)
            .await
            .map(drop)
    }

    fn target(&self, name: Option<&str>) -> Result<Target, Status> {
        let kind = GroupVersionKind::new("certificates.k8s.io", "v1", "CertificateSigningRequest");
        let registry = self.pipeline.registry();
        let row = registry.by_kind(&kind);
        let row = row.ok_or_else(|| Status::internal(format_args!("there is no kind {kind:?}")))?;
        Ok(match name {
            Some(name) => Target::object(row, None, name),
            None => Target::collection(row, None),
        })
    }
}
