//! Delete: at once, after finalizers, or after a pod's grace. Semantics: Kubernetes' generic registry and graceful deletion.
//!
//! ```text
//!  alive ──delete──▶ deletionTimestamp set ──▶ removed
//!     │              (finalizers, grace, spec.finalizers)
//!     └── nothing to wait for ────────────────▶ removed
//! ```

use super::shape::{busy, is_released, not_served};
use super::store::{self, Stored, Try, tries};
use super::{Pipeline, admit, commit};
use crate::{Caller, DeleteOptions, Deleted, List, ListOptions, Propagation, Target, Verb};
use mvcc::Consistency;
use objects::{Object, ObjectKey, Reason, Status, StatusDetails, splice_revision};
use std::time::Duration;

/// How many objects of a collection are read at a time.
const PAGE: usize = 500;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Deletes an object, or begins to.
pub async fn delete(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    if !target.subresource_name().is_empty() {
        return Err(not_served(Verb::Delete, target, target.subresource_name()));
    }
    let key = target.key()?;
    let step = Step {
        caller,
        target,
        options,
        key: &key,
    };
    for consistency in tries() {
        match step.once(pipeline, consistency).await? {
            Try::Done(deleted) => return Ok(deleted),
            Try::Seen(answer) if consistency == Consistency::Linearizable => return answer,
            Try::Seen(_) | Try::Lost => {}
        }
    }
    Err(busy(&key))
}

/// Deletes all objects that a list would show, and answers with them.
pub async fn delete_collection(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    list: &ListOptions,
    options: &DeleteOptions,
) -> Result<List, Status> {
    let mut page_options = ListOptions {
        limit: Some(PAGE),
        continue_token: None,
        is_uncounted: true,
        ..list.clone()
    };
    let mut all = List::default();
    loop {
        let page = super::read::list(pipeline, target, &page_options).await?;
        for item in &page.items {
            let object = Object::from_json(item).map_err(Status::internal)?;
            let mut one = target.clone();
            one.namespace = object.metadata.namespace.clone();
            one.name = Some(object.metadata.name.clone());
            match delete(pipeline, caller, &one, options).await {
                Ok(_) => {}
                Err(status) if status.is(Reason::NotFound) => {}
                Err(status) => return Err(status),
            }
        }
        all.revision = page.revision;
        all.items.extend(page.items);
        page_options.continue_token = page.continue_token;
        if page_options.continue_token.is_none() {
            return Ok(all);
        }
    }
}

/// One try of a deletion.
struct Step<'a> {
    caller: &'a Caller,
    target: &'a Target,
    options: &'a DeleteOptions,
    key: &'a ObjectKey,
}

impl Step<'_> {
    async fn once(
        &self,
        pipeline: &Pipeline,
        consistency: Consistency,
    ) -> Result<Try<Deleted>, Status> {
        let key = self.key;
        let stored = store::read(pipeline, key, consistency).await?;
        let stored = stored.ok_or_else(|| Status::not_found(&key.resource, &key.name));
        match stored.and_then(|stored| self.may(&stored).map(|()| stored)) {
            Err(refused) => Ok(Try::Seen(Err(refused))),
            Ok(stored) => match self.admit(pipeline, &stored).await {
                Err(refused) => Ok(Try::Seen(Err(refused))),
                Ok(()) => self.take(pipeline, stored).await,
            },
        }
    }

    /// Asks what has a word in what may go.
    async fn admit(&self, pipeline: &Pipeline, stored: &Stored) -> Result<(), Status> {
        let attributes = admit::Attributes {
            caller: self.caller,
            target: self.target,
            operation: admit::Operation::Delete,
            old: Some(&stored.object),
            options: admit::Options::Delete(self.options),
        };
        let mut shown = stored.object.clone();
        admit::mutate(pipeline, &attributes, &mut shown).await?;
        admit::validate(pipeline, &attributes, &stored.object).await
    }

    fn may(&self, stored: &Stored) -> Result<(), Status> {
        check_preconditions(self.key, self.options, stored)?;
        admit::caller_may(self.caller, Verb::Delete, self.target, &stored.object)
    }

    /// Removes the object, or stores it as marked.
    async fn take(&self, pipeline: &Pipeline, stored: Stored) -> Result<Try<Deleted>, Status> {
        let strategy = &*self.target.resource.strategy;
        let marked = mark(pipeline, self.target, self.options, &stored.object);
        let held = strategy.claims(&stored.object);
        let (key, old) = (self.key, stored.revision);
        let writer = &commit::Writer {
            caller: self.caller,
            manager: self.options.manager.as_deref(),
            verb: Verb::Delete,
            subresource: "",
        };
        if is_released(strategy, &marked) {
            if self.options.dry_run {
                return Ok(Try::Seen(Ok(self.removed(&marked, &stored, old))));
            }
            let committed = commit::remove(pipeline, writer, key, old, &held).await?;
            return Ok(committed.map_or(Try::Lost, |revision| {
                Try::Done(self.removed(&marked, &stored, revision))
            }));
        }
        let bytes = commit::encode(&marked)?;
        if marked == stored.object || self.options.dry_run {
            return Ok(Try::Seen(Ok(Deleted::Object(splice_revision(&bytes, old)))));
        }
        let replacement = commit::Replacement {
            revision: old,
            bytes: bytes.clone(),
            held: &held,
            claims: &held,
            demands: &commit::Demands::default(),
        };
        let committed = commit::replace(pipeline, writer, key, replacement).await?;
        Ok(committed.map_or(Try::Lost, |revision| {
            Try::Done(Deleted::Object(splice_revision(&bytes, revision)))
        }))
    }

    fn removed(&self, marked: &Object, stored: &Stored, revision: objects::Revision) -> Deleted {
        let strategy = &*self.target.resource.strategy;
        if strategy.returns_deleted() {
            return Deleted::Object(splice_revision(&stored.kv.value, revision));
        }
        Deleted::Status(Status::success(StatusDetails {
            name: self.key.name.clone(),
            group: self.key.resource.group.clone(),
            kind: self.key.resource.resource.clone(),
            uid: marked.metadata.uid.0.clone(),
            ..StatusDetails::default()
        }))
    }
}

