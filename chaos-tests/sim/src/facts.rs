//! What is true of the members, as their disks and messages show it, and the oracle: a replica without faults that is fed with what
//! was committed.

use crate::disk::hash_of;
use crate::judge::{Event, Written};
use crate::switch::Message;
use mvcc::{Batch, Command, MemTables, Meta, Overlay, Tables};
use objects::{Revision, Term};
use openraft::EntryPayload;
use raft_store::SteadyClock;
use raft_store::db::Family;
use raft_store::types::{Entry, LogId, MemberId, Membership, Node, Vote, log_id, term_of};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

/// The invariant that a lost or replaced committed entry breaks.
pub const LOST: &str = "nothing_committed_is_lost";

/// One member's disk, as Raft sees it.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Whom it voted for.
    pub vote: Option<Vote>,
    /// The terms of its entries.
    pub log: BTreeMap<u64, u64>,
    /// The last entry in its state.
    pub applied: Option<LogId>,
    /// The revision of its state.
    pub revision: Revision,
}

/// One member.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// As it sees its disk.
    pub now: Image,
    /// As its disk would be after a power cut.
    pub durable: Image,
    /// Whether it runs.
    pub is_up: bool,
    pending: Vec<Vec<Written>>,
    repeatable: Vec<Vec<Written>>,
}

/// What the oracle knows of one committed entry.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its term.
    pub term: u64,
    /// The hash over the state after it.
    pub hash: u64,
    /// The revision after it.
    pub revision: Revision,
}

/// What the members' steady clocks showed at some moment.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    /// The latest term in which somebody led.
    pub term: u64,
    /// By member.
    pub shown: BTreeMap<MemberId, Instant>,
}

/// A change of the voters that takes two steps, of which one was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfDone {
    /// The entry.
    pub index: u64,
    /// Who wrote it first.
    pub by: MemberId,
}

/// Everything that is known.
#[derive(Default)]
pub struct Facts {
    /// The members that ever were.
    pub members: BTreeMap<MemberId, Member>,
    /// Each entry that anybody wrote, by index and term.
    pub entries: BTreeMap<(u64, u64), Arc<Entry>>,
    /// The term of the entry before it.
    pub before: BTreeMap<(u64, u64), u64>,
    /// What is committed, by index.
    pub committed: BTreeMap<u64, Committed>,
    /// The memberships among it.
    pub memberships: BTreeMap<u64, Membership>,
    /// The changes of each revision, in order.
    pub history: BTreeMap<Revision, Vec<Arc<mvcc::Event>>>,
    /// The oracle's oldest revision.
    pub compacted: Revision,
    /// The oracle's revision.
    pub revision: Revision,
    /// The term in which a revision came to be.
    pub terms: BTreeMap<Revision, Term>,
    /// Leases whose time was declared over, each with the term in which.
    pub expired: Vec<(i64, u64)>,
    /// Who led in each term.
    pub leaders: BTreeMap<u64, MemberId>,
    /// Since when a member's disk is full.
    pub full_since: BTreeMap<MemberId, Instant>,
    /// The last change of the voters in two steps that anybody began.
    pub half_done: Option<HalfDone>,
    clocks: BTreeMap<MemberId, SteadyClock>,
    tables: MemTables,
    hash: u64,
}

