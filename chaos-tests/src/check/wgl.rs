//! Is there one order of all operations of a key that respects real time and the register's meaning? The search of Wing and
//! Gong (1993), with Lowe's memo (2017) of configurations already refuted, on a linked list with lift and unlift in O(1).
//!
//! It trusts no revision. It never guesses: where time or memory run out the answer is [`Outcome::Unknown`], and an illegal
//! history found with 128-bit fingerprints is searched again with exact configurations before it is told.

use super::register::{Action, INITIAL, Op, Value};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How much a search may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time a key.
    pub deadline: Duration,
    /// Configurations remembered a key.
    pub memo_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            deadline: Duration::from_secs(20),
            memo_max: 4_000_000,
        }
    }
}

/// What a search came to. The lists hold indexes into the operations given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Linearizable; the order found. Operations of unknown outcome that never took effect are left out.
    Legal(Vec<usize>),
    /// Not linearizable.
    Illegal,
    /// The search was given up.
    Unknown(GivenUp),
}

/// Why a search was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// The key's time was over.
    Deadline,
    /// The memo was full.
    Memory,
    /// Another key was found illegal, or the whole check was cancelled.
    Cancelled,
}

/// An illegal history cut down to its first fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operation with whose answer the history became illegal.
    pub offending: usize,
    /// An order of all that came before.
    pub last_good: Vec<usize>,
}

/// Searches an order of `ops`. `cancel` ends the search.
pub fn check(ops: &[Op], limits: Limits, cancel: &AtomicBool) -> Outcome {
    let ops = without_unseen(ops);
    let outcome = Search::new(&ops, limits, cancel).run(Fingerprints::new(ops.len()));
    let outcome = match outcome {
        Outcome::Illegal => Search::new(&ops, limits, cancel).run(Exact::new(ops.len())),
        other => other,
    };
    match outcome {
        Outcome::Legal(order) => Outcome::Legal(order.into_iter().map(|at| ops[at].0).collect()),
        other => other,
    }
}

/// The first answer that made an illegal history illegal, and an order of what was known until then.
pub fn first_fault(ops: &[Op], limits: Limits) -> Option<Fault> {
    let never = AtomicBool::new(false);
    let mut by_return: Vec<usize> = (0..ops.len())
        .filter(|&at| ops[at].returned_ns.is_some())
        .collect();
    by_return.sort_by_key(|&at| ops[at].returned_ns);
    let order_of = |count: usize| -> Option<Vec<usize>> {
        let cut = by_return[count - 1];
        let (prefix, names) = until(ops, ops[cut].returned_ns.unwrap_or(u64::MAX));
        match check(&prefix, limits, &never) {
            Outcome::Legal(order) => Some(order.into_iter().map(|at| names[at]).collect()),
            _ => None,
        }
    };
    // A longer prefix of an illegal prefix is illegal too, so the first one is found by halving.
    let (mut good, mut bad) = (0, by_return.len());
    let mut last_good = Vec::new();
    while bad > good + 1 {
        let middle = good + (bad - good) / 2;
        match order_of(middle) {
            Some(order) => (good, last_good) = (middle, order),
            None => bad = middle,
        }
    }
    by_return.get(bad.checked_sub(1)?).map(|&offending| Fault {
        offending,
        last_good,
    })
}

/// What was known when an answer came at `cut`: operations without an answer by then are of unknown outcome.
fn until(ops: &[Op], cut: u64) -> (Vec<Op>, Vec<usize>) {
    let mut prefix = Vec::new();
    let mut names = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        if op.invoked_ns > cut {
            continue;
        }
        let mut op = op.clone();
        if op.returned_ns.is_some_and(|returned| returned > cut) {
            match op.action {
                Action::Read(_) | Action::Cas { swapped: false, .. } => continue,
                Action::Write(_) | Action::Cas { .. } => op.returned_ns = None,
            }
        }
        prefix.push(op);
        names.push(at);
    }
    (prefix, names)
}

