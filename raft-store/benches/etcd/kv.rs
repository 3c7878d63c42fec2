//! The two calls of etcd's `etcdserverpb.KV` that the comparison needs: a client for both sides, and a service over our store.
//! Field numbers: etcd's `rpc.proto` and `kv.proto`; fields that are never sent here are left out.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use mvcc::{Consistency, KeyRange, KeyValue, Op, Store, StoreError, Txn};
use raft_store::RaftStore;
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::server::{Grpc as Server, NamedService, UnaryService};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";

#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PutResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
}

/// A read of one key; linearizable unless it says otherwise.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bool, tag = "7")]
    pub serializable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Kv {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<Kv>,
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// A client of either side.
#[derive(Clone)]
pub struct KvClient(Client<Channel>);

impl KvClient {
    pub fn new(channel: Channel) -> Self {
        KvClient(Client::new(channel))
    }

    pub async fn put(&mut self, request: PutRequest) -> Result<PutResponse, Status> {
        self.call(PUT, request).await
    }

    pub async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.call(RANGE, request).await
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let ready = self.0.ready().await;
        ready.map_err(|err| Status::unavailable(err.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let answer = self
            .0
            .unary(Request::new(request), path, ProstCodec::<Q, A>::default());
        Ok(answer.await?.into_inner())
    }
}

/// The same two calls over a member of ours.
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
            let RangeRequest { key, serializable } = request.into_inner();
            let mut range = mvcc::RangeRequest::new(KeyRange::key(key));
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
