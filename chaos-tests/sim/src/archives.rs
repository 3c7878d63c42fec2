//! Saves the state of the cluster into an archive while it is broken, and makes a new cluster of it in the end.

use crate::disk::{Disk, hash_of};
use crate::judge::{Event, Judge};
use crate::world::World;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use mvcc::{KeyRange, Op, Store, StoreError, Txn, WatchRequest};
use objects::Revision;
use raft_store::archive::{self, Part, Reader};
use raft_store::db::{Db, Family};
use raft_store::types::{MemberId, Node};
use raft_store::{Parts, RaftStore, SteadyClock};
use std::time::Duration;
use tokio::time::timeout;

/// How long saving may take; a world that is broken may not let it happen.
const SAVE_MAX: Duration = Duration::from_secs(4);
/// How soon a watcher from before must be told that it is.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
const CLUSTER: &str = "restored";

/// Saves an archive from a member that runs; None when the world does not let it.
pub async fn save(world: &World) -> Option<Bytes> {
    let (at, store) = world.any()?;
    let over = world.over(at);
    let reading = async {
        let chunks = store.archive(None, None).await.ok()?;
        let chunks: Vec<Bytes> = chunks.try_collect().await.ok()?;
        Some(Bytes::from(chunks.concat()))
    };
    let saved = tokio::select! {
        biased;
        () = over.cancelled() => None,
        saved = timeout(SAVE_MAX, reading) => saved.ok().flatten(),
    }?;
    // A member whose life ended while it was read leaves no whole one.
    let (header, hash) = read(&saved)?;
    world.judge().see(&Event::Saved {
        at,
        applied: header.applied,
        revision: header.revision,
        hash,
    });
    world.keep_archive(saved.clone());
    Some(saved)
}

/// What an archive holds, with the hash over the tables that members have alike.
fn read(archive: &[u8]) -> Option<(archive::Header, u64)> {
    let mut reader = Reader::new(archive).ok()?;
    let mut hash = 0;
    while let Some(part) = reader.next_part().ok()? {
        if let Part::Block(table, records) = part {
            for (key, value) in records {
                hash ^= hash_of(Family::State(0, table), &key, &value);
            }
        }
    }
    Some((reader.header().clone(), hash))
}

/// Makes a new cluster of the last archive that was saved, or of one that is saved now.
pub async fn restore(world: &World) {
    let archive = match world.last_archive() {
        Some(archive) => archive,
        None => loop {
            if let Some(archive) = save(world).await {
                break archive;
            }
        },
    };
    let judge = world.judge();
    let disk = Disk::new(MemberId::MAX, 0, Judge::deaf());
    let db = Db::over(disk.engine()).expect("an empty disk can be read");
    let node = |id: MemberId| Node {
        name: format!("m{id}"),
        peer_address: format!("m{id}:1"),
        ..Node::default()
    };
    let header = Reader::new(&archive[..])
        .expect("it was read before")
        .header()
        .clone();
    let restored =
        archive::restore_into(&archive[..], &db, CLUSTER, node(header.member_id_max + 1));
    let restored = match restored {
        Ok(restored) => restored,
        Err(err) => {
            return judge.violate("archive_is_exact", format!("it was not restored: {err}"));
        }
    };
    drop(db);
    judge.see(&Event::Restored {
        saved: header.revision,
        revision: restored.revision,
        hash: disk.state_hash(),
    });
    let parts = Parts {
        engine: disk.engine(),
        mark: disk.slots(),
        transport: world.nowhere(),
        clock: SteadyClock::default(),
    };
    let config = world.config(restored.member_id, CLUSTER);
    let (store, _answers) = match RaftStore::open_with(config, parts).await {
        Ok(opened) => opened,
        Err(err) => return judge.violate("archive_is_exact", format!("it does not start: {err}")),
    };
    write(world, &store).await;
    let newest = judge.facts(|facts| facts.revision);
    for start in [Revision(1), header.revision.next(), newest, newest.next()] {
        let is_compacted = is_compacted(&store, start).await;
        judge.see(&Event::RestoredWatched {
            start,
            is_compacted,
        });
    }
    store.kill().await;
}

/// Writes until the new cluster takes it.
async fn write(world: &World, store: &RaftStore) {
    loop {
        let txn = Txn {
            success: vec![Op::put("restored", "yes")],
            ..Txn::default()
        };
        if let Ok(response) = store.txn(txn).await {
            let revision = response.revision;
            return world.judge().see(&Event::RestoredWrote { revision });
        }
    }
}

/// Whether a watch from a revision is told that it is compacted, and nothing else.
async fn is_compacted(store: &RaftStore, start: Revision) -> bool {
    let request = WatchRequest {
        range: KeyRange::prefix(""),
        start,
    };
    let told = match store.watch(request).await {
        Ok(mut stream) => timeout(TOLD_WITHIN, stream.next()).await,
        Err(err) => Ok(Some(Err(err))),
    };
    matches!(told, Ok(Some(Err(StoreError::Compacted { .. }))))
}
