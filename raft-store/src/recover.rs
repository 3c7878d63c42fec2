//! Makes a cluster of one member whose majority is gone for good.
//!
//! What the lost majority acknowledged and this member never got is lost; what stands in its log and was perhaps never acknowledged
//! becomes true. Nobody can tell the one from the other here, so a person must want it: [`look`] says what there is to know.
//!
//! The member's own folder is only read. [`recover`] fills a new one beside it, by hard links to the files that do not change, so
//! that an interruption leaves the old member as it was; whoever calls then switches from one folder to the other.

use crate::archive::{RestoreError, begin_anew};
use crate::db::{Db, EngineError, RocksEngine};
use crate::identity::{Identity, IdentityError, db_dir, tmp_dir};
use crate::log::{LogError, LogStore};
use crate::metrics::Metrics;
use crate::state::{OwnRecords, StateMachine};
use crate::store::last_contact_ms;
use crate::types::{Entry, LogId, MemberId, Membership, Node, TypeConfig};
use futures::executor::block_on;
use futures::stream;
use mvcc::{Hub, HubLimits, Meta, TablesError};
use objects::Revision;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, RaftLogReader};
use std::path::Path;
use std::sync::Arc;

/// Why nothing was recovered; the member's folder is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There is no member.
    #[error("{0} holds no member of a store")]
    NoMember(String),
    /// There is a member without any state.
    #[error("the member in {0} was never fed: it holds nothing that could be recovered")]
    NeverFed(String),
    /// The member runs.
    #[error("the member in {0} is in use by another process; stop it first")]
    InUse(String),
    /// The identity cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A folder cannot be used.
    #[error("the folder {path} cannot be used")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// RocksDB failed.
    #[error("the database cannot be used")]
    Database(#[from] EngineError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log's entries cannot be read or applied.
    #[error("the log's entries cannot be applied")]
    Apply(#[source] std::io::Error),
    /// The state cannot be read.
    #[error("the state cannot be read")]
    State(#[from] TablesError),
    /// The new beginning cannot be written.
    #[error(transparent)]
    Begin(#[from] RestoreError),
}

/// One member of the cluster that was, as the survivor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerMember {
    /// Its id.
    pub id: MemberId,
    /// Its name and addresses.
    pub node: Node,
    /// Whether it voted.
    pub voter: bool,
}

/// What a stopped member holds.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// Who it is.
    pub identity: Identity,
    /// How the others knew it.
    pub node: Node,
    /// Everyone that it knows, itself included.
    pub members: Vec<FormerMember>,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogId>,
    /// The last entry in its log.
    pub last_log: Option<LogId>,
    /// The latest term that it knows of.
    pub term: u64,
    /// When it last heard a leader, or as leader a majority: milliseconds since 1970 by its clock, to a few seconds.
    pub last_contact_ms: Option<u64>,
    /// Why its data was condemned, if it was: then it may hold less, or other, than it once acknowledged.
    pub damage: Option<String>,
}

/// What was made of it.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The new member.
    pub identity: Identity,
    /// The last entry applied: that of the survivor's log.
    pub applied: Option<LogId>,
    /// The revision that the survivor had after it.
    pub reached: Revision,
    /// The revision of the new cluster.
    pub revision: Revision,
}

/// Tells what the stopped member in `data_dir` holds.
pub fn look(data_dir: &Path) -> Result<Survivor, RecoverError> {
    let identity = identity_of(data_dir)?;
    let db = Arc::new(open(data_dir)?);
    let mut log = LogStore::open(db.clone(), Arc::new(Metrics::default()))?;
    let (own, _) = state_of(&db)?;
    let last = block_on(log.get_log_state()).map_err(RecoverError::Apply)?;
    let last_log = last.last_log_id.max(own.applied);
    if last_log.is_none() {
        return Err(RecoverError::NeverFed(data_dir.display().to_string()));
    }
    // The state goes to disk only now and then: what was applied may be in the log alone.
    let committed = block_on(log.read_committed()).map_err(RecoverError::Apply)?;
    let mut membership = own.membership.membership().clone();
    each_part(&mut log, own.applied, last_log, |entries| {
        let changes = entries.into_iter().filter_map(|entry| match entry.payload {
            EntryPayload::Membership(membership) => Some(membership),
            _ => None,
        });
        membership = changes.last().unwrap_or_else(|| membership.clone());
        Ok(())
    })?;
    let vote = block_on(block_on(log.get_log_reader()).read_vote()).map_err(RecoverError::Apply)?;
    let members = members_of(&membership);
    let node = members
        .iter()
        .find(|member| member.id == identity.member_id)
        .map(|member| member.node.clone())
        .unwrap_or_default();
    Ok(Survivor {
        node,
        members,
        committed: committed.max(own.applied),
        last_log,
        term: vote.map_or(0, |vote| vote.leader_id.term),
        last_contact_ms: last_contact_ms(&db),
        damage: crate::damage::noted(data_dir),
        identity,
    })
}

