//! The last step of a write: one transaction that changes the object and the pool values that it holds, if nobody came first.
//! Pool values are keys `/allocations/<pool>/<value>`; a transaction that takes one demands that it is free.

use super::Pipeline;
use super::store::status_of;
use crate::strategy::{Claim, Context, Strategy, Taken};
use crate::{Caller, Faults, Verb};
use bytes::Bytes;
use mvcc::{Author, Compare, KeyRange, Op, RangeRequest, Txn};
use objects::{Object, ObjectKey, Reason, Revision, Status};
use std::collections::BTreeSet;

/// The prefix of all pools.
pub const ALLOCATIONS_ROOT: &str = "/allocations/";
/// The bytes that an object may have.
pub const OBJECT_BYTES_MAX: usize = 1536 << 10;

/// What a commit demands of the world, beside that its object is as it was.
#[derive(Default)]
pub struct Demands {
    /// The namespace's key and the revision at which it was seen to take new objects.
    pub namespace: Option<(String, Revision)>,
    /// The quotas that the object is charged to.
    pub charges: Vec<Charge>,
}

/// A quota that counts an object: it changes together with it, so that two masters cannot give out the same rest twice.
pub struct Charge {
    /// The quota's key.
    pub key: String,
    /// The revision at which the rest was seen.
    pub revision: Revision,
    /// The quota with the object counted in.
    pub bytes: Bytes,
}

impl Demands {
    fn put(&self, txn: &mut Txn) {
        if let Some((namespace, seen)) = &self.namespace {
            txn.compare
                .push(Compare::unchanged(namespace.clone(), *seen));
        }
        for charge in &self.charges {
            txn.compare
                .push(Compare::unchanged(charge.key.clone(), charge.revision));
            txn.success
                .push(Op::put(charge.key.clone(), charge.bytes.clone()));
        }
    }
}

/// The bytes that are kept of a user's name, and of a manager's.
const USER_BYTES_MAX: usize = 512;
const MANAGER_BYTES_MAX: usize = 128;

/// Who writes, by which request: kept beside the revision, so that an object's history can tell.
pub struct Writer<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// Through which program.
    pub manager: Option<&'a str>,
    /// What was asked.
    pub verb: Verb,
    /// Of which part of the object; empty for the whole.
    pub subresource: &'a str,
}

impl Writer<'_> {
    /// A transaction of this writer.
    fn begin(&self, pipeline: &Pipeline) -> Txn {
        let action = match self.subresource {
            "" => self.verb.as_str().to_owned(),
            subresource => format!("{} {subresource}", self.verb),
        };
        let author = Author {
            at_ms: u64::try_from(pipeline.shell.now().unix_ms()).unwrap_or(0),
            user: cut(&self.caller.user, USER_BYTES_MAX),
            manager: cut(self.manager.unwrap_or_default(), MANAGER_BYTES_MAX),
            action,
        };
        Txn {
            fence: self.caller.fence,
            success: vec![Op::Sign(author)],
            ..Txn::default()
        }
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

/// The bytes to store; 413 when they are too many.
pub fn encode(object: &Object) -> Result<Bytes, Status> {
    let bytes = object.to_stored();
    if bytes.len() > OBJECT_BYTES_MAX {
        let message = format!(
            "Request entity too large: {} {:?} has {} bytes; limit is {OBJECT_BYTES_MAX}",
            object.types.kind,
            object.metadata.name,
            bytes.len()
        );
        return Err(Status::failure(413, Reason::RequestEntityTooLarge, message));
    }
    Ok(bytes)
}

/// Creates the key; None when it exists, a value is taken, or the namespace is gone.
pub async fn create(
    pipeline: &Pipeline,
    writer: &Writer<'_>,
    key: &ObjectKey,
    bytes: Bytes,
    claims: &[Claim],
    demands: &Demands,
) -> Result<Option<Revision>, Status> {
    let key = key.to_store_key();
    let mut txn = writer.begin(pipeline);
    txn.compare.push(Compare::absent(key.clone()));
    demands.put(&mut txn);
    take(&mut txn, claims, &key);
    txn.success.push(Op::put(key, bytes));
    run(pipeline, txn).await
}

/// What is put in the place of an object.
pub struct Replacement<'a> {
    /// The revision of the object that it replaces.
    pub revision: Revision,
    /// The new object.
    pub bytes: Bytes,
    /// The pool values that the old object holds.
    pub held: &'a [Claim],
    /// Those that the new one holds.
    pub claims: &'a [Claim],
    /// What else must hold.
    pub demands: &'a Demands,
}

