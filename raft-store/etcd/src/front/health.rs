//! gRPC's health protocol: a member serves while it hears a leader. It knows the whole server, by the empty name, and the KV service.

use crate::leader::Hearing;
use futures::stream::{BoxStream, StreamExt};
use rpc::etcd::etcdserverpb::kv_server;
use rpc::health::health_check_response::ServingStatus;
use rpc::health::health_server::Health;
use rpc::health::{HealthCheckRequest, HealthCheckResponse};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The Health service of one member.
pub struct HealthService {
    pub hearing: Hearing,
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match is_known(&request.into_inner().service) {
            true => Ok(Response::new(told(self.hearing.hears()))),
            false => Err(Status::not_found("unknown service")),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let changes = match is_known(&request.into_inner().service) {
            true => self.hearing.changes().map(told).boxed(),
            // It might come to be: the stream goes on.
            false => futures::stream::iter([answer(ServingStatus::ServiceUnknown)])
                .chain(futures::stream::pending())
                .boxed(),
        };
        let changes = changes.take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(changes.map(Ok).boxed()))
    }
}

fn is_known(service: &str) -> bool {
    service.is_empty() || service == kv_server::SERVICE_NAME
}

fn told(hears: bool) -> HealthCheckResponse {
    answer(match hears {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    })
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
