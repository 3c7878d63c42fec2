//! Reads: how far the local replica must be for a linearizable one, and reading it.
//!
//! All reads that wait share one question to the leader ("read index"). Those that come while it is on its way wait for the
//! next one: an answer only holds for reads that began before it was asked.

use super::Inner;
use super::rhythm::Rhythm;
use crate::db::{Db, View};
use crate::net::Purpose;
use crate::net::wire::to_log_id;
use crate::runtime;
use crate::types::{LogId, MemberId};
use crate::work::WorkDone;
use futures::FutureExt;
use futures::future::BoxFuture;
use mvcc::planted::{self, Bug};
use mvcc::{
    HistoryPage, HistorySource, KeyRange, KeyRangeEnd, RangeRequest, RangeResponse, ReadError,
    StoreError,
};
use objects::Revision;
use openraft::ReadPolicy;
use rpc::raft as proto;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// How soon to ask again after a leader was not there.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// One attempt to ask; a leader that is cut off never answers.
const ATTEMPT_MAX: Duration = Duration::from_millis(1000);
/// A question for the read index is slow beyond this; etcd's measure.
const SLOW_READ_INDEX: Duration = Duration::from_millis(500);

/// Questions for the read index that may wait; each member asks one at a time.
pub(crate) const ASKED_MAX: usize = 64;

/// A read that waits to be allowed.
pub(crate) type Waiting = oneshot::Sender<Result<(), StoreError>>;

impl Inner {
    /// Waits until the local replica has everything that was acknowledged before this call.
    pub async fn barrier(&self) -> Result<(), StoreError> {
        self.check_member()?;
        if planted::is(Bug::ReadIndexOff) {
            return Ok(());
        }
        let deadline = Instant::now() + self.config.timings.request;
        let (reply, answer) = oneshot::channel();
        match timeout_at(deadline, self.reads.send(reply)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(StoreError::ShuttingDown),
            Err(_) => {
                return Err(StoreError::Busy);
            }
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::ShuttingDown),
            Err(_) => Err(StoreError::Unavailable(
                "no quorum confirmed the leader in time".to_owned(),
            )),
        }
    }

    /// Reads the local replica.
    pub async fn read(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.check_member()?;
        self.metrics.work.add(&WorkDone {
            ranges: 1,
            ..WorkDone::default()
        });
        // One key is read faster than handed to another thread.
        if request.range.end == KeyRangeEnd::Single {
            return mvcc::range(&self.db.view(), &request).map_err(refused);
        }
        let db = self.db.clone();
        in_background(move || mvcc::range(&db.view(), &request)).await
    }

    /// Reads one view of the local replica.
    pub async fn read_with<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.check_member()?;
        let db = self.db.clone();
        in_background(move || read(&db.view())).await
    }

    /// Where watchers read the past.
    pub fn history(&self) -> Arc<dyn HistorySource> {
        Arc::new(History(Arc::downgrade(&self.db)))
    }

    /// Asks this member, if it leads, up to which entry a read must see. One round of heartbeats answers all that wait here,
    /// those of other members too.
    pub async fn read_index_here(&self) -> Result<LogId, String> {
        let (reply, answer) = oneshot::channel();
        let is_asked = self.rounds.send(reply).await.is_ok();
        match answer.await {
            Ok(read_index) if is_asked => read_index,
            _ => Err("this member is shutting down".to_owned()),
        }
    }

    async fn read_index_at(&self, leader: MemberId) -> Result<LogId, String> {
        use proto::read_index_response::Result as Outcome;
        if leader == self.identity.member_id {
            return self.read_index_here().await;
        }
        let address = self
            .address_of(leader)
            .ok_or("the leader's address is not known")?;
        let mut client = self.peers.client(leader, &address, Purpose::Forward);
        let response = client
            .read_index(proto::ReadIndexRequest {})
            .await
            .map_err(|status| status.message().to_owned())?;
        match response.into_inner().result {
            Some(Outcome::LogId(log_id)) => Ok(to_log_id(log_id)),
            Some(Outcome::Unavailable(reason)) => Err(reason),
            Some(Outcome::NotLeader(_)) | None => Err("that member does not lead".to_owned()),
        }
    }

    async fn read_index(&self, deadline: Instant) -> Result<LogId, StoreError> {
        let mut reason = "no leader is known".to_owned();
        while Instant::now() < deadline {
            if let Some(leader) = self.raft.current_leader().await {
                let attempt_deadline = deadline.min(Instant::now() + ATTEMPT_MAX);
                match timeout_at(attempt_deadline, self.read_index_at(leader)).await {
                    Ok(Ok(log_id)) => return Ok(log_id),
                    Ok(Err(err)) => reason = err,
                    Err(_) => {
                        self.peers.reset(leader, Purpose::Forward);
                        "the leader did not answer in time".clone_into(&mut reason);
                    }
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
        Err(StoreError::Unavailable(reason))
    }

    async fn allow_reads(&self, deadline: Instant) -> Result<(), StoreError> {
        let log_id = self.read_index(deadline).await?;
        self.wait_applied(log_id.index, deadline).await
    }

    /// Waits until the entry `index` is applied here.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), StoreError> {
        let mut applied = self.applied.clone();
        let reached =
            applied.wait_for(|applied| applied.log_id.is_some_and(|log_id| log_id.index >= index));
        match timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StoreError::ShuttingDown),
            Err(_) => Err(StoreError::Unavailable(
                "this member is too far behind the leader".to_owned(),
            )),
        }
    }
}

