//! The Lock service.

use super::Place;
use crate::error::status_of;
use crate::header::Headers;
use bytes::Bytes;
use mvcc::{Op, Store, Txn};
use raft_store::RaftStore;
use rpc::etcd::v3lockpb as pb;
use rpc::etcd::v3lockpb::lock_server::Lock;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The Lock service of one member.
pub struct LockService {
    pub store: RaftStore,
    pub headers: Headers,
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(
        &self,
        request: Request<pb::LockRequest>,
    ) -> Result<Response<pb::LockResponse>, Status> {
        let pb::LockRequest { name, lease } = request.into_inner();
        let (place, _) = Place::enter(&self.store, &name, lease, Bytes::new()).await?;
        place.first_until(&self.stop).await?;
        Ok(Response::new(pb::LockResponse {
            header: self.headers.now(),
            key: place.key,
        }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let txn = Txn {
            success: vec![Op::delete(request.into_inner().key)],
            ..Txn::default()
        };
        let response = self.store.txn(txn).await.map_err(status_of)?;
        Ok(Response::new(pb::UnlockResponse {
            header: self.headers.at(response.revision),
        }))
    }
}
