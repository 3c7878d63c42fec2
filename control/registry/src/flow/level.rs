//! The queues of one priority level, and whose turn it is. Semantics: Kubernetes' priority and fairness: shuffle sharding deals
//! each flow a hand of queues, of which it takes the least loaded; among the queues that of whom least was served comes next.
//!
//! ```text
//! arrives ──> a seat is free ─────────────────────────> runs ──> ends: the next one runs
//!        └──> none is: waits in a queue ──> its turn ──┘
//!                     └──> given up
//! ```

use super::limits::{Bounds, Claim, LevelConfig, Response};
use super::{Refusal, Ticket};
use std::collections::VecDeque;
use std::time::Duration;

/// What a request is taken to need until it has ended, in seconds.
const GUESS_SECONDS: f64 = 0.003;
/// One request takes this part of its level's seats at most.
const SEATS_PART_MAX: f64 = 0.15;
/// How fast what a level wanted is forgotten.
const FORGET_SECONDS: f64 = 5.0;

/// A priority level with what waits and runs in it.
pub struct Level {
    config: LevelConfig,
    /// Whether it is there no longer: what waits still runs.
    pub retired: bool,
    /// Between what its seats lie.
    pub bounds: Bounds,
    /// Its seats now.
    pub limit: u32,
    /// Seats that are taken.
    pub seats: u32,
    /// Requests that run.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    waiting_seats: u32,
    queues: Vec<Queue>,
    /// The queue that was served last.
    last: usize,
    /// How much a queue that was never empty would have been served, in seconds of a seat.
    served: f64,
    seen: Duration,
    wanted: f64,
    target: f64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    running: usize,
    seats: u32,
    /// How much it was served.
    served: f64,
}

struct Waiting {
    ticket: Ticket,
    seats: u32,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its queue; None where there is none.
    queue: Option<usize>,
    seats: u32,
}

/// What became of one that arrived.
pub enum Arrived {
    Runs(Seat),
    Waits(Seat),
    Refused(Refusal),
}

impl Level {
    /// One that is empty.
    pub fn new(config: LevelConfig) -> Self {
        let mut level = Level {
            config: config.clone(),
            retired: false,
            bounds: Bounds::default(),
            limit: 0,
            seats: 0,
            running: 0,
            waiting: 0,
            waiting_seats: 0,
            queues: Vec::new(),
            last: 0,
            served: 0.0,
            seen: Duration::ZERO,
            wanted: 0.0,
            target: 0.0,
        };
        level.configure(config);
        level
    }

    /// Takes another configuration. What waits keeps its place: a queue too many is emptied, and gets nothing more.
    pub fn configure(&mut self, config: LevelConfig) {
        if let Response::Queue { queues, .. } = config.response
            && self.queues.len() < queues
        {
            self.queues.resize_with(queues, Queue::default);
        }
        self.config = config;
        self.retired = false;
    }

    /// Its configuration.
    pub fn config(&self) -> &LevelConfig {
        &self.config
    }

    /// Whether its requests run at once, however many there are.
    pub fn is_exempt(&self) -> bool {
        self.config.response == Response::Exempt
    }

