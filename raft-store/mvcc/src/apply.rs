//! What a committed command does to the tables: total and deterministic.
//!
//! Applying never fails on what a command says: a refused command is a reply. It fails only when the tables cannot be
//! read, and then the member must stop. It asks no clock and no randomness, and reads nothing but the overlay. The rules
//! are those of etcd's v3 API; the fence is ours.

use crate::command::{Applied, Batch, Command, Done, Outcome, Reply};
use crate::compact;
use crate::lease;
use crate::meta::Meta;
use crate::notes::{self, Author};
use crate::overlay::Overlay;
use crate::past::RECENT_CHANGES_MAX;
use crate::read::{self, Limit};
use crate::record::{Record, Version, history_key, version_key};
use crate::store::{
    Compare, CompareOp, CompareTarget, Event, KeyRange, KeyRangeEnd, KeyValue, LeaseId, Op,
    OpResult, Query, StoreError, Txn, TxnResponse,
};
use crate::tables::{Table, Tables, TablesError};
use crate::validate::validate;
use bytes::Bytes;
use objects::Revision;
use std::cmp::Ordering;
use std::sync::Arc;

/// Applies one command.
pub fn apply<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    at: Applied,
    command: &Command,
) -> Result<Outcome, TablesError> {
    let mut events = vec![];
    let reply = match command {
        Command::Txn(txn) => apply_txn(overlay, at, txn, &mut events)?,
        Command::Compact { revision } => compact::compact(overlay, *revision),
        Command::LeaseGrant { id, ttl_ms, now_ms } => lease::grant(overlay, *id, *ttl_ms, *now_ms)?,
        Command::LeaseRevoke { id } => lease::revoke(overlay, *id, &mut events)?,
        Command::LeaseKeepAlive { id, now_ms } => lease::keep_alive(overlay, *id, *now_ms)?,
        Command::LeaseExpire { ids, now_ms } => lease::expire(overlay, ids, *now_ms, &mut events)?,
        Command::LeaseRenewAll { now_ms } => lease::renew_all(overlay, *now_ms)?,
        Command::RaiseRevision { by } => Ok(Done::Raised(compact::raise_revision(overlay, *by))),
        Command::Tick { wall_ms, now_ms } => {
            Ok(Done::Ticked(notes::tick(overlay, *wall_ms, *now_ms)?))
        }
        Command::KeepHistory { limits } => {
            overlay.meta_mut().history_limits = Some(*limits);
            Ok(Done::HistoryKept(*limits))
        }
    };
    Ok(Outcome {
        reply,
        events,
        revision: overlay.meta().revision,
    })
}

/// Applies the commands of one entry, one after the other.
pub fn apply_batch<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    at: Applied,
    batch: &Batch,
) -> Result<Vec<Outcome>, TablesError> {
    batch
        .0
        .iter()
        .map(|command| apply(overlay, at, command))
        .collect()
}

/// Runs a transaction that changes nothing against what the tables hold, as if it were applied now.
pub fn read_txn<T: Tables + ?Sized>(tables: &T, txn: &Txn) -> Result<TxnResponse, read::ReadError> {
    assert!(is_read_only(txn), "what writes goes through the log");
    let mut overlay = Overlay::new(tables)?;
    match apply_txn(&mut overlay, Applied::default(), txn, &mut vec![])? {
        Ok(Done::Txn(response)) => Ok(response),
        Ok(other) => unreachable!("a transaction was answered with {other:?}"),
        Err(refused) => Err(refused.into()),
    }
}

/// Whether the transaction changes nothing, whichever branches it takes.
pub fn is_read_only(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Put { .. } | Op::Update { .. } | Op::DeleteRange { .. } => false,
        Op::Range { .. } | Op::Query(_) | Op::Sign(_) => true,
        Op::Txn(inner) => is_read_only(inner),
    })
}