/// Fills the folder `into` with a member of the new cluster `cluster_id`, which holds all that the stopped member in `data_dir` holds
/// and stands alone. Whatever lies in `into` is an earlier try and is removed.
pub fn recover(
    data_dir: &Path,
    into: &Path,
    cluster_id: &str,
    node: Node,
) -> Result<Recovered, RecoverError> {
    identity_of(data_dir)?;
    copy(data_dir, into)?;
    let db = Arc::new(Db::open(&db_dir(into))?);
    let vote_term = apply_log(&db, cluster_id, into)?;
    let (own, reached) = state_of(&db)?;
    if own.applied.is_none() {
        return Err(RecoverError::NeverFed(data_dir.display().to_string()));
    }
    let member_id = own.member_id_max + 1;
    let name = node.name.clone();
    // What was applied could be had from the log again; the log goes now.
    db.persist()?;
    let revision = begin_anew(&db, own.applied, vote_term, member_id, node)?;
    db.sync()?;
    let identity = Identity::new(cluster_id, member_id, &name);
    identity.store(into)?;
    Ok(Recovered {
        identity,
        applied: own.applied,
        reached,
        revision,
    })
}

fn identity_of(data_dir: &Path) -> Result<Identity, RecoverError> {
    let is_there = db_dir(data_dir).join("CURRENT").exists();
    Identity::load(data_dir)?
        .filter(|_| is_there)
        .ok_or_else(|| RecoverError::NoMember(data_dir.display().to_string()))
}

fn open(data_dir: &Path) -> Result<Db, RecoverError> {
    Db::open(&db_dir(data_dir)).map_err(|err| in_use(data_dir, err))
}

fn in_use(data_dir: &Path, err: EngineError) -> RecoverError {
    match crate::store::is_lock(&err) {
        true => RecoverError::InUse(data_dir.display().to_string()),
        false => RecoverError::Database(err),
    }
}

fn copy(data_dir: &Path, into: &Path) -> Result<(), RecoverError> {
    let folder = |source| RecoverError::Folder {
        path: into.display().to_string(),
        source,
    };
    match std::fs::remove_dir_all(into) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(folder(err)),
        _ => std::fs::create_dir_all(into).map_err(folder)?,
    }
    let engine = RocksEngine::open(&db_dir(data_dir)).map_err(|err| in_use(data_dir, err))?;
    engine.copy_to(&db_dir(into))?;
    std::fs::create_dir_all(tmp_dir(into)).map_err(folder)
}

/// Applies what the log holds beyond the state; returns the latest term that the member knows of.
fn apply_log(db: &Arc<Db>, cluster_id: &str, into: &Path) -> Result<u64, RecoverError> {
    let metrics = Arc::new(Metrics::default());
    let mut log = LogStore::open(db.clone(), metrics.clone())?;
    let (own, revision) = state_of(db)?;
    let hub = Hub::new(HubLimits::default(), revision, revision);
    let mut state = StateMachine::open(
        db.clone(),
        cluster_id.to_owned(),
        tmp_dir(into),
        hub,
        metrics,
    )?;
    let last = block_on(log.get_log_state()).map_err(RecoverError::Apply)?;
    each_part(&mut log, own.applied, last.last_log_id, |entries| {
        let entries = entries.into_iter().map(|entry| Ok((entry, None)));
        block_on(state.apply(stream::iter(entries))).map_err(RecoverError::Apply)
    })?;
    let vote = block_on(block_on(log.get_log_reader()).read_vote()).map_err(RecoverError::Apply)?;
    Ok(vote.map_or(0, |vote| vote.leader_id.term))
}

/// Shows the entries after `applied` up to `last`, a bounded part at a time.
fn each_part(
    log: &mut LogStore,
    applied: Option<LogId>,
    last: Option<LogId>,
    mut part: impl FnMut(Vec<Entry>) -> Result<(), RecoverError>,
) -> Result<(), RecoverError> {
    let after = |log_id: Option<LogId>| log_id.map_or(0, |log_id| log_id.index + 1);
    let (mut next, end) = (after(applied), after(last));
    let mut reader = block_on(log.get_log_reader());
    while next < end {
        let entries = block_on(RaftLogReader::<TypeConfig>::limited_get_log_entries(
            &mut reader,
            next,
            end,
        ));
        let entries = entries.map_err(RecoverError::Apply)?;
        let Some(last) = entries.last() else {
            return Ok(());
        };
        next = last.log_id.index + 1;
        part(entries)?;
    }
    Ok(())
}

fn state_of(db: &Db) -> Result<(OwnRecords, Revision), RecoverError> {
    let view = db.live();
    Ok((OwnRecords::load(&view)?, Meta::load(&view)?.revision))
}

fn members_of(membership: &Membership) -> Vec<FormerMember> {
    let is_voter = |id: &MemberId| membership.voter_ids().any(|voter| voter == *id);
    let member = |(id, node): (&MemberId, &Node)| FormerMember {
        id: *id,
        node: node.clone(),
        voter: is_voter(id),
    };
    membership.nodes().map(member).collect()
}
