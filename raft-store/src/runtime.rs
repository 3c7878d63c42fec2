//! The runtime under the store: tokio, with what a simulation must have in its hand asked here and nowhere else.
//!
//! For real, randomness comes from the system, and blocking work goes to threads of its own. A simulation runs all members on one
//! thread with tokio's clock paused: there randomness comes from its seed, the wall clock is its own, and nothing is handed to
//! another thread. Which of the two holds is a matter of the thread, chosen at run time, so that one build serves both.

use crate::steady::{self, Moment};
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng};
use std::cell::RefCell;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

thread_local! {
    static SIMULATION: RefCell<Option<Simulation>> = const { RefCell::new(None) };
}

struct Simulation {
    rng: SmallRng,
    began: Instant,
    wall_ms: i64,
}

/// Ends the simulation on its thread when dropped.
#[derive(Debug)]
pub struct SimulationGuard(());

impl Drop for SimulationGuard {
    fn drop(&mut self) {
        SIMULATION.with_borrow_mut(|simulation| *simulation = None);
        steady::forget();
    }
}

/// From now on everything of the store on this thread is simulated. To be called within a single-threaded tokio runtime whose
/// clock is paused; `wall_ms` is what the wall clock says now.
pub fn simulate(seed: u64, wall_ms: i64) -> SimulationGuard {
    let began = Instant::now();
    SIMULATION.with_borrow_mut(|simulation| {
        *simulation = Some(Simulation {
            rng: SmallRng::seed_from_u64(seed),
            began,
            wall_ms,
        });
    });
    SimulationGuard(())
}

/// Makes the simulated wall clock jump.
pub fn jump_wall_clock(by_ms: i64) {
    SIMULATION.with_borrow_mut(|simulation| {
        if let Some(simulation) = simulation {
            simulation.wall_ms += by_ms;
        }
    });
}

/// Whether this thread runs a simulation.
pub fn is_simulated() -> bool {
    SIMULATION.with_borrow(Option::is_some)
}

/// What the wall clock of the simulation says; None when there is none on this thread.
pub(crate) fn simulated_wall_ms() -> Option<u64> {
    SIMULATION.with_borrow(|simulation| {
        let simulation = simulation.as_ref()?;
        let elapsed_ms = i64::try_from(simulation.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        Some(u64::try_from(simulation.wall_ms.saturating_add(elapsed_ms)).unwrap_or(0))
    })
}

/// Lets the tasks that are ready run first, and those whose sockets have something to read. Whoever gathers requests calls it
/// after the first one: the requests that came in the same packet are each a task, and the first of them wakes the gatherer before
/// the others have run.
pub(crate) async fn let_others_ask() {
    tokio::task::yield_now().await;
}

/// A time that passes.
pub(crate) type Pause = BoxFuture<'static, ()>;

/// Ends after `time`, which counts from now. tokio's timers count whole milliseconds, which is too long a time to gather
/// requests in; a thread sleeps more exactly.
pub(crate) fn pause(time: Duration) -> Pause {
    match is_simulated() {
        true => tokio::time::sleep(time).boxed(),
        false => {
            let slept = tokio::task::spawn_blocking(move || std::thread::sleep(time));
            // It only fails when the member stops.
            slept.map(drop).boxed()
        }
    }
}

/// Has a thread of its own do work that blocks; a simulation does it as a task.
pub(crate) fn spawn_blocking<F, T>(work: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match is_simulated() {
        true => tokio::spawn(async move { work() }),
        false => tokio::task::spawn_blocking(work),
    }
}

fn rng() -> SmallRng {
    let seed = SIMULATION.with_borrow_mut(|simulation| {
        let simulation = simulation.as_mut()?;
        Some(simulation.rng.next_u64())
    });
    SmallRng::seed_from_u64(seed.unwrap_or_else(|| rand::rng().next_u64()))
}

/// What openraft runs on.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = Moment;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        steady::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(steady::takes(duration))
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep(deadline.is_due_in())
    }

    fn timeout<R, F>(duration: Duration, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        TokioRuntime::timeout(steady::takes(duration), future)
    }

    fn timeout_at<R, F>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        TokioRuntime::timeout(deadline.is_due_in(), future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        rng()
    }

    fn new(threads: usize) -> Self {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, std::io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let done = spawn_blocking(work);
        async move { done.await.map_err(std::io::Error::other) }
    }
}
