//! What carries calls to another member: HTTP/2 over TLS for real, or whatever a simulation puts in its place, which then carries
//! the same requests and answers.

use crate::types::MemberId;
use futures::TryFutureExt;
use futures::future::{BoxFuture, Either, ErrInto};
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;
use tower::util::BoxCloneSyncService;

/// Why a call was not carried.
pub type TransportError = Box<dyn std::error::Error + Send + Sync>;

/// Carries calls to one member in a simulation.
pub type Pipe = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, TransportError>;

/// Answers the calls of the other members.
pub type Answers = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// What a connection is for. Each purpose has one of its own, so that none waits behind the other's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Log entries.
    Log,
    /// Heartbeats and votes.
    Pulse,
    /// Snapshots.
    Snapshot,
    /// Forwarded writes, read indexes, status.
    Forward,
}

/// A simulated network, as one member sees it.
pub trait Transport: Send + Sync + 'static {
    /// A connection to a member.
    fn connect(&self, to: MemberId, purpose: Purpose) -> Pipe;
}

/// A connection.
#[derive(Clone)]
pub enum Wire {
    Real(Channel),
    Simulated(Pipe),
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = TransportError;
    type Future = Either<
        ErrInto<<Channel as Service<http::Request<Body>>>::Future, TransportError>,
        BoxFuture<'static, Result<http::Response<Body>, TransportError>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        match self {
            Wire::Real(channel) => channel.poll_ready(context).map_err(Into::into),
            Wire::Simulated(pipe) => pipe.poll_ready(context),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Wire::Real(channel) => Either::Left(channel.call(request).err_into()),
            Wire::Simulated(pipe) => Either::Right(pipe.call(request)),
        }
    }
}
