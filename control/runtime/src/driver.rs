//! Runs one controller: takes a key, asks for its plan, carries it out, and does not call the key done before the cache shows
//! what was written. So a controller never plans from a world that lacks its own last writes.

use crate::cache::Applied;
use crate::execute::Executor;
use crate::queue::Queue;
use crate::world::SharedWorld;
use objects::{ObjectKey, Status};
use reconcile::Plan;
use reconcile::controller::{Asked, Controller};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::coop;

/// Keys of one controller that are looked at side by side.
const WORKERS: usize = 4;
/// With nothing due, a worker looks at the queue this often all the same.
const IDLE: Duration = Duration::from_secs(60);

/// A controller with its queue.
pub struct Driver {
    controller: Arc<dyn Controller>,
    queue: Mutex<Queue<ObjectKey>>,
    /// Why the last plan of a key failed.
    failures: Mutex<BTreeMap<ObjectKey, String>>,
    wake: Notify,
}

impl Driver {
    /// A driver with an empty queue.
    pub fn new(controller: Arc<dyn Controller>) -> Self {
        Driver {
            controller,
            queue: Mutex::default(),
            failures: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Queues what a change touches; `world` already shows the change.
    pub fn notice(&self, applied: &Applied, world: &crate::Cache) {
        let keys = self.controller.keys_for(&applied.change(), world);
        if keys.is_empty() {
            return;
        }
        let mut queue = self.queue.lock().expect("no holder of this lock panics");
        keys.into_iter().for_each(|key| queue.add(key));
        drop(queue);
        self.wake.notify_one();
    }

    /// Works for ever; whoever calls drops it when the term is over.
    pub async fn run(self: Arc<Self>, world: SharedWorld, executor: Executor) {
        let workers = (0..WORKERS).map(|_| self.work(&world, &executor));
        futures::future::join_all(workers).await;
    }

    async fn work(&self, world: &SharedWorld, executor: &Executor) {
        loop {
            // A plan of nothing waits for nothing: a long queue of such keys must let others run, and be stopped, all the same.
            coop::consume_budget().await;
            let (key, due) = {
                let mut queue = self.queue.lock().expect("no holder of this lock panics");
                (queue.take(Instant::now()), queue.next_due())
            };
            let Some(key) = key else {
                let wait = due.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
                let _ = tokio::time::timeout(wait, self.wake.notified()).await;
                continue;
            };
            self.wake.notify_one(); // Another worker may take what else is there.
            let outcome = self.look_at(&key, world, executor).await;
            self.settle(&key, outcome, executor);
        }
    }

    /// Plans for the key and carries the plan out.
    async fn look_at(
        &self,
        key: &ObjectKey,
        world: &SharedWorld,
        executor: &Executor,
    ) -> Result<Plan, Failure> {
        let now = executor.shell.now();
        let failure = self.failures().get(key).cloned();
        let plan = {
            let asked = Asked {
                key,
                world: &*world.read(),
                now,
                failure: failure.as_deref(),
            };
            self.ask(&asked)?
        };
        if plan.is_nothing() {
            return Ok(plan);
        }
        tracing::debug!(controller = self.controller.name(), %key, %plan, "carrying out");
        let executed = executor.execute(self.controller.name(), &plan).await;
        world.caught_up().await;
        executed.map_err(Failure::Refused)?;
        Ok(plan)
    }

    /// A controller that breaks over one object goes on with the others.
    fn ask(&self, asked: &Asked<'_>) -> Result<Plan, Failure> {
        match catch_unwind(AssertUnwindSafe(|| self.controller.plan(asked))) {
            Ok(plan) => plan.map_err(Failure::Unreadable),
            Err(_) => Err(Failure::Panicked),
        }
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, String>> {
        self.failures.lock().expect("no holder of this lock panics")
    }

    fn settle(&self, key: &ObjectKey, outcome: Result<Plan, Failure>, executor: &Executor) {
        let controller = self.controller.name();
        let now = Instant::now();
        let mut queue = self.queue.lock().expect("no holder of this lock panics");
        match outcome {
            Ok(plan) => {
                self.failures().remove(key);
                queue.done(key);
                if let Some(at) = plan.wake_at {
                    queue.add_at(key.clone(), now + at.since(executor.shell.now()));
                }
            }
            Err(Failure::Refused(status)) => {
                let wait = queue.failed(key, now);
                if status.code == 409 {
                    tracing::debug!(controller, %key, error = %status, ?wait, "somebody else wrote; trying again");
                } else {
                    self.failures().insert(key.clone(), status.to_string());
                    tracing::warn!(controller, %key, error = %status, ?wait, "a plan failed; trying again");
                }
            }
            Err(Failure::Unreadable(error)) => {
                let wait = queue.failed(key, now);
                tracing::error!(controller, %key, %error, ?wait, "an object cannot be read as its kind; mend or delete it");
            }
            Err(Failure::Panicked) => {
                let wait = queue.failed(key, now);
                tracing::error!(controller, %key, ?wait, "the controller panicked over this object, which is a fault of the program; report it with the panic's message");
            }
        }
    }
}

enum Failure {
    Refused(Status),
    Unreadable(objects::ObjectError),
    Panicked,
}
