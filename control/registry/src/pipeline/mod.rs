//! The one way in and out: every read and write of objects, whoever asks, goes through [`Pipeline`].
//!
//! A write is decoded, defaulted, prepared, validated, and committed by compare-and-swap; a lost race is tried again where
//! the client set no precondition. Never speaks HTTP, never checks who asks (see [`crate::authorize`]).

mod admit;
mod apply;
mod binding;
mod body;
mod change;
mod commit;
mod create;
mod defaults;
mod definitions;
mod delete;
mod eviction;
mod fault_list;
mod fields;
mod history;
mod page;
mod priority;
mod read;
mod scale;
mod select;
mod shape;
mod store;
mod versions;
mod views;
mod watch;

pub use admit::Remarks;
pub use versions::Converter;

use crate::policy::Policies;
use crate::{
    Access, Caller, DeleteOptions, Deleted, List, ListOptions, Patch, Registry, Shell, Target,
    WatchEvent, Webhooks, WriteOptions, Written,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use mvcc::{At, Store};
use objects::cluster::ClusterSettings;
use objects::past::{HistoryStatus, ObjectHistory};
use objects::{Revision, Status};
use serde_json::Value;
use std::sync::{Arc, PoisonError, RwLock};

/// Reads and writes objects; cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    store: Arc<dyn Store>,
    registry: Arc<RwLock<Arc<Registry>>>,
    converter: Option<Arc<dyn Converter>>,
    policies: Arc<RwLock<Arc<Policies>>>,
    shell: Arc<dyn Shell>,
    settings: Arc<ClusterSettings>,
    views: Arc<views::Views>,
    access: Arc<Access>,
    webhooks: Option<Arc<dyn Webhooks>>,
}