/// Replaces the key's object; None when somebody else changed it, or a new value is taken.
pub async fn replace(
    pipeline: &Pipeline,
    writer: &Writer<'_>,
    key: &ObjectKey,
    replacement: Replacement<'_>,
) -> Result<Option<Revision>, Status> {
    let Replacement {
        revision,
        bytes,
        held,
        claims,
        demands,
    } = replacement;
    let key = key.to_store_key();
    let mut txn = writer.begin(pipeline);
    txn.compare.push(Compare::unchanged(key.clone(), revision));
    demands.put(&mut txn);
    let same = |one: &Claim, other: &Claim| one.pool == other.pool && one.value == other.value;
    let new: Vec<Claim> = claims
        .iter()
        .filter(|claim| !held.iter().any(|old| same(old, claim)))
        .cloned()
        .collect();
    take(&mut txn, &new, &key);
    let old = held
        .iter()
        .filter(|claim| !claims.iter().any(|new| same(new, claim)));
    txn.success
        .extend(old.map(|claim| Op::delete(claim_key(claim))));
    txn.success.push(Op::put(key, bytes));
    run(pipeline, txn).await
}

/// Removes the key and frees its values; None when somebody else changed it.
pub async fn remove(
    pipeline: &Pipeline,
    writer: &Writer<'_>,
    key: &ObjectKey,
    revision: Revision,
    held: &[Claim],
) -> Result<Option<Revision>, Status> {
    let key = key.to_store_key();
    let mut txn = writer.begin(pipeline);
    txn.compare.push(Compare::unchanged(key.clone(), revision));
    txn.success
        .extend(held.iter().map(|claim| Op::delete(claim_key(claim))));
    txn.success.push(Op::delete(key));
    run(pipeline, txn).await
}

/// Fills in values of pools, and says which the object then holds; 422 when one that it names is taken.
pub async fn allocate(
    pipeline: &Pipeline,
    strategy: &dyn Strategy,
    object: &mut Object,
    held: &[Claim],
    context: &Context<'_>,
    faults: &mut Faults,
) -> Result<Vec<Claim>, Status> {
    if strategy.pools().is_empty() {
        return Ok(Vec::new());
    }
    let mut taken = BTreeSet::new();
    for pool in strategy.pools() {
        let mut request = RangeRequest::new(KeyRange::prefix(format!("{ALLOCATIONS_ROOT}{pool}/")));
        request.keys_only = true;
        let response = pipeline.store.range(request).await.map_err(status_of)?;
        taken.extend(
            response
                .kvs
                .iter()
                .map(|kv| String::from_utf8_lossy(&kv.key).into_owned()),
        );
    }
    for claim in held {
        taken.remove(&claim_key(claim));
    }
    let taken = TakenKeys(taken);
    strategy.allocate(object, &taken, context, faults);
    let claims = strategy.claims(object);
    for claim in claims
        .iter()
        .filter(|claim| taken.is_taken(claim.pool, &claim.value))
    {
        faults.invalid_text(&claim.field, &claim.value, &already_allocated(claim.pool));
    }
    Ok(claims)
}

fn already_allocated(pool: &str) -> String {
    match pool {
        "clusterip" => "failed to allocate IP: provided IP is already allocated".to_owned(),
        "nodeport" => "provided port is already allocated".to_owned(),
        other => format!("the value is already taken in the pool {other}"),
    }
}

struct TakenKeys(BTreeSet<String>);

impl Taken for TakenKeys {
    fn is_taken(&self, pool: &str, value: &str) -> bool {
        self.0
            .contains(&format!("{ALLOCATIONS_ROOT}{pool}/{value}"))
    }
}

fn take(txn: &mut Txn, claims: &[Claim], holder: &str) {
    for claim in claims {
        txn.compare.push(Compare::absent(claim_key(claim)));
        txn.success
            .push(Op::put(claim_key(claim), holder.to_owned()));
    }
}

fn claim_key(claim: &Claim) -> String {
    format!("{ALLOCATIONS_ROOT}{}/{}", claim.pool, claim.value)
}

async fn run(pipeline: &Pipeline, txn: Txn) -> Result<Option<Revision>, Status> {
    let response = pipeline.store.txn(txn).await.map_err(status_of)?;
    Ok(response.succeeded.then_some(response.revision))
}
