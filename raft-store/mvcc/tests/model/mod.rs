//! The store as one would first think of it: a copy of the whole state for every revision. Slow, obvious, and written
//! without a line of what it checks.

use bytes::Bytes;
use mvcc::{
    Command, Compare, CompareOp, CompareTarget, Done, Event, KeyRange, KeyValue, LeaseId, Op,
    OpResult, RangeRequest, RangeResponse, Reply, Selection, SortTarget, StoreError, Txn,
    TxnResponse,
};
use objects::{Revision, Term};
use std::collections::{BTreeMap, BTreeSet};

pub type State = BTreeMap<Bytes, KeyValue>;

#[derive(Clone, Debug)]
pub struct Model {
    /// The state at each revision that was ever taken.
    pub states: BTreeMap<Revision, State>,
    pub compacted: Revision,
    clock_ms: u64,
    leases: BTreeMap<LeaseId, (u64, u64)>,
}

impl Model {
    pub fn new() -> Self {
        Model {
            states: BTreeMap::from([(Revision(1), State::new())]),
            compacted: Revision(0),
            clock_ms: 0,
            leases: BTreeMap::new(),
        }
    }

    pub fn revision(&self) -> Revision {
        *self.states.last_key_value().unwrap().0
    }

    /// The kept versions of a key, the newest first: None for a delete.
    pub fn versions(&self, key: &[u8]) -> Vec<(Revision, Option<KeyValue>)> {
        let mut versions = vec![];
        let mut before: Option<&KeyValue> = None;
        for (revision, state) in &self.states {
            let kv = state.get(key);
            if kv != before {
                versions.push((*revision, kv.cloned()));
            }
            before = kv;
        }
        let line = versions
            .iter()
            .rposition(|(revision, _)| *revision <= self.compacted);
        let mut kept = versions.split_off(line.unwrap_or(0));
        kept.retain(|(revision, kv)| *revision >= self.compacted || kv.is_some());
        kept.reverse();
        kept
    }

    fn state(&self) -> &State {
        self.states.last_key_value().unwrap().1
    }

    pub fn apply(&mut self, term: Term, command: &Command) -> Reply {
        match command {
            Command::Txn(txn) => self.txn(term, txn),
            Command::Compact { revision } => self.compact(*revision),
            Command::LeaseGrant { id, ttl_ms, now_ms } => {
                if id.0 == 0 {
                    return Err(StoreError::Refused(String::new()));
                }
                if self.leases.contains_key(id) {
                    return Err(StoreError::LeaseExists);
                }
                self.tick(*now_ms);
                self.leases.insert(*id, (*ttl_ms, self.clock_ms + ttl_ms));
                Ok(Done::Lease {
                    id: *id,
                    ttl_ms: *ttl_ms,
                })
            }
            Command::LeaseKeepAlive { id, now_ms } => {
                let (ttl_ms, _) = *self.leases.get(id).ok_or(StoreError::LeaseNotFound)?;
                self.tick(*now_ms);
                self.leases.insert(*id, (ttl_ms, self.clock_ms + ttl_ms));
                Ok(Done::Lease { id: *id, ttl_ms })
            }
            Command::LeaseRevoke { id } => {
                self.leases.remove(id).ok_or(StoreError::LeaseNotFound)?;
                self.drop_lease(*id);
                Ok(Done::LeasesEnded(1))
            }
            Command::LeaseExpire { ids, now_ms } => {
                self.tick(*now_ms);
                let mut ended = 0;
                for id in ids {
                    if self
                        .leases
                        .get(id)
                        .is_some_and(|(_, ends_ms)| *ends_ms <= self.clock_ms)
                    {
                        self.leases.remove(id);
                        self.drop_lease(*id);
                        ended += 1;
                    }
                }
                Ok(Done::LeasesEnded(ended))
            }
            Command::LeaseRenewAll { now_ms } => {
                self.tick(*now_ms);
                for (ttl_ms, ends_ms) in self.leases.values_mut() {
                    *ends_ms = self.clock_ms + *ttl_ms;
                }
                Ok(Done::LeasesRenewed(self.leases.len() as u64))
            }
            Command::RaiseRevision { by } => {
                let raised = Revision(self.revision().0 + by);
                self.states.insert(raised, self.state().clone());
                self.compacted = raised;
                Ok(Done::Raised(raised))
            }
            Command::Tick { now_ms, .. } => {
                self.tick(*now_ms);
                Ok(Done::Ticked(self.revision()))
            }
            Command::KeepHistory { limits } => Ok(Done::HistoryKept(*limits)),
        }
    }