impl Pipeline {
    /// A pipeline over a store.
    pub fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        shell: Arc<dyn Shell>,
        settings: ClusterSettings,
    ) -> Self {
        Pipeline {
            store,
            registry: Arc::new(RwLock::new(registry)),
            converter: None,
            policies: Arc::default(),
            shell,
            settings: Arc::new(settings),
            views: Arc::default(),
            access: Arc::default(),
            webhooks: None,
        }
    }

    /// Gives it somebody who calls webhooks that turn custom objects of one version into another.
    #[must_use]
    pub fn with_converter(mut self, converter: Arc<dyn Converter>) -> Self {
        self.converter = Some(converter);
        self
    }

    /// Lets webhooks have a word, by whoever calls them. Without it those that may not be passed over refuse every write.
    #[must_use]
    pub fn with_webhooks(self, webhooks: Arc<dyn Webhooks>) -> Self {
        Pipeline {
            webhooks: Some(webhooks),
            ..self
        }
    }

    /// Who calls webhooks.
    pub fn webhooks(&self) -> Option<&Arc<dyn Webhooks>> {
        self.webhooks.as_ref()
    }

    /// The table as it is now: custom kinds come and go.
    pub fn registry(&self) -> Arc<Registry> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.clone()
    }

    /// Keeps the admission policies as the store has them, until the store's events end; every master runs it as
    /// [`Pipeline::follow_definitions`].
    pub async fn follow_policies(&self) -> Status {
        definitions::follow_policies(self).await
    }

    /// Keeps the rows of custom kinds as their definitions in the store say, until the store's events end. Every master runs it;
    /// whoever does begins it anew when it ends.
    pub async fn follow_definitions(&self) -> Status {
        definitions::follow(self).await
    }

    /// The store beneath.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What all masters of the cluster agree on.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// Who may do what. Empty until somebody feeds it what the store holds.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Time and ids.
    pub fn shell(&self) -> &Arc<dyn Shell> {
        &self.shell
    }

    /// The JSON of an object or of its `scale`; `resource_version` 0 reads the local replica.
    pub async fn get(
        &self,
        target: &Target,
        resource_version: Option<Revision>,
    ) -> Result<Bytes, Status> {
        let json = read::get(self, target, resource_version).await?;
        versions::shown(self, target, json).await
    }

    /// A page of objects.
    pub async fn list(&self, target: &Target, options: &ListOptions) -> Result<List, Status> {
        let list = read::list(self, target, options).await?;
        versions::shown_list(self, target, list).await
    }

    /// Changes from a revision on; ends after its first error. Bookmarks come as often as the store tells progress.
    pub async fn watch(
        &self,
        target: &Target,
        options: &ListOptions,
    ) -> Result<BoxStream<'static, Result<WatchEvent, Status>>, Status> {
        let events = watch::watch(self, target, options).await?;
        Ok(versions::shown_events(self, target, events))
    }

    /// How many versions of objects were encoded for watchers: one a change, however many watch.
    pub fn watch_encodings(&self) -> u64 {
        self.views.encoded()
    }

    /// The versions of an object, the newest first, with who made them: those before a revision, at most so many.
    pub async fn versions(
        &self,
        target: &Target,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<ObjectHistory, Status> {
        history::versions(self, target, before, limit).await
    }

    /// What of the past is kept, and the revision of a point in it; 410 for one that is forgotten.
    pub async fn past(&self, at: Option<At>) -> Result<HistoryStatus, Status> {
        history::past(self, at).await
    }

    /// Creates the roles and bindings that every cluster has, and gives back to them what they lost. Their namespaces exist.
    pub async fn ensure_default_roles(&self) -> Result<(), Status> {
        defaults::ensure_roles(self).await
    }

    /// Creates the priority levels and flow schemas that every cluster has, and puts back what may not be changed.
    pub async fn ensure_default_flows(&self) -> Result<(), Status> {
        defaults::ensure_flows(self).await
    }

    /// Brings a body into the form of what the target names, as a write would; answers with warnings. Nothing is stored.
    pub fn accept(
        &self,
        target: &Target,
        value: &mut Value,
        options: &WriteOptions,
    ) -> Result<Vec<String>, Status> {
        match target.subresource {
            Some(_) => body::conform_subresource(self, target, value, options),
            None => body::conform_own(self, target, value, options),
        }
    }

    /// Creates an object, or does what a subresource's POST does (`binding`, `eviction`).
    pub async fn create(
        &self,
        caller: &Caller,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let mut written = create::create(self, caller, target, body, options).await?;
        written.warnings.extend(options.remarks.warnings());
        versions::shown_write(self, target, written).await
    }

    /// Replaces an object, its `status`, its `scale`, a namespace's finalizers (`finalize`), or of a pod the
    /// `ephemeralcontainers` or the resources (`resize`).
    pub async fn update(
        &self,
        caller: &Caller,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let mut written = change::update(self, caller, target, body, options).await?;
        written.warnings.extend(options.remarks.warnings());
        versions::shown_write(self, target, written).await
    }

    /// Changes an object, its `status` or its `scale`.
    pub async fn patch(
        &self,
        caller: &Caller,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let mut written = change::patch(self, caller, target, patch, options).await?;
        written.warnings.extend(options.remarks.warnings());
        versions::shown_write(self, target, written).await
    }

    /// Asks admission about something that is opened to the target's object through a subresource, with options of the
    /// subresource's kind; `remarks` takes what it says beside.
    pub async fn admit_connection(
        &self,
        caller: &Caller,
        target: &Target,
        options: serde_json::Map<String, Value>,
        remarks: Remarks,
    ) -> Result<(), Status> {
        let kind = target.resource.subresource(target.subresource_name());
        let shown = objects::Object {
            types: kind.map(|part| part.kind.clone()).unwrap_or_default(),
            body: options,
            ..objects::Object::default()
        };
        let options = WriteOptions {
            remarks,
            ..WriteOptions::default()
        };
        let attributes = admit::Attributes {
            caller,
            target,
            operation: admit::Operation::Connect,
            old: None,
            options: admit::Options::Write(&options),
        };
        admit::connect(self, &attributes, &shown).await
    }

    /// Deletes an object, or begins to.
    pub async fn delete(
        &self,
        caller: &Caller,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        match delete::delete(self, caller, target, options).await? {
            Deleted::Object(json) => {
                let json = versions::shown(self, target, json).await?;
                Ok(Deleted::Object(json))
            }
            status => Ok(status),
        }
    }

    /// Deletes all objects that a list would show, and answers with them.
    pub async fn delete_collection(
        &self,
        caller: &Caller,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<List, Status> {
        let deleted = delete::delete_collection(self, caller, target, list, options).await?;
        versions::shown_list(self, target, deleted).await
    }
}