/// Leaves out writes of unknown outcome whose value nobody saw: an order with one of them stays good without it, as long as
/// no refused compare after it needs the register to have changed.
fn without_unseen(ops: &[Op]) -> Vec<(usize, &Op)> {
    let seen: HashSet<Value> = ops.iter().filter_map(|op| op.action.observes()).collect();
    let last_refusal = ops
        .iter()
        .filter(|op| matches!(op.action, Action::Cas { swapped: false, .. }))
        .filter_map(|op| op.returned_ns)
        .max();
    let matters = |op: &Op| {
        op.returned_ns.is_some()
            || op
                .action
                .writes()
                .is_some_and(|value| seen.contains(&value))
            || last_refusal.is_some_and(|refusal| op.invoked_ns <= refusal)
    };
    ops.iter()
        .enumerate()
        .filter(|(_, op)| matters(op))
        .collect()
}

/// Calls and answers in the order of time, as a list from which a linearized operation is lifted out.
///
/// Node `2i` is the call of operation `i`, `2i + 1` its answer; `2n` is both ends.
struct Search<'a> {
    ops: &'a [(usize, &'a Op)],
    next: Vec<u32>,
    previous: Vec<u32>,
    cancel: &'a AtomicBool,
    until: Instant,
    memo_max: usize,
}

impl<'a> Search<'a> {
    fn new(ops: &'a [(usize, &'a Op)], limits: Limits, cancel: &'a AtomicBool) -> Self {
        let ends = 2 * ops.len();
        let mut nodes: Vec<(u64, bool, u32)> = Vec::with_capacity(ends);
        for (at, (_, op)) in ops.iter().enumerate() {
            nodes.push((op.invoked_ns, false, 2 * at as u32));
            if let Some(returned) = op.returned_ns {
                nodes.push((returned, true, 2 * at as u32 + 1));
            }
        }
        // At the same instant calls come first: such operations count as concurrent.
        nodes.sort_unstable();
        let (mut next, mut previous) = (vec![0; ends + 1], vec![0; ends + 1]);
        let mut last = ends as u32;
        for (_, _, node) in nodes {
            next[last as usize] = node;
            previous[node as usize] = last;
            last = node;
        }
        next[last as usize] = ends as u32;
        previous[ends] = last;
        Search {
            ops,
            next,
            previous,
            cancel,
            until: Instant::now() + limits.deadline,
            memo_max: limits.memo_max,
        }
    }

    fn run(mut self, mut memo: impl Memo) -> Outcome {
        let ends = 2 * self.ops.len() as u32;
        let mut left = self
            .ops
            .iter()
            .filter(|(_, op)| op.returned_ns.is_some())
            .count();
        let mut state = INITIAL;
        let mut taken: Vec<(u32, Value)> = Vec::new();
        let mut node = self.next[ends as usize];
        let mut steps = 0_u32;
        while left > 0 {
            steps = steps.wrapping_add(1);
            if steps.is_multiple_of(1024)
                && let Some(reason) = self.must_give_up(memo.len())
            {
                return Outcome::Unknown(reason);
            }
            let at = node / 2;
            if node.is_multiple_of(2) && node != ends {
                let op = self.ops[at as usize].1;
                match op.action.step(state) {
                    Some(after) if memo.insert(at as usize, after) => {
                        taken.push((at, state));
                        left -= usize::from(op.returned_ns.is_some());
                        state = after;
                        self.lift(at);
                        node = self.next[ends as usize];
                    }
                    _ => node = self.next[node as usize],
                }
                continue;
            }
            // An answer of an operation that is not in the order yet: what was chosen before was wrong.
            loop {
                let Some((at, before)) = taken.pop() else {
                    return Outcome::Illegal;
                };
                let op = self.ops[at as usize].1;
                memo.remove(at as usize);
                left += usize::from(op.returned_ns.is_some());
                state = before;
                self.unlift(at);
                // Putting a read first where it fits costs nothing, so no other choice at this place can do better.
                if !op.action.is_pure() {
                    node = self.next[2 * at as usize];
                    break;
                }
            }
        }
        Outcome::Legal(taken.into_iter().map(|(at, _)| at as usize).collect())
    }

    fn must_give_up(&self, memo_len: usize) -> Option<GivenUp> {
        if self.cancel.load(Ordering::Relaxed) {
            return Some(GivenUp::Cancelled);
        }
        if memo_len > self.memo_max {
            return Some(GivenUp::Memory);
        }
        (Instant::now() > self.until).then_some(GivenUp::Deadline)
    }

    fn lift(&mut self, at: u32) {
        self.remove(2 * at);
        if self.ops[at as usize].1.returned_ns.is_some() {
            self.remove(2 * at + 1);
        }
    }

    fn unlift(&mut self, at: u32) {
        if self.ops[at as usize].1.returned_ns.is_some() {
            self.put_back(2 * at + 1);
        }
        self.put_back(2 * at);
    }

    fn remove(&mut self, node: u32) {
        let (before, after) = (self.previous[node as usize], self.next[node as usize]);
        self.next[before as usize] = after;
        self.previous[after as usize] = before;
    }

    fn put_back(&mut self, node: u32) {
        let (before, after) = (self.previous[node as usize], self.next[node as usize]);
        self.next[before as usize] = node;
        self.previous[after as usize] = node;
    }
}

