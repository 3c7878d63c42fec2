//! Clients that want a leader (metadata `hasleader: true`) are told at once when there is none, and their streams end when
//! it is lost, so that they turn to another member.

use crate::error::NO_LEADER;
use futures::Stream;
use futures::future::BoxFuture;
use raft_store::RaftStore;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// How often a member looks whether it hears a leader.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const METADATA: &str = "hasleader";

/// Whether this member hears a leader, kept up to date by [`Hearing::keep`]. One that was removed answers nothing.
#[derive(Clone)]
pub struct Hearing {
    store: RaftStore,
    hears: watch::Receiver<bool>,
}

impl Hearing {
    /// The look-out and what keeps it.
    pub fn new(store: RaftStore) -> (watch::Sender<bool>, Hearing) {
        let (sender, hears) = watch::channel(true);
        (sender, Hearing { store, hears })
    }

    /// Looks again and again until `stop`.
    pub async fn keep(store: RaftStore, sender: watch::Sender<bool>, stop: CancellationToken) {
        let look = async {
            loop {
                let hears = store.hears_leader().await;
                sender.send_if_modified(|heard| std::mem::replace(heard, hears) != hears);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        stop.run_until_cancelled(look).await;
    }

    /// Whether a leader is heard now.
    pub fn hears(&self) -> bool {
        *self.hears.borrow()
    }

    /// Whether a leader is heard, now and with each change.
    pub fn changes(&self) -> impl Stream<Item = bool> + Send + use<> {
        WatchStream::new(self.hears.clone())
    }

    /// The stream, which ends with "no leader" when the request wants one and it is lost.
    pub fn guard<S>(&self, metadata: &MetadataMap, stream: S) -> Guarded<S> {
        let lost = wants_leader(metadata).then(|| {
            let mut hearing = self.hears.clone();
            let lost: BoxFuture<'static, ()> = Box::pin(async move {
                if hearing.wait_for(|hears| !hears).await.is_err() {
                    std::future::pending().await
                }
            });
            lost
        });
        Guarded {
            stream: Some(stream),
            lost,
        }
    }
}

impl Interceptor for Hearing {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(reason) = self.store.removed() {
            return Err(Status::unavailable(format!("etcdserver: {reason}")));
        }
        match wants_leader(request.metadata()) && !self.hears() {
            true => Err(NO_LEADER.into()),
            false => Ok(request),
        }
    }
}

fn wants_leader(metadata: &MetadataMap) -> bool {
    let wanted = metadata.get(METADATA);
    wanted.is_some_and(|wanted| wanted.as_bytes() == b"true")
}

/// A stream of answers that ends when the leader is lost.
pub struct Guarded<S> {
    stream: Option<S>,
    lost: Option<BoxFuture<'static, ()>>,
}

impl<T, S> Stream for Guarded<S>
where
    S: Stream<Item = Result<T, Status>> + Unpin,
{
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Guarded { stream, lost } = &mut *self;
        let Some(running) = stream else {
            return Poll::Ready(None);
        };
        if let Some(waiting) = lost
            && waiting.as_mut().poll(context).is_ready()
        {
            *stream = None;
            *lost = None;
            return Poll::Ready(Some(Err(NO_LEADER.into())));
        }
        Pin::new(running).poll_next(context)
    }
}
