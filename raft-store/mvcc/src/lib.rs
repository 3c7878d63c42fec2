//! The store's semantics, pure: what `apply` does, revisions, transactions, leases, compaction, watch events; the `Store`
//! trait through which a master's parts use the store, and an in-memory `Store` for tests.
//!
//! Never touches a file, a socket or a clock: time comes in as part of a command. The rules are those of etcd's v3 API.
//!
//! A replica applies committed entries so: an [`Overlay`] over its [`Tables`], [`apply_batch`] for each entry, a slice of
//! [`sweep`], its own numbers put beside them, and [`Overlay::into_writes`] written as one atomic batch; then the replies go
//! to the proposers and the events to [`Hub::publish`]. Reads go through [`range`], watches through [`Hub::watch`].

mod apply;
mod changes;
pub mod codec;
mod command;
mod compact;
#[cfg(test)]
mod golden;
mod hash;
mod hub;
mod lease;
mod mem;
mod meta;
mod notes;
mod overlay;
mod past;
pub mod planted;
mod read;
mod record;
mod store;
mod tables;
mod validate;
mod versions;

pub use apply::{apply, apply_batch, is_read_only, read_txn};
pub use changes::{Change, changes};
pub use command::{Applied, Batch, Command, Done, Outcome, Reply};
pub use compact::{RESTORE_RAISES_BY, needs_sweep, raise_revision, sweep};
pub use hash::{HashAt, hash_at};
pub use hub::{HistorySource, Hub, HubLimits, Probe};
pub use lease::{Lease, lease, lease_keys, leases};
pub use mem::MemStore;
pub use meta::{FIRST_REVISION, Meta};
pub use notes::{
    AUTHOR_BYTES_MAX, At, Author, Excess, HistoryLimits, Moment, Past, moment, past, time_of,
    to_forget,
};
pub use overlay::Overlay;
pub use past::RECENT_CHANGES_MAX;
pub use read::{HistoryPage, ReadError, fingerprint, history, range, range_with};
pub use store::{
    Compare, CompareOp, CompareTarget, Consistency, Event, KeyRange, KeyRangeEnd, KeyValue,
    LeaderState, LeaderStream, LeaseId, Op, OpResult, Query, RangeRequest, RangeResponse,
    Selection, SortTarget, Store, StoreError, Txn, TxnResponse, WatchBatch, WatchRequest,
    WatchStream,
};
pub use tables::{MemTables, Table, Tables, TablesError, Visit, Write};
pub use validate::{TXN_BYTES_MAX, TXN_OPS_MAX, only_frees, validate};
pub use versions::{KeyVersion, KeyVersions, VersionsRequest, versions};
