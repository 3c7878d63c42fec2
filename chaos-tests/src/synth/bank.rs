//! A bank and hashes that never were. Pure.

use super::layout::{End, Made, STEP_NS, lay_out, luck};
use crate::history::{Record, Reply, Request, Told};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

const OPS: usize = 400;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    HalfTransfer,
    TwoPasts,
}

pub fn right(seed: u64) -> Option<Vec<Record>> {
    bank(seed, Fault::None)
}

pub fn half_transfer(seed: u64) -> Option<Vec<Record>> {
    bank(seed, Fault::HalfTransfer)
}

pub fn two_pasts(seed: u64) -> Option<Vec<Record>> {
    bank(seed, Fault::TwoPasts)
}

fn bank(seed: u64, fault: Fault) -> Option<Vec<Record>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut accounts = vec![100_i64; 5];
    let mut past: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    let (mut revision, mut made, mut planted) = (100, Vec::new(), false);
    past.insert(revision, accounts.clone());
    for at in 0..OPS {
        let ns = (at as u64 + 10) * STEP_NS;
        let is_place = !planted && at > OPS / 2;
        if rng.random_range(0..3) > 0 {
            let (from, to) = (rng.random_range(0..5_u32), rng.random_range(0..5_u32));
            let amount = rng.random_range(1..5);
            let luck = luck(&mut rng);
            if luck.takes_effect() {
                revision += 1;
                accounts[from as usize] -= amount as i64;
                if is_place && fault == Fault::HalfTransfer {
                    planted = true;
                } else {
                    accounts[to as usize] += amount as i64;
                }
                past.insert(revision, accounts.clone());
            }
            let reply = Reply::at(revision, Told::Held { held: true });
            let request = Request::Transfer { from, to, amount };
            made.push(Made::op(ns, request, luck.end(reply)));
            continue;
        }
        let old = revision - rng.random_range(0..20).min(revision - 100);
        let at = rng.random_bool(0.5).then_some(old);
        let mut told = past[&at.unwrap_or(revision)].clone();
        if is_place && fault == Fault::TwoPasts && at.is_some() {
            planted = true;
            let request = Request::Balances { at };
            let accounts = told.clone();
            let reply = Reply::at(revision, Told::Balances { accounts });
            made.push(Made::op(ns, request, End::Ok(reply)));
            told[0] += 1;
            told[1] -= 1;
        }
        let reply = Reply::at(revision, Told::Balances { accounts: told });
        made.push(Made::op(ns, Request::Balances { at }, End::Ok(reply)));
    }
    (planted || fault == Fault::None).then(|| lay_out(&mut rng, made))
}

/// Members' hashes, one of which differs.
pub fn two_hashes(seed: u64) -> Option<Vec<Record>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut made = Vec::new();
    for at in 0..60_u64 {
        let revision = 100 + at / 3;
        let wrong = u64::from(at == 31);
        let told = Told::Hash {
            hash: revision.wrapping_mul(0x9e37_79b9) ^ wrong,
            compacted: 50,
        };
        let end = End::Ok(Reply::at(revision, told));
        made.push(Made::op(
            (at + 10) * STEP_NS,
            Request::Hash { revision },
            end,
        ));
    }
    Some(lay_out(&mut rng, made))
}
