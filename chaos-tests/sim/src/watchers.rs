//! Watchers: each watches a range at some member, leaves or is thrown out, and resumes at another after the last revision told.

use crate::judge::Event;
use crate::world::World;
use futures::StreamExt;
use mvcc::{KeyRange, Store, StoreError, WatchRequest, WatchStream};
use objects::Revision;
use raft_store::types::MemberId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const WATCHERS: usize = 3;
/// How long a watcher may take to hear of everything when nothing is broken any more.
const CATCH_UP_MAX: Duration = Duration::from_secs(20);

/// The watchers, as the one who started them holds them.
pub struct Watching {
    tasks: Vec<JoinHandle<()>>,
    goal: watch::Sender<Option<Revision>>,
}

impl Watching {
    /// Waits until each watcher has heard of everything.
    pub async fn finish(self, world: &World) {
        let newest = world
            .in_cluster()
            .into_iter()
            .filter_map(|member| world.store(member))
            .map(|store| store.applied_revision())
            .max();
        self.goal.send_replace(newest);
        let all = async {
            for task in self.tasks {
                task.await.expect("a watcher does not panic");
            }
        };
        if timeout(CATCH_UP_MAX, all).await.is_err() {
            let what = format!("a watcher did not hear of everything up to {newest:?}");
            world.judge().violate(crate::invariants::PROGRESS, what);
        }
    }
}

/// Starts the watchers.
pub fn start(world: &World, seed: u64) -> Watching {
    let goal = watch::Sender::new(None);
    let mut seeds = StdRng::seed_from_u64(seed);
    let ranges = [
        KeyRange::prefix("key/"),
        KeyRange::prefix(""),
        KeyRange::key("key/03"),
    ];
    let tasks = (0..WATCHERS).map(|number| {
        let watcher = Watcher {
            world: world.clone(),
            rng: StdRng::seed_from_u64(seeds.random()),
            range: ranges[number].clone(),
            next: Revision(1),
            goal: goal.subscribe(),
        };
        tokio::spawn(watcher.run())
    });
    Watching {
        tasks: tasks.collect(),
        goal,
    }
}

struct Watcher {
    world: World,
    rng: StdRng,
    range: KeyRange,
    /// The first revision not told yet.
    next: Revision,
    goal: watch::Receiver<Option<Revision>>,
}

impl Watcher {
    async fn run(mut self) {
        while !self.is_done() {
            let members = self.world.members();
            let member = members[self.rng.random_range(0..members.len())];
            let Some(store) = self.world.store(member) else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let request = WatchRequest {
                range: self.range.clone(),
                start: self.next,
            };
            let over = self.world.over(member);
            let began = tokio::select! {
                biased;
                () = over.cancelled() => continue,
                began = store.watch(request.clone()) => began,
            };
            drop(store);
            match began {
                Ok(stream) => self.follow(member, &request, stream).await,
                Err(StoreError::Compacted { oldest, .. }) => {
                    self.next = oldest;
                    sleep(Duration::from_millis(1)).await;
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn is_done(&self) -> bool {
        self.goal.borrow().is_some_and(|goal| self.next > goal)
    }

    async fn follow(&mut self, at: MemberId, request: &WatchRequest, mut stream: WatchStream) {
        let watch = self.world.next_op();
        let judge = self.world.judge().clone();
        judge.see(&Event::WatchBegan { watch, at, request });
        let over = self.world.over(at);
        let leaves = Instant::now() + Duration::from_millis(self.rng.random_range(200..6_000));
        let why = loop {
            // A slow watcher falls back to reading history.
            if self.rng.random_bool(0.1) {
                sleep(Duration::from_millis(self.rng.random_range(10..800))).await;
            }
            let next = tokio::select! {
                biased;
                () = over.cancelled() => break "its member died".to_owned(),
                next = stream.next() => next,
                () = tokio::time::sleep_until(leaves) => break "it leaves".to_owned(),
                _ = self.goal.changed() => continue,
            };
            match next {
                Some(Ok(batch)) => {
                    judge.see(&Event::WatchTold {
                        watch,
                        batch: &batch,
                    });
                    self.next = self.next.max(batch.revision.next());
                }
                Some(Err(StoreError::Compacted { oldest, .. })) => {
                    self.next = self.next.max(oldest);
                    break "compacted".to_owned();
                }
                Some(Err(err)) => break err.to_string(),
                None => break "the end".to_owned(),
            }
            if self.is_done() {
                break "all is told".to_owned();
            }
        };
        judge.see(&Event::WatchEnded { watch, why: &why });
    }
}
