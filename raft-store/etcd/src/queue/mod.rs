//! Who waits in line for a name: the base of locks and elections, laid out in keys as etcd's client library does, so that its
//! users and those of the two services stand in the same line.
//!
//! Whoever comes puts a key `NAME/LEASE` (the lease in hexadecimal) under its lease. The key that came into being first has the
//! name; everybody else waits until all keys from before its own are gone. A key goes with its lease at the latest.

mod election;
mod lock;

pub use election::ElectionService;
pub use lock::LockService;

use crate::clock;
use crate::error::{STOPPED, status_of};
use bytes::Bytes;
use futures::StreamExt;
use mvcc::{
    Compare, CompareOp, CompareTarget, Event, KeyRange, KeyValue, LeaseId, Op, OpResult,
    RangeRequest, Selection, SortTarget, Store, StoreError, Txn, TxnResponse, WatchRequest,
};
use objects::Revision;
use raft_store::RaftStore;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How long a lease lives that is made for a client which brings none, as in etcd.
const TTL_MS: u64 = 60_000;

/// A place in the line for a name.
#[derive(Clone)]
pub struct Place {
    store: RaftStore,
    prefix: Bytes,
    pub key: Bytes,
    /// The revision at which the key came into being.
    pub revision: Revision,
    pub lease: LeaseId,
}

impl Place {
    /// Enters the line, or finds the place that the lease has already, with its value.
    pub async fn enter(
        store: &RaftStore,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<(Self, Option<KeyValue>), Status> {
        let lease = match lease {
            0 => {
                let id = clock::lease_id();
                store.lease_grant(id, TTL_MS).await.map_err(status_of)?;
                id
            }
            given => LeaseId(given),
        };
        let prefix = prefix_of(name);
        let key = Bytes::from([&prefix[..], format!("{:x}", lease.0).as_bytes()].concat());
        let put = Op::Put {
            key: key.clone(),
            value,
            lease,
            prev_kv: false,
        };
        let txn = Txn {
            compare: vec![created(&key, Revision(0))],
            success: vec![put],
            failure: vec![Op::get(key.clone())],
            ..Txn::default()
        };
        let response = store.txn(txn).await.map_err(status_of)?;
        let found = found(&response);
        let revision = match &found {
            Some(kv) => kv.create_revision,
            None => response.revision,
        };
        let place = Place {
            store: store.clone(),
            prefix,
            key,
            revision,
            lease,
        };
        Ok((place, found))
    }

    /// As [`Place::first`], until `stop`.
    pub async fn first_until(&self, stop: &CancellationToken) -> Result<(), Status> {
        let first = stop.run_until_cancelled(self.first()).await;
        first.unwrap_or_else(|| Err(STOPPED.into()))
    }

    /// Waits until all that came before are gone. The place is left when the caller goes meanwhile.
    async fn first(&self) -> Result<(), Status> {
        let mut leaving = Leaving(Some(self.clone()));
        while let Some(before) = self.before().await? {
            self.gone(&before).await?;
        }
        let own = self
            .store
            .range(RangeRequest::new(KeyRange::key(self.key.clone())));
        let own = own.await.map_err(status_of)?;
        leaving.0 = None;
        match own.kvs.first() {
            Some(kv) if kv.create_revision == self.revision => Ok(()),
            _ => Err(Status::unknown("mutex: session is expired")),
        }
    }

    /// Leaves the line; whoever has taken the key since keeps it.
    pub async fn leave(&self) -> Result<TxnResponse, StoreError> {
        leave(&self.store, &self.key, self.revision).await
    }

    /// The one right before this one, with the revision at which that was looked up.
    async fn before(&self) -> Result<Option<(Bytes, Revision)>, Status> {
        let request = RangeRequest {
            limit: Some(1),
            keys_only: true,
            selection: Selection {
                sort: SortTarget::CreateRevision,
                is_descending: true,
                create_revision_max: Revision(self.revision.0.saturating_sub(1)),
                ..Selection::default()
            },
            ..RangeRequest::new(KeyRange::prefix(self.prefix.clone()))
        };
        let response = self.store.range(request).await.map_err(status_of)?;
        let before = response.kvs.into_iter().next();
        Ok(before.map(|kv| (kv.key, response.revision)))
    }

    /// Waits until a key that was there at a revision is deleted.
    async fn gone(&self, (key, seen_at): &(Bytes, Revision)) -> Result<(), Status> {
        let request = WatchRequest {
            range: KeyRange::key(key.clone()),
            start: seen_at.next(),
        };
        let mut batches = self.store.watch(request).await.map_err(status_of)?;
        while let Some(batch) = batches.next().await {
            let events = match batch {
                Ok(batch) => batch.events,
                // It is looked up again.
                Err(StoreError::SlowWatcher | StoreError::Compacted { .. }) => return Ok(()),
                Err(error) => return Err(status_of(error)),
            };
            let is_gone = |event: &std::sync::Arc<Event>| matches!(**event, Event::Delete { .. });
            if events.iter().any(is_gone) {
                return Ok(());
            }
        }
        Err(status_of(StoreError::ShuttingDown))
    }
}

/// Leaves the line when it is dropped: its client went away.
struct Leaving(Option<Place>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(place) = self.0.take() {
            tokio::spawn(async move {
                if let Err(error) = place.leave().await {
                    tracing::debug!(%error, "a place in a line goes with its lease");
                }
            });
        }
    }
}

/// Deletes a key if it is still the one that came into being at `revision`.
async fn leave(
    store: &RaftStore,
    key: &Bytes,
    revision: Revision,
) -> Result<TxnResponse, StoreError> {
    let txn = Txn {
        compare: vec![created(key, revision)],
        success: vec![Op::delete(key.clone())],
        ..Txn::default()
    };
    store.txn(txn).await
}

/// Who has the name, and at which revision that was so.
async fn holder(store: &RaftStore, prefix: &Bytes) -> Result<(Option<KeyValue>, Revision), Status> {
    let request = RangeRequest {
        limit: Some(1),
        selection: Selection {
            sort: SortTarget::CreateRevision,
            ..Selection::default()
        },
        ..RangeRequest::new(KeyRange::prefix(prefix.clone()))
    };
    let response = store.range(request).await.map_err(status_of)?;
    Ok((response.kvs.into_iter().next(), response.revision))
}

fn prefix_of(name: &[u8]) -> Bytes {
    Bytes::from([name, b"/"].concat())
}

/// The key came into being at this revision; 0 for one that does not exist.
fn created(key: &Bytes, revision: Revision) -> Compare {
    Compare {
        range: KeyRange::key(key.clone()),
        op: CompareOp::Equal,
        target: CompareTarget::CreateRevision(revision),
    }
}

/// What a read in a transaction found.
fn found(response: &TxnResponse) -> Option<KeyValue> {
    let range = response.results.iter().find_map(|result| match result {
        OpResult::Range(range) => Some(range),
        _ => None,
    });
    range?.kvs.first().cloned()
}
