//! The two calls of etcd's `etcdserverpb.KV` that the comparison needs, over our store.

use crate::wire::{Header, Kv, PUT, PutRequest, PutResponse, RANGE, RangeRequest, RangeResponse};
use futures::future::BoxFuture;
use mvcc::{Consistency, KeyRange, KeyRangeEnd, KeyValue, Op, Store, StoreError, Txn};
use raft_store::RaftStore;
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::server::{Grpc as Server, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

/// The two calls over a member of ours.
#[derive(Clone)]
pub struct KvService(pub RaftStore);

impl NamedService for KvService {
    const NAME: &'static str = "etcdserverpb.KV";
}

impl tower::Service<http::Request<Body>> for KvService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                PUT => {
                    let codec = ProstCodec::<PutResponse, PutRequest>::default();
                    Server::new(codec).unary(service, request).await
                }
                RANGE => {
                    let codec = ProstCodec::<RangeResponse, RangeRequest>::default();
                    Server::new(codec).unary(service, request).await
                }
                other => Status::unimplemented(other.to_owned()).into_http(),
            })
        })
    }
}

impl UnaryService<PutRequest> for KvService {
    type Response = PutResponse;
    type Future = BoxFuture<'static, Result<Response<PutResponse>, Status>>;

    fn call(&mut self, request: Request<PutRequest>) -> Self::Future {
        let store = self.0.clone();
        Box::pin(async move {
            let PutRequest { key, value } = request.into_inner();
            let txn = Txn {
                success: vec![Op::put(key, value)],
                ..Txn::default()
            };
            let done = store.txn(txn).await.map_err(status)?;
            Ok(Response::new(PutResponse {
                header: header(done.revision.0),
            }))
        })
    }
}

impl UnaryService<RangeRequest> for KvService {
    type Response = RangeResponse;
    type Future = BoxFuture<'static, Result<Response<RangeResponse>, Status>>;

    fn call(&mut self, request: Request<RangeRequest>) -> Self::Future {
        let store = self.0.clone();
        Box::pin(async move {
            let RangeRequest {
                key,
                range_end,
                serializable,
            } = request.into_inner();
            let keys = match range_end.is_empty() {
                true => KeyRange::key(key),
                false => KeyRange {
                    start: key,
                    end: KeyRangeEnd::Before(range_end),
                },
            };
            let mut range = mvcc::RangeRequest::new(keys);
            if serializable {
                range.consistency = Consistency::Stale;
            }
            let found = store.range(range).await.map_err(status)?;
            Ok(Response::new(RangeResponse {
                header: header(found.revision.0),
                count: found.kvs.len() as i64,
                kvs: found.kvs.into_iter().map(kv).collect(),
            }))
        })
    }
}

fn header(revision: u64) -> Option<Header> {
    Some(Header {
        revision: revision as i64,
        ..Header::default()
    })
}

fn kv(found: KeyValue) -> Kv {
    Kv {
        key: found.key,
        create_revision: found.create_revision.0 as i64,
        mod_revision: found.mod_revision.0 as i64,
        version: found.version as i64,
        value: found.value,
    }
}

fn status(err: StoreError) -> Status {
    Status::new(Code::Unavailable, err.to_string())
}
