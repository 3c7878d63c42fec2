//! Leases, locks and members' own reads that never were. Pure.

use super::layout::{End, Made, STEP_NS, lay_out, luck};
use crate::history::{Record, Reply, Request, Told};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const NS: u64 = 1_000_000_000;
const TTL: u64 = 2;

/// How long after its time a lease ends.
#[derive(Clone, Copy)]
struct Ends {
    after_ns: i64,
}

pub fn right(seed: u64) -> Option<Vec<Record>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut made = leases(
        &mut rng,
        Ends {
            after_ns: NS as i64,
        },
    );
    made.extend(lock(&mut rng, false));
    Some(lay_out(&mut rng, made))
}

pub fn early(seed: u64) -> Option<Vec<Record>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let made = leases(
        &mut rng,
        Ends {
            after_ns: -(NS as i64) / 2,
        },
    );
    Some(lay_out(&mut rng, made))
}

pub fn late(seed: u64) -> Option<Vec<Record>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let made = leases(
        &mut rng,
        Ends {
            after_ns: 12 * NS as i64,
        },
    );
    Some(lay_out(&mut rng, made))
}

/// A holder writes after another has taken the lock.
pub fn broken(seed: u64) -> Option<Vec<Record>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let made = lock(&mut rng, true);
    Some(lay_out(&mut rng, made))
}

/// Leases that are kept alive some times, and then asked for until they are gone.
fn leases(rng: &mut StdRng, ends: Ends) -> Vec<Made> {
    let mut made = Vec::new();
    for lease in 1..10_u64 {
        let mut ns = lease * 5 * STEP_NS;
        let mut op = |ns, request, told| {
            let reply = Reply {
                revision: None,
                told,
            };
            made.push(Made::op(ns, request, End::Ok(reply)));
        };
        op(
            ns,
            Request::Grant { lease, ttl: TTL },
            Told::Lease { ttl: TTL },
        );
        for _ in 0..rng.random_range(1..5) {
            ns += NS / 2 + rng.random_range(0..NS / 4);
            op(ns, Request::KeepAlive { lease }, Told::Lease { ttl: TTL });
        }
        let gone_ns = (ns + TTL * NS).saturating_add_signed(ends.after_ns);
        loop {
            ns += NS / 10;
            let held = ns < gone_ns;
            op(ns, Request::IsAttached { lease }, Told::Held { held });
            if !held {
                break;
            }
        }
    }
    made
}

/// A lock that goes from hand to hand.
fn lock(rng: &mut StdRng, broken: bool) -> Vec<Made> {
    let (mut made, mut revision, mut ns) = (Vec::new(), 10_000, NS);
    let name = || "lock-0".to_owned();
    let mut before: Option<u64> = None;
    for lease in 1000..1030 {
        let mut op = |request, held, revision| {
            ns += STEP_NS * 10;
            let reply = Reply::at(revision, Told::Held { held });
            made.push(Made::op(ns, request, End::Ok(reply)));
        };
        revision += 1;
        let token = revision;
        op(
            Request::Acquire {
                lock: name(),
                lease,
            },
            true,
            revision,
        );
        for _ in 0..rng.random_range(1..6) {
            revision += 1;
            let lock = name();
            let fenced = true;
            op(
                Request::Guarded {
                    lock,
                    token,
                    fenced,
                },
                true,
                revision,
            );
        }
        if let Some(before) = before {
            let is_broken = broken && lease == 1015;
            revision += u64::from(is_broken);
            let request = Request::Guarded {
                lock: name(),
                token: before,
                fenced: !is_broken,
            };
            op(request, is_broken, revision);
        }
        revision += 1;
        op(
            Request::Release {
                lock: name(),
                token,
            },
            true,
            revision,
        );
        before = Some(token);
    }
    made
}

pub fn right_prefix(seed: u64) -> Option<Vec<Record>> {
    prefix(seed, false)
}

/// A member tells an old value at a new revision.
pub fn torn_prefix(seed: u64) -> Option<Vec<Record>> {
    prefix(seed, true)
}

fn prefix(seed: u64, torn: bool) -> Option<Vec<Record>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut made, mut planted) = (Vec::new(), false);
    let mut written: Vec<(u64, u64)> = vec![(0, 1)];
    let mut revision = 1;
    for at in 0..300_u64 {
        let ns = (at + 10) * STEP_NS;
        let key = "register-0".to_owned();
        if rng.random_bool(0.5) {
            let luck = luck(&mut rng);
            if luck.takes_effect() {
                revision += 1;
                written.push((at + 1, revision));
            }
            let request = Request::Write { key, value: at + 1 };
            let end = luck.end(Reply::at(revision, Told::Done));
            made.push(Made::op(ns, request, end));
            continue;
        }
        // How far the asked member is behind.
        let behind = rng.random_range(0..5).min(written.len() - 1);
        let (value, changed) = written[written.len() - 1 - behind];
        let mut at_revision = changed;
        if torn && !planted && at > 150 && behind > 2 {
            planted = true;
            at_revision = revision;
        }
        let told = Told::Value {
            value: Some(value),
            changed: Some(changed),
        };
        let request = Request::Read {
            key,
            serializable: true,
        };
        made.push(Made::op(ns, request, End::Ok(Reply::at(at_revision, told))));
    }
    (planted || !torn).then(|| lay_out(&mut rng, made))
}
