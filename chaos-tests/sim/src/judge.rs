//! Sees everything that happens, writes it into the trace, keeps the facts, and asks every invariant whether it still holds.
//!
//! It is told by the disks, the network and the clients as things happen, so that an invariant is checked at every step and not
//! only when somebody looks. The first violation ends the simulation.

use crate::facts::{Clocks, Facts};
use crate::invariants::{self, Invariant};
use crate::switch::Message;
use mvcc::{RangeRequest, RangeResponse, StoreError, TxnResponse, WatchBatch, WatchRequest};
use objects::Revision;
use raft_store::SteadyClock;
use raft_store::log::mark::Synced;
use raft_store::types::{Entry, LogId, MemberId, Vote};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Lines of the trace that a failure shows.
const LAST_STEPS: usize = 40;

/// A change of a member's disk, as far as Raft and the store's rules care.
#[derive(Clone, Debug)]
pub enum Written {
    /// Whom it voted for.
    Vote(Vote),
    /// An entry of the log.
    Entry(Entry),
    /// The log's entries from here on are gone.
    Truncated {
        /// From where.
        from: u64,
    },
    /// The log's entries up to here are gone.
    Purged(LogId),
    /// The state moved.
    Applied {
        /// The last entry in it.
        log_id: Option<LogId>,
        /// Its revision.
        revision: Revision,
        /// Its oldest revision.
        compacted: Revision,
        /// A hash over it.
        hash: u64,
        /// Whether a snapshot took the place of the state.
        is_replaced: bool,
    },
}

/// A client's request, with its number.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A transaction.
    Txn(mvcc::Txn),
    /// A read.
    Range(RangeRequest),
    /// Anything else, in words.
    Other(String),
}

