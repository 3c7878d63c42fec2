//! What stands before the gRPC services: it counts their calls, and answers what is asked by plain HTTP on the same port.

mod calls;
mod health;
mod http;
mod probe;

pub use calls::Calls;
pub use health::HealthService;
pub use probe::{Check, Outcome, is_learner};

use crate::metrics::Numbers;
use ::http::{Method, Request, Response, Version};
use bytes::Bytes;
use calls::Call;
use futures::future::{BoxFuture, Either, FutureExt, Map};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// Puts a [`Front`] before the services.
#[derive(Clone)]
pub struct Fronting(pub Numbers);

impl<S> Layer<S> for Fronting {
    type Service = Front<S>;

    fn layer(&self, services: S) -> Front<S> {
        Front {
            services,
            numbers: self.0.clone(),
        }
    }
}

/// The services and what is asked of the member by HTTP.
#[derive(Clone)]
pub struct Front<S> {
    services: S,
    numbers: Numbers,
}

type Answered<E> = Result<Response<Answer>, E>;
/// Notes the head of a call's answer.
type Note<E> = Box<dyn FnOnce(Result<Response<Body>, E>) -> Answered<E> + Send>;

impl<S> Service<Request<Body>> for Front<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Answer>;
    type Error = S::Error;
    type Future = Either<Map<S::Future, Note<S::Error>>, BoxFuture<'static, Answered<S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Calls are always posted, over HTTP/2.
        if request.method() != Method::POST || request.version() < Version::HTTP_2 {
            let (numbers, (head, _)) = (self.numbers.clone(), request.into_parts());
            let answer = async move { Ok(http::answer(&numbers, &head).await.map(Answer::Text)) };
            return Either::Right(answer.boxed());
        }
        let mut call = self.numbers.telemetry.calls.begin(request.uri().path());
        let note: Note<S::Error> = Box::new(move |answered| {
            let response = answered?;
            call.ends_as(response.headers());
            Ok(response.map(|body| Answer::Call(body, call)))
        });
        Either::Left(self.services.call(request).map(note))
    }
}

/// A body: of a call, whose end is noted, or a text.
pub enum Answer {
    Call(Body, Call),
    Text(Full<Bytes>),
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut() {
            Answer::Text(text) => {
                let frame = std::task::ready!(Pin::new(text).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Answer::Call(body, call) => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(context));
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(trailers) = frame.trailers_ref() {
                            call.ends_as(trailers);
                        }
                    }
                    Some(Err(status)) => call.end(status.code()),
                    None => call.end(Code::Unknown), // An answer without a status.
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Call(body, _) => body.is_end_stream(),
            Answer::Text(text) => text.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Call(body, _) => body.size_hint(),
            Answer::Text(text) => text.size_hint(),
        }
    }
}