    fn tick(&mut self, now_ms: u64) {
        self.clock_ms = self.clock_ms.max(now_ms);
    }

    fn compact(&mut self, revision: Revision) -> Reply {
        if revision > self.revision() {
            return Err(StoreError::FutureRevision {
                requested: revision,
                current: self.revision(),
            });
        }
        if revision <= self.compacted {
            return Err(StoreError::Compacted {
                requested: revision,
                oldest: self.compacted,
            });
        }
        self.compacted = revision;
        Ok(Done::Compacted(revision))
    }

    fn drop_lease(&mut self, id: LeaseId) {
        let mut state = self.state().clone();
        state.retain(|_, kv| kv.lease != id);
        if state.len() < self.state().len() {
            self.states.insert(self.revision().next(), state);
        }
    }

    fn txn(&mut self, term: Term, txn: &Txn) -> Reply {
        if let Some(held) = txn.fence.filter(|held| *held < term) {
            return Err(StoreError::Fenced {
                held,
                current: term,
            });
        }
        if conflicts(&txn.success) || conflicts(&txn.failure) {
            return Err(StoreError::DuplicateKey);
        }
        let mut state = self.state().clone();
        let mut is_changed = false;
        let mut unreadable = None;
        let response = self.run(&mut state, &mut is_changed, &mut unreadable, txn)?;
        if let Some(refused) = unreadable {
            return Err(refused);
        }
        if is_changed {
            self.states.insert(self.revision().next(), state);
        }
        Ok(Done::Txn(response))
    }

    fn run(
        &self,
        state: &mut State,
        is_changed: &mut bool,
        unreadable: &mut Option<StoreError>,
        txn: &Txn,
    ) -> Result<TxnResponse, StoreError> {
        let next = self.revision().next();
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let mut results = vec![];
        for op in if succeeded {
            &txn.success
        } else {
            &txn.failure
        } {
            results.push(match op {
                Op::Put {
                    key,
                    value,
                    lease,
                    prev_kv,
                } => {
                    let prev = self.put(state, key, value, *lease)?;
                    *is_changed = true;
                    OpResult::Put(if *prev_kv { prev } else { None })
                }
                Op::Update {
                    key,
                    value,
                    lease,
                    prev_kv,
                } => {
                    let old = state.get(key).ok_or(StoreError::KeyNotFound)?.clone();
                    let value = value.as_ref().unwrap_or(&old.value);
                    let prev = self.put(state, key, value, lease.unwrap_or(old.lease))?;
                    *is_changed = true;
                    OpResult::Put(if *prev_kv { prev } else { None })
                }
                Op::Query(query) => {
                    let current = if *is_changed { next } else { self.revision() };
                    let past = query.revision.filter(|revision| revision.0 != 0);
                    let past = match past.map(|revision| self.kept(revision)) {
                        Some(Ok(past)) => Some(past),
                        Some(Err(refused)) => {
                            unreadable.get_or_insert(refused);
                            None
                        }
                        None => None,
                    };
                    OpResult::Range(RangeResponse {
                        revision: current,
                        ..select_from(past.unwrap_or(state), &query.request())
                    })
                }
                Op::DeleteRange { range, prev_kv } => {
                    let deleted: Vec<KeyValue> = select(state, range);
                    for kv in &deleted {
                        state.remove(&kv.key);
                        *is_changed = true;
                    }
                    OpResult::Deleted(
                        deleted.len() as u64,
                        if *prev_kv { deleted } else { vec![] },
                    )
                }
                Op::Range { range, limit } => {
                    let mut found = respond(state, range, limit.map(|limit| limit as usize));
                    found.revision = if *is_changed { next } else { self.revision() };
                    OpResult::Range(found)
                }
                Op::Txn(inner) => OpResult::Txn(self.run(state, is_changed, unreadable, inner)?),
                Op::Sign(_) => OpResult::Signed,
            });
        }
        Ok(TxnResponse {
            revision: if *is_changed { next } else { self.revision() },
            succeeded,
            results,
        })
    }

