//! Who of the masters leads: who put the leader's key, which ends with its lease.
//!
//! The term is the key's create revision, so that it grows with each leader, and a transaction that compares it is refused once
//! another leads. The lease counts from before it was asked to be kept alive: this master never believes longer than etcd that it
//! leads. Even if its clock stood still it could do no harm, since each of its writes carries the term.

use crate::leases::{self, LEASE, Lease};
use crate::store::Inner;
use crate::{from_etcd, to_etcd};
use futures::StreamExt;
use mvcc::{KeyRange, StoreError, WatchRequest};
use objects::{Revision, Term};
use rpc::etcd::etcdserverpb as pb;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// The key of whoever leads.
pub const LEADER_KEY: &str = "/trireme/leader";
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Who does not lead looks again after so long, should the watch for the leader's end have told nothing.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// So long the past is kept, as a kube-apiserver does it.
const COMPACT_EVERY: Duration = Duration::from_secs(300);

/// Stands for leadership, again and again, until `stop`.
pub async fn stand(inner: &Inner, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let Err(error) = stand_once(inner, &stop).await else {
            continue;
        };
        tracing::warn!(%error, "leadership cannot be had of etcd; trying again");
        inner.leader.send_modify(|state| state.has_leader = false);
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(RETRY_AFTER) => {}
        }
    }
}

/// Leads or follows, until that changes.
async fn stand_once(inner: &Inner, stop: &CancellationToken) -> Result<(), StoreError> {
    let (leader, seen) = leader(inner).await?;
    if let Some((name, term)) = leader {
        inner.tell_leader(&name, term, false);
        return tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = until_it_ends(inner, seen) => ended,
        };
    }
    let lease = leases::grant(inner).await?;
    let led = tokio::select! {
        () = stop.cancelled() => Ok(()),
        led = run_for(inner, lease) => led,
    };
    inner.leader.send_modify(|state| state.is_leader = false);
    // Whoever comes next need not wait for its end; should it fail, it ends by itself.
    leases::revoke(inner, lease).await;
    led
}

/// The name and term of whoever leads, and the revision at which that was so.
async fn leader(inner: &Inner) -> Result<(Option<(String, Term)>, Revision), StoreError> {
    use pb::response_op::Response as Done;
    let look = pb::RangeRequest {
        key: LEADER_KEY.into(),
        ..pb::RangeRequest::default()
    };
    let look = pb::request_op::Request::RequestRange(look);
    let answer = inner
        .etcd_txn(pb::TxnRequest {
            success: vec![to_etcd::step(look)],
            ..pb::TxnRequest::default()
        })
        .await?;
    let seen = from_etcd::told(answer.header.as_ref());
    let found = answer
        .responses
        .into_iter()
        .find_map(|step| match step.response {
            Some(Done::ResponseRange(found)) => found.kvs.into_iter().next(),
            _ => None,
        });
    let leader = found.map(|kv| {
        let name = String::from_utf8_lossy(&kv.value).into_owned();
        (name, Term(from_etcd::revision(kv.create_revision).0))
    });
    Ok((leader, seen))
}

/// Puts the leader's key where none is, and leads.
async fn run_for(inner: &Inner, lease: Lease) -> Result<(), StoreError> {
    let put = pb::PutRequest {
        key: LEADER_KEY.into(),
        value: inner.name.clone().into(),
        lease: lease.id,
        ..pb::PutRequest::default()
    };
    let put = pb::request_op::Request::RequestPut(put);
    let answer = inner
        .etcd_txn(pb::TxnRequest {
            compare: vec![to_etcd::created_at(LEADER_KEY, Revision(0))],
            success: vec![to_etcd::step(put)],
            ..pb::TxnRequest::default()
        })
        .await?;
    match answer.succeeded {
        true => lead(inner, lease, from_etcd::told(answer.header.as_ref())).await,
        // Another was faster.
        false => Ok(()),
    }
}

/// Leads in the term that began at `began`, as long as the lease is kept and the key is there.
async fn lead(inner: &Inner, mut lease: Lease, began: Revision) -> Result<(), StoreError> {
    let term = Term(began.0);
    inner.tell_leader(&inner.name, term, true);
    let mut kept = (Instant::now(), began);
    loop {
        sleep(leases::KEEP_ALIVE_EVERY).await;
        match timeout_at(lease.until, leases::keep_alive(inner, lease.id)).await {
            Ok(Ok(until)) => lease.until = until,
            Ok(Err(StoreError::LeaseNotFound)) => return Ok(()),
            Ok(Err(error)) if Instant::now() < lease.until => {
                tracing::warn!(%error, %term, "the leader's lease was not renewed; trying again");
                continue;
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(leases::silent()),
        }
        let now = match timeout_at(lease.until, still_leads(inner, began)).await {
            Ok(Ok(Some(now))) => now,
            Ok(Ok(None)) => {
                tracing::warn!(%term, "somebody removed the key of this leader, which leads no more");
                return Ok(());
            }
            // The lease decides.
            Ok(Err(_)) | Err(_) => continue,
        };
        let (since, revision) = kept;
        if since.elapsed() >= COMPACT_EVERY {
            match inner.forget_before(revision).await {
                Ok(()) | Err(StoreError::Compacted { .. }) => {}
                Err(error) => tracing::warn!(%error, "etcd's old revisions were not compacted"),
            }
            kept = (Instant::now(), now);
        }
    }
}

/// The store's revision, if the key of this leader is there.
async fn still_leads(inner: &Inner, began: Revision) -> Result<Option<Revision>, StoreError> {
    let answer = inner
        .etcd_txn(pb::TxnRequest {
            compare: vec![to_etcd::created_at(LEADER_KEY, began)],
            ..pb::TxnRequest::default()
        })
        .await?;
    let at = from_etcd::told(answer.header.as_ref());
    Ok(answer.succeeded.then_some(at))
}

/// Until the leader's key, seen at `seen`, is gone.
async fn until_it_ends(inner: &Inner, seen: Revision) -> Result<(), StoreError> {
    let request = WatchRequest {
        range: KeyRange::key(LEADER_KEY),
        start: seen.next(),
    };
    let changes = timeout(LEASE, crate::watch::watch(inner.watches(), request)).await;
    let mut changes = changes.map_err(|_| leases::silent())??;
    let ends = async {
        while let Some(batch) = changes.next().await {
            if !batch?.events.is_empty() {
                break;
            }
        }
        Ok(())
    };
    timeout(LOOK_EVERY, ends).await.unwrap_or(Ok(()))
}
