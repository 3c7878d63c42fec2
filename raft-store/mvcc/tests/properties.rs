//! Properties: whatever is done to the store, it answers as a naive model does, at every revision that is kept, to every
//! watcher, in whatever chunks the work is done.

mod model;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use model::Model;
use mvcc::{
    Applied, Author, Command, Compare, CompareOp, CompareTarget, Consistency, Event, HashAt,
    HubLimits, KeyRange, KeyRangeEnd, KeyValue, LeaderState, LeaseId, MemStore, MemTables, Op,
    Overlay, Query, RangeRequest, RangeResponse, Reply, Selection, SortTarget, Store, StoreError,
    Table, Txn, VersionsRequest, WatchRequest, WatchStream, apply, fingerprint, hash_at,
    range_with, sweep, versions,
};
use objects::{Revision, Term};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

const KEYS: [&[u8]; 7] = [b"a", b"a\0", b"a\0\xff", b"b/1", b"b/2", b"b/3", b"\xff"];

/// What happens to a store.
#[derive(Clone, Debug)]
enum Step {
    Command(Command),
    /// Another leader.
    Term(u64),
    /// The live watcher reads so many batches.
    Read(usize),
}

fn key() -> impl Strategy<Value = Bytes> {
    proptest::sample::select(&KEYS[..]).prop_map(Bytes::from_static)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::key),
        2 => proptest::sample::select(vec![&b""[..], b"a", b"b", b"b/", b"\xff"]).prop_map(KeyRange::prefix),
        1 => (key(), key()).prop_map(|(start, end)| KeyRange { start, end: KeyRangeEnd::Before(end) }),
        1 => key().prop_map(|start| KeyRange { start, end: KeyRangeEnd::Unbounded }),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let op = prop_oneof![
        Just(CompareOp::Equal),
        Just(CompareOp::NotEqual),
        Just(CompareOp::Greater),
        Just(CompareOp::Less)
    ];
    let target = prop_oneof![
        (0u64..12).prop_map(|revision| CompareTarget::ModRevision(Revision(revision))),
        (0u64..12).prop_map(|revision| CompareTarget::CreateRevision(Revision(revision))),
        (0u64..4).prop_map(CompareTarget::Version),
        value().prop_map(CompareTarget::Value),
        (0i64..3).prop_map(|id| CompareTarget::Lease(LeaseId(id))),
    ];
    (key_range(), op, target).prop_map(|(range, op, target)| Compare { range, op, target })
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::from_static(b"")),
        Just(Bytes::from_static(b"x")),
        Just(Bytes::from_static(b"yy"))
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (key(), value(), prop_oneof![4 => Just(0i64), 1 => 1i64..4], any::<bool>())
            .prop_map(|(key, value, lease, prev_kv)| Op::Put { key, value, lease: LeaseId(lease), prev_kv }),
        3 => (key_range(), any::<bool>()).prop_map(|(range, prev_kv)| Op::DeleteRange { range, prev_kv }),
        2 => (key_range(), proptest::option::of(0u64..4)).prop_map(|(range, limit)| Op::Range { range, limit }),
        2 => (0u64..100).prop_map(|at_ms| Op::Sign(Author { at_ms, ..Author::default() })),
        2 => (key(), proptest::option::of(value()), proptest::option::of(0i64..3), any::<bool>())
            .prop_map(|(key, value, lease, prev_kv)| Op::Update { key, value, lease: lease.map(LeaseId), prev_kv }),
        1 => query().prop_map(|query| Op::Query(Box::new(query))),
    ]
}

fn selection() -> impl Strategy<Value = Selection> {
    let sort = proptest::sample::select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::CreateRevision,
        SortTarget::ModRevision,
        SortTarget::Value,
    ]);
    let bound = || prop_oneof![2 => Just(0u64), 1 => 0u64..20].prop_map(Revision);
    (sort, any::<bool>(), bound(), bound(), bound(), bound()).prop_map(
        |(sort, is_descending, mod_min, mod_max, create_min, create_max)| Selection {
            sort,
            is_descending,
            mod_revision_min: mod_min,
            mod_revision_max: mod_max,
            create_revision_min: create_min,
            create_revision_max: create_max,
        },
    )
}

fn query() -> impl Strategy<Value = Query> {
    let revision = proptest::option::of((0u64..30).prop_map(Revision));
    let limit = proptest::option::of(0u64..4);
    let selection = prop_oneof![1 => Just(Selection::default()), 2 => selection()];
    (
        key_range(),
        revision,
        limit,
        any::<bool>(),
        any::<bool>(),
        selection,
    )
        .prop_map(
            |(range, revision, limit, keys_only, count_only, selection)| Query {
                range,
                revision,
                limit,
                keys_only,
                count_only,
                selection,
            },
        )
}

