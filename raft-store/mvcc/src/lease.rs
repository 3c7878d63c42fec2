//! Leases: keys that go when their holder falls silent.
//!
//! A lease ends by the leases' clock, which only commands move: the proposing leader counts on from
//! [`Meta::lease_clock_ms`](crate::Meta::lease_clock_ms) as it found it, so that no wall clock matters. A new leader
//! proposes [`Command::LeaseRenewAll`](crate::Command::LeaseRenewAll) first, since it cannot know who was heard before it led.

use crate::apply::Change;
use crate::codec;
use crate::command::{Done, Reply};
use crate::overlay::Overlay;
use crate::record::misplaced;
use crate::store::{Event, LeaseId, StoreError};
use crate::tables::{Table, Tables, TablesError, try_scan};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// A lease as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives without a keep-alive.
    pub ttl_ms: u64,
    /// When it ends, by the leases' clock.
    pub ends_ms: u64,
}

/// A lease as it is encoded; its id is its key.
#[derive(Serialize, Deserialize)]
struct Stored {
    ttl_ms: u64,
    ends_ms: u64,
}

/// The lease `id`.
pub fn lease<T: Tables + ?Sized>(tables: &T, id: LeaseId) -> Result<Option<Lease>, TablesError> {
    let key = lease_key(id);
    match tables.get(Table::Leases, &key)? {
        Some(value) => read(&key, &value).map(Some),
        None => Ok(None),
    }
}

/// Every lease, in no order that says anything.
pub fn leases<T: Tables + ?Sized>(tables: &T) -> Result<Vec<Lease>, TablesError> {
    let mut found = vec![];
    try_scan(
        tables,
        Table::Leases,
        (Bound::Unbounded, Bound::Unbounded),
        false,
        |key, value| {
            found.push(read(key, value)?);
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(found)
}

/// The keys that the lease `id` holds, in order.
pub fn lease_keys<T: Tables + ?Sized>(tables: &T, id: LeaseId) -> Result<Vec<Bytes>, TablesError> {
    let start = lease_key(id);
    let mut keys = vec![];
    tables.scan(
        Table::LeaseKeys,
        Bound::Included(&start),
        Bound::Unbounded,
        false,
        &mut |row, _| match row.strip_prefix(&start) {
            Some(key) => {
                keys.push(Bytes::copy_from_slice(key));
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        },
    )?;
    Ok(keys)
}

pub(crate) fn exists<T: Tables + ?Sized>(tables: &T, id: LeaseId) -> Result<bool, TablesError> {
    Ok(tables.get(Table::Leases, &lease_key(id))?.is_some())
}

pub(crate) fn grant<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    id: LeaseId,
    ttl_ms: u64,
    now_ms: u64,
) -> Result<Reply, TablesError> {
    if id == LeaseId(0) {
        return Ok(Err(StoreError::Refused(
            "a lease's id cannot be zero".to_owned(),
        )));
    }
    if exists(overlay, id)? {
        return Ok(Err(StoreError::LeaseExists));
    }
    renew(overlay, id, ttl_ms, now_ms);
    Ok(Ok(Done::Lease { id, ttl_ms }))
}

pub(crate) fn keep_alive<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    id: LeaseId,
    now_ms: u64,
) -> Result<Reply, TablesError> {
    let Some(Lease { ttl_ms, .. }) = lease(overlay, id)? else {
        return Ok(Err(StoreError::LeaseNotFound));
    };
    renew(overlay, id, ttl_ms, now_ms);
    Ok(Ok(Done::Lease { id, ttl_ms }))
}

pub(crate) fn renew_all<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    now_ms: u64,
) -> Result<Reply, TablesError> {
    let leases = leases(overlay)?;
    tick(overlay, now_ms);
    for lease in &leases {
        renew(overlay, lease.id, lease.ttl_ms, now_ms);
    }
    Ok(Ok(Done::LeasesRenewed(leases.len() as u64)))
}

pub(crate) fn revoke<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    id: LeaseId,
    events: &mut Vec<Arc<Event>>,
) -> Result<Reply, TablesError> {
    if !exists(overlay, id)? {
        return Ok(Err(StoreError::LeaseNotFound));
    }
    end(overlay, id, events)?;
    Ok(Ok(Done::LeasesEnded(1)))
}

pub(crate) fn expire<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    ids: &[LeaseId],
    now_ms: u64,
    events: &mut Vec<Arc<Event>>,
) -> Result<Reply, TablesError> {
    let clock_ms = tick(overlay, now_ms);
    let mut ended = 0;
    for id in ids {
        // A keep-alive may have been committed between the leader's look and this command.
        if lease(overlay, *id)?.is_some_and(|lease| lease.ends_ms <= clock_ms) {
            end(overlay, *id, events)?;
            ended += 1;
        }
    }
    Ok(Ok(Done::LeasesEnded(ended)))
}

/// Moves `key` from one lease to another; zero is none.
pub(crate) fn attach<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    key: &Bytes,
    from: LeaseId,
    to: LeaseId,
) {
    if from == to {
        return;
    }
    if from != LeaseId(0) {
        overlay.delete(Table::LeaseKeys, lease_key_row(from, key));
    }
    if to != LeaseId(0) {
        overlay.put(Table::LeaseKeys, lease_key_row(to, key), Bytes::new());
    }
}

/// Deletes the lease, and its keys at one revision.
fn end<T: Tables + ?Sized>(
    overlay: &mut Overlay<'_, T>,
    id: LeaseId,
    events: &mut Vec<Arc<Event>>,
) -> Result<(), TablesError> {
    let keys = lease_keys(overlay, id)?;
    overlay.delete(Table::Leases, Bytes::copy_from_slice(&lease_key(id)));
    let mut change = Change::begin(overlay, events);
    for key in &keys {
        change.delete_key(key)?;
    }
    change.finish();
    Ok(())
}

/// Lets the lease live for its whole time to live from now on.
fn renew<T: Tables + ?Sized>(overlay: &mut Overlay<'_, T>, id: LeaseId, ttl_ms: u64, now_ms: u64) {
    let ends_ms = tick(overlay, now_ms).saturating_add(ttl_ms);
    let mut value = vec![];
    codec::encode_bare(&Stored { ttl_ms, ends_ms }, &mut value)
        .expect("a vector takes two numbers");
    overlay.put(
        Table::Leases,
        Bytes::copy_from_slice(&lease_key(id)),
        value.into(),
    );
}

/// Moves the leases' clock to `now_ms`, never back; returns what it shows.
fn tick<T: Tables + ?Sized>(overlay: &mut Overlay<'_, T>, now_ms: u64) -> u64 {
    let clock_ms = overlay.meta().lease_clock_ms.max(now_ms);
    overlay.meta_mut().lease_clock_ms = clock_ms;
    clock_ms
}

fn read(key: &[u8], value: &[u8]) -> Result<Lease, TablesError> {
    let id = <[u8; 8]>::try_from(key).map_err(|_| misplaced(Table::Leases, key))?;
    let (Stored { ttl_ms, ends_ms }, _) =
        codec::decode_bare(value).map_err(|source| TablesError::Record {
            table: Table::Leases,
            key: key.to_vec(),
            source,
        })?;
    Ok(Lease {
        id: LeaseId(i64::from_be_bytes(id)),
        ttl_ms,
        ends_ms,
    })
}

fn lease_key(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

fn lease_key_row(id: LeaseId, key: &[u8]) -> Bytes {
    [&lease_key(id)[..], key].concat().into()
}