/// Something that happened.
pub enum Event<'a> {
    /// A member is about to start, with this noted of what was synced.
    Noted { member: MemberId, synced: Synced },
    /// A member began a life, with this steady clock.
    Started {
        member: MemberId,
        clock: SteadyClock,
    },
    /// A member did not start, and why.
    Refused {
        member: MemberId,
        reason: &'a str,
        /// Because it found what it had synced to be missing or changed.
        is_damaged: bool,
    },
    /// A member's life ended; so many unsynced batches were kept and lost.
    Crashed {
        member: MemberId,
        kept: usize,
        lost: usize,
        /// Of those that the log can repeat.
        kept_state: usize,
    },
    /// A member wrote to its disk.
    Written {
        member: MemberId,
        written: &'a [Written],
        /// Whether the log can repeat it.
        is_repeatable: bool,
    },
    /// Everything that the log can repeat is on a member's disk too.
    Persisted { member: MemberId },
    /// Everything else that a member wrote is on its disk.
    Synced { member: MemberId },
    /// A member was told that its disk failed.
    SyncFailed { member: MemberId },
    /// A member sent this to another.
    Sent {
        from: MemberId,
        to: MemberId,
        message: &'a Message,
    },
    /// A client asked.
    Invoked {
        client: usize,
        op: u64,
        at: MemberId,
        asked: &'a Asked,
    },
    /// A transaction was answered.
    Answered {
        client: usize,
        op: u64,
        result: &'a Result<TxnResponse, StoreError>,
    },
    /// A read was answered.
    Read {
        client: usize,
        op: u64,
        result: &'a Result<RangeResponse, StoreError>,
    },
    /// Something else was answered.
    Done {
        client: usize,
        op: u64,
        result: &'a Result<String, StoreError>,
    },
    /// A lease was granted or kept alive, as was asked when the clocks showed this.
    LeaseHeld {
        lease: i64,
        ttl: Duration,
        asked: &'a Clocks,
    },
    /// A lease was given up.
    LeaseLeft { lease: i64 },
    /// A watch began.
    WatchBegan {
        watch: u64,
        at: MemberId,
        request: &'a WatchRequest,
    },
    /// A watch told something.
    WatchTold { watch: u64, batch: &'a WatchBatch },
    /// A watch ended.
    WatchEnded { watch: u64, why: &'a str },
    /// The world did something to the members.
    Fault { what: &'a str },
    /// Something that a member had synced was damaged or lost while it was down.
    Damaged { member: MemberId, what: &'a str },
    /// What a member noted of that was damaged while it was down.
    NotesDamaged { member: MemberId },
    /// The disk of a member was filled; so many bytes are left.
    Filled { member: MemberId, left: u64 },
    /// The disk of a member has room again.
    HasRoom { member: MemberId },
    /// An archive was saved, with this state in it.
    Saved {
        at: MemberId,
        applied: Option<LogId>,
        revision: Revision,
        hash: u64,
    },
    /// An archive saved at one revision was restored as a new cluster, which begins with this state.
    Restored {
        saved: Revision,
        revision: Revision,
        hash: u64,
    },
    /// The new cluster took a write.
    RestoredWrote { revision: Revision },
    /// A watcher of the old cluster went on at the new one; whether it was told that its revision is compacted.
    RestoredWatched { start: Revision, is_compacted: bool },
    /// From now on nothing is broken any more.
    Healed,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which.
    pub invariant: String,
    /// What was seen.
    pub what: String,
    /// When, by the simulation's clock.
    pub at_ms: u64,
    /// The steps before it.
    pub last_steps: Vec<String>,
}

/// The judge, as all who tell it hold it.
#[derive(Clone)]
pub struct Judge {
    state: Arc<Mutex<State>>,
    violated: watch::Sender<bool>,
}

struct State {
    is_deaf: bool,
    began: Instant,
    trace: String,
    steps: u64,
    facts: Facts,
    invariants: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
}

impl Judge {
    /// A judge over nothing yet.
    pub fn new() -> Self {
        let state = State {
            is_deaf: false,
            began: Instant::now(),
            trace: String::new(),
            steps: 0,
            facts: Facts::default(),
            invariants: invariants::all(),
            violation: None,
        };
        Judge {
            state: Arc::new(Mutex::new(state)),
            violated: watch::Sender::new(false),
        }
    }

    /// One that takes note of nothing, for what is no member of the cluster that is judged.
    pub fn deaf() -> Self {
        let judge = Judge::new();
        judge.state().is_deaf = true;
        judge
    }

    /// Takes note of an event.
    pub fn see(&self, event: &Event<'_>) {
        let mut state = self.state();
        if state.violation.is_some() || state.is_deaf {
            return;
        }
        let at_ms = state.elapsed_ms();
        // Writing to a string cannot fail.
        let _ = writeln!(state.trace, "{at_ms} {event}");
        state.steps += 1;
        let State {
            facts, invariants, ..
        } = &mut *state;
        let learned = facts.learn(event);
        let checked = learned.and_then(|()| {
            invariants.iter_mut().try_for_each(|invariant| {
                let held = invariant.check(facts, event);
                held.map_err(|what| (invariant.name(), what))
            })
        });
        if let Err((invariant, what)) = checked {
            self.fail(&mut state, invariant, what);
        }
    }

    /// Says that something does not hold which no event tells.
    pub fn violate(&self, invariant: &'static str, what: String) {
        self.fail(&mut self.state(), invariant, what);
    }

    fn fail(&self, state: &mut State, invariant: &'static str, what: String) {
        if state.violation.is_some() {
            return;
        }
        let _ = writeln!(state.trace, "VIOLATED {invariant}: {what}");
        let lines: Vec<&str> = state.trace.lines().collect();
        let last_steps = lines[lines.len().saturating_sub(LAST_STEPS)..]
            .iter()
            .map(ToString::to_string)
            .collect();
        state.violation = Some(Violation {
            invariant: invariant.to_owned(),
            what,
            at_ms: state.elapsed_ms(),
            last_steps,
        });
        self.violated.send_replace(true);
    }

    /// Waits for a violation.
    pub async fn violated(&self) {
        // The sender lives as long as this.
        let _ = self.violated.subscribe().wait_for(|is| *is).await;
    }

    /// Asks the facts.
    pub fn facts<T>(&self, ask: impl FnOnce(&Facts) -> T) -> T {
        ask(&self.state().facts)
    }

    /// The whole trace, how many steps it has, and the violation if there was one.
    pub fn conclude(&self) -> (String, u64, Option<Violation>) {
        let mut state = self.state();
        (
            std::mem::take(&mut state.trace),
            state.steps,
            state.violation.clone(),
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

impl Default for Judge {
    fn default() -> Self {
        Judge::new()
    }
}

impl State {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Noted { member, synced } => {
                let last = synced.last.map_or(0, |last| last.index);
                let vote = synced
                    .vote
                    .map_or("none".to_owned(), |vote| vote.to_string());
                write!(f, "m{member} noted {last} vote {vote}")
            }
            Event::Started { member, .. } => write!(f, "m{member} starts"),
            Event::Refused { member, reason, .. } => {
                write!(f, "m{member} does not start: {reason}")
            }
            Event::Crashed {
                member,
                kept,
                lost,
                kept_state,
            } => write!(
                f,
                "m{member} ends: {kept} unsynced batches kept, {lost} lost, {kept_state} of the state kept"
            ),
            Event::Persisted { member } => write!(f, "m{member} persisted its state"),
            Event::Written {
                member, written, ..
            } => {
                write!(f, "m{member} writes")?;
                written.iter().try_for_each(|change| write!(f, " {change}"))
            }
            Event::Synced { member } => write!(f, "m{member} synced"),
            Event::SyncFailed { member } => write!(f, "m{member} sync failed"),
            Event::Sent { from, to, message } => write!(f, "m{from}>m{to} {message}"),
            Event::Invoked {
                client,
                op,
                at,
                asked,
            } => write!(f, "c{client} #{op} at m{at} {asked}"),
            Event::Answered { client, op, result } => match result {
                Ok(response) => write!(
                    f,
                    "c{client} #{op} = {} at {}",
                    if response.succeeded {
                        "done"
                    } else {
                        "not done"
                    },
                    response.revision
                ),
                Err(err) => write!(f, "c{client} #{op} ! {err}"),
            },
            Event::Read { client, op, result } => match result {
                Ok(response) => write!(
                    f,
                    "c{client} #{op} = {} keys at {}",
                    response.count, response.revision
                ),
                Err(err) => write!(f, "c{client} #{op} ! {err}"),
            },
            Event::Done { client, op, result } => match result {
                Ok(text) => write!(f, "c{client} #{op} = {text}"),
                Err(err) => write!(f, "c{client} #{op} ! {err}"),
            },
            Event::LeaseHeld { lease, .. } => write!(f, "lease {lease} held"),
            Event::LeaseLeft { lease } => write!(f, "lease {lease} left"),
            Event::WatchBegan { watch, at, request } => {
                write!(f, "w{watch} at m{at} from {}", request.start)
            }
            Event::WatchTold { watch, batch } => write!(
                f,
                "w{watch} {} events up to {}",
                batch.events.len(),
                batch.revision
            ),
            Event::WatchEnded { watch, why } => write!(f, "w{watch} ends: {why}"),
            Event::Fault { what } => write!(f, "FAULT {what}"),
            Event::Damaged { member, what } => write!(f, "FAULT m{member} {what}"),
            Event::NotesDamaged { member } => write!(f, "FAULT m{member} notes damaged"),
            Event::Filled { member, left } => write!(f, "FAULT m{member} {left} bytes left"),
            Event::HasRoom { member } => write!(f, "FAULT m{member} has room"),
            Event::Saved {
                at, revision, hash, ..
            } => write!(f, "saved at m{at} r{revision} {hash:016x}"),
            Event::Restored {
                saved,
                revision,
                hash,
            } => write!(f, "restored r{saved} as r{revision} {hash:016x}"),
            Event::RestoredWrote { revision } => write!(f, "restored wrote r{revision}"),
            Event::RestoredWatched {
                start,
                is_compacted,
            } => write!(f, "restored watch r{start} compacted {is_compacted}"),
            Event::Healed => write!(f, "HEALED"),
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Written::Vote(vote) => write!(f, "vote({vote})"),
            Written::Entry(entry) => write!(f, "entry({})", entry.log_id),
            Written::Truncated { from } => write!(f, "truncated({from})"),
            Written::Purged(upto) => write!(f, "purged({upto})"),
            Written::Applied {
                log_id,
                revision,
                hash,
                is_replaced,
                ..
            } => {
                let how = if *is_replaced { "installed" } else { "applied" };
                let index = log_id.map_or(0, |log_id| log_id.index);
                write!(f, "{how}({index} r{revision} {hash:016x})")
            }
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Txn(txn) => write!(
                f,
                "txn {} compares {} steps{}",
                txn.compare.len(),
                txn.success.len(),
                if txn.fence.is_some() { " fenced" } else { "" }
            ),
            Asked::Range(request) => write!(
                f,
                "range {} {:?}",
                String::from_utf8_lossy(&request.range.start),
                request.consistency
            ),
            Asked::Other(what) => f.write_str(what),
        }
    }
}