    fn put(
        &self,
        state: &mut State,
        key: &Bytes,
        value: &Bytes,
        lease: LeaseId,
    ) -> Result<Option<KeyValue>, StoreError> {
        let next = self.revision().next();
        if lease.0 != 0 && !self.leases.contains_key(&lease) {
            return Err(StoreError::LeaseNotFound);
        }
        let prev = state.get(key).cloned();
        let kv = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: prev.as_ref().map_or(next, |prev| prev.create_revision),
            mod_revision: next,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease,
        };
        state.insert(key.clone(), kv);
        Ok(prev)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = select(self.state(), &compare.range);
        if found.is_empty() {
            let compared = match &compare.target {
                CompareTarget::Value(_) => return false,
                CompareTarget::Lease(given) => 0i128 - i128::from(given.0),
                CompareTarget::ModRevision(Revision(given))
                | CompareTarget::CreateRevision(Revision(given))
                | CompareTarget::Version(given) => 0i128 - i128::from(*given),
            };
            return op_holds(compare.op, compared);
        }
        found.iter().all(|kv| {
            let less = |a: u64, b: u64| i128::from(a) - i128::from(b);
            op_holds(
                compare.op,
                match &compare.target {
                    CompareTarget::Value(given) => kv.value.cmp(given) as i128,
                    CompareTarget::Lease(given) => i128::from(kv.lease.0) - i128::from(given.0),
                    CompareTarget::ModRevision(given) => less(kv.mod_revision.0, given.0),
                    CompareTarget::CreateRevision(given) => less(kv.create_revision.0, given.0),
                    CompareTarget::Version(given) => less(kv.version, *given),
                },
            )
        })
    }

    /// What a range read must answer.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let requested = request.revision.filter(|revision| revision.0 != 0);
        let state = self.kept(requested.unwrap_or(self.revision()))?;
        Ok(RangeResponse {
            revision: self.revision(),
            ..select_from(state, request)
        })
    }

    /// The state at a revision, if it is kept.
    fn kept(&self, requested: Revision) -> Result<&State, StoreError> {
        if requested > self.revision() {
            return Err(StoreError::FutureRevision {
                requested,
                current: self.revision(),
            });
        }
        if requested < self.compacted {
            return Err(StoreError::Compacted {
                requested,
                oldest: self.compacted,
            });
        }
        Ok(self.states.range(..=requested).next_back().unwrap().1)
    }

    /// The changes of `range` from `from` on, those of one revision in the order of keys.
    pub fn events(&self, range: &KeyRange, from: Revision) -> Vec<Event> {
        let mut events = vec![];
        let mut before = &State::new();
        for (revision, after) in &self.states {
            let keys: BTreeSet<&Bytes> = before
                .keys()
                .chain(after.keys())
                .filter(|key| range.contains(key))
                .collect();
            for key in keys.into_iter().filter(|_| *revision >= from) {
                let prev = before.get(key).cloned();
                match after.get(key) {
                    Some(kv) if prev.as_ref() != Some(kv) => events.push(Event::Put {
                        kv: kv.clone(),
                        prev,
                    }),
                    None => events.push(Event::Delete {
                        key: key.clone(),
                        revision: *revision,
                        prev,
                    }),
                    Some(_) => {}
                }
            }
            before = after;
        }
        events
    }
}

