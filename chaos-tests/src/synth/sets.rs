//! Sets that never were. Pure.

use super::layout::{APART, End, Luck, Made, STEP_NS, lay_out, luck};
use crate::history::{Record, Reply, Request, Told};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Lost,
    Stale,
    Phantom,
    Resurrected,
    Back,
}

const OPS: usize = 400;
const SET: &str = "set-0";

pub fn right(seed: u64) -> Option<Vec<Record>> {
    make(seed, Fault::None)
}

pub fn lost(seed: u64) -> Option<Vec<Record>> {
    make(seed, Fault::Lost)
}

pub fn stale(seed: u64) -> Option<Vec<Record>> {
    make(seed, Fault::Stale)
}

pub fn phantom(seed: u64) -> Option<Vec<Record>> {
    make(seed, Fault::Phantom)
}

pub fn resurrected(seed: u64) -> Option<Vec<Record>> {
    make(seed, Fault::Resurrected)
}

pub fn back(seed: u64) -> Option<Vec<Record>> {
    make(seed, Fault::Back)
}

fn make(seed: u64, fault: Fault) -> Option<Vec<Record>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::default();
    for at in 0..OPS {
        let (request, end) = world.step(&mut rng, at, fault);
        let ns = (at as u64 + 10) * STEP_NS;
        world.made.push(Made::op(ns, request, end));
    }
    let last = Request::Elements {
        set: SET.to_owned(),
    };
    let ns = (OPS + 10 + APART) as u64 * STEP_NS;
    let reply = world.list(&world.elements);
    world.made.push(Made::op(ns, last, End::Ok(reply)));
    let is_whole = fault == Fault::None || world.planted;
    is_whole.then(|| lay_out(&mut rng, world.made))
}

#[derive(Default)]
struct World {
    elements: BTreeSet<u64>,
    /// The elements that are not to be removed, since a fault is about them.
    kept: BTreeSet<u64>,
    /// What was there after each operation.
    past: Vec<BTreeSet<u64>>,
    revision: u64,
    next: u64,
    planted: bool,
    made: Vec<Made>,
}

impl World {
    fn step(&mut self, rng: &mut StdRng, at: usize, fault: Fault) -> (Request, End) {
        let is_place = !self.planted && (OPS / 3..OPS - 4 * APART).contains(&at);
        let set = SET.to_owned();
        let result = match rng.random_range(0..10) {
            0..6 => {
                self.next += 1;
                let element = self.next;
                let request = Request::Add { set, element };
                (request, self.add(rng, element, fault, is_place))
            }
            6..8 => {
                let of_old: Vec<u64> = self
                    .elements
                    .difference(&self.kept)
                    .copied()
                    .take_while(|element| element + APART as u64 <= self.next)
                    .collect();
                let element = of_old.get(rng.random_range(0..of_old.len().max(1)));
                match element {
                    Some(element) => {
                        let element = *element;
                        let end = self.remove(rng, element, fault, is_place);
                        (Request::Remove { set, element }, end)
                    }
                    None => self.elements_listed(at, Fault::None, false),
                }
            }
            _ => self.elements_listed(at, fault, is_place),
        };
        self.past.push(self.elements.clone());
        result
    }

    fn add(&mut self, rng: &mut StdRng, element: u64, fault: Fault, is_place: bool) -> End {
        let luck = luck(rng);
        let takes_effect = match (fault, luck) {
            (Fault::Lost, Luck::Done) if is_place => false,
            (Fault::Phantom, Luck::Refused) if is_place => true,
            _ => luck.takes_effect(),
        };
        if takes_effect != luck.takes_effect() {
            self.planted = true;
            self.kept.insert(element);
        }
        if takes_effect {
            self.elements.insert(element);
        }
        self.changed(luck, fault, is_place)
    }

    fn remove(&mut self, rng: &mut StdRng, element: u64, fault: Fault, is_place: bool) -> End {
        let luck = luck(rng);
        if fault == Fault::Resurrected && luck == Luck::Done && is_place {
            self.planted = true;
            self.kept.insert(element);
        } else if luck.takes_effect() {
            self.elements.remove(&element);
        }
        self.changed(luck, fault, is_place)
    }

    fn changed(&mut self, luck: Luck, fault: Fault, is_place: bool) -> End {
        if fault == Fault::Back && luck == Luck::Done && is_place {
            self.planted = true;
            self.revision -= APART as u64;
        }
        self.revision += u64::from(luck != Luck::Refused);
        luck.end(Reply::at(self.revision, Told::Held { held: true }))
    }

    fn elements_listed(&mut self, at: usize, fault: Fault, is_place: bool) -> (Request, End) {
        let request = Request::Elements {
            set: SET.to_owned(),
        };
        let old = self.past.get(at.wrapping_sub(3 * APART));
        // An element acknowledged since then, which is there now, must be missing for the list to be stale.
        let old = old.filter(|old| {
            let recent = self.past.get(at - APART);
            let new = |element: &&u64| {
                recent.is_some_and(|recent| recent.contains(element)) && !old.contains(element)
            };
            self.elements.iter().any(|element| new(&element))
        });
        let reply = match old {
            Some(old) if fault == Fault::Stale && is_place => {
                self.planted = true;
                let now = self.elements.clone();
                self.kept.extend(now.difference(old));
                self.list(&old.clone())
            }
            _ => self.list(&self.elements),
        };
        (request, End::Ok(reply))
    }

    fn list(&self, elements: &BTreeSet<u64>) -> Reply {
        let elements = elements.iter().copied().collect();
        Reply::at(self.revision, Told::Elements { elements })
    }
}