    /// Whether nothing waits or runs.
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }

    /// Whether a request that arrives must wait or is refused.
    pub fn is_full(&self, seats: u32) -> bool {
        !self.is_exempt() && (self.waiting > 0 || !self.has_room(self.capped(seats)))
    }

    /// A request of a flow arrives.
    pub fn arrive(&mut self, ticket: Ticket, flow: u64, seats: u32, now: Duration) -> Arrived {
        self.advance(now);
        let seats = self.capped(seats);
        let seat = match self.config.response {
            Response::Exempt => {
                let seat = Seat { queue: None, seats };
                self.begin(seat);
                return Arrived::Runs(seat);
            }
            Response::Reject => {
                let seat = Seat { queue: None, seats };
                self.want(seats);
                if !self.has_room(seats) {
                    return Arrived::Refused(Refusal::NoSeat);
                }
                self.begin(seat);
                return Arrived::Runs(seat);
            }
            Response::Queue {
                queues, hand_size, ..
            } => Seat {
                queue: Some(self.choose(flow, queues, hand_size)),
                seats,
            },
        };
        self.want(seats);
        if self.waiting == 0 && self.has_room(seats) {
            self.activate(seat);
            self.begin(seat);
            return Arrived::Runs(seat);
        }
        match self.wait(ticket, seat) {
            true => Arrived::Waits(seat),
            false => Arrived::Refused(Refusal::QueueFull),
        }
    }

    /// Puts a request into its queue; false where that is full.
    fn wait(&mut self, ticket: Ticket, seat: Seat) -> bool {
        let Response::Queue { length_max, .. } = self.config.response else {
            return false;
        };
        let Some(index) = seat.queue else {
            return false;
        };
        if self.queues[index].waiting.len() >= length_max {
            return false;
        }
        self.activate(seat);
        let Seat { seats, .. } = seat;
        self.queues[index]
            .waiting
            .push_back(Waiting { ticket, seats });
        self.waiting += 1;
        self.waiting_seats += seats;
        true
    }

    /// A queue that had nothing is not owed for the time in which it asked for nothing.
    fn activate(&mut self, seat: Seat) {
        if let Some(index) = seat.queue {
            let queue = &mut self.queues[index];
            if queue.waiting.is_empty() && queue.running == 0 {
                queue.served = self.served;
            }
        }
    }

    fn begin(&mut self, seat: Seat) {
        self.running += 1;
        self.seats += seat.seats;
        if let Some(index) = seat.queue {
            let queue = &mut self.queues[index];
            queue.running += 1;
            queue.seats += seat.seats;
            queue.served += GUESS_SECONDS * f64::from(seat.seats);
        }
    }

    /// A request that ran for so long has ended.
    pub fn end(&mut self, seat: Seat, ran: Duration, now: Duration) {
        self.advance(now);
        self.running -= 1;
        self.seats -= seat.seats;
        if let Some(index) = seat.queue {
            let queue = &mut self.queues[index];
            queue.running -= 1;
            queue.seats -= seat.seats;
            queue.served += (ran.as_secs_f64() - GUESS_SECONDS) * f64::from(seat.seats);
        }
    }

    /// A request that waits is given up.
    pub fn give_up(&mut self, ticket: Ticket, seat: Seat, now: Duration) {
        self.advance(now);
        let Some(index) = seat.queue else {
            return;
        };
        let waiting = &mut self.queues[index].waiting;
        if let Some(at) = waiting.iter().position(|it| it.ticket == ticket) {
            waiting.remove(at);
            self.waiting -= 1;
            self.waiting_seats -= seat.seats;
        }
    }

    /// The next request whose turn it is, if there is a seat for it; it runs from now on.
    pub fn next(&mut self, now: Duration) -> Option<Ticket> {
        if self.waiting == 0 {
            return None;
        }
        self.advance(now);
        let index = self.turn()?;
        let seats = self.queues[index].waiting.front()?.seats;
        if !self.has_room(seats) {
            return None;
        }
        let Waiting { ticket, seats } = self.queues[index].waiting.pop_front()?;
        self.last = index;
        self.waiting -= 1;
        self.waiting_seats -= seats;
        self.begin(Seat {
            queue: Some(index),
            seats,
        });
        Some(ticket)
    }

    /// The queue of which the next request would have been served first; among equals the next one after the last.
    fn turn(&self) -> Option<usize> {
        let count = self.queues.len();
        let would_end = |index: usize| {
            let queue = &self.queues[index];
            let next = queue.waiting.front()?;
            Some(queue.served + GUESS_SECONDS * f64::from(next.seats))
        };
        (1..=count)
            .map(|step| (self.last + step) % count)
            .filter_map(|index| Some((index, would_end(index)?)))
            .min_by(|(_, one), (_, other)| one.total_cmp(other))
            .map(|(index, _)| index)
    }

    /// What it asks for when seats are divided; what it wanted is then counted anew.
    pub fn claim(&mut self, since: Duration) -> Claim {
        let kept = (-since.as_secs_f64() / FORGET_SECONDS).exp();
        self.target = self.wanted.max(self.target * kept);
        let claim = Claim {
            bounds: self.bounds,
            wanted: self.wanted,
            target: self.target,
        };
        self.wanted = f64::from(self.seats + self.waiting_seats);
        claim
    }

    /// Notes that a request wants seats beside those that are taken and waited for.
    pub fn want(&mut self, seats: u32) {
        let wanted = f64::from(self.seats + self.waiting_seats + seats);
        self.wanted = self.wanted.max(wanted);
    }

    /// One that is larger than all seats runs alone.
    fn has_room(&self, seats: u32) -> bool {
        self.seats + seats <= self.limit || (self.seats == 0 && self.limit > 0)
    }

    fn capped(&self, seats: u32) -> u32 {
        let most = (f64::from(self.bounds.nominal) * SEATS_PART_MAX) as u32;
        seats.clamp(1, most.max(1))
    }

    /// Lets the time pass: what is served is shared by the queues that ask.
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.seen).as_secs_f64();
        self.seen = self.seen.max(now);
        if passed <= 0.0 || self.queues.is_empty() {
            return;
        }
        let asks = |queue: &&Queue| queue.running > 0 || !queue.waiting.is_empty();
        let asking = self.queues.iter().filter(asks).count();
        if asking > 0 {
            let in_use = (self.seats + self.waiting_seats).min(self.limit.max(1));
            self.served += passed * f64::from(in_use) / asking as f64;
        }
    }

    /// The least loaded queue of the flow's hand.
    fn choose(&self, flow: u64, queues: usize, hand_size: usize) -> usize {
        let load = |index: &usize| {
            let queue = &self.queues[*index];
            let waiting: u32 = queue.waiting.iter().map(|it| it.seats).sum();
            waiting + queue.seats
        };
        hand(flow, queues, hand_size)
            .into_iter()
            .min_by_key(load)
            .unwrap_or_default()
    }
}

/// Deals a hand of different cards out of a deck, always the same for a flow.
fn hand(flow: u64, deck: usize, size: usize) -> Vec<usize> {
    let mut cards: Vec<usize> = Vec::with_capacity(size);
    let mut rest = flow;
    for dealt in 0..size.min(deck) {
        let left = (deck - dealt) as u64;
        let mut card = (rest % left) as usize;
        rest /= left;
        // The card's place among those that are left.
        let mut taken: Vec<usize> = cards.clone();
        taken.sort_unstable();
        for other in taken {
            if other <= card {
                card += 1;
            }
        }
        cards.push(card);
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_hand_has_different_cards_of_the_deck(flow: u64, deck in 1usize..200, size in 1usize..12) {
            let mut cards = hand(flow, deck, size);
            prop_assert_eq!(&cards, &hand(flow, deck, size));
            prop_assert!(cards.iter().all(|card| *card < deck));
            let count = cards.len();
            cards.sort_unstable();
            cards.dedup();
            prop_assert_eq!(cards.len(), count);
            prop_assert_eq!(count, size.min(deck));
        }
    }
}