type Learned = Result<(), (&'static str, String)>;

impl Facts {
    /// Takes note of an event. Fails when what it tells cannot be.
    pub fn learn(&mut self, event: &Event<'_>) -> Learned {
        match event {
            Event::Started { member, clock } => {
                self.member(*member).is_up = true;
                self.clocks.insert(*member, *clock);
            }
            Event::Filled { member, .. } => {
                self.full_since.entry(*member).or_insert_with(Instant::now);
            }
            Event::HasRoom { member } => {
                self.full_since.remove(member);
            }
            Event::Crashed {
                member,
                kept,
                kept_state,
                ..
            } => {
                let member = self.member(*member);
                member.is_up = false;
                let pending = std::mem::take(&mut member.pending);
                let repeatable = std::mem::take(&mut member.repeatable);
                let survivors = pending.iter().take(*kept);
                let survivors = survivors.chain(repeatable.iter().take(*kept_state));
                for written in survivors.flatten() {
                    member.durable.apply(written);
                }
                member.now = member.durable.clone();
            }
            Event::Written {
                member,
                written,
                is_repeatable,
            } => {
                for change in *written {
                    self.keeps_committed(*member, change)?;
                    if let Written::Entry(entry) = change {
                        self.learn_entry(*member, entry)?;
                    }
                    self.member(*member).now.apply(change);
                    if let Written::Applied {
                        log_id: Some(log_id),
                        ..
                    } = change
                    {
                        self.learn_commit(*log_id)?;
                    }
                }
                let member = self.member(*member);
                match is_repeatable {
                    true => member.repeatable.push(written.to_vec()),
                    false => member.pending.push(written.to_vec()),
                }
            }
            Event::Persisted { member } => {
                let member = self.member(*member);
                for written in std::mem::take(&mut member.repeatable).iter().flatten() {
                    member.durable.apply(written);
                }
            }
            Event::Synced { member } => {
                let member = self.member(*member);
                for written in std::mem::take(&mut member.pending).iter().flatten() {
                    member.durable.apply(written);
                }
            }
            Event::Sent {
                message:
                    Message::Append {
                        term,
                        leader,
                        commit,
                        ..
                    },
                ..
            } => {
                self.leaders.entry(*term).or_insert(*leader);
                if let Some(commit) = commit {
                    self.learn_commit(*commit)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A member that may not be known yet.
    fn member(&mut self, id: MemberId) -> &mut Member {
        self.members.entry(id).or_default()
    }

    /// The last committed entry.
    pub fn last_committed(&self) -> Option<LogId> {
        let (index, committed) = self.committed.last_key_value()?;
        Some(log_id(committed.term, *index))
    }

    /// What the clocks of all members show now.
    pub fn read_clocks(&self) -> Clocks {
        let shown = self.clocks.iter().map(|(id, clock)| (*id, clock.now()));
        Clocks {
            term: self.leaders.keys().next_back().copied().unwrap_or(0),
            shown: shown.collect(),
        }
    }

    /// The members' groups of which each must have a quorum for the entry `index` to be committed: as of the last membership
    /// that is committed, and as of those after it that a leader may go by already. A leader goes by the second step of a change as
    /// soon as it has it in memory, which is when the first one is committed.
    pub fn groups(&self, index: u64) -> Vec<Vec<BTreeSet<MemberId>>> {
        let at = self.memberships.range(..=index).next_back();
        let after = self
            .entries
            .range((index + 1, 0)..)
            .filter_map(|(_, entry)| match &entry.payload {
                EntryPayload::Membership(membership) => Some(membership),
                _ => None,
            });
        let second_step = at.and_then(|(at, membership)| {
            let last = membership.get_joint_config().last();
            last.filter(|_| *at < index).map(|last| vec![last.clone()])
        });
        let of = |membership: &Membership| membership.get_joint_config().clone();
        at.map(|(_, membership)| membership)
            .into_iter()
            .chain(after)
            .map(of)
            .chain(second_step)
            .collect()
    }

    /// Whether no change of the members is half done: they are of one group, and none is there whose place another took.
    pub fn is_settled(&self) -> bool {
        let last = self.memberships.last_key_value();
        last.is_none_or(|(_, membership)| {
            let is_there = |id: MemberId| membership.get_node(&id).is_some();
            let is_due = |node: &Node| node.plan.replaces.is_some_and(is_there);
            membership.get_joint_config().len() == 1
                && !membership.nodes().any(|(_, node)| is_due(node))
        })
    }

    /// Whether a member surely has an entry, power cut or not.
    pub fn has_durably(&self, member: MemberId, entry: LogId) -> bool {
        self.members.get(&member).is_some_and(|member| {
            let durable = &member.durable;
            match durable.log.get(&entry.index) {
                Some(term) => *term == term_of(&entry),
                None => durable
                    .applied
                    .is_some_and(|applied| applied.index >= entry.index),
            }
        })
    }

    fn learn_entry(&mut self, member: MemberId, entry: &Entry) -> Learned {
        let at = (entry.log_id.index, term_of(&entry.log_id));
        let now = &self.member(member).now;
        let before =
            at.0.checked_sub(1)
                .and_then(|index| now.log.get(&index).copied());
        if let Some(known) = self.entries.get(&at) {
            if **known != *entry {
                let what = format!(
                    "m{member} wrote another entry {} than is known",
                    entry.log_id
                );
                return Err(("log_matching", what));
            }
        } else {
            self.entries.insert(at, Arc::new(entry.clone()));
            if let EntryPayload::Membership(membership) = &entry.payload
                && membership.get_joint_config().len() > 1
            {
                self.half_done = Some(HalfDone {
                    index: at.0,
                    by: member,
                });
            }
        }
        let Some(before) = before else {
            return Ok(());
        };
        match self.before.insert(at, before) {
            Some(known) if known != before => {
                let what = format!(
                    "before entry {} m{member} has one of term {before}, another member one of term {known}",
                    entry.log_id
                );
                Err(("log_matching", what))
            }
            _ => Ok(()),
        }
    }

    /// A member never lets go of a committed entry that it has, but for one that its state holds.
    fn keeps_committed(&mut self, member: MemberId, change: &Written) -> Learned {
        let Written::Truncated { from } = change else {
            return Ok(());
        };
        let Some(member_facts) = self.members.get(&member) else {
            return Ok(());
        };
        let log = &member_facts.now.log;
        let lost = log.range(from..).find(|(index, term)| {
            self.committed
                .get(index)
                .is_some_and(|known| known.term == **term)
        });
        match lost {
            None => Ok(()),
            Some((index, _)) => Err((
                LOST,
                format!("m{member} removes the committed entry {index}"),
            )),
        }
    }

    /// Takes note that an entry, and all before it, is said to be committed.
    fn learn_commit(&mut self, commit: LogId) -> Learned {
        if let Some(known) = self.committed.get(&commit.index) {
            return match known.term == term_of(&commit) {
                true => Ok(()),
                false => Err((
                    LOST,
                    format!(
                        "entry {} was committed in term {}, now one of term {} is",
                        commit.index,
                        known.term,
                        term_of(&commit)
                    ),
                )),
            };
        }
        let mut chain = Vec::new();
        let mut at = (commit.index, term_of(&commit));
        let last = self.committed.last_key_value().map(|(index, _)| *index);
        loop {
            let Some(entry) = self.entries.get(&at) else {
                let what = format!(
                    "entry {} of term {} is called committed, but nobody wrote it",
                    at.0, at.1
                );
                return Err(("committed_on_a_quorum", what));
            };
            chain.push(entry.clone());
            if at.0 == last.map_or(0, |last| last + 1) {
                break;
            }
            let Some(before) = self.before.get(&at) else {
                let what = format!(
                    "what comes before entry {} of term {} is not known",
                    at.0, at.1
                );
                return Err(("committed_on_a_quorum", what));
            };
            at = (at.0 - 1, *before);
        }
        if let (Some(last), Some(before)) = (last, self.before.get(&at))
            && self.committed[&last].term != *before
        {
            let what = format!(
                "entry {last} was committed, but entry {} does not follow it",
                at.0
            );
            return Err((LOST, what));
        }
        chain.iter().rev().for_each(|entry| self.apply(entry));
        Ok(())
    }

    /// The oracle applies an entry.
    fn apply(&mut self, entry: &Entry) {
        let index = entry.log_id.index;
        let term = Term(term_of(&entry.log_id));
        if let EntryPayload::Membership(membership) = &entry.payload {
            self.memberships.insert(index, membership.clone());
        }
        if let EntryPayload::Normal(payload) = &entry.payload {
            let batches = Batch::decode_all(&payload.0).expect("the members encode batches");
            let mut overlay = Overlay::new(&self.tables).expect("memory can be read");
            let at = mvcc::Applied { index, term };
            for command in batches.iter().flat_map(|batch| &batch.0) {
                let outcome = mvcc::apply(&mut overlay, at, command).expect("memory can be read");
                if let Command::LeaseExpire { ids, .. } = command {
                    let is_gone = |id: &&mvcc::LeaseId| {
                        let lease = mvcc::lease(&overlay, **id).expect("memory can be read");
                        lease.is_none()
                    };
                    self.expired
                        .extend(ids.iter().filter(is_gone).map(|id| (id.0, term.0)));
                }
                for event in outcome.events {
                    self.terms.insert(event.revision(), term);
                    self.history
                        .entry(event.revision())
                        .or_default()
                        .push(event);
                }
            }
            let writes = overlay.into_writes();
            for write in &writes {
                let family = Family::State(0, write.table);
                let old = self
                    .tables
                    .get(write.table, &write.key)
                    .expect("memory can be read");
                self.hash ^= old.map_or(0, |old| hash_of(family, &write.key, &old));
                let new = write.value.as_ref();
                self.hash ^= new.map_or(0, |new| hash_of(family, &write.key, new));
            }
            self.tables.write(writes);
        }
        let meta = Meta::load(&self.tables).expect("memory can be read");
        self.revision = meta.revision;
        self.compacted = meta.compacted;
        let committed = Committed {
            term: term.0,
            hash: self.hash,
            revision: meta.revision,
        };
        self.committed.insert(index, committed);
    }
}

impl Image {
    fn apply(&mut self, change: &Written) {
        match change {
            Written::Vote(vote) => self.vote = Some(*vote),
            Written::Entry(entry) => {
                self.log.insert(entry.log_id.index, term_of(&entry.log_id));
            }
            Written::Truncated { from } => {
                self.log.split_off(from);
            }
            Written::Purged(upto) => self.log = self.log.split_off(&(upto.index + 1)),
            Written::Applied {
                log_id, revision, ..
            } => {
                self.applied = *log_id;
                self.revision = *revision;
            }
        }
    }
}
