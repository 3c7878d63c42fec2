//! A store in memory, for the tests of whatever uses a store, and for simulation: the same semantics as the real one, one
//! member, no log and no disk.
//!
//! It knows no clock: it tells its watchers progress after every command. Who leads is what the test says.

use crate::apply::apply;
use crate::command::{Applied, Command, Done, Reply};
use crate::compact::sweep;
use crate::hub::{HistorySource, Hub, HubLimits};
use crate::meta::Meta;
use crate::notes::{self, At, Moment, Past};
use crate::overlay::Overlay;
use crate::read::{self, HistoryPage, ReadError};
use crate::store::{
    Consistency, KeyRange, LeaderState, LeaderStream, RangeRequest, RangeResponse, Store,
    StoreError, Txn, TxnResponse, WatchRequest, WatchStream,
};
use crate::tables::MemTables;
use crate::validate::validate;
use crate::versions::{self, KeyVersions, VersionsRequest};
use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt};
use futures::stream;
use objects::{Revision, Term};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// How many changes are swept after each command.
const SWEEP_CHANGES_MAX: usize = 100;

/// What cannot fail in memory.
const READABLE: &str = "tables in memory can always be read";

/// A store in memory. Clones are handles of the same store.
#[derive(Clone)]
pub struct MemStore {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    hub: Hub,
}

struct State {
    tables: MemTables,
    index: u64,
    leader: LeaderState,
    /// Moves on with each change of `leader`.
    leader_changes: u64,
    leader_wakers: Vec<Waker>,
}

impl Default for MemStore {
    fn default() -> Self {
        MemStore::new()
    }
}

impl MemStore {
    /// An empty store, leading in term 1.
    pub fn new() -> Self {
        MemStore::with_limits(HubLimits::default())
    }

    /// An empty store whose watchers have these limits.
    pub fn with_limits(limits: HubLimits) -> Self {
        let meta = Meta::default();
        let state = State {
            tables: MemTables::default(),
            index: 0,
            leader: LeaderState {
                term: Term(1),
                is_leader: true,
                has_leader: true,
            },
            leader_changes: 0,
            leader_wakers: vec![],
        };
        let hub = Hub::new(limits, meta.revision, meta.compacted);
        MemStore {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                hub,
            }),
        }
    }

    /// Applies a command in the current term. Fails without a leader, as a member without a quorum does.
    pub fn command(&self, command: &Command) -> Reply {
        let mut state = self.inner.lock();
        state.reachable()?;
        state.index += 1;
        let at = Applied {
            index: state.index,
            term: state.leader.term,
        };
        let mut overlay = Overlay::new(&state.tables).expect(READABLE);
        let outcome = apply(&mut overlay, at, command).expect(READABLE);
        sweep(&mut overlay, SWEEP_CHANGES_MAX).expect(READABLE);
        let compacted = overlay.meta().compacted;
        let writes = overlay.into_writes();
        state.tables.write(writes);
        // Published under the lock, so that batches come in the order of revisions.
        match command {
            Command::RaiseRevision { .. } => self.inner.hub.reset(outcome.revision, compacted),
            _ => self.inner.hub.publish(outcome.revision, outcome.events),
        }
        self.inner.hub.compacted(compacted);
        self.inner.hub.progress();
        outcome.reply
    }

    /// Says who leads from now on: a later term fences the writers of earlier ones, no leader refuses writes and
    /// linearizable reads.
    pub fn set_leader(&self, leader: LeaderState) {
        let mut state = self.inner.lock();
        state.leader = leader;
        state.leader_changes += 1;
        let wakers = std::mem::take(&mut state.leader_wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends all watches, as a member that shuts down does.
    pub fn close(&self) {
        self.inner.hub.close();
    }

    /// A copy of the tables.
    pub fn tables(&self) -> MemTables {
        self.inner.lock().tables.clone()
    }

    /// The hub that feeds its watchers.
    pub fn hub(&self) -> &Hub {
        &self.inner.hub
    }
}

#[async_trait]
impl Store for MemStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let state = self.inner.lock();
        if request.consistency == Consistency::Linearizable {
            state.reachable()?;
        }
        read::range(&state.tables, &request).map_err(refused)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        validate(&txn)?;
        match self.command(&Command::Txn(txn))? {
            Done::Txn(response) => Ok(response),
            other => unreachable!("a transaction was answered with {other:?}"),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.inner.hub.watch(request, self.inner.clone()).await
    }

    async fn versions(&self, request: VersionsRequest) -> Result<KeyVersions, StoreError> {
        let state = self.inner.lock();
        state.reachable()?;
        versions::versions(&state.tables, &request).map_err(refused)
    }

    async fn past(&self) -> Result<Past, StoreError> {
        let state = self.inner.lock();
        state.reachable()?;
        Ok(notes::past(&state.tables).expect(READABLE))
    }

    async fn moment(&self, at: At) -> Result<Moment, StoreError> {
        let state = self.inner.lock();
        state.reachable()?;
        notes::moment(&state.tables, at).map_err(refused)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.command(&Command::Compact { revision }).map(|_| ())
    }

    fn applied_revision(&self) -> Revision {
        Meta::load(&self.inner.lock().tables)
            .expect(READABLE)
            .revision
    }

    fn leader(&self) -> LeaderStream {
        Box::pin(stream::unfold(
            (self.inner.clone(), None),
            |(inner, seen)| async move {
                let (leader, changes) = poll_fn(|context| {
                    let mut state = inner.lock();
                    if seen != Some(state.leader_changes) {
                        return Poll::Ready((state.leader, state.leader_changes));
                    }
                    state
                        .leader_wakers
                        .retain(|waker| !waker.will_wake(context.waker()));
                    state.leader_wakers.push(context.waker().clone());
                    Poll::Pending
                })
                .await;
                Some((leader, (inner, Some(changes))))
            },
        ))
    }
}

impl HistorySource for Inner {
    fn history(
        &self,
        range: KeyRange,
        from: Revision,
        changes_max: usize,
    ) -> BoxFuture<'_, Result<HistoryPage, StoreError>> {
        async move { read::history(&self.lock().tables, &range, from, changes_max).map_err(refused) }.boxed()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reachable(&self) -> Result<(), StoreError> {
        match self.leader.has_leader {
            true => Ok(()),
            false => Err(StoreError::Unavailable("no leader".to_owned())),
        }
    }
}

fn refused(err: ReadError) -> StoreError {
    match err {
        ReadError::Refused(refused) => refused,
        ReadError::Tables(err) => unreachable!("{READABLE}: {err}"),
    }
}
