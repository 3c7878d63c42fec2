//! What the commands that this member applied came to, and what it read: counted as etcd counts it.

use mvcc::{Batch, Command, Done, Event, OpResult, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counts at one moment; they begin with the process.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct WorkDone {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// Counts while others read.
        #[derive(Debug, Default)]
        pub struct Work {
            $($name: AtomicU64,)*
        }

        impl Work {
            /// So much more was done.
            pub fn add(&self, done: &WorkDone) {
                $(if done.$name > 0 {
                    self.$name.fetch_add(done.$name, Ordering::Relaxed);
                })*
            }

            /// The counts as they are.
            pub fn done(&self) -> WorkDone {
                WorkDone {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                }
            }
        }
    };
}

counts! {
    /// Keys written, one a put.
    puts,
    /// The bytes of their keys and values.
    put_bytes,
    /// Deletes, each of a range.
    deletes,
    /// Ranges read, those within transactions too.
    ranges,
    /// Transactions of more than one step.
    txns,
    /// Leases granted.
    leases_granted,
    /// Leases kept alive.
    leases_renewed,
    /// Leases revoked.
    leases_revoked,
    /// Leases that ended because their holder fell silent.
    leases_expired,
    /// Questions for the read index that failed.
    read_indexes_failed,
    /// Questions for the read index that took more than half a second.
    read_indexes_slow,
    /// Learners that this member, leading, made voters.
    learners_promoted,
}

impl WorkDone {
    /// A batch was applied, with these replies.
    pub fn note<'r>(&mut self, batch: &Batch, replies: impl IntoIterator<Item = &'r Reply>) {
        for (command, reply) in batch.0.iter().zip(replies) {
            let Ok(done) = reply else {
                continue;
            };
            match (command, done) {
                (Command::LeaseGrant { .. }, _) => self.leases_granted += 1,
                (Command::LeaseKeepAlive { .. }, _) => self.leases_renewed += 1,
                (Command::LeaseRevoke { .. }, _) => self.leases_revoked += 1,
                (_, Done::LeasesEnded(ended)) => self.leases_expired += ended,
                (_, Done::Txn(response)) => self.note_txn(&response.results),
                _ => {}
            }
        }
    }

    /// Keys changed.
    pub fn note_events(&mut self, events: &[Arc<Event>]) {
        for event in events {
            if let Event::Put { kv, .. } = &**event {
                self.put_bytes += (kv.key.len() + kv.value.len()) as u64;
            }
        }
    }

    fn note_txn(&mut self, results: &[OpResult]) {
        let before = self.steps();
        for result in results {
            match result {
                OpResult::Put(_) => self.puts += 1,
                OpResult::Deleted(..) => self.deletes += 1,
                OpResult::Range(_) => self.ranges += 1,
                OpResult::Txn(inner) => self.note_txn(&inner.results),
                OpResult::Signed => {}
            }
        }
        if self.steps() - before > 1 {
            self.txns += 1;
        }
    }

    fn steps(&self) -> u64 {
        self.puts + self.deletes + self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvcc::{LeaseId, StoreError, Txn, TxnResponse};

    #[test]
    fn a_transaction_counts_by_its_steps() {
        let answered = |results| {
            Ok(Done::Txn(TxnResponse {
                results,
                ..TxnResponse::default()
            }))
        };
        let replies = [
            answered(vec![OpResult::Signed, OpResult::Put(None)]),
            answered(vec![OpResult::Put(None), OpResult::Deleted(3, vec![])]),
            Err(StoreError::KeyNotFound),
            Ok(Done::LeasesEnded(1)),
            Ok(Done::LeasesEnded(5)),
        ];
        let id = LeaseId(1);
        let batch = Batch(vec![
            Command::Txn(Txn::default()),
            Command::Txn(Txn::default()),
            Command::Txn(Txn::default()),
            Command::LeaseRevoke { id },
            Command::LeaseExpire {
                ids: vec![id],
                now_ms: 1,
            },
        ]);
        let work = Work::default();
        let mut done = WorkDone::default();
        done.note(&batch, &replies);
        work.add(&done);
        let expected = WorkDone {
            puts: 2,
            deletes: 1,
            txns: 1,
            leases_revoked: 1,
            leases_expired: 5,
            ..WorkDone::default()
        };
        assert_eq!(work.done(), expected);
    }
}
