//! Servers of other groups: API services (apiregistration.k8s.io/v1) whose requests are passed on, with who asks in headers that the
//! cluster's front-proxy certificate vouches for. Rules: kube-aggregator.
//!
//! ```text
//! APIService ──watch──► known services ──► discovery, OpenAPI, passing on   (pass.rs)
//!      ▲                      │
//!      └── Available ── asks each server what it serves                     (check.rs)
//! ```

mod check;
mod connect;
mod pass;

pub use pass::{answer, route_below};

use crate::ApiServer;
use crate::tls::{ClientIdentity, PemBundle, TlsError};
use futures::StreamExt;
use mvcc::{Event, KeyRange, RangeRequest, StoreError, WatchRequest};
use objects::{GroupResource, ObjectKey, resource_prefix};
use registry::aggregation::{ApiService, ApiServices, GROUP, RESOURCE, Served, Told};
use registry::openapi::{Document, Foreign, document_name};
use rustls::ClientConfig;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

const RETRY: Duration = Duration::from_millis(200);

/// What is known of the servers of other groups.
#[derive(Default)]
pub struct Aggregator {
    services: RwLock<Arc<ApiServices>>,
    schemas: RwLock<Arc<Foreign>>,
    identity: RwLock<Option<Arc<ClientIdentity>>>,
    tls: Mutex<HashMap<Served, (registry::aggregation::Remote, Arc<ClientConfig>)>>,
    changed: Notify,
}

impl Aggregator {
    /// The API services.
    pub fn services(&self) -> Arc<ApiServices> {
        self.services
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The schemas that other servers tell.
    pub fn schemas(&self) -> Arc<Foreign> {
        self.schemas
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The service that answers for a path below `/apis/GROUP/VERSION`; None where this server does.
    pub fn behind(&self, path: &str) -> Option<Arc<ApiService>> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        if parts.next()? != "apis" {
            return None;
        }
        let (group, version) = (parts.next()?, parts.next()?);
        self.services().remote(group, version).cloned()
    }

    /// Looks again when what leads to a server changes.
    pub fn see(&self, event: &Event) {
        let services = self.services();
        let mut remotes = services.remotes().filter_map(|it| it.remote.as_ref());
        if remotes.next().is_none() {
            return;
        }
        let Some(key) = ObjectKey::from_store_key(event.key()) else {
            return;
        };
        let leads = matches!(
            key.resource.resource.as_str(),
            "services" | "endpointslices"
        );
        let mut remotes = services.remotes().filter_map(|it| it.remote.as_ref());
        if leads && remotes.any(|remote| key.namespace.as_deref() == Some(&remote.namespace)) {
            self.changed.notify_one();
        }
    }

    fn set(&self, found: Vec<ApiService>) {
        let mut services = self
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let new = ApiServices::new(found, &services);
        let places = |of: &ApiServices| -> Vec<_> {
            of.remotes()
                .map(|it| (it.served(), it.remote.clone()))
                .collect()
        };
        let differs = places(&new) != places(&services);
        *services = Arc::new(new);
        drop(services);
        if differs {
            let services = self.services();
            self.edit_schemas(|schemas| {
                let names = services.remotes();
                let names = names.map(|it| document_name(&it.group, &it.version));
                let names: Vec<String> = names.collect();
                schemas.retain(|name, _| names.contains(name));
            });
            self.changed.notify_one();
        }
    }

    fn tell(&self, service: &ApiService, told: Told) {
        let mut services = self
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let is_known = services
            .remote(&service.group, &service.version)
            .is_some_and(|known| known.remote == service.remote);
        if is_known && services.told(&service.group, &service.version) != Some(&told) {
            Arc::make_mut(&mut services).tell(service.served(), told);
        }
    }

    fn tell_schema(&self, service: &ApiService, document: Document) {
        let name = document_name(&service.group, &service.version);
        self.edit_schemas(|schemas| drop(schemas.insert(name, document)));
    }

    fn edit_schemas(&self, edit: impl FnOnce(&mut Foreign)) {
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        let mut edited = Foreign::clone(&schemas);
        edit(&mut edited);
        if edited != **schemas {
            *schemas = Arc::new(edited);
        }
    }
}

impl ApiServer {
    /// From now on the server proves itself so to the servers of other groups; none is asked before.
    pub fn prove_by(&self, bundle: &PemBundle) -> Result<(), TlsError> {
        let identity = Arc::new(ClientIdentity::read(bundle)?);
        let aggregator = self.aggregator();
        *aggregator
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(identity);
        aggregator
            .tls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        aggregator.changed.notify_one();
        Ok(())
    }
}

/// Keeps what is known of API services, and whether their servers answer, until `stop`.
pub async fn follow(server: ApiServer, stop: CancellationToken) {
    let following = async {
        loop {
            match follow_once(&server).await {
                Ok(()) | Err(StoreError::ShuttingDown) => {}
                Err(error) => warn!(%error, "the API services are read anew"),
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = following => {}
        () = check::keep(&server) => {}
    }
}

async fn follow_once(server: &ApiServer) -> Result<(), StoreError> {
    let store = server.pipeline().store();
    let range = || KeyRange::prefix(resource_prefix(&GroupResource::new(GROUP, RESOURCE)));
    let read = async || {
        let found = store.range(RangeRequest::new(range())).await?;
        let objects = found
            .kvs
            .iter()
            .filter_map(|kv| serde_json::from_slice(&kv.value).ok());
        let services = objects
            .filter_map(|object| ApiService::read(&object))
            .collect();
        server.aggregator().set(services);
        Ok::<_, StoreError>(found.revision)
    };
    let mut revision = read().await?;
    let request = WatchRequest {
        range: range(),
        start: revision.next(),
    };
    let mut batches = store.watch(request).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        if !batch.events.is_empty() && batch.revision > revision {
            revision = read().await?;
        }
    }
    Ok(())
}