/// The configurations (which operations are in the order, and the register then) that were seen.
trait Memo {
    /// Adds operation `at` to the set; false, and not added, where set and state were seen before.
    fn insert(&mut self, at: usize, state: Value) -> bool;
    /// Takes operation `at` out of the set.
    fn remove(&mut self, at: usize);
    /// Configurations seen.
    fn len(&self) -> usize;
}

/// Each configuration as 128 bits: a random number an operation, combined by exclusive or (Zobrist), and the state's hash.
struct Fingerprints {
    of_op: Vec<u128>,
    set: u128,
    seen: HashSet<u128, BuildHasherDefault<AlreadyRandom>>,
}

impl Fingerprints {
    fn new(ops: usize) -> Self {
        Fingerprints {
            of_op: (0..ops as u64).map(|at| mix(2 * at + 1)).collect(),
            set: 0,
            seen: HashSet::default(),
        }
    }
}

impl Memo for Fingerprints {
    fn insert(&mut self, at: usize, state: Value) -> bool {
        let set = self.set ^ self.of_op[at];
        let is_new = self.seen.insert(set ^ mix(state.wrapping_mul(2)));
        if is_new {
            self.set = set;
        }
        is_new
    }

    fn remove(&mut self, at: usize) {
        self.set ^= self.of_op[at];
    }

    fn len(&self) -> usize {
        self.seen.len()
    }
}

/// Each configuration as it is.
struct Exact {
    set: Vec<u64>,
    seen: HashSet<(Box<[u64]>, Value)>,
}

impl Exact {
    fn new(ops: usize) -> Self {
        Exact {
            set: vec![0; ops.div_ceil(64)],
            seen: HashSet::new(),
        }
    }
}

impl Memo for Exact {
    fn insert(&mut self, at: usize, state: Value) -> bool {
        self.set[at / 64] ^= 1 << (at % 64);
        let is_new = self.seen.insert((self.set.clone().into(), state));
        if !is_new {
            self.remove(at);
        }
        is_new
    }

    fn remove(&mut self, at: usize) {
        self.set[at / 64] ^= 1 << (at % 64);
    }

    fn len(&self) -> usize {
        self.seen.len()
    }
}

/// SplitMix64, twice.
fn mix(seed: u64) -> u128 {
    let half = |salt: u64| {
        let mut z = seed
            .wrapping_add(salt)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(salt);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    u128::from(half(0x1234_5678_9abc_def1)) << 64 | u128::from(half(0x0fed_cba9_8765_4321))
}

/// The hash of a number that is random already: its low half.
#[derive(Default)]
struct AlreadyRandom(u64);

impl Hasher for AlreadyRandom {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
#[path = "wgl_tests.rs"]
mod tests;
