//! The header of every answer: which cluster and member it comes from, and how far that was.

use objects::Revision;
use raft_store::RaftStore;
use rpc::etcd::etcdserverpb::ResponseHeader;
use sha2::{Digest, Sha256};

/// Makes headers. Clones are of the same member.
#[derive(Clone)]
pub struct Headers {
    store: RaftStore,
    cluster_id: u64,
    member_id: u64,
}

impl Headers {
    /// The headers of this member.
    pub fn new(store: RaftStore) -> Self {
        let identity = store.identity();
        let (cluster_id, member_id) = (number(&identity.cluster_id), identity.member_id);
        Headers {
            store,
            cluster_id,
            member_id,
        }
    }

    /// The header of an answer that was true at `revision`.
    pub fn at(&self, revision: Revision) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: signed(revision),
            raft_term: self.store.leader_state().term.0,
        })
    }

    /// The header of an answer that is true now.
    pub fn now(&self) -> Option<ResponseHeader> {
        use mvcc::Store;
        self.at(self.store.applied_revision())
    }

    /// This member's number.
    pub fn member_id(&self) -> u64 {
        self.member_id
    }
}

/// A revision as etcd's messages have it.
pub fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// The cluster's id, a text, as the number that etcd's clients expect.
fn number(cluster_id: &str) -> u64 {
    let digest = Sha256::digest(cluster_id.as_bytes());
    let first = digest.first_chunk::<8>().expect("32 bytes have a first 8");
    u64::from_be_bytes(*first)
}