/// The object with its deletion asked: finalizers of the propagation, deletion timestamp, grace.
fn mark(pipeline: &Pipeline, target: &Target, options: &DeleteOptions, object: &Object) -> Object {
    let strategy = &*target.resource.strategy;
    let mut marked = object.clone();
    let finalizers = &mut marked.metadata.finalizers;
    let by_default = strategy.orphans_by_default().then_some(Propagation::Orphan);
    set_propagation(finalizers, options.propagation.or(by_default));
    let grace = strategy
        .grace_seconds(object, options.grace_seconds)
        .unwrap_or(0);
    let metadata = &mut marked.metadata;
    match metadata.deletion_timestamp {
        None => {
            let grace_time = Duration::from_secs(grace.unsigned_abs());
            metadata.deletion_timestamp = Some(pipeline.shell.now().plus(grace_time));
            metadata.deletion_grace_period_seconds = Some(grace);
            if metadata.generation > 0 {
                metadata.generation += 1;
            }
            strategy.begin_delete(&mut marked);
        }
        Some(_) => {
            // A deletion under way may only be made shorter.
            let given = metadata.deletion_grace_period_seconds.unwrap_or(0);
            let shorter = options.grace_seconds.is_some() && grace < given;
            if shorter {
                let now = pipeline.shell.now();
                metadata.deletion_timestamp =
                    Some(now.plus(Duration::from_secs(grace.unsigned_abs())));
                metadata.deletion_grace_period_seconds = Some(grace);
            }
        }
    }
    marked
}

fn set_propagation(finalizers: &mut Vec<String>, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else {
        return;
    };
    let (keep, drop) = match propagation {
        Propagation::Orphan => (Some(ORPHAN), FOREGROUND),
        Propagation::Foreground => (Some(FOREGROUND), ORPHAN),
        Propagation::Background => (None, ORPHAN),
    };
    finalizers.retain(|finalizer| finalizer != drop);
    match keep {
        None => finalizers.retain(|finalizer| finalizer != FOREGROUND),
        Some(keep) if finalizers.iter().any(|finalizer| finalizer == keep) => {}
        Some(keep) => finalizers.push(keep.to_owned()),
    }
}

fn check_preconditions(
    key: &ObjectKey,
    options: &DeleteOptions,
    stored: &Stored,
) -> Result<(), Status> {
    let conflict = |what: &str, wanted: &str, found: &str| {
        let why = format!(
            "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
        );
        Err(Status::conflict(&key.resource, &key.name, &why))
    };
    let uid = &stored.object.metadata.uid;
    if let Some(wanted) = options.uid.as_ref().filter(|wanted| *wanted != uid) {
        return conflict("UID", &wanted.0, &uid.0);
    }
    if let Some(wanted) = options
        .resource_version
        .filter(|wanted| *wanted != stored.revision)
    {
        return conflict(
            "ResourceVersion",
            &wanted.to_string(),
            &stored.revision.to_string(),
        );
    }
    Ok(())
}