fn apply_txn<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    at: Applied,
    txn: &Txn,
    events: &mut Vec<Arc<Event>>,
) -> Result<Reply, TablesError> {
    if let Some(held) = txn.fence
        && held < at.term
    {
        return Ok(Err(StoreError::Fenced {
            held,
            current: at.term,
        }));
    }
    if let Err(refused) = validate(txn) {
        return Ok(Err(refused));
    }
    // As in etcd, all comparisons look at the state before the transaction, those of inner transactions too.
    let mut path = Path::default();
    if let Err(refused) = decide(overlay, txn, &mut path)? {
        return Ok(Err(refused));
    }
    if let Some(refused) = path.unreadable {
        return Ok(Err(refused));
    }
    let mut change = Change::begin(overlay, events);
    let response = run(&mut change, txn, &mut path.branches.into_iter())?;
    change.finish();
    Ok(Ok(Done::Txn(response)))
}

/// Which way a transaction goes.
#[derive(Default)]
struct Path {
    /// Whether the comparisons held, of it and then of those within the branch that is taken.
    branches: Vec<bool>,
    /// Why the first read that cannot be done cannot: as in etcd, told only when every write could be.
    unreadable: Option<StoreError>,
}

/// Decides which branch `txn` takes, then those of the transactions in that branch; tells why a write there cannot be done.
fn decide<T: Tables + ?Sized>(
    overlay: &Overlay<'_, T>,
    txn: &Txn,
    path: &mut Path,
) -> Result<Result<(), StoreError>, TablesError> {
    let mut succeeded = true;
    for compare in &txn.compare {
        if !holds(overlay, compare)? {
            succeeded = false;
            break;
        }
    }
    path.branches.push(succeeded);
    for op in if succeeded {
        &txn.success
    } else {
        &txn.failure
    } {
        let possible = match op {
            Op::Put { lease, .. } => check_lease(overlay, *lease)?,
            Op::Update { key, lease, .. } => match overlay.get(Table::Latest, key)? {
                Some(_) => check_lease(overlay, lease.unwrap_or_default())?,
                None => Err(StoreError::KeyNotFound),
            },
            Op::Query(query) => {
                let refused = check_revision(overlay.meta(), query).err();
                path.unreadable = path.unreadable.take().or(refused);
                Ok(())
            }
            Op::Txn(inner) => decide(overlay, inner, path)?,
            Op::DeleteRange { .. } | Op::Range { .. } | Op::Sign(_) => Ok(()),
        };
        if possible.is_err() {
            return Ok(possible);
        }
    }
    Ok(Ok(()))
}

fn check_lease<T: Tables + ?Sized>(
    overlay: &Overlay<'_, T>,
    lease: LeaseId,
) -> Result<Result<(), StoreError>, TablesError> {
    let is_there = lease == LeaseId(0) || lease::exists(overlay, lease)?;
    Ok(is_there.then_some(()).ok_or(StoreError::LeaseNotFound))
}

/// A read within a transaction may ask for what was before it, not for what it is about to write.
fn check_revision(meta: &Meta, query: &Query) -> Result<(), StoreError> {
    match query.revision {
        Some(revision) => read::check_revision(revision, meta.revision, meta.compacted),
        None => Ok(()),
    }
}

/// Whether the comparison holds for each key of its range; for an empty range, whether it holds for an absent key.
fn holds<T: Tables + ?Sized>(
    overlay: &Overlay<'_, T>,
    compare: &Compare,
) -> Result<bool, TablesError> {
    let with_value = matches!(compare.target, CompareTarget::Value(_));
    let found = read::latest(overlay, &compare.range, Limit::NONE, !with_value)?;
    Ok(match &found.kvs[..] {
        [] => holds_for(compare, None),
        kvs => kvs.iter().all(|kv| holds_for(compare, Some(kv))),
    })
}

