//! The disk of a simulated member: in memory, with what is synced and what is not kept apart.
//!
//! A power cut forgets what was not synced, from some batch on; a killed process forgets nothing of it. What the log can repeat stands
//! apart: it is on disk up to some moment of its own, whichever way a life ends. Syncs can be made slow or
//! fail. A handle belongs to one life of its member: when that is over, nothing it does counts any more. Every write is told
//! to the judge.

mod handle;
mod image;
mod notes;

pub use image::hash_of;
pub use notes::Notes;

use crate::judge::{Event, Judge};
use bytes::Bytes;
use handle::Handle;
use image::{Image, index_of};
use raft_store::db::{Change, Engine, Family, WriteBatch};
use raft_store::log::VOTE_KEY;
use raft_store::log::mark::{self, Slots, Synced};
use raft_store::types::MemberId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::{Arc, Mutex, MutexGuard};

/// What becomes of unsynced writes when a member's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: the kernel still has them.
    Kill,
    /// The power is cut: they are gone from some batch on.
    PowerCut,
}

/// The disk, as the one who owns the member holds it.
#[derive(Clone)]
pub struct Disk {
    member: MemberId,
    state: Arc<Mutex<State>>,
    judge: Judge,
}

struct State {
    life: u64,
    now: Image,
    durable: Image,
    /// Written since the last sync, in order.
    pending: Vec<WriteBatch>,
    /// What the log can repeat, written since it was last persisted, in order.
    repeatable: Vec<WriteBatch>,
    rng: StdRng,
    sync: Range,
    fails: bool,
    /// How much room is left, when the disk is nearly full. What is deleted gives none back.
    free: Option<u64>,
    notes: Notes,
}

/// How long a sync takes, in microseconds.
#[derive(Clone, Copy)]
struct Range(u64, u64);

const USUAL_SYNC: Range = Range(100, 3_000);
const SLOW_SYNC: Range = Range(50_000, 900_000);
const HANGING_SYNC: Range = Range(1_500_000, 4_000_000);

impl Disk {
    /// An empty disk.
    pub fn new(member: MemberId, seed: u64, judge: Judge) -> Self {
        let state = State {
            life: 0,
            now: Image::default(),
            durable: Image::default(),
            pending: Vec::new(),
            repeatable: Vec::new(),
            rng: StdRng::seed_from_u64(seed ^ member),
            sync: USUAL_SYNC,
            fails: false,
            free: None,
            notes: Notes::default(),
        };
        Disk {
            member,
            state: Arc::new(Mutex::new(state)),
            judge,
        }
    }

    /// The engine of the member's next life.
    pub fn engine(&self) -> Box<dyn Engine> {
        let life = self.state().life;
        Box::new(Handle {
            disk: self.clone(),
            life,
        })
    }

