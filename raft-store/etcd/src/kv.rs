//! The KV service: reads, writes, transactions, compaction.

use crate::error::status_of;
use crate::from_proto;
use crate::header::Headers;
use crate::to_proto;
use mvcc::{Consistency, Op, OpResult, Store, Txn, TxnResponse};
use objects::Revision;
use raft_store::RaftStore;
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::kv_server::Kv;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// How long a physical compaction is waited for.
const SWEEP_MAX: Duration = Duration::from_secs(60);

/// The KV service of one member.
pub struct KvService {
    pub store: RaftStore,
    pub headers: Headers,
}

impl KvService {
    async fn run(&self, txn: Txn) -> Result<TxnResponse, Status> {
        self.store.txn(txn).await.map_err(status_of)
    }

    /// Does one step alone; returns the revision and what it did.
    async fn run_only(&self, op: Op) -> Result<(Revision, OpResult), Status> {
        let mut response = self.run(from_proto::only(op)).await?;
        let result = response.results.pop();
        let result = result.ok_or_else(|| Status::internal("a step was answered with nothing"))?;
        Ok((response.revision, result))
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let request = from_proto::range_request(request.into_inner())?;
        let response = self.store.range(request).await.map_err(status_of)?;
        Ok(Response::new(to_proto::range_response(
            &self.headers,
            response,
        )))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let op = from_proto::put(request.into_inner())?;
        let (revision, result) = self.run_only(op).await?;
        let OpResult::Put(prev) = result else {
            return Err(unexpected(&result));
        };
        Ok(Response::new(pb::PutResponse {
            header: self.headers.at(revision),
            prev_kv: prev.map(to_proto::key_value),
        }))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let op = from_proto::delete_range(request.into_inner())?;
        let (revision, result) = self.run_only(op).await?;
        let OpResult::Deleted(deleted, prev) = result else {
            return Err(unexpected(&result));
        };
        Ok(Response::new(pb::DeleteRangeResponse {
            header: self.headers.at(revision),
            deleted: i64::try_from(deleted).unwrap_or(i64::MAX),
            prev_kvs: prev.into_iter().map(to_proto::key_value).collect(),
        }))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let request = request.into_inner();
        let consistency = consistency(&request);
        let txn = from_proto::txn(request)?;
        let response = match mvcc::is_read_only(&txn) {
            true => {
                let read = self.store.read_txn(txn, consistency);
                read.await.map_err(status_of)?
            }
            false => self.run(txn).await?,
        };
        Ok(Response::new(to_proto::txn_response(
            &self.headers,
            response,
        )))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        // As in etcd, where nothing is compacted yet, the revision 0 counts as compacted.
        let revision = Revision(u64::try_from(revision).unwrap_or(0));
        self.store.compact(revision).await.map_err(status_of)?;
        if physical {
            let swept = tokio::time::timeout(SWEEP_MAX, self.store.wait_swept()).await;
            swept
                .map_err(|_| Status::from(crate::error::TIMEOUT))?
                .map_err(status_of)?;
        }
        Ok(Response::new(pb::CompactionResponse {
            header: self.headers.now(),
        }))
    }
}

/// A transaction that only reads may be answered by the local replica when each of its reads may.
fn consistency(request: &pb::TxnRequest) -> Consistency {
    match is_serializable(request) {
        true => Consistency::Stale,
        false => Consistency::Linearizable,
    }
}

fn is_serializable(request: &pb::TxnRequest) -> bool {
    use pb::request_op::Request;
    let ops = request.success.iter().chain(&request.failure);
    ops.clone().next().is_some()
        && ops.into_iter().all(|op| match &op.request {
            Some(Request::RequestRange(range)) => range.serializable,
            // Within bounds: a deeper one is refused before it is run.
            Some(Request::RequestTxn(_)) | None => false,
            Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => false,
        })
}

fn unexpected(result: &OpResult) -> Status {
    Status::internal(format!("a step was answered with {result:?}"))
}
