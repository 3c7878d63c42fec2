//! Get and list: bytes out of the store, revisions spliced in, selectors applied. Semantics: Kubernetes' API concepts,
//! "resource versions" and "retrieving large results sets in chunks".

use super::page::Position;
use super::select::Selection;
use super::store::{consistency, status_of, too_large};
use super::{Pipeline, history, scale, versions};
use crate::{List, ListOptions, Target, VersionMatch};
use bytes::Bytes;
use mvcc::{Consistency, KeyRange, KeyRangeEnd, KeyValue, RangeRequest, RangeResponse, StoreError};
use objects::{Cause, Revision, Status, splice_revision};

/// As many keys as one read of a filtered page asks for, when the read before did not fill it.
const CHUNK_KEYS: usize = 500;

/// An object's JSON.
pub async fn get(
    pipeline: &Pipeline,
    target: &Target,
    resource_version: Option<Revision>,
) -> Result<Bytes, Status> {
    let key = target.key()?;
    let request = RangeRequest::new(KeyRange::key(key.to_store_key()));
    let response = read_not_older(pipeline, request, resource_version).await;
    let kv = response
        .map_err(ReadError::into_status)?
        .kvs
        .into_iter()
        .next();
    let kv = kv.ok_or_else(|| Status::not_found(&key.resource, &key.name))?;
    if target.subresource_name() == "scale" {
        let stored = versions::of_request(pipeline, target, super::store::parse(kv)?).await?;
        return Ok(scale::of_object(target, &stored.object).to_string().into());
    }
    Ok(splice_revision(&kv.value, kv.mod_revision))
}

/// A page of objects.
pub async fn list(
    pipeline: &Pipeline,
    target: &Target,
    options: &ListOptions,
) -> Result<List, Status> {
    if options.send_initial_events.is_some() {
        return Err(invalid_option(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        ));
    }
    check_version_match(options)?;
    let selection = Selection::new(target, options)?;
    let prefix = target.prefix();
    let mut cursor = Cursor::new(target, options, &selection, &prefix)?;
    let mut list = List::default();
    let limit = options.limit.unwrap_or(usize::MAX).max(1);
    loop {
        let wanted = limit - list.items.len();
        let read = cursor.read(pipeline, options, wanted, &selection).await;
        let response = match read {
            Err(status) if status.code == 410 && !cursor.continued => {
                return Err(history::told_since_when(pipeline, status).await);
            }
            read => read?,
        };
        list.revision = cursor.revision(&response);
        let taken = take_page(&mut list, &response.kvs, &selection, limit);
        let left = response.more || taken < response.kvs.len();
        let last = taken
            .checked_sub(1)
            .and_then(|index| response.kvs.get(index));
        let Some(last) = last.filter(|_| left) else {
            return Ok(list);
        };
        cursor.advance(last, list.revision, &prefix);
        if list.items.len() >= limit {
            list.continue_token = Some(cursor.position().encode());
            let rest = response.count.saturating_sub(taken as u64);
            let is_known = selection.takes_all() && !options.is_uncounted;
            list.remaining = is_known.then_some(rest);
            return Ok(list);
        }
    }
}

/// Adds what matches until the page is full; says how many keys were looked at.
fn take_page(list: &mut List, kvs: &[KeyValue], selection: &Selection, limit: usize) -> usize {
    for (index, kv) in kvs.iter().enumerate() {
        if list.items.len() >= limit {
            return index;
        }
        if selection.matches(&kv.value) {
            list.items.push(splice_revision(&kv.value, kv.mod_revision));
        }
    }
    kvs.len()
}

/// Where a list stands.
struct Cursor {
    range: KeyRange,
    at: Option<Revision>,
    after: Option<String>,
    continued: bool,
    /// Whether a read for this page was made.
    looked: bool,
}

impl Cursor {
    fn new(
        target: &Target,
        options: &ListOptions,
        selection: &Selection,
        prefix: &str,
    ) -> Result<Self, Status> {
        let scoped = target.namespace.is_some() || !target.resource.namespaced;
        let one_key = selection
            .only_name()
            .filter(|name| scoped && !name.contains('/'));
        let mut range = match one_key {
            Some(name) => KeyRange::key(format!("{prefix}{name}")),
            None => KeyRange::prefix(prefix.to_owned()),
        };
        let Some(token) = &options.continue_token else {
            return Ok(Cursor {
                range,
                at: exact_revision(options),
                after: None,
                continued: false,
                looked: false,
            });
        };
        let position = Position::decode(token)?;
        if range.end != KeyRangeEnd::Single {
            range.start = format!("{prefix}{}\0", position.after).into();
        }
        Ok(Cursor {
            range,
            at: position.revision,
            after: Some(position.after),
            continued: true,
            looked: false,
        })
    }

