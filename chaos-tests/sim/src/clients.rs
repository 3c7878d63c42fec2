//! What clients do meanwhile: write, compare and swap, read, hold leases, act under a term, compact.
//!
//! A client asks one member, waits for its answer or for the end of that member's life, and never asks the same thing again: what
//! is not known stays so. Every value is written once.

use crate::facts::Facts;
use crate::judge::{Asked, Event};
use crate::world::World;
use mvcc::{
    Command, Compare, Consistency, Done, KeyRange, LeaseId, Op, RangeRequest, Store, StoreError,
    Txn,
};
use objects::Revision;
use raft_store::RaftStore;
use raft_store::types::MemberId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 4;
const KEYS: u64 = 12;
/// Compactions keep so many of the newest revisions at least.
const KEPT_REVISIONS: u64 = 60;

/// The clients, as the one who started them holds them.
pub struct Load {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Lets every client finish what it does.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.expect("a client does not panic");
        }
    }
}

/// Starts the clients.
pub fn start(world: &World, seed: u64) -> Load {
    let stop = CancellationToken::new();
    let mut seeds = StdRng::seed_from_u64(seed);
    let tasks = (0..CLIENTS).map(|number| {
        let client = Client {
            number,
            world: world.clone(),
            rng: StdRng::seed_from_u64(seeds.random()),
            lease: None,
            term: None,
        };
        tokio::spawn(client.run(stop.clone()))
    });
    Load {
        tasks: tasks.collect(),
        stop,
    }
}

/// Whether a member takes a write and then reads it.
pub async fn probe(world: &World, member: MemberId, store: &RaftStore) -> bool {
    let mut client = Client {
        number: CLIENTS,
        world: world.clone(),
        rng: StdRng::seed_from_u64(0),
        lease: None,
        term: None,
    };
    let key = format!("probe/{member}");
    let value = client.value();
    let txn = Txn {
        success: vec![Op::put(key.clone(), value)],
        ..Txn::default()
    };
    client.txn(member, store, txn).await.is_some()
        && client
            .read(member, store, KeyRange::key(key), Consistency::Linearizable)
            .await
}

struct Client {
    number: usize,
    world: World,
    rng: StdRng,
    lease: Option<HeldLease>,
    /// A term under which it acts.
    term: Option<objects::Term>,
}

struct HeldLease {
    id: i64,
    ttl: Duration,
}

