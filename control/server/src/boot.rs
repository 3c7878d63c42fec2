//! What every cluster has from its first minute: the namespaces, roles, priority levels and flow schemas that Kubernetes' clients
//! expect, and the service through which pods reach the API. Written by whoever leads, and only where it is missing.

use crate::front::ApiUrls;
use anyhow::Result;
use futures::StreamExt;
use mvcc::{LeaderState, Store};
use objects::{GroupVersionKind, Reason, Status};
use registry::{Caller, Patch, PatchKind, Pipeline, Registry, Target, WriteOptions};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The namespace of what serves the cluster itself.
const SYSTEM_NAMESPACE: &str = "kube-system";
const NETWORKING: &str = "networking.k8s.io";
/// The masters behind the service are looked at this often.
const REFRESH: Duration = Duration::from_secs(10);

/// Keeps the objects while this master leads, until `stop`.
pub async fn run(
    store: Arc<dyn Store>,
    api_urls: ApiUrls,
    pipeline: Arc<Pipeline>,
    registry: Arc<Registry>,
    api_address: String,
    service_cidr: String,
    stop: CancellationToken,
) {
    let boot = Boot {
        api_urls,
        pipeline,
        registry,
        api_address,
        service_cidr,
    };
    let mut leader = store.leader();
    let mut state = LeaderState::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = leader.next() => match change {
                Some(change) => state = change,
                None => return,
            },
            () = boot.keep(), if state.is_leader => {}
        }
    }
}

struct Boot {
    api_urls: ApiUrls,
    pipeline: Arc<Pipeline>,
    registry: Arc<Registry>,
    api_address: String,
    service_cidr: String,
}

impl Boot {
    async fn keep(&self) {
        let mut has_roles = false;
        loop {
            let wait = match self.ensure(&mut has_roles).await {
                Ok(()) => REFRESH,
                Err(error) => {
                    tracing::warn!(%error, "the cluster's first objects could not be written; trying again");
                    Duration::from_millis(500)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// The default roles are looked at once a leadership, as Kubernetes does at its start.
    async fn ensure(&self, has_roles: &mut bool) -> Result<(), Status> {
        for name in NAMESPACES {
            let mut namespace =
                json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
            if name == SYSTEM_NAMESPACE {
                // What serves the nodes themselves runs here: network and storage add-ons, proxies.
                namespace["metadata"]["labels"] =
                    json!({"pod-security.kubernetes.io/enforce": "privileged"});
            }
            self.create("", "Namespace", None, namespace).await?;
        }
        for (name, value) in registry::SYSTEM_PRIORITY_CLASSES {
            let class = json!({
                "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1",
                "metadata": {"name": name}, "value": value,
            });
            self.create("scheduling.k8s.io", "PriorityClass", None, class)
                .await?;
        }
        self.service_network().await?;
        self.create("", "Service", Some("default"), self.service())
            .await?;
        let slice = self.endpoint_slice();
        if !self
            .create(
                "discovery.k8s.io",
                "EndpointSlice",
                Some("default"),
                slice.clone(),
            )
            .await?
        {
            let patch = Patch {
                kind: PatchKind::Merge,
                value: json!({"endpoints": slice["endpoints"], "ports": slice["ports"]}),
            };
            let mut target = self.target("discovery.k8s.io", "EndpointSlice", Some("default"))?;
            target.name = Some("kubernetes".to_owned());
            // Nothing is written where nothing differs.
            self.pipeline
                .patch(&Caller::master(), &target, &patch, &WriteOptions::default())
                .await?;
        }
        if !*has_roles {
            self.pipeline.ensure_default_roles().await?;
            *has_roles = true;
        }
        self.pipeline.ensure_default_flows().await?;
        Ok(())
    }

    /// The network of services' addresses, as an object that says so and is ready.
    async fn service_network(&self) -> Result<(), Status> {
        let network = json!({
            "kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": [self.service_cidr]},
        });
        if !self
            .create(NETWORKING, "ServiceCIDR", None, network)
            .await?
        {
            return Ok(());
        }
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": self.pipeline.shell().now(),
        });
        let patch = Patch {
            kind: PatchKind::Merge,
            value: json!({"status": {"conditions": [ready]}}),
        };
        let target = Target {
            name: Some("kubernetes".to_owned()),
            subresource: Some("status".to_owned()),
            ..self.target(NETWORKING, "ServiceCIDR", None)?
        };
        let options = WriteOptions::default();
        self.pipeline
            .patch(&Caller::master(), &target, &patch, &options)
            .await?;
        Ok(())
    }

    fn service(&self) -> Value {
        json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "clusterIP": self.api_address, "type": "ClusterIP", "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
            },
        })
    }

    /// The masters, of which each answers the API.
    fn endpoint_slice(&self) -> Value {
        let urls = (self.api_urls)();
        let parsed = urls.iter().filter_map(|url| {
            url.trim_start_matches("https://")
                .parse::<std::net::SocketAddr>()
                .ok()
        });
        let (addresses, ports): (Vec<_>, Vec<_>) =
            parsed.map(|address| (address.ip(), address.port())).unzip();
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|address| json!({"addresses": [address.to_string()], "conditions": {"ready": true}}))
            .collect();
        json!({
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "endpoints": endpoints,
            "ports": [{"name": "https", "port": ports.first().copied().unwrap_or(6443), "protocol": "TCP"}],
        })
    }

    /// Creates an object where it is missing; tells whether it was.
    async fn create(
        &self,
        group: &str,
        kind: &str,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<bool, Status> {
        let target = self.target(group, kind, namespace)?;
        // Looked for first: a service that is there already has its address, so that a second one is refused for that.
        let named = Target {
            name: object["metadata"]["name"].as_str().map(str::to_owned),
            ..target.clone()
        };
        match self.pipeline.get(&named, None).await {
            Err(status) if status.is(Reason::NotFound) => {}
            found => return found.map(|_| false),
        }
        match self
            .pipeline
            .create(&Caller::master(), &target, object, &WriteOptions::default())
            .await
        {
            Err(status) if status.is(Reason::AlreadyExists) => Ok(false),
            created => created.map(|_| true),
        }
    }

    fn target(&self, group: &str, kind: &str, namespace: Option<&str>) -> Result<Target, Status> {
        let kind = GroupVersionKind::new(group, "v1", kind);
        let row = self
            .registry
            .by_kind(&kind)
            .ok_or_else(|| Status::internal(format_args!("there is no kind {kind:?}")))?;
        Ok(Target::collection(row, namespace))
    }
}
