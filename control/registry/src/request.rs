//! What is asked of the pipeline and what it answers: targets, callers, options, results. Plain data; parsed at the edge.

use crate::{Remarks, ResourceDef};
use bytes::Bytes;
use objects::identities;
use objects::{
    FieldSelector, GroupResource, LabelSelector, ObjectKey, Revision, Status, Term, Timestamp, Uid,
};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// What a request wants to do, as Kubernetes names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are Kubernetes' verbs")]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// The verb in lower case, as discovery and authorisation write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }

    /// Whether it only reads.
    pub fn is_read(self) -> bool {
        matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a request is about.
#[derive(Clone, Debug)]
pub struct Target {
    /// The row of the resource.
    pub resource: Arc<ResourceDef>,
    /// The namespace; None for a cluster-wide kind and for a list over all namespaces.
    pub namespace: Option<String>,
    /// The object's name; None for a collection.
    pub name: Option<String>,
    /// The subresource: `status`, `scale`, `binding`, `finalize`.
    pub subresource: Option<String>,
}

impl Target {
    /// One object.
    pub fn object(resource: &Arc<ResourceDef>, namespace: Option<&str>, name: &str) -> Self {
        Target {
            name: Some(name.to_owned()),
            ..Target::collection(resource, namespace)
        }
    }

    /// All objects of a resource, in one namespace or in all.
    pub fn collection(resource: &Arc<ResourceDef>, namespace: Option<&str>) -> Self {
        Target {
            resource: resource.clone(),
            namespace: namespace.map(str::to_owned),
            name: None,
            subresource: None,
        }
    }

    /// The same object's subresource.
    #[must_use]
    pub fn subresource(mut self, subresource: &str) -> Self {
        self.subresource = Some(subresource.to_owned());
        self
    }

    /// Group and plural.
    pub fn group_resource(&self) -> GroupResource {
        self.resource.group_resource()
    }

    /// The object's key; a 400 when the request names no object.
    pub fn key(&self) -> Result<ObjectKey, Status> {
        let name = self.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(Status::bad_request("name must be provided"));
        }
        let namespace = self
            .namespace
            .as_deref()
            .filter(|_| self.resource.namespaced);
        if self.resource.namespaced && namespace.is_none() {
            return Err(Status::bad_request(
                "an empty namespace may not be set when a resource name is provided",
            ));
        }
        Ok(ObjectKey::new(
            self.resource.storage_resource(),
            namespace,
            name,
        ))
    }

    /// The prefix of the collection's keys in the store.
    pub(crate) fn prefix(&self) -> String {
        let resource = self.resource.storage_resource();
        match self
            .namespace
            .as_deref()
            .filter(|_| self.resource.namespaced)
        {
            Some(namespace) => objects::namespace_prefix(&resource, namespace),
            None => objects::resource_prefix(&resource),
        }
    }

    pub(crate) fn subresource_name(&self) -> &str {
        self.subresource.as_deref().unwrap_or_default()
    }
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user's name.
    pub user: String,
    /// The groups.
    pub groups: Vec<String>,
    /// The identity over time, where the proof tells one.
    pub uid: String,
    /// What else the proof tells of the user.
    pub extra: std::collections::BTreeMap<String, Vec<String>>,
    /// The term under which a controller writes; the store refuses its writes in a later one.
    pub fence: Option<Term>,
}

impl Caller {
    /// A controller of the leader of `term`.
    pub fn controller(name: &str, term: Term) -> Self {
        Caller {
            user: identities::controller_user(name),
            groups: vec![identities::MASTERS_GROUP.to_owned()],
            fence: Some(term),
            ..Caller::default()
        }
    }

    /// The master itself, when it makes what every cluster has.
    pub fn master() -> Self {
        Caller {
            user: identities::MASTER_USER.to_owned(),
            groups: vec![identities::MASTERS_GROUP.to_owned()],
            ..Caller::default()
        }
    }
}

/// Time and ids, given by the binary.
pub trait Shell: Send + Sync + 'static {
    /// The present.
    fn now(&self) -> Timestamp;
    /// A new uid.
    fn uid(&self) -> Uid;
    /// Five letters that end a generated name, out of `bcdfghjklmnpqrstvwxz2456789`.
    fn name_suffix(&self) -> String;
}

/// What `resourceVersion` means in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// That revision and no other.
    Exact,
    /// That revision or a later one.
    NotOlderThan,
}