fn op_holds(op: CompareOp, difference: i128) -> bool {
    match op {
        CompareOp::Equal => difference == 0,
        CompareOp::NotEqual => difference != 0,
        CompareOp::Greater => difference > 0,
        CompareOp::Less => difference < 0,
    }
}

fn select(state: &State, range: &KeyRange) -> Vec<KeyValue> {
    state
        .values()
        .filter(|kv| range.contains(&kv.key))
        .cloned()
        .collect()
}

fn respond(state: &State, range: &KeyRange, limit: Option<usize>) -> RangeResponse {
    let mut kvs = select(state, range);
    let count = kvs.len();
    kvs.truncate(limit.unwrap_or(usize::MAX));
    RangeResponse {
        revision: Revision(0),
        more: kvs.len() < count,
        kvs,
        count: count as u64,
    }
}

/// What a request with every option finds in a state.
fn select_from(state: &State, request: &RangeRequest) -> RangeResponse {
    let Selection {
        sort,
        is_descending,
        mod_revision_min,
        mod_revision_max,
        create_revision_min,
        create_revision_max,
    } = request.selection;
    let all = select(state, &request.range);
    let count = all.len() as u64;
    let upper = |max: Revision| if max.0 == 0 { u64::MAX } else { max.0 };
    let mut kvs: Vec<KeyValue> = all
        .into_iter()
        .filter(|kv| (mod_revision_min.0..=upper(mod_revision_max)).contains(&kv.mod_revision.0))
        .filter(|kv| {
            (create_revision_min.0..=upper(create_revision_max)).contains(&kv.create_revision.0)
        })
        .collect();
    let rank = |kv: &KeyValue| -> (u64, Bytes) {
        match sort {
            SortTarget::Key => (0, kv.key.clone()),
            SortTarget::Version => (kv.version, Bytes::new()),
            SortTarget::CreateRevision => (kv.create_revision.0, Bytes::new()),
            SortTarget::ModRevision => (kv.mod_revision.0, Bytes::new()),
            SortTarget::Value => (0, kv.value.clone()),
        }
    };
    if is_descending {
        kvs.sort_by_key(|kv| (std::cmp::Reverse(rank(kv)), kv.key.clone()));
    } else {
        kvs.sort_by_key(|kv| (rank(kv), kv.key.clone()));
    }
    let limit = request.limit.unwrap_or(usize::MAX);
    let more = !request.count_only && kvs.len() > limit;
    kvs.truncate(if request.count_only { 0 } else { limit });
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse {
        revision: Revision(0),
        kvs,
        more,
        count,
    }
}

/// Whether two different steps may change the same key, at least one of them by a put.
fn conflicts(ops: &[Op]) -> bool {
    let touched: Vec<(Vec<Bytes>, Vec<KeyRange>)> = ops.iter().map(touches).collect();
    let inner = ops.iter().any(|op| match op {
        Op::Txn(txn) => conflicts(&txn.success) || conflicts(&txn.failure),
        _ => false,
    });
    inner
        || touched.iter().enumerate().any(|(at, (puts, _))| {
            let others = touched
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != at)
                .map(|(_, other)| other);
            others.into_iter().any(|(other_puts, other_deletes)| {
                puts.iter().any(|key| {
                    other_puts.contains(key)
                        || other_deletes.iter().any(|range| range.contains(key))
                })
            })
        })
}

fn touches(op: &Op) -> (Vec<Bytes>, Vec<KeyRange>) {
    match op {
        Op::Put { key, .. } | Op::Update { key, .. } => (vec![key.clone()], vec![]),
        Op::DeleteRange { range, .. } => (vec![], vec![range.clone()]),
        Op::Range { .. } | Op::Query(_) | Op::Sign(_) => (vec![], vec![]),
        Op::Txn(txn) => {
            let (puts, deletes): (Vec<_>, Vec<_>) =
                txn.success.iter().chain(&txn.failure).map(touches).unzip();
            (puts.concat(), deletes.concat())
        }
    }
}
