//! The steady clock of a member, by which elections, leases of the lead and the leases of clients are timed.
//!
//! For real it is the machine's, and costs nothing more. In a simulation each member has one of its own, which may run fast or
//! slow, as those of real machines do a little. openraft asks for the time without saying for whom, so the clock goes with the tasks
//! of a member.

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use std::cell::RefCell;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

tokio::task_local! {
    static OF_THIS_TASK: SteadyClock;
}

thread_local! {
    /// The clocks of a simulation on this thread; the first has the number 1.
    static CLOCKS: RefCell<Vec<Drifting>> = const { RefCell::new(Vec::new()) };
}

/// A steady clock: the machine's, or a simulated one of its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteadyClock(u32);

/// What a clock that drifts showed when its rate was set last, and since when.
#[derive(Clone, Copy)]
struct Drifting {
    set_at: Instant,
    shown: Instant,
    rate: f64,
}

impl Drifting {
    fn shows(&self, now: Instant) -> Instant {
        self.shown + now.duration_since(self.set_at).mul_f64(self.rate)
    }
}

impl SteadyClock {
    /// A clock of a simulation, right so far. Only for the thread that simulates.
    pub fn simulated() -> Self {
        CLOCKS.with_borrow_mut(|clocks| {
            let now = Instant::now();
            clocks.push(Drifting {
                set_at: now,
                shown: now,
                rate: 1.0,
            });
            SteadyClock(u32::try_from(clocks.len()).expect("a simulation has few members"))
        })
    }

    /// From now on the clock runs so many times as fast as it should. The machine's takes no orders.
    pub fn set_rate(self, rate: f64) {
        self.change(|clock| {
            let now = Instant::now();
            clock.shown = clock.shows(now);
            clock.set_at = now;
            clock.rate = rate;
        });
    }

    /// What the clock shows.
    pub fn now(self) -> Instant {
        let now = Instant::now();
        self.ask(|clock| clock.shows(now)).unwrap_or(now)
    }

    /// How long it takes until the clock has moved so far.
    fn takes(self, duration: Duration) -> Duration {
        self.ask(|clock| duration.div_f64(clock.rate))
            .unwrap_or(duration)
    }

    fn ask<T>(self, ask: impl FnOnce(&Drifting) -> T) -> Option<T> {
        let place = (self.0 as usize).checked_sub(1)?;
        CLOCKS.with_borrow(|clocks| clocks.get(place).map(ask))
    }

    fn change(self, change: impl FnOnce(&mut Drifting)) {
        let place = (self.0 as usize).checked_sub(1);
        CLOCKS.with_borrow_mut(|clocks| {
            if let Some(clock) = place.and_then(|place| clocks.get_mut(place)) {
                change(clock);
            }
        });
    }

    fn of_this_task() -> Self {
        OF_THIS_TASK.try_with(|clock| *clock).unwrap_or_default()
    }

    /// The future, timed by this clock together with all tasks that openraft starts from it.
    pub(crate) async fn times<T>(self, future: impl Future<Output = T>) -> T {
        match self == SteadyClock::default() {
            true => future.await,
            false => OF_THIS_TASK.scope(self, future).await,
        }
    }
}

/// Forgets the clocks of a simulation.
pub(crate) fn forget() {
    CLOCKS.with_borrow_mut(Vec::clear);
}

/// Spawns a task that goes by the clock of the one that spawns it.
pub(crate) fn spawn<T>(future: T) -> JoinHandle<T::Output>
where
    T: Future + OptionalSend + 'static,
    T::Output: OptionalSend + 'static,
{
    let clock = SteadyClock::of_this_task();
    match clock == SteadyClock::default() {
        true => TokioRuntime::spawn(future),
        false => TokioRuntime::spawn(OF_THIS_TASK.scope(clock, future)),
    }
}

/// How long the clock of this task takes to move so far.
pub(crate) fn takes(duration: Duration) -> Duration {
    SteadyClock::of_this_task().takes(duration)
}

/// A moment by the clock of the task that read it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    at: Instant,
    clock: SteadyClock,
}

impl Moment {
    /// How long it takes until its clock shows it.
    pub(crate) fn is_due_in(&self) -> Duration {
        let ahead = self.at.saturating_duration_since(self.clock.now());
        self.clock.takes(ahead)
    }
}

impl openraft::Instant for Moment {
    fn now() -> Self {
        let clock = SteadyClock::of_this_task();
        Moment {
            at: clock.now(),
            clock,
        }
    }

    /// Asked from whatever task, by its own clock.
    fn elapsed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.at)
    }
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(mut self, duration: Duration) -> Self {
        self.at += duration;
        self
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        self.at += duration;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(mut self, duration: Duration) -> Self {
        self.at -= duration;
        self
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        self.at -= duration;
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.at - earlier.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::Instant as _;

    #[tokio::test(start_paused = true)]
    async fn a_fast_clock_wakes_early_and_tells_more_time() {
        let _simulation = crate::runtime::simulate(1, 0);
        let (fast, slow) = (SteadyClock::simulated(), SteadyClock::simulated());
        fast.set_rate(2.0);
        slow.set_rate(0.5);
        let began = Instant::now();
        let wakes = async |clock: SteadyClock| {
            let before = Moment::now();
            crate::runtime::Runtime::sleep(Duration::from_secs(1)).await;
            assert_eq!(
                (before.clock, before.elapsed()),
                (clock, Duration::from_secs(1))
            );
            began.elapsed()
        };
        assert_eq!(fast.times(wakes(fast)).await, Duration::from_millis(500));
        assert_eq!(slow.times(wakes(slow)).await, Duration::from_millis(2_500));
        // Between two tasks of openraft's the clock goes along.
        let of_child = fast.times(async { spawn(async { Moment::now().clock }).await });
        assert_eq!(of_child.await.expect("it ends"), fast);
        // A clock that is set right does not jump.
        let shown = fast.now();
        fast.set_rate(1.0);
        assert_eq!(fast.now(), shown);
    }

    #[tokio::test(start_paused = true)]
    async fn the_machines_clock_is_taken_as_it_is() {
        let before = Moment::now();
        assert_eq!(takes(Duration::from_secs(3)), Duration::from_secs(3));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(before.elapsed(), Duration::from_secs(3));
        assert_eq!(
            (before + Duration::from_secs(5)).is_due_in(),
            Duration::from_secs(2)
        );
    }
}