/// Asks for all that wait, again and again, as long as the member runs.
pub(crate) async fn run(inner: Arc<Inner>, mut reads: mpsc::Receiver<Waiting>) {
    let rhythm = Rhythm::default();
    while let Some(first) = reads.recv().await {
        runtime::let_others_ask().await;
        let mut waiting = vec![first];
        let mut gathering = rhythm.gather();
        while let Some(next) = gathering.next(waiting.len(), &mut reads).await {
            waiting.push(next);
        }
        let began = Instant::now();
        let result = inner
            .allow_reads(began + inner.config.timings.request)
            .await;
        rhythm.answered(waiting.len() + reads.len(), began, Instant::now());
        inner.metrics.work.add(&WorkDone {
            read_indexes_failed: u64::from(result.is_err()),
            read_indexes_slow: u64::from(began.elapsed() > SLOW_READ_INDEX),
            ..WorkDone::default()
        });
        for read in waiting {
            // Who no longer waits was told at its deadline.
            let _ = read.send(result.clone());
        }
    }
}

/// A question for the read index that waits for a round of heartbeats.
pub(crate) type Asked = oneshot::Sender<Result<LogId, String>>;

/// Confirms by heartbeats that this member leads, once for all that asked before, as long as the member runs.
pub(crate) async fn confirm(inner: Arc<Inner>, mut asked: mpsc::Receiver<Asked>) {
    let rhythm = Rhythm::default();
    while let Some(first) = asked.recv().await {
        runtime::let_others_ask().await;
        let mut waiting = vec![first];
        let mut gathering = rhythm.gather();
        while let Some(next) = gathering.next(waiting.len(), &mut asked).await {
            waiting.push(next);
        }
        let began = Instant::now();
        let confirmed = inner.raft.get_read_log_id(ReadPolicy::ReadIndex);
        let read_index = match tokio::time::timeout(ATTEMPT_MAX, confirmed).await {
            Ok(Ok((read_log_id, _))) => Ok(*read_log_id.log_id()),
            Ok(Err(err)) => Err(err.to_string()),
            Err(_) => Err("no quorum confirmed the leader in time".to_owned()),
        };
        rhythm.answered(waiting.len() + asked.len(), began, Instant::now());
        for reply in waiting {
            // Who no longer waits has given up.
            let _ = reply.send(read_index.clone());
        }
    }
}

/// A watch that somebody still holds does not keep a stopped member's database open.
struct History(Weak<Db>);

impl HistorySource for History {
    fn history(
        &self,
        range: KeyRange,
        from: Revision,
        changes_max: usize,
    ) -> BoxFuture<'_, Result<HistoryPage, StoreError>> {
        let Some(db) = self.0.upgrade() else {
            return std::future::ready(Err(StoreError::ShuttingDown)).boxed();
        };
        in_background(move || mvcc::history(&db.view(), &range, from, changes_max)).boxed()
    }
}

pub(super) async fn in_background<T, F>(read: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ReadError> + Send + 'static,
{
    match runtime::spawn_blocking(read).await {
        Ok(result) => result.map_err(refused),
        Err(_) => Err(StoreError::ShuttingDown),
    }
}

pub(super) fn refused(err: ReadError) -> StoreError {
    match err {
        ReadError::Refused(refused) => refused,
        ReadError::Tables(err) => {
            tracing::error!(error = %err, source = ?std::error::Error::source(&err), "the state cannot be read");
            StoreError::Unavailable(err.to_string())
        }
    }
}
