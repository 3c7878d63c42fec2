//! Leads while this master leads: in each term of its own it fills the cache and runs every controller and the scheduler;
//! when the term ends it stops them all. What an old leader still sends is refused by the store, since every write carries
//! its term.

use crate::driver::Driver;
use crate::execute::Executor;
use crate::scheduler::Scheduler;
use crate::world::SharedWorld;
use futures::StreamExt;
use mvcc::{LeaderState, Store, StoreError};
use objects::Term;
use reconcile::controller::{Change, Controller, World};
use registry::{Pipeline, Shell};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_millis(200);

/// Why the controllers must begin anew within a term.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("the store's events were lost: {0}")]
    Store(#[from] StoreError),
    #[error("a controller's loop or the scheduler's ended: {0}")]
    TaskEnded(String),
}

/// What the runtime needs of its master.
#[derive(Clone)]
pub struct Runtime {
    /// The store, as this member has it.
    pub store: Arc<dyn Store>,
    /// The write pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Time and ids.
    pub shell: Arc<dyn Shell>,
    /// Every controller.
    pub controllers: Vec<Arc<dyn Controller>>,
}

impl Runtime {
    /// Runs until `stop`: idle while another master leads.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.store.leader();
        let mut state = LeaderState::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                change = changes.next() => match change {
                    Some(change) => state = change,
                    None => return,
                },
                () = self.lead(state.term), if state.is_leader => {}
            }
        }
    }

    /// Leads in one term, for ever; whoever calls drops it when the term is over.
    async fn lead(&self, term: Term) {
        tracing::info!(%term, "this master leads: starting controllers and scheduler");
        loop {
            let Err(error) = self.lead_once(term).await;
            tracing::warn!(%term, %error, "the controllers were interrupted; reading everything anew");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Fills the cache and works until the watch breaks.
    async fn lead_once(&self, term: Term) -> Result<Infallible, Interrupted> {
        let (world, watch) = SharedWorld::load(self.store.clone(), self.shell.clone()).await?;
        let executor = Executor {
            pipeline: self.pipeline.clone(),
            shell: self.shell.clone(),
            term,
        };
        let drivers: Vec<Arc<Driver>> = self
            .controllers
            .iter()
            .map(|controller| Arc::new(Driver::new(controller.clone())))
            .collect();
        let scheduler = Arc::new(Scheduler::new(&world.read()));
        self.notice_everything(&world, &drivers);

        // The set ends its tasks when it is dropped, so that none outlives this future, whatever ends it.
        let mut tasks = JoinSet::new();
        for driver in &drivers {
            tasks.spawn(driver.clone().run(world.clone(), executor.clone()));
        }
        tasks.spawn(scheduler.clone().run(world.clone(), executor));
        let follow = world.follow(watch, |applied, cache| {
            drivers
                .iter()
                .for_each(|driver| driver.notice(applied, cache));
            scheduler.notice(applied, cache);
        });
        tokio::select! {
            error = follow => Err(error.into()),
            Some(ended) = tasks.join_next() => Err(Interrupted::TaskEnded(
                ended.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string()),
            )),
        }
    }

    /// What a new leader finds counts as changed.
    fn notice_everything(&self, world: &SharedWorld, drivers: &[Arc<Driver>]) {
        let cache = world.read();
        for (key, record) in cache.all_keys() {
            let applied = crate::cache::Applied {
                key: key.clone(),
                before: None,
                after: Some(record.clone()),
            };
            drivers
                .iter()
                .for_each(|driver| driver.notice(&applied, &cache));
        }
    }
}

/// Whether `controller` looks after the object at `key`.
pub(crate) fn looks_after(
    controller: &dyn Controller,
    key: &objects::ObjectKey,
    world: &dyn World,
) -> bool {
    let change = Change {
        key,
        before: None,
        after: world.record(key),
    };
    controller.keys_for(&change, world).contains(key)
}