fn txn() -> impl Strategy<Value = Txn> {
    let flat = (vec(compare(), 0..2), vec(op(), 0..3), vec(op(), 0..2)).prop_map(
        |(compare, success, failure)| Txn {
            compare,
            success,
            failure,
            fence: None,
        },
    );
    let op = prop_oneof![6 => op(), 1 => flat.prop_map(|txn| Op::Txn(Box::new(txn)))];
    let fence = prop_oneof![4 => Just(None), 1 => (0u64..4).prop_map(|term| Some(Term(term)))];
    let compare = prop_oneof![2 => Just(vec![]), 1 => vec(compare(), 1..3)];
    (compare, vec(op.boxed(), 0..4), vec(self::op(), 0..3), fence).prop_map(
        |(compare, success, failure, fence)| Txn {
            compare,
            success,
            failure,
            fence,
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let id = || (0i64..4).prop_map(LeaseId);
    let now_ms = || 0u64..100;
    prop_oneof![
        20 => txn().prop_map(Command::Txn),
        2 => (0u64..40).prop_map(|revision| Command::Compact { revision: Revision(revision) }),
        2 => (id(), 0u64..50, now_ms()).prop_map(|(id, ttl_ms, now_ms)| Command::LeaseGrant { id, ttl_ms, now_ms }),
        1 => id().prop_map(|id| Command::LeaseRevoke { id }),
        1 => (id(), now_ms()).prop_map(|(id, now_ms)| Command::LeaseKeepAlive { id, now_ms }),
        1 => (vec(id(), 0..4), now_ms()).prop_map(|(ids, now_ms)| Command::LeaseExpire { ids, now_ms }),
        1 => now_ms().prop_map(|now_ms| Command::LeaseRenewAll { now_ms }),
        2 => (now_ms(), now_ms()).prop_map(|(wall_ms, now_ms)| Command::Tick { wall_ms, now_ms }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let raise = (1u64..20).prop_map(|by| Command::RaiseRevision { by });
    let step = prop_oneof![
        30 => command().prop_map(Step::Command),
        1 => raise.prop_map(Step::Command),
        1 => (1u64..4).prop_map(Step::Term),
        6 => (0usize..4).prop_map(Step::Read),
    ];
    vec(step, 0..50)
}

/// Texts are not compared, only what they stand for.
fn without_text(reply: Reply) -> Reply {
    reply.map_err(|err| match err {
        StoreError::Refused(_) => StoreError::Refused(String::new()),
        other => other,
    })
}

fn range_at(
    store: &MemStore,
    range: &KeyRange,
    revision: Option<Revision>,
    limit: Option<usize>,
) -> RangeRequest {
    assert!(store.applied_revision() >= Revision(1));
    RangeRequest {
        revision,
        limit,
        ..RangeRequest::new(range.clone())
    }
}

fn read(store: &MemStore, request: RangeRequest) -> Result<RangeResponse, StoreError> {
    store
        .range(request)
        .now_or_never()
        .expect("a store in memory never waits")
}

/// A watcher and what it must still see.
struct Follower {
    range: KeyRange,
    next: Revision,
    stream: Option<WatchStream>,
    told: Revision,
}

impl Follower {
    fn start(store: &MemStore, range: KeyRange, start: Revision) -> Self {
        let request = WatchRequest {
            range: range.clone(),
            start,
        };
        let stream = store
            .watch(request)
            .now_or_never()
            .expect("a store in memory never waits")
            .ok();
        Follower {
            range,
            next: start,
            stream,
            told: Revision(0),
        }
    }

    /// Reads up to `batches`; returns false when nothing waits. What it is given must be what the model says.
    fn read(&mut self, model: &Model, batches: usize) -> bool {
        for _ in 0..batches {
            let Some(stream) = &mut self.stream else {
                return false;
            };
            let Some(next) = stream.next().now_or_never() else {
                return false;
            };
            match next.expect("a watch ends only after an error") {
                Err(err) => {
                    assert!(matches!(err, StoreError::Compacted { .. }), "{err}");
                    assert!(
                        self.next < model.compacted,
                        "only who is behind is told that history is gone"
                    );
                    assert!(
                        stream
                            .next()
                            .now_or_never()
                            .expect("an ended stream never waits")
                            .is_none()
                    );
                    self.stream = None;
                }
                Ok(batch) => {
                    assert!(batch.revision >= self.told, "progress never goes back");
                    assert!(
                        !batch.events.is_empty() || batch.revision > self.told,
                        "an empty batch tells progress"
                    );
                    let expected: Vec<Event> = model
                        .events(&self.range, self.next)
                        .into_iter()
                        .filter(|event| event.revision() <= batch.revision)
                        .collect();
                    assert_eq!(in_key_order(&batch.events), expected);
                    self.told = batch.revision;
                    self.next = self.next.max(batch.revision.next());
                }
            }
        }
        true
    }

    fn read_all(&mut self, model: &Model) {
        while self.read(model, 1) {}
        if self.stream.is_some() {
            assert_eq!(
                self.told,
                model.revision(),
                "a watcher that reads all is told all"
            );
        }
    }
}

/// The events with those of one revision in the order of keys.
fn in_key_order(events: &[Arc<Event>]) -> Vec<Event> {
    assert!(events.is_sorted_by_key(|event| event.revision()));
    let mut events: Vec<Event> = events.iter().map(|event| (**event).clone()).collect();
    events.sort_by(|a, b| (a.revision(), a.key()).cmp(&(b.revision(), b.key())));
    events
}

/// The hash of all that can be read up to each kept revision, however much is swept.
fn hashes(tables: &MemTables) -> Vec<HashAt> {
    let newest = hash_at(tables, None).unwrap();
    let kept = newest.compacted.0.max(1)..=newest.revision.0;
    let hashes: Vec<HashAt> = kept
        .map(|revision| hash_at(tables, Some(Revision(revision))).unwrap())
        .collect();
    assert_eq!(hashes.last(), Some(&newest));
    hashes
}

fn check_ranges(store: &MemStore, model: &Model, range: &KeyRange, limit: Option<usize>) {
    let oldest = model.compacted.0.saturating_sub(1).max(1);
    for revision in (oldest..=model.revision().0 + 1).map(Revision) {
        let request = range_at(store, range, Some(revision), limit);
        let expected = model.range(&request);
        assert_eq!(
            read(store, request.clone()),
            expected,
            "{range:?} at {revision}"
        );
        if let Ok(expected) = expected {
            let keys_only = read(
                store,
                RangeRequest {
                    keys_only: true,
                    ..request.clone()
                },
            )
            .unwrap();
            assert!(keys_only.kvs.iter().all(|kv| kv.value.is_empty()));
            assert!(
                keys_only
                    .kvs
                    .iter()
                    .map(|kv| &kv.key)
                    .eq(expected.kvs.iter().map(|kv| &kv.key))
            );
            let scanned = range_with(&store.tables(), &request, 0).unwrap();
            assert_eq!(scanned, expected, "all versions are scanned");
            let uncounted = read(
                store,
                RangeRequest {
                    is_uncounted: true,
                    ..request.clone()
                },
            )
            .unwrap();
            assert!(uncounted.count <= expected.count);
            let (count, revision) = (expected.count, expected.revision);
            let uncounted = RangeResponse { count, ..uncounted };
            assert_eq!(uncounted, expected, "{revision}: only the count may differ");
            let counted = read(
                store,
                RangeRequest {
                    count_only: true,
                    ..request
                },
            )
            .unwrap();
            assert_eq!(
                (counted.count, counted.kvs.len(), counted.more),
                (expected.count, 0, false)
            );
        }
    }
    let newest = RangeRequest {
        consistency: Consistency::Stale,
        ..range_at(store, range, None, limit)
    };
    assert_eq!(read(store, newest.clone()), model.range(&newest));
}

/// The versions of a key, in pages of `limit`.
fn read_versions(
    store: &MemStore,
    key: &'static [u8],
    limit: usize,
) -> Vec<(Revision, Option<KeyValue>)> {
    let (mut read, mut before) = (vec![], None);
    loop {
        let request = VersionsRequest {
            key: Bytes::from_static(key),
            before,
            limit,
        };
        let page = versions(&store.tables(), &request).unwrap();
        before = page.versions.last().map(|version| version.revision);
        read.extend(
            page.versions
                .into_iter()
                .map(|version| (version.revision, version.kv)),
        );
        if !page.more {
            return read;
        }
    }
}

/// Applies the commands in chunks of `chunk`, each one batch, sweeping at most `sweep_max` changes after each.
fn apply_in_chunks(
    steps: &[Step],
    chunk: usize,
    sweep_max: usize,
) -> (Vec<Reply>, Vec<Arc<Event>>, MemTables) {
    let mut tables = MemTables::default();
    let (mut replies, mut events) = (vec![], vec![]);
    let mut term = Term(1);
    for steps in steps.chunks(chunk) {
        let mut overlay = Overlay::new(&tables).unwrap();
        for step in steps {
            match step {
                Step::Command(command) => {
                    let outcome = apply(&mut overlay, Applied { index: 0, term }, command).unwrap();
                    assert_eq!(outcome.revision, overlay.meta().revision);
                    replies.push(outcome.reply);
                    events.extend(outcome.events);
                }
                Step::Term(later) => term = Term(*later),
                Step::Read(_) => {}
            }
        }
        sweep(&mut overlay, sweep_max).unwrap();
        let writes = overlay.into_writes();
        tables.write(writes);
    }
    loop {
        let mut overlay = Overlay::new(&tables).unwrap();
        let is_done = sweep(&mut overlay, 7).unwrap();
        let writes = overlay.into_writes();
        tables.write(writes);
        if is_done {
            return (replies, events, tables);
        }
    }
}

/// The tables after the steps, with all history still there.
fn unswept(steps: &[Step]) -> MemTables {
    let mut tables = MemTables::default();
    let mut term = Term(1);
    for step in steps {
        match step {
            Step::Command(command) => {
                let mut overlay = Overlay::new(&tables).unwrap();
                apply(&mut overlay, Applied { index: 0, term }, command).unwrap();
                let writes = overlay.into_writes();
                tables.write(writes);
            }
            Step::Term(later) => term = Term(*later),
            Step::Read(_) => {}
        }
    }
    tables
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn it_answers_as_the_model_does(
        steps in steps(),
        watched in key_range(),
        queue_events_max in 1usize..6,
        ring_bytes_max in 0usize..3000,
        page_changes_max in 1usize..5,
        read_range in key_range(),
        limit in proptest::option::of(0usize..4),
        query in query(),
    ) {
        let store = MemStore::with_limits(HubLimits { ring_bytes_max, queue_events_max, page_changes_max });
        let mut model = Model::new();
        let mut term = Term(1);
        let mut live = Follower::start(&store, watched.clone(), Revision(2));
        for step in &steps {
            match step {
                Step::Command(command) => {
                    let expected = model.apply(term, command);
                    prop_assert_eq!(without_text(store.command(command)), expected, "{:?}", command);
                    prop_assert_eq!(store.applied_revision(), model.revision());
                }
                Step::Term(later) => {
                    term = Term(*later);
                    store.set_leader(LeaderState { term, is_leader: true, has_leader: true });
                }
                Step::Read(batches) => {
                    live.read(&model, *batches);
                }
            }
        }
        live.read_all(&model);
        let all = KeyRange::prefix("");
        check_ranges(&store, &model, &all, None);
        check_ranges(&store, &model, &read_range, limit);
        for key in KEYS {
            prop_assert_eq!(read_versions(&store, key, page_changes_max), model.versions(key));
        }
        prop_assert_eq!(read(&store, query.request()), model.range(&query.request()), "{:?}", query);
        for range in [all, watched] {
            for start in (model.compacted.0..=model.revision().0 + 1).map(Revision) {
                let mut late = Follower::start(&store, range.clone(), start);
                prop_assert!(late.stream.is_some(), "{start} is kept");
                late.read_all(&model);
            }
        }
        if let Some(gone) = model.compacted.0.checked_sub(1) {
            prop_assert!(Follower::start(&store, read_range, Revision(gone)).stream.is_none());
        }
    }

    #[test]
    fn chunks_and_sweeps_of_any_size_come_to_the_same(
        steps in steps(),
        chunk in 1usize..20,
        sweep_max in 1usize..10,
    ) {
        let (replies, events, tables) = apply_in_chunks(&steps, 1, 1000);
        let (chunk_replies, chunk_events, chunk_tables) = apply_in_chunks(&steps, chunk, sweep_max);
        prop_assert_eq!(replies, chunk_replies);
        prop_assert_eq!(events, chunk_events);
        prop_assert_eq!(fingerprint(&tables).unwrap(), fingerprint(&chunk_tables).unwrap());
        prop_assert_eq!(&tables, &chunk_tables);
        prop_assert_eq!(hashes(&unswept(&steps)), hashes(&tables), "a sweep changes no hash");
        prop_assert_eq!(tables.len(Table::History), tables.len(Table::Versions));
    }

    #[test]
    fn a_sweep_leaves_nothing_behind(mut steps in steps()) {
        // The last revision is a new key's, so that what is kept is each key as it is and nothing before it.
        let put = Txn { success: vec![Op::put("new", "x")], ..Txn::default() };
        steps.push(Step::Command(Command::Txn(put)));
        let (_, _, tables) = apply_in_chunks(&steps, 1, 3);
        let revision = fingerprint(&tables).unwrap().0;
        steps.push(Step::Command(Command::Compact { revision }));
        let (_, _, tables) = apply_in_chunks(&steps, 1, 3);
        prop_assert_eq!(tables.len(Table::History), tables.len(Table::Latest));
        prop_assert_eq!(tables.len(Table::Versions), tables.len(Table::Latest));
    }
}
