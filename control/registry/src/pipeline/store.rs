//! What the pipeline asks of the store, and the store's errors as the API tells them.

use super::Pipeline;
use mvcc::{Consistency, KeyRange, KeyValue, RangeRequest, StoreError};
use objects::{
    GroupResource, Object, ObjectKey, Revision, Status, namespace_prefix, resource_prefix,
};

/// The store's error as an answer.
pub fn status_of(error: StoreError) -> Status {
    match error {
        StoreError::Compacted { requested, oldest } => {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        StoreError::FutureRevision { requested, current } => too_large(requested, current),
        StoreError::Fenced { .. } => {
            Status::failure(409, objects::Reason::Conflict, error.to_string())
        }
        StoreError::TooLarge { .. } => Status::failure(
            413,
            objects::Reason::RequestEntityTooLarge,
            format!("Request entity too large: {error}"),
        ),
        StoreError::NoSpace => {
            Status::failure(507, objects::Reason::InternalError, error.to_string())
        }
        StoreError::SlowWatcher => Status::expired(error.to_string()),
        // The pipeline asks for none of these; whatever did is a mistake of ours.
        StoreError::LeaseNotFound
        | StoreError::LeaseExists
        | StoreError::EmptyKey
        | StoreError::KeyNotFound
        | StoreError::DuplicateKey
        | StoreError::TooManyOps { .. } => Status::internal(error),
        StoreError::Unavailable(_)
        | StoreError::Refused(_)
        | StoreError::Busy
        | StoreError::ShuttingDown => Status::unavailable(error.to_string()),
    }
}

/// 504: the client knows a revision that this server has not seen.
pub fn too_large(requested: Revision, current: Revision) -> Status {
    Status::timeout(format!(
        "Too large resource version: {requested}, current: {current}"
    ))
}

/// How fresh a read must be for `resourceVersion`: unset asks a quorum, anything else is happy with the local replica.
pub fn consistency(resource_version: Option<Revision>) -> Consistency {
    match resource_version {
        None => Consistency::Linearizable,
        Some(_) => Consistency::Stale,
    }
}

/// How often a lost race is run again before the client is told.
pub const TRIES_MAX: usize = 64;

/// How fresh the read of each try of a write must be: first the local replica answers, since the commit compares anyway; what
/// was not committed on its word is asked again of a quorum.
pub fn tries() -> impl Iterator<Item = Consistency> {
    let later = std::iter::repeat_n(Consistency::Linearizable, TRIES_MAX);
    std::iter::once(Consistency::Stale).chain(later)
}

/// What one try of a write came to.
pub enum Try<T> {
    /// It was committed.
    Done(T),
    /// Nothing was committed: this is the answer, if what was read is up to date.
    Seen(Result<T, Status>),
    /// Somebody else was faster.
    Lost,
}

/// An object with the revision of its last change.
pub struct Stored {
    /// The object, its resource version set.
    pub object: Object,
    /// The revision of the last change.
    pub revision: Revision,
    /// The stored bytes.
    pub kv: KeyValue,
}

/// Reads the key's object; None when there is none.
pub async fn read(
    pipeline: &Pipeline,
    key: &ObjectKey,
    consistency: Consistency,
) -> Result<Option<Stored>, Status> {
    let mut request = RangeRequest::new(KeyRange::key(key.to_store_key()));
    request.consistency = consistency;
    let response = pipeline.store.range(request).await.map_err(status_of)?;
    response.kvs.into_iter().next().map(parse).transpose()
}

/// Reads all objects of a resource, in a namespace or of a cluster-wide kind, from the local replica.
pub async fn all(
    pipeline: &Pipeline,
    resource: &GroupResource,
    namespace: Option<&str>,
) -> Result<Vec<Stored>, Status> {
    let prefix = match namespace {
        Some(namespace) => namespace_prefix(resource, namespace),
        None => resource_prefix(resource),
    };
    let mut request = RangeRequest::new(KeyRange::prefix(prefix));
    request.consistency = Consistency::Stale;
    let response = pipeline.store.range(request).await.map_err(status_of)?;
    response.kvs.into_iter().map(parse).collect()
}

/// Reads a stored object.
pub fn parse(kv: KeyValue) -> Result<Stored, Status> {
    let object = Object::from_stored(&kv.value, kv.mod_revision).map_err(|error| {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        Status::internal(format!("the stored object {key} cannot be read: {error}"))
    })?;
    Ok(Stored {
        object,
        revision: kv.mod_revision,
        kv,
    })
}