fn holds_for(compare: &Compare, kv: Option<&KeyValue>) -> bool {
    let ordering = match &compare.target {
        CompareTarget::ModRevision(given) => {
            kv.map_or(Revision(0), |kv| kv.mod_revision).cmp(given)
        }
        CompareTarget::CreateRevision(given) => {
            kv.map_or(Revision(0), |kv| kv.create_revision).cmp(given)
        }
        CompareTarget::Version(given) => kv.map_or(0, |kv| kv.version).cmp(given),
        CompareTarget::Lease(given) => kv.map_or(LeaseId(0), |kv| kv.lease).cmp(given),
        CompareTarget::Value(given) => match kv {
            Some(kv) => kv.value.cmp(given),
            None => return false,
        },
    };
    match compare.op {
        CompareOp::Equal => ordering == Ordering::Equal,
        CompareOp::NotEqual => ordering != Ordering::Equal,
        CompareOp::Greater => ordering == Ordering::Greater,
        CompareOp::Less => ordering == Ordering::Less,
    }
}

/// Does the steps of the branch that was decided.
fn run<T: Tables + ?Sized>(
    change: &mut Change<'_, '_, T>,
    txn: &Txn,
    branches: &mut impl Iterator<Item = bool>,
) -> Result<TxnResponse, TablesError> {
    let succeeded = branches
        .next()
        .expect("decide has walked the same transactions");
    let ops = if succeeded {
        &txn.success
    } else {
        &txn.failure
    };
    let mut results = Vec::with_capacity(ops.len());
    for op in ops {
        results.push(match op {
            Op::Put {
                key,
                value,
                lease,
                prev_kv,
            } => {
                let prev = change.put(key, value, *lease)?;
                OpResult::Put(prev.filter(|_| *prev_kv))
            }
            Op::DeleteRange { range, prev_kv } => {
                let deleted = change.delete_range(range)?;
                OpResult::Deleted(
                    deleted.len() as u64,
                    if *prev_kv { deleted } else { vec![] },
                )
            }
            Op::Range { range, limit } => {
                let keys = limit.and_then(|limit| usize::try_from(limit).ok());
                let limit = Limit {
                    keys: keys.unwrap_or(usize::MAX),
                    ..Limit::NONE
                };
                let mut found = read::latest(change.overlay, range, limit, false)?;
                found.revision = change.revision();
                OpResult::Range(found)
            }
            Op::Update {
                key,
                value,
                lease,
                prev_kv,
            } => {
                let prev = change.update(key, value.as_ref(), *lease)?;
                OpResult::Put(Some(prev).filter(|_| *prev_kv))
            }
            Op::Query(query) => OpResult::Range(read::at(
                change.overlay,
                &query.request(),
                change.revision(),
                RECENT_CHANGES_MAX,
            )?),
            Op::Txn(inner) => OpResult::Txn(run(change, inner, branches)?),
            Op::Sign(author) => {
                change.author = Some(author.clone());
                OpResult::Signed
            }
        });
    }
    Ok(TxnResponse {
        revision: change.revision(),
        succeeded,
        results,
    })
}

/// The writes of one revision. The revision is taken only when something is written.
pub(crate) struct Change<'c, 'b, T: ?Sized> {
    pub(crate) overlay: &'c mut Overlay<'b, T>,
    events: &'c mut Vec<Arc<Event>>,
    next: Revision,
    sub: u32,
    author: Option<Author>,
}

impl<'c, 'b, T: Tables + ?Sized> Change<'c, 'b, T> {
    pub(crate) fn begin(overlay: &'c mut Overlay<'b, T>, events: &'c mut Vec<Arc<Event>>) -> Self {
        let next = overlay.meta().revision.next();
        Change {
            overlay,
            events,
            next,
            sub: 0,
            author: None,
        }
    }

    /// Takes the revision if something was written.
    pub(crate) fn finish(self) {
        if let Some(author) = self.author.as_ref().filter(|_| self.sub > 0) {
            notes::sign(self.overlay, self.next, author);
        }
        self.overlay.meta_mut().revision = self.revision();
    }

