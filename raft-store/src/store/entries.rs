//! At the leader: the batches of several members go into one Raft entry.
//!
//! An entry costs every member the same, whatever it holds: a message, a sync, a write of the tables. So while one is being agreed
//! on, the batches that arrive gather, and go together when it is done, or when they are many by themselves. Each batch stays
//! the frame that it came as.

use super::Inner;
use super::propose::Forwarded;
use super::rhythm::Rhythm;
use crate::runtime;
use crate::types::{Payload, Replies};
use bytes::{Bytes, BytesMut};
use openraft::errors::{ClientWriteError, RaftError};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// Entries on their way at once; all but the first are made of [many bytes](GATHERED_BYTES_LARGE).
const ENTRIES_MAX: usize = 4;
/// With so many bytes an entry does not wait for the one before.
const GATHERED_BYTES_LARGE: usize = 64 << 10;
/// An entry is closed at so many bytes.
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Batches that may wait; each member has a few on their way.
pub(crate) const BATCHES_MAX: usize = 64;

/// A batch that waits to be part of an entry.
pub(crate) struct Arrived {
    /// One frame.
    pub batch: Bytes,
    /// How many commands it holds.
    pub commands: usize,
    pub reply: oneshot::Sender<Forwarded>,
}

/// Makes entries of what arrives, as long as the member runs.
pub(crate) async fn run(inner: Arc<Inner>, mut arrivals: mpsc::Receiver<Arrived>) {
    let on_their_way = Arc::new(Semaphore::new(ENTRIES_MAX));
    let rhythm = Arc::new(Rhythm::default());
    let mut gathered: Vec<Arrived> = Vec::new();
    while let Some(first) = arrivals.recv().await {
        gathered.push(first);
        runtime::let_others_ask().await;
        let Some(permit) = turn(&on_their_way, &mut arrivals, &mut gathered).await else {
            return;
        };
        gather(&rhythm, &mut arrivals, &mut gathered).await;
        let (member, batches) = (inner.clone(), std::mem::take(&mut gathered));
        let rhythm = rhythm.clone();
        inner.spawn(async move {
            let _permit = permit;
            let (count, began) = (batches.len(), Instant::now());
            member.propose_entry(batches).await;
            let waiting = member.arrivals.max_capacity() - member.arrivals.capacity();
            rhythm.answered(count + waiting, began, Instant::now());
        });
    }
}

/// Takes the batches that are there, and waits for those that are expected.
async fn gather(
    rhythm: &Rhythm,
    arrivals: &mut mpsc::Receiver<Arrived>,
    gathered: &mut Vec<Arrived>,
) {
    let mut gathering = rhythm.gather();
    while bytes_of(gathered) < ENTRY_BYTES_MAX {
        match gathering.next(gathered.len(), arrivals).await {
            Some(next) => gathered.push(next),
            None => return,
        }
    }
}

/// Gathers until an entry may go.
async fn turn(
    on_their_way: &Arc<Semaphore>,
    arrivals: &mut mpsc::Receiver<Arrived>,
    gathered: &mut Vec<Arrived>,
) -> Option<OwnedSemaphorePermit> {
    let all = u32::try_from(ENTRIES_MAX).expect("a few entries");
    while bytes_of(gathered) < GATHERED_BYTES_LARGE {
        tokio::select! {
            biased;
            permits = on_their_way.clone().acquire_many_owned(all) => return permits.ok()?.split(1),
            next = arrivals.recv() => gathered.push(next?),
        }
    }
    on_their_way.clone().acquire_owned().await.ok()
}

fn bytes_of(gathered: &[Arrived]) -> usize {
    gathered.iter().map(|arrived| arrived.batch.len()).sum()
}

impl Inner {
    async fn propose_entry(&self, mut batches: Vec<Arrived>) {
        // Whoever asked and went away before this was told that the outcome is unknown; nothing was done is one of the outcomes.
        batches.retain(|arrived| !arrived.reply.is_closed());
        if batches.is_empty() {
            return;
        }
        let frames = join(&batches);
        let refused = match self.raft.client_write(Payload(frames)).await {
            Ok(response) => return answer(batches, response.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => None,
            Err(err) => Some(err.to_string()),
        };
        for Arrived { reply, .. } in batches {
            let forwarded = match &refused {
                None => Forwarded::NotLeader,
                Some(reason) => Forwarded::Unknown(reason.clone()),
            };
            // Whoever no longer waits was told that the outcome is unknown.
            let _ = reply.send(forwarded);
        }
    }
}

/// The frames behind each other; a lone one is not copied.
fn join(batches: &[Arrived]) -> Bytes {
    if let [only] = batches {
        return only.batch.clone();
    }
    let mut frames = BytesMut::with_capacity(bytes_of(batches));
    for arrived in batches {
        frames.extend_from_slice(&arrived.batch);
    }
    frames.freeze()
}

/// Gives each batch its own replies.
fn answer(batches: Vec<Arrived>, Replies(replies): Replies) {
    let wanted: usize = batches.iter().map(|arrived| arrived.commands).sum();
    assert_eq!(replies.len(), wanted, "each command has one reply");
    let mut replies = replies.into_iter();
    for Arrived {
        commands, reply, ..
    } in batches
    {
        let own = replies.by_ref().take(commands).collect();
        // Whoever no longer waits was told that the outcome is unknown.
        let _ = reply.send(Forwarded::Replies(Replies(own)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn arrived(bytes: usize) -> Arrived {
        let (reply, _) = oneshot::channel();
        Arrived {
            batch: vec![0; bytes].into(),
            commands: 1,
            reply,
        }
    }

    #[tokio::test]
    async fn few_bytes_wait_for_the_entry_before_and_many_do_not() {
        let on_their_way = Arc::new(Semaphore::new(ENTRIES_MAX));
        let (sender, mut arrivals) = mpsc::channel(BATCHES_MAX);
        let mut gathered = vec![arrived(10)];
        let first = turn(&on_their_way, &mut arrivals, &mut gathered).await;
        assert!(first.is_some(), "nothing is on its way");
        let soon = Duration::from_millis(50);
        let waiting = timeout(soon, turn(&on_their_way, &mut arrivals, &mut gathered)).await;
        assert!(waiting.is_err(), "one is on its way");
        sender
            .try_send(arrived(GATHERED_BYTES_LARGE))
            .unwrap_or_else(|_| panic!("there is room"));
        let many = timeout(soon, turn(&on_their_way, &mut arrivals, &mut gathered)).await;
        assert!(matches!(many, Ok(Some(_))), "many bytes do not wait");
        assert_eq!(gathered.len(), 2);
        drop((first, many));
        gathered = vec![arrived(10)];
        let again = timeout(soon, turn(&on_their_way, &mut arrivals, &mut gathered)).await;
        assert!(matches!(again, Ok(Some(_))), "none is on its way any more");
    }
}