impl Client {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = self.rng.random_range(1..60);
            sleep(Duration::from_millis(pause)).await;
            let members = self.world.members();
            let member = members[self.rng.random_range(0..members.len())];
            if let Some(store) = self.world.store(member) {
                self.act(member, &store).await;
            }
        }
    }

    async fn act(&mut self, member: MemberId, store: &RaftStore) {
        match self.rng.random_range(0..100) {
            0..25 => self.put(member, store).await,
            25..40 => self.swap(member, store).await,
            40..50 => self.put_many(member, store).await,
            50..57 => self.delete(member, store).await,
            57..75 => {
                let range = self.range();
                self.read(member, store, range, Consistency::Linearizable)
                    .await;
            }
            75..82 => {
                let range = self.range();
                self.read(member, store, range, Consistency::Stale).await;
            }
            82..86 => self.read_past(member, store).await,
            86..95 => self.hold_lease(store).await,
            95..98 => self.act_under_term(member, store).await,
            _ => self.compact(member, store).await,
        }
    }

    async fn put(&mut self, member: MemberId, store: &RaftStore) {
        let txn = Txn {
            success: vec![Op::put(self.key(), self.value())],
            ..Txn::default()
        };
        self.txn(member, store, txn).await;
    }

    async fn put_many(&mut self, member: MemberId, store: &RaftStore) {
        // Several keys of one prefix, so that a watch must tell them together.
        let first = self.rng.random_range(0..KEYS - 3);
        let puts = (first..first + 3).map(|number| Op::put(key(number), self.value()));
        let txn = Txn {
            success: puts.collect(),
            ..Txn::default()
        };
        self.txn(member, store, txn).await;
    }

    async fn delete(&mut self, member: MemberId, store: &RaftStore) {
        let range = self.range();
        let txn = Txn {
            success: vec![Op::DeleteRange {
                range,
                prev_kv: false,
            }],
            ..Txn::default()
        };
        self.txn(member, store, txn).await;
    }

    /// Reads a key and writes it if nobody else did meanwhile.
    async fn swap(&mut self, member: MemberId, store: &RaftStore) {
        let key = self.key();
        let request = RangeRequest::new(KeyRange::key(key.clone()));
        let Some(response) = self.ask(member, store, request).await else {
            return;
        };
        let revision = response
            .kvs
            .first()
            .map_or(Revision(0), |kv| kv.mod_revision);
        let txn = Txn {
            compare: vec![Compare::unchanged(key.clone(), revision)],
            success: vec![Op::put(key.clone(), self.value())],
            failure: vec![Op::get(key)],
            fence: None,
        };
        self.txn(member, store, txn).await;
    }

    async fn read(
        &mut self,
        member: MemberId,
        store: &RaftStore,
        range: KeyRange,
        consistency: Consistency,
    ) -> bool {
        let request = RangeRequest {
            consistency,
            ..RangeRequest::new(range)
        };
        self.ask(member, store, request).await.is_some()
    }

    async fn read_past(&mut self, member: MemberId, store: &RaftStore) {
        let back = self.rng.random_range(0..30);
        let revision = Revision(store.applied_revision().0.saturating_sub(back).max(1));
        let request = RangeRequest {
            revision: Some(revision),
            ..RangeRequest::new(self.range())
        };
        self.ask(member, store, request).await;
    }

    /// Grants a lease and puts a key under it, keeps it alive, or lets it end.
    async fn hold_lease(&mut self, _: &RaftStore) {
        // A lease command carries the leader's time, so it is the leader that is asked.
        let Some(leader) = self.world.leader() else {
            return;
        };
        let Some(store) = self.world.store(leader) else {
            return;
        };
        match self.lease.take() {
            None => self.grant(leader, &store).await,
            Some(lease) if self.rng.random_bool(0.8) => {
                self.keep_alive(leader, &store, lease).await
            }
            Some(lease) => self
                .world
                .judge()
                .see(&Event::LeaseLeft { lease: lease.id }),
        }
    }

    async fn grant(&mut self, leader: MemberId, store: &RaftStore) {
        let ttl = Duration::from_millis(self.rng.random_range(1_500..6_000));
        let op = self.world.next_op();
        let id = i64::try_from(op).expect("few requests are made");
        let command = Command::LeaseGrant {
            id: LeaseId(id),
            ttl_ms: u64::try_from(ttl.as_millis()).expect("a few seconds"),
            now_ms: store.lease_now_ms(),
        };
        let asked = self.world.judge().facts(Facts::read_clocks);
        if self
            .command(
                leader,
                store,
                op,
                command,
                format!("lease {id} for {ttl:?}"),
            )
            .await
        {
            self.world.judge().see(&Event::LeaseHeld {
                lease: id,
                ttl,
                asked: &asked,
            });
            self.lease = Some(HeldLease { id, ttl });
            let txn = Txn {
                success: vec![Op::Put {
                    key: format!("lease/{id}").into(),
                    value: self.value().into(),
                    lease: LeaseId(id),
                    prev_kv: false,
                }],
                ..Txn::default()
            };
            self.txn(leader, store, txn).await;
        }
    }

    async fn keep_alive(&mut self, leader: MemberId, store: &RaftStore, lease: HeldLease) {
        let op = self.world.next_op();
        let command = Command::LeaseKeepAlive {
            id: LeaseId(lease.id),
            now_ms: store.lease_now_ms(),
        };
        let asked = self.world.judge().facts(Facts::read_clocks);
        let what = format!("keep lease {}", lease.id);
        if self.command(leader, store, op, command, what).await {
            self.world.judge().see(&Event::LeaseHeld {
                lease: lease.id,
                ttl: lease.ttl,
                asked: &asked,
            });
            self.lease = Some(lease);
        }
    }

    /// Writes as one who acts only as long as the leader that it knows leads.
    async fn act_under_term(&mut self, member: MemberId, store: &RaftStore) {
        let known = store.leader_state().term;
        // It learns of a new term only now and then.
        let term = match self.term.filter(|_| self.rng.random_bool(0.6)) {
            Some(term) => term,
            None => *self.term.insert(known),
        };
        let txn = Txn {
            success: vec![Op::put(self.key(), self.value())],
            fence: Some(term),
            ..Txn::default()
        };
        self.txn(member, store, txn).await;
    }

    async fn compact(&mut self, member: MemberId, store: &RaftStore) {
        let newest = store.applied_revision().0;
        let Some(revision) = newest.checked_sub(KEPT_REVISIONS) else {
            return;
        };
        let op = self.world.next_op();
        let command = Command::Compact {
            revision: Revision(revision),
        };
        self.command(member, store, op, command, format!("compact {revision}"))
            .await;
    }

    async fn txn(&mut self, member: MemberId, store: &RaftStore, txn: Txn) -> Option<()> {
        let op = self.invoke(member, Asked::Txn(txn.clone()));
        let result = self.until_over(member, store.txn(txn)).await;
        self.world.judge().see(&Event::Answered {
            client: self.number,
            op,
            result: &result,
        });
        self.count(&result)
    }

    async fn ask(
        &mut self,
        member: MemberId,
        store: &RaftStore,
        request: RangeRequest,
    ) -> Option<mvcc::RangeResponse> {
        let op = self.invoke(member, Asked::Range(request.clone()));
        let result = self.until_over(member, store.range(request)).await;
        self.world.judge().see(&Event::Read {
            client: self.number,
            op,
            result: &result,
        });
        self.count(&result)?;
        result.ok()
    }

    async fn command(
        &mut self,
        member: MemberId,
        store: &RaftStore,
        op: u64,
        command: Command,
        what: String,
    ) -> bool {
        self.world.judge().see(&Event::Invoked {
            client: self.number,
            op,
            at: member,
            asked: &Asked::Other(what),
        });
        let result = self.until_over(member, store.command(command)).await;
        let result = result.map(|done| match done {
            Done::Lease { id, ttl_ms } => format!("lease {} for {ttl_ms} ms", id.0),
            other => format!("{other:?}"),
        });
        self.world.judge().see(&Event::Done {
            client: self.number,
            op,
            result: &result,
        });
        self.count(&result).is_some()
    }

    fn invoke(&mut self, at: MemberId, asked: Asked) -> u64 {
        let op = self.world.next_op();
        self.world.judge().see(&Event::Invoked {
            client: self.number,
            op,
            at,
            asked: &asked,
        });
        op
    }

    fn count<T>(&self, result: &Result<T, StoreError>) -> Option<()> {
        result.as_ref().ok()?;
        self.world.count_answer();
        Some(())
    }

    async fn until_over<T>(
        &self,
        member: MemberId,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let over = self.world.over(member);
        tokio::select! {
            biased;
            () = over.cancelled() => Err(StoreError::Unavailable("the member died".to_owned())),
            result = call => result,
        }
    }

    fn key(&mut self) -> String {
        key(self.rng.random_range(0..KEYS))
    }

    fn range(&mut self) -> KeyRange {
        match self.rng.random_bool(0.7) {
            true => KeyRange::key(self.key()),
            false => KeyRange::prefix("key/"),
        }
    }

    fn value(&mut self) -> String {
        format!("v{}", self.world.next_op())
    }
}

fn key(number: u64) -> String {
    format!("key/{number:02}")
}