    /// Ends the member's life.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state();
        state.life += 1;
        state.sync = USUAL_SYNC;
        state.fails = false;
        let pending = std::mem::take(&mut state.pending);
        let kept = match crash {
            Crash::Kill => pending.len(),
            // The kernel may have written some of them by itself.
            Crash::PowerCut => match state.rng.random_bool(0.5) {
                true => 0,
                false => state.rng.random_range(0..=pending.len()),
            },
        };
        let repeatable = std::mem::take(&mut state.repeatable);
        let kept_state = match state.rng.random_bool(0.5) {
            true => 0,
            false => state.rng.random_range(0..=repeatable.len()),
        };
        let survivors = pending.iter().take(kept);
        let survivors = survivors.chain(repeatable.iter().take(kept_state));
        for change in survivors.flat_map(|batch| &batch.0) {
            state.durable.apply(change);
        }
        state.now = state.durable.clone();
        let State { notes, rng, .. } = &mut *state;
        notes.crash(crash, rng);
        drop(state);
        self.judge.see(&Event::Crashed {
            member: self.member,
            kept,
            lost: pending.len() - kept,
            kept_state,
        });
    }

    /// Where the member's next life notes how far its log was synced.
    pub fn slots(&self) -> Box<dyn Slots> {
        let life = self.state().life;
        Box::new(Handle {
            disk: self.clone(),
            life,
        })
    }

    /// What the newest whole note says, of a member that is down.
    pub fn noted(&self) -> Option<Synced> {
        let state = self.state();
        let newest = mark::newest(|slot| Some(state.notes.read(slot)));
        newest.map(|(_, synced)| synced)
    }

    /// Something else takes the room on the disk and leaves so many bytes.
    pub fn fill(&self, left: u64) {
        self.state().free = Some(left);
        self.judge.see(&Event::Filled {
            member: self.member,
            left,
        });
    }

    /// There is room again.
    pub fn make_room(&self) {
        if self.state().free.take().is_some() {
            self.judge.see(&Event::HasRoom {
                member: self.member,
            });
        }
    }

    /// Whether another write may not fit.
    pub fn is_full(&self) -> bool {
        self.state().free.is_some()
    }

    /// The hash over the tables that members must have alike.
    pub fn state_hash(&self) -> u64 {
        let state = self.state();
        let hash = state.now.hashes.get(&state.now.generation());
        hash.copied().unwrap_or_default()
    }

    /// Syncs take long, or very long, or as usual.
    pub fn slow(&self, is_slow: bool, hangs: bool) {
        self.state().sync = match (is_slow, hangs) {
            (false, _) => USUAL_SYNC,
            (true, false) => SLOW_SYNC,
            (true, true) => HANGING_SYNC,
        };
    }

    /// Syncs work, and take as long as usual.
    pub fn heal(&self) {
        self.slow(false, false);
        self.state().fails = false;
        self.make_room();
    }

    /// The next sync fails.
    pub fn fail_next_sync(&self) {
        self.state().fails = true;
    }

    /// Flips a bit of a log entry of a member that is down; returns its index, and what undoes it.
    pub fn damage_log(&self, rng: &mut StdRng) -> Option<(u64, WriteBatch)> {
        let mut state = self.state();
        let log = state.durable.families.get(&Family::Log)?;
        let (key, value) = log.iter().nth(rng.random_range(0..log.len().max(1)))?;
        let (key, value) = (key.clone(), value.clone());
        let mut damaged = value.to_vec();
        let bit = rng.random_range(0..damaged.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut undo = WriteBatch::default();
        undo.put(Family::Log, key.clone(), value);
        let change = Change::Put(Family::Log, key.clone(), damaged.into());
        state.durable.apply(&change);
        state.now = state.durable.clone();
        Some((index_of(&key), undo))
    }

    /// Takes the newest entry or the vote, of which the notes say that it was synced, from the disk of a member that is down, as
    /// a database does that takes damage for an unfinished write. Returns what is missing, and what undoes it.
    pub fn lose_synced(&self, rng: &mut StdRng) -> Option<(Lost, WriteBatch)> {
        let noted = self.noted()?;
        let mut state = self.state();
        let mut undo = WriteBatch::default();
        let (lost, change) = match noted.last.filter(|_| rng.random_bool(0.7)) {
            Some(last) => {
                let log = state.durable.families.get(&Family::Log)?;
                let (key, value) = log.last_key_value()?;
                let (key, value) = (key.clone(), value.clone());
                if index_of(&key) > last.index {
                    return None;
                }
                undo.put(Family::Log, key.clone(), value);
                let lost = Lost::Entry(index_of(&key));
                (lost, Change::Delete(Family::Log, key))
            }
            None => {
                noted.vote?;
                let vote = state.durable.get(Family::Own, VOTE_KEY)?;
                undo.put(Family::Own, VOTE_KEY, vote);
                let key = Bytes::from_static(VOTE_KEY);
                (Lost::Vote, Change::Delete(Family::Own, key))
            }
        };
        state.durable.apply(&change);
        state.now = state.durable.clone();
        Some((lost, undo))
    }

    /// Flips a bit in one of the notes, or one in each, of a member that is down; returns the notes as they were.
    pub fn damage_notes(&self, rng: &mut StdRng) -> Notes {
        let mut state = self.state();
        let whole = state.notes.clone();
        state.notes.damage(rng);
        whole
    }

    /// Undoes damage of the notes.
    pub fn mend_notes(&self, whole: Notes) {
        self.state().notes = whole;
    }

    /// Undoes damage.
    pub fn mend(&self, undo: &WriteBatch) {
        let mut state = self.state();
        for change in &undo.0 {
            state.durable.apply(change);
        }
        state.now = state.durable.clone();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

/// What is missing on a disk that was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The entry of this index, which was the last one.
    Entry(u64),
    /// The vote.
    Vote,
}