/// Options of lists and watches.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// By labels.
    pub label_selector: LabelSelector,
    /// By fields.
    pub field_selector: FieldSelector,
    /// At most so many objects in a page; None for all.
    pub limit: Option<usize>,
    /// The token of the page before.
    pub continue_token: Option<String>,
    /// `resourceVersion`; None when unset, 0 for any.
    pub resource_version: Option<Revision>,
    /// `resourceVersionMatch`.
    pub version_match: Option<VersionMatch>,
    /// Whether a watch may send bookmarks.
    pub allow_bookmarks: bool,
    /// `sendInitialEvents` of a watch.
    pub send_initial_events: Option<bool>,
    /// Nobody asks how many objects follow a page, which costs as much as reading all their keys.
    pub is_uncounted: bool,
}

impl ListOptions {
    /// Everything, from the local replica.
    pub fn stale() -> Self {
        ListOptions {
            resource_version: Some(Revision(0)),
            ..ListOptions::default()
        }
    }
}

/// Reads a `resourceVersion` parameter; the empty text is as if it were absent.
pub fn parse_resource_version(text: &str) -> Result<Option<Revision>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = |_| {
        Status::bad_request(format!(
            "Invalid value: {text:?}: resourceVersion must be a whole number, as a list or an object told it"
        ))
    };
    text.parse()
        .map(|number| Some(Revision(number)))
        .map_err(invalid)
}

/// What happens to fields that the schema does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped in silence.
    Ignore,
    /// They are dropped with a warning.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// Options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// `dryRun=All`: do everything but the commit.
    pub dry_run: bool,
    /// Who manages the fields; an apply must say it.
    pub field_manager: Option<String>,
    /// Whether an apply takes what others own.
    pub force: bool,
    /// Why the caller may not create the object, if so: an apply creates what is not there.
    pub create_refused: Option<Status>,
    /// What happens to unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// Members that came twice in the body, as `duplicate field "spec.x"` names them; see [`crate::decode_json`].
    pub duplicate_fields: Vec<String>,
    /// Where admission leaves warnings and notes for the audit log.
    pub remarks: Remarks,
}

/// A patch.
#[derive(Clone, Debug)]
pub struct Patch {
    /// How it is to be read.
    pub kind: PatchKind,
    /// The patch itself.
    pub value: Value,
}

/// The patch formats that Kubernetes knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own: lists merge by key.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// What happens to an object's dependents when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They lose their owner and stay.
    Orphan,
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
}

/// Options of delete and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`.
    pub grace_seconds: Option<i64>,
    /// `propagationPolicy`; None for the kind's default, Background.
    pub propagation: Option<Propagation>,
    /// Delete only this incarnation.
    pub uid: Option<Uid>,
    /// Delete only this revision.
    pub resource_version: Option<Revision>,
    /// `dryRun=All`.
    pub dry_run: bool,
    /// The program that asks, for the object's history.
    pub manager: Option<String>,
    /// Where admission leaves warnings and notes for the audit log.
    pub remarks: Remarks,
}

/// A page of objects.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The revision at which it holds.
    pub revision: Revision,
    /// The token of the next page, if there is one.
    pub continue_token: Option<String>,
    /// How many objects follow, when it is known.
    pub remaining: Option<u64>,
    /// The objects' JSON, revisions in place.
    pub items: Vec<Bytes>,
}

/// What a write answers.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object's JSON, revision in place.
    pub json: Bytes,
    /// Whether it came into being: 201 rather than 200.
    pub created: bool,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}

/// What a delete answers.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object's JSON: as it was, or as it waits for its finalizers or its node.
    Object(Bytes),
    /// A success without the object.
    Status(Status),
}

/// One line of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchEventKind,
    /// The object's JSON, revision in place; for a bookmark only type and metadata.
    pub object: Bytes,
    /// The revision of the change.
    pub revision: Revision,
}

/// What happened to an object, as seen through the watch's selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEventKind {
    /// It came into view.
    Added,
    /// It changed.
    Modified,
    /// It went out of view; the object is its last state with the deletion's revision.
    Deleted,
    /// Nothing: the revision up to which all was told.
    Bookmark,
}

impl WatchEventKind {
    /// The word in the stream.
    pub fn as_str(self) -> &'static str {
        match self {
            WatchEventKind::Added => "ADDED",
            WatchEventKind::Modified => "MODIFIED",
            WatchEventKind::Deleted => "DELETED",
            WatchEventKind::Bookmark => "BOOKMARK",
        }
    }
}