    async fn read(
        &self,
        pipeline: &Pipeline,
        options: &ListOptions,
        wanted: usize,
        selection: &Selection,
    ) -> Result<RangeResponse, Status> {
        let request = RangeRequest {
            revision: self.at,
            // What matches is often all, so that a page's first read asks for no more than the page.
            limit: options.limit.map(|_| match self.looked {
                true => wanted.max(CHUNK_KEYS),
                false => wanted,
            }),
            is_uncounted: options.is_uncounted || !selection.takes_all(),
            ..RangeRequest::new(self.range.clone())
        };
        let fresh_enough = if self.continued {
            self.at
        } else {
            options.resource_version
        };
        read_not_older(pipeline, request, fresh_enough)
            .await
            .map_err(|error| match error {
                ReadError::Store(StoreError::Compacted { .. }) if self.continued => {
                    self.position().expired()
                }
                ReadError::Store(error) => status_of(error),
                ReadError::Behind(status) => status,
            })
    }

    /// The revision at which the page holds.
    fn revision(&self, response: &RangeResponse) -> Revision {
        self.at.unwrap_or(response.revision)
    }

    fn advance(&mut self, last: &KeyValue, revision: Revision, prefix: &str) {
        let after = String::from_utf8_lossy(&last.key[prefix.len()..]).into_owned();
        self.range.start = format!("{prefix}{after}\0").into();
        self.after = Some(after);
        self.at = Some(revision);
        self.continued = true;
        self.looked = true;
    }

    fn position(&self) -> Position {
        Position {
            revision: self.at,
            after: self.after.clone().unwrap_or_default(),
        }
    }
}

/// The revision that a list must show, when it must be one.
fn exact_revision(options: &ListOptions) -> Option<Revision> {
    let revision = options.resource_version.filter(|revision| revision.0 > 0)?;
    match options.version_match {
        Some(VersionMatch::Exact) => Some(revision),
        Some(VersionMatch::NotOlderThan) => None,
        None => options.limit.map(|_| revision), // As Kubernetes pages without a match.
    }
}

/// Why a read did not answer.
pub enum ReadError {
    /// The store refused.
    Store(StoreError),
    /// The store has not seen the revision that the client knows.
    Behind(Status),
}

impl ReadError {
    /// The error as an answer.
    pub fn into_status(self) -> Status {
        match self {
            ReadError::Store(error) => status_of(error),
            ReadError::Behind(status) => status,
        }
    }
}

/// Reads so that the answer is not older than `resource_version`: unset asks a quorum; otherwise the local replica answers,
/// and a quorum only when the replica is behind.
pub async fn read_not_older(
    pipeline: &Pipeline,
    mut request: RangeRequest,
    resource_version: Option<Revision>,
) -> Result<RangeResponse, ReadError> {
    request.consistency = consistency(resource_version);
    let wanted = resource_version.unwrap_or_default();
    if request.consistency == Consistency::Stale && pipeline.store.applied_revision() < wanted {
        request.consistency = Consistency::Linearizable;
    }
    let response = pipeline
        .store
        .range(request)
        .await
        .map_err(ReadError::Store)?;
    if response.revision < wanted {
        return Err(ReadError::Behind(too_large(wanted, response.revision)));
    }
    Ok(response)
}

/// 422 for combinations of `resourceVersion`, `resourceVersionMatch` and `continue` that mean nothing.
pub fn check_version_match(options: &ListOptions) -> Result<(), Status> {
    let field = "resourceVersionMatch";
    let Some(version_match) = options.version_match else {
        let continued = options.continue_token.is_some();
        if continued
            && options
                .resource_version
                .is_some_and(|revision| revision.0 > 0)
        {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(why));
        }
        return Ok(());
    };
    if options.resource_version.is_none() && options.send_initial_events.is_none() {
        let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        return Err(invalid_option(field, why));
    }
    if options.continue_token.is_some() {
        return Err(invalid_option(
            field,
            "resourceVersionMatch is forbidden when continue is provided",
        ));
    }
    if version_match == VersionMatch::Exact && options.resource_version == Some(Revision(0)) {
        let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
        return Err(invalid_option(field, why));
    }
    Ok(())
}

/// 422 for a list option.
pub fn invalid_option(field: &str, why: &str) -> Status {
    let cause = Cause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!("Forbidden: {why}"),
        field: field.to_owned(),
    };
    Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
}
