//! Leases: keys that end when their owner falls silent.

use crate::from_etcd;
use crate::store::Inner;
use mvcc::StoreError;
use objects::Revision;
use rpc::etcd::etcdserverpb as pb;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tonic::Request;

/// The keys of a master that fell silent end after so long.
pub const LEASE: Duration = Duration::from_secs(5);
/// How often a lease is renewed.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(1);

/// A lease, and until when it surely holds.
#[derive(Clone, Copy)]
pub struct Lease {
    pub id: i64,
    pub until: Instant,
}

/// A new lease.
pub async fn grant(inner: &Inner) -> Result<Lease, StoreError> {
    let asked = Instant::now();
    let request = pb::LeaseGrantRequest {
        ttl: LEASE.as_secs() as i64,
        id: 0,
    };
    let granted = timeout(LEASE, inner.leases().lease_grant(Request::new(request))).await;
    let granted = granted
        .map_err(|_| silent())?
        .map_err(|status| from_etcd::error(&status, Revision(0), Revision(0)))?
        .into_inner();
    Ok(Lease {
        id: granted.id,
        until: asked + ttl(granted.ttl),
    })
}

/// Ends a lease and its keys.
pub async fn revoke(inner: &Inner, lease: Lease) {
    let request = Request::new(pb::LeaseRevokeRequest { id: lease.id });
    let revoked = timeout(LEASE, inner.leases().lease_revoke(request)).await;
    if !matches!(revoked, Ok(Ok(_))) {
        tracing::debug!(
            lease = lease.id,
            "the lease was not given back and ends by itself"
        );
    }
}

/// Renews a lease; returns until when it surely holds.
pub async fn keep_alive(inner: &Inner, id: i64) -> Result<Instant, StoreError> {
    let asked = Instant::now();
    let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
    let error = |status: tonic::Status| from_etcd::error(&status, Revision(0), Revision(0));
    let mut answers = inner
        .leases()
        .lease_keep_alive(request)
        .await
        .map_err(error)?
        .into_inner();
    let answer = answers.message().await.map_err(error)?;
    match answer {
        Some(answer) if answer.ttl > 0 => Ok(asked + ttl(answer.ttl)),
        _ => Err(StoreError::LeaseNotFound),
    }
}

fn ttl(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// etcd was silent for too long.
pub fn silent() -> StoreError {
    StoreError::Unavailable("etcd did not answer while the lease held".to_owned())
}