    /// The store's revision with what was written so far.
    fn revision(&self) -> Revision {
        if self.sub == 0 {
            self.overlay.meta().revision
        } else {
            self.next
        }
    }

    /// Writes a key; returns what it was.
    fn put(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        lease: LeaseId,
    ) -> Result<Option<KeyValue>, TablesError> {
        let prev = match self.overlay.get(Table::Latest, key)? {
            Some(record) => Some(Record::read(Table::Latest, key, record)?.kv),
            None => None,
        };
        let kv = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: prev.as_ref().map_or(self.next, |prev| prev.create_revision),
            mod_revision: self.next,
            version: prev.as_ref().map_or(0, |prev| prev.version) + 1,
            lease,
        };
        let record = Record::put(kv, self.sub);
        let lease_before = prev.as_ref().map_or(LeaseId(0), |prev| prev.lease);
        lease::attach(self.overlay, &record.kv.key, lease_before, lease);
        self.overlay
            .put(Table::Latest, record.kv.key.clone(), record.bytes.clone());
        self.record(&record);
        self.events.push(Arc::new(Event::Put {
            kv: record.kv,
            prev: prev.clone(),
        }));
        Ok(prev)
    }

    /// Writes a key that exists, keeping what is not given; returns what it was.
    fn update(
        &mut self,
        key: &Bytes,
        value: Option<&Bytes>,
        lease: Option<LeaseId>,
    ) -> Result<KeyValue, TablesError> {
        let record = self.overlay.get(Table::Latest, key)?;
        let record = record.expect("decide has found the key, which no other step may change");
        let KeyValue {
            value: old_value,
            lease: old_lease,
            ..
        } = Record::read(Table::Latest, key, record)?.kv;
        let value = value.unwrap_or(&old_value);
        let prev = self.put(key, value, lease.unwrap_or(old_lease))?;
        Ok(prev.expect("the key was just read"))
    }

    /// Deletes the keys of a range; returns what they were.
    fn delete_range(&mut self, range: &KeyRange) -> Result<Vec<KeyValue>, TablesError> {
        let found = read::latest(self.overlay, range, Limit::NONE, false)?.kvs;
        for kv in &found {
            self.delete(kv.clone());
        }
        Ok(found)
    }

    /// Deletes a key that exists as `prev`.
    fn delete(&mut self, prev: KeyValue) {
        let record = Record::delete(prev.key.clone(), self.next, self.sub);
        lease::attach(self.overlay, &record.kv.key, prev.lease, LeaseId(0));
        self.overlay.delete(Table::Latest, record.kv.key.clone());
        self.record(&record);
        self.events.push(Arc::new(Event::Delete {
            key: record.kv.key,
            revision: self.next,
            prev: Some(prev),
        }));
    }

    /// Deletes a key if it exists.
    pub(crate) fn delete_key(&mut self, key: &Bytes) -> Result<(), TablesError> {
        self.delete_range(&KeyRange {
            start: key.clone(),
            end: KeyRangeEnd::Single,
        })
        .map(|_| ())
    }

    /// Adds a change to history.
    fn record(&mut self, record: &Record) {
        let Record {
            kv,
            is_delete,
            sub,
            bytes,
        } = record;
        let version = Version {
            revision: self.next,
            sub: *sub,
            is_delete: *is_delete,
        };
        let (history_row, version_row) = (
            history_key(self.next, *sub),
            version_key(&kv.key, self.next),
        );
        let (version_value, row_bytes) = (version.value(), history_row.len() + version_row.len());
        let written = bytes.len() + row_bytes + version_value.len();
        self.overlay.meta_mut().written_bytes += written as u64;
        self.overlay.put(Table::History, history_row, bytes.clone());
        self.overlay
            .put(Table::Versions, version_row.into(), version_value);
        self.sub += 1;
    }
}
