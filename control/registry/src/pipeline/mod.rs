//! The one way in and out: every read and write of objects, whoever asks, goes through [`Pipeline`].
//!
//! A write is decoded, defaulted, prepared, validated, and committed by compare-and-swap; a lost race is tried again where
//! the client set no precondition. Never speaks HTTP, never checks who asks (see [`crate::authorize`]).

mod admit;
mod binding;
mod body;
mod change;
mod commit;
mod create;
mod delete;
mod fault_list;
mod history;
mod page;
mod read;
mod scale;
mod select;
mod shape;
mod store;
mod views;
mod watch;

use crate::{
    Caller, DeleteOptions, Deleted, List, ListOptions, Patch, Registry, Shell, Target, WatchEvent,
    WriteOptions, Written,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use mvcc::{At, Store};
use objects::cluster::ClusterSettings;
use objects::past::{HistoryStatus, ObjectHistory};
use objects::{Revision, Status};
use serde_json::Value;
use std::sync::Arc;

/// Reads and writes objects; cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    shell: Arc<dyn Shell>,
    settings: Arc<ClusterSettings>,
    views: Arc<views::Views>,
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
            registry,
            shell,
            settings: Arc::new(settings),
            views: Arc::default(),
        }
    }

    /// The table.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The store beneath.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What all masters of the cluster agree on.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
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
        read::get(self, target, resource_version).await
    }

    /// A page of objects.
    pub async fn list(&self, target: &Target, options: &ListOptions) -> Result<List, Status> {
        read::list(self, target, options).await
    }

    /// Changes from a revision on; ends after its first error. Bookmarks come as often as the store tells progress.
    pub async fn watch(
        &self,
        target: &Target,
        options: &ListOptions,
    ) -> Result<BoxStream<'static, Result<WatchEvent, Status>>, Status> {
        watch::watch(self, target, options).await
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

    /// Creates an object, or does what a subresource's POST does (`binding`).
    pub async fn create(
        &self,
        caller: &Caller,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        create::create(self, caller, target, body, options).await
    }

    /// Replaces an object, its `status`, its `scale`, or a namespace's finalizers (`finalize`).
    pub async fn update(
        &self,
        caller: &Caller,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        change::update(self, caller, target, body, options).await
    }

    /// Changes an object, its `status` or its `scale`.
    pub async fn patch(
        &self,
        caller: &Caller,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        change::patch(self, caller, target, patch, options).await
    }

    /// Deletes an object, or begins to.
    pub async fn delete(
        &self,
        caller: &Caller,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        delete::delete(self, caller, target, options).await
    }

    /// Deletes all objects that a list would show, and answers with them.
    pub async fn delete_collection(
        &self,
        caller: &Caller,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<List, Status> {
        delete::delete_collection(self, caller, target, list, options).await
    }
}
