//! The store in memory through the `Store` trait, as its users see it.

use futures::StreamExt;
use futures::executor::block_on;
use mvcc::{
    Command, Compare, Done, Event, HubLimits, KeyRange, LeaderState, LeaseId, MemStore, Op,
    RangeRequest, Store, StoreError, Txn, WatchRequest,
};
use objects::{Revision, Term};

fn put(key: &str, value: &str) -> Txn {
    Txn {
        success: vec![Op::put(key.to_owned(), value.to_owned())],
        ..Txn::default()
    }
}

fn keys(events: &[std::sync::Arc<Event>]) -> Vec<String> {
    events
        .iter()
        .map(|event| {
            format!(
                "{}@{}",
                String::from_utf8_lossy(event.key()),
                event.revision()
            )
        })
        .collect()
}

#[test]
fn a_watch_from_the_past_goes_on_live() {
    block_on(async {
        let store = MemStore::new();
        for n in 0..5 {
            store.txn(put(&format!("/a/{n}"), "x")).await.unwrap();
        }
        let mut watch = store
            .watch(WatchRequest {
                range: KeyRange::prefix("/a/"),
                start: Revision(4),
            })
            .await
            .unwrap();
        let first = watch.next().await.unwrap().unwrap();
        assert_eq!(
            (first.revision, keys(&first.events)),
            (
                Revision(6),
                vec!["/a/2@4".into(), "/a/3@5".into(), "/a/4@6".into()]
            )
        );
        store.txn(put("/a/9", "y")).await.unwrap();
        let live = watch.next().await.unwrap().unwrap();
        assert_eq!(
            (live.revision, keys(&live.events)),
            (Revision(7), vec!["/a/9@7".into()])
        );
        store.txn(put("/b", "y")).await.unwrap();
        store.txn(put("/b", "y")).await.unwrap();
        let progress = watch.next().await.unwrap().unwrap();
        assert_eq!(
            (progress.revision, keys(&progress.events)),
            (Revision(9), vec![])
        );
        assert_eq!(store.hub().watchers(), 1);
        drop(watch);
        assert_eq!(store.hub().watchers(), 0);
    });
}

#[test]
fn a_slow_watcher_loses_nothing_and_holds_nobody_up() {
    block_on(async {
        let limits = HubLimits {
            ring_bytes_max: 2000,
            queue_events_max: 3,
            page_changes_max: 2,
        };
        let store = MemStore::with_limits(limits);
        let request = WatchRequest {
            range: KeyRange::prefix("/a/"),
            start: Revision(2),
        };
        let mut watch = store.watch(request).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().revision, Revision(1));
        for n in 0..50 {
            store.txn(put(&format!("/a/{n}"), "x")).await.unwrap();
        }
        assert_eq!(store.hub().watchers(), 0, "it fell back");
        let mut seen = vec![];
        while seen.len() < 50 {
            let batch = watch.next().await.unwrap().unwrap();
            seen.extend(batch.events.iter().map(|event| event.revision().0));
        }
        assert_eq!(seen, (2..52).collect::<Vec<_>>());
        assert_eq!(store.hub().watchers(), 1);
    });
}

#[test]
fn compaction_and_restore_tell_old_watchers_so() {
    block_on(async {
        let store = MemStore::new();
        for n in 0..5 {
            store.txn(put("/a", &n.to_string())).await.unwrap();
        }
        let mut live = store
            .watch(WatchRequest {
                range: KeyRange::key("/a"),
                start: Revision(7),
            })
            .await
            .unwrap();
        live.next().await.unwrap().unwrap();
        store.compact(Revision(4)).await.unwrap();
        let watch = |start| {
            store.watch(WatchRequest {
                range: KeyRange::key("/a"),
                start: Revision(start),
            })
        };
        let gone = StoreError::Compacted {
            requested: Revision(3),
            oldest: Revision(4),
        };
        assert_eq!(watch(3).await.err(), Some(gone));
        assert!(watch(4).await.is_ok());
        store.command(&Command::RaiseRevision { by: 1000 }).unwrap();
        let gone = StoreError::Compacted {
            requested: Revision(7),
            oldest: Revision(1006),
        };
        assert_eq!(live.next().await.unwrap().err(), Some(gone));
        assert!(live.next().await.is_none());
        let range = store
            .range(RangeRequest::new(KeyRange::prefix("")))
            .await
            .unwrap();
        assert_eq!((range.revision, range.count), (Revision(1006), 1));
    });
}

