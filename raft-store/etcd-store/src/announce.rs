//! The masters that live: each has a key, which ends with its lease, and knows the others by theirs.

use crate::leases::{self, KEEP_ALIVE_EVERY, Lease};
use crate::store::Inner;
use crate::to_etcd;
use mvcc::{KeyRange, RangeRequest, StoreError};
use rpc::etcd::etcdserverpb as pb;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

const PREFIX: &str = "/trireme/masters/";

/// A master that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Its name.
    pub name: String,
    /// Where its API is.
    pub api_url: String,
}

/// Says where this master's API is, until `stop`, and keeps the list of all.
pub async fn announce(inner: &Inner, api_url: &str, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let announced = tokio::select! {
            () = stop.cancelled() => return,
            lease = leases::grant(inner) => match lease {
                Ok(lease) => {
                    let ended = tokio::select! {
                        () = stop.cancelled() => Ok(()),
                        ended = keep(inner, api_url, lease) => ended,
                    };
                    leases::revoke(inner, lease).await;
                    ended
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = announced {
            tracing::warn!(%error, "the other masters cannot be told of this one; trying again");
            sleep(KEEP_ALIVE_EVERY).await;
        }
    }
}

async fn keep(inner: &Inner, api_url: &str, mut lease: Lease) -> Result<(), StoreError> {
    let put = pb::PutRequest {
        key: format!("{PREFIX}{}", inner.name).into(),
        value: api_url.to_owned().into(),
        lease: lease.id,
        ..pb::PutRequest::default()
    };
    let put = pb::request_op::Request::RequestPut(put);
    inner
        .etcd_txn(pb::TxnRequest {
            success: vec![to_etcd::step(put)],
            ..pb::TxnRequest::default()
        })
        .await?;
    while Instant::now() < lease.until {
        let masters = all(inner).await?;
        inner.masters.send_if_modified(|known| {
            let is_news = *known != masters;
            *known = masters;
            is_news
        });
        sleep(KEEP_ALIVE_EVERY).await;
        match timeout_at(lease.until, leases::keep_alive(inner, lease.id)).await {
            Ok(until) => lease.until = until?,
            Err(_) => return Err(leases::silent()),
        }
    }
    Err(leases::silent())
}

async fn all(inner: &Inner) -> Result<Vec<Announced>, StoreError> {
    let request = RangeRequest::new(KeyRange::prefix(PREFIX));
    let found = inner.etcd_range(request).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let masters = found.kvs.into_iter().map(|kv| Announced {
        name: text(&kv.key[PREFIX.len()..]),
        api_url: text(&kv.value),
    });
    Ok(masters.collect())
}