#[test]
fn an_old_leaders_writes_are_fenced() {
    block_on(async {
        let store = MemStore::new();
        let mut leader = store.leader();
        assert_eq!(leader.next().await.unwrap().term, Term(1));
        let fenced = |term| Txn {
            fence: Some(Term(term)),
            ..put("/a", "x")
        };
        store.txn(fenced(1)).await.unwrap();
        store.set_leader(LeaderState {
            term: Term(2),
            is_leader: false,
            has_leader: true,
        });
        assert_eq!(leader.next().await.unwrap().term, Term(2));
        assert_eq!(
            store.txn(fenced(1)).await,
            Err(StoreError::Fenced {
                held: Term(1),
                current: Term(2)
            })
        );
        store.txn(fenced(2)).await.unwrap();
        store.set_leader(LeaderState {
            term: Term(2),
            is_leader: false,
            has_leader: false,
        });
        assert!(matches!(
            store.txn(fenced(2)).await,
            Err(StoreError::Unavailable(_))
        ));
    });
}

#[test]
fn a_lease_takes_its_keys_with_it() {
    block_on(async {
        let store = MemStore::new();
        let lease = LeaseId(7);
        store
            .command(&Command::LeaseGrant {
                id: lease,
                ttl_ms: 1000,
                now_ms: 0,
            })
            .unwrap();
        let held = Op::Put {
            key: "/held".into(),
            value: "x".into(),
            lease,
            prev_kv: false,
        };
        store
            .txn(Txn {
                success: vec![held, Op::put("/free", "x")],
                ..Txn::default()
            })
            .await
            .unwrap();
        let expire = |now_ms| {
            store.command(&Command::LeaseExpire {
                ids: vec![lease],
                now_ms,
            })
        };
        assert_eq!(expire(999), Ok(Done::LeasesEnded(0)));
        store
            .command(&Command::LeaseKeepAlive {
                id: lease,
                now_ms: 999,
            })
            .unwrap();
        assert_eq!(expire(1998), Ok(Done::LeasesEnded(0)));
        assert_eq!(expire(1999), Ok(Done::LeasesEnded(1)));
        let left = store
            .range(RangeRequest::new(KeyRange::prefix("/")))
            .await
            .unwrap();
        assert_eq!(
            (left.revision, &left.kvs[0].key[..]),
            (Revision(3), &b"/free"[..])
        );
        let txn = Txn {
            compare: vec![Compare::absent("/held")],
            success: vec![Op::Put {
                key: "/held".into(),
                value: "x".into(),
                lease,
                prev_kv: false,
            }],
            ..Txn::default()
        };
        assert_eq!(store.txn(txn).await, Err(StoreError::LeaseNotFound));
        assert_eq!(store.applied_revision(), Revision(3));
    });
}

/// Writers, watchers that join at any time, and compactions, all at once on real threads.
#[test]
fn watchers_on_other_threads_miss_nothing() {
    const WRITERS: u64 = 4;
    const WRITES: u64 = 500;
    let last = Revision(1 + WRITERS * WRITES);
    let limits = HubLimits {
        ring_bytes_max: 20_000,
        queue_events_max: 16,
        page_changes_max: 50,
    };
    let store = MemStore::with_limits(limits);
    let watch_all = |store: MemStore| {
        let range = KeyRange::prefix("/a/");
        let mut watch = block_on(store.watch(WatchRequest {
            range,
            start: Revision(2),
        }))
        .unwrap();
        let mut seen = vec![];
        block_on(async {
            loop {
                let batch = watch.next().await.unwrap().unwrap();
                seen.extend(batch.events.iter().map(|event| event.revision().0));
                if batch.revision == last {
                    return seen;
                }
            }
        })
    };
    let write_all = |store: MemStore, writer: u64| {
        for n in 0..WRITES {
            block_on(store.txn(put(&format!("/a/{writer}/{}", n % 10), "x"))).unwrap();
        }
    };
    std::thread::scope(|scope| {
        let early: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| watch_all(store.clone())))
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let store = &store;
                    move || write_all(store.clone(), writer)
                })
            })
            .collect();
        let late: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| watch_all(store.clone())))
            .collect();
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        let expected: Vec<u64> = (2..=last.0).collect();
        for watcher in early.into_iter().chain(late) {
            assert_eq!(watcher.join().unwrap(), expected);
        }
    });
}

#[test]
fn a_store_that_closes_ends_its_watches() {
    block_on(async {
        let store = MemStore::new();
        let request = || WatchRequest {
            range: KeyRange::prefix("/a/"),
            start: Revision(2),
        };
        let mut watch = store.watch(request()).await.unwrap();
        watch.next().await.unwrap().unwrap();
        store.txn(put("/a/1", "x")).await.unwrap();
        store.close();
        assert_eq!(
            keys(&watch.next().await.unwrap().unwrap().events),
            ["/a/1@2"]
        );
        assert_eq!(
            watch.next().await.unwrap().err(),
            Some(StoreError::ShuttingDown)
        );
        assert!(watch.next().await.is_none());
        assert_eq!(
            store.watch(request()).await.err(),
            Some(StoreError::ShuttingDown)
        );
    });
}
