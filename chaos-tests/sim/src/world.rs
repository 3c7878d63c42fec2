//! The members, their disks and their network: begins a cluster, ends lives and begins new ones, changes the members, heals.

use crate::disk::{Crash, Disk, Lost, Notes};
use crate::judge::{Event, Judge};
use crate::switch::{Switch, Weather};
use bytes::Bytes;
use objects::cluster::MemberAdd;
use raft_store::db::WriteBatch;
use raft_store::log::LogError;
use raft_store::types::MemberId;
use raft_store::{Config, Limits, OpenError, Parts, RaftStore, SteadyClock, Timings, Transport};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const CLUSTER: &str = "simulated";
/// With less room than this on its disk a member takes only what frees some.
pub const RESERVE_BYTES: u64 = 64 << 10;

/// The world, as all who live in it hold it.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    judge: Judge,
    switch: Switch,
    disk_seed: u64,
    size: usize,
    limits: Limits,
    dir: TempDir,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<MemberId, Member>,
    ops: u64,
    answered: u64,
    faults: BTreeMap<String, u64>,
    /// The last archive that was saved.
    archive: Option<Bytes>,
    /// Members that are on their way out of life.
    ending: Vec<JoinHandle<()>>,
}

struct Member {
    config: Config,
    disk: Disk,
    clock: SteadyClock,
    life: Option<Life>,
    /// Undoes what was done to its disk while it is down.
    damage: Vec<WriteBatch>,
    /// Its notes as they were before they were damaged.
    whole_notes: Option<Notes>,
}

struct Life {
    store: RaftStore,
    over: CancellationToken,
}

impl World {
    /// A world without members; how many it will have, and how much they keep, is drawn.
    pub fn new(seeds: &mut StdRng, judge: Judge) -> Self {
        let switch = Switch::new(seeds.random(), judge.clone());
        let mut rng = StdRng::seed_from_u64(seeds.random());
        let limits = Limits {
            log_entries_slack: rng.random_range(20..400),
            log_entries_kept: rng.random_range(20..400),
            history: mvcc::HistoryLimits {
                keep_ms: rng.random_range(10_000..60_000),
                ..mvcc::HistoryLimits::default()
            },
            disk_reserve_bytes: RESERVE_BYTES,
            hub: mvcc::HubLimits {
                ring_bytes_max: rng.random_range(1_000..100_000),
                queue_events_max: rng.random_range(4..200),
                page_changes_max: rng.random_range(2..100),
            },
            ..Limits::default()
        };
        World {
            inner: Arc::new(Inner {
                switch,
                disk_seed: rng.random(),
                size: [3, 3, 3, 5][rng.random_range(0..4)],
                limits,
                dir: tempfile::tempdir().expect("a temporary folder can be made"),
                judge,
                state: Mutex::default(),
            }),
        }
    }

    /// A world of three members that keep as much as members usually do.
    #[cfg(test)]
    pub fn of_three(seeds: &mut StdRng, judge: Judge) -> Self {
        let mut world = World::new(seeds, judge);
        let inner = Arc::get_mut(&mut world.inner).expect("nobody else has it yet");
        inner.size = 3;
        inner.limits = Limits {
            disk_reserve_bytes: RESERVE_BYTES,
            ..Limits::default()
        };
        world
    }

    /// The judge.
    pub fn judge(&self) -> &Judge {
        &self.inner.judge
    }

    /// Makes a cluster: one member begins it, the others join.
    pub async fn begin(&self) {
        self.add(1);
        self.start(1).await;
        let first = self.store(1).expect("an empty member starts");
        first.bootstrap().await.expect("a new cluster begins");
        while self.members().len() < self.inner.size {
            self.join().await;
        }
        while self.voters() < self.inner.size {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Adds a member to the cluster and starts it; false when the cluster did not take it.
    pub async fn join(&self) -> bool {
        self.join_for(None).await
    }

    /// Adds a member that takes the place of another when it has caught up, and starts it.
    pub async fn join_for(&self, replaces: Option<MemberId>) -> bool {
        let name = format!("new{}", self.next_op());
        let add = MemberAdd {
            name: name.clone(),
            peer_address: format!("{name}:1"),
            api_url: String::new(),
        };
        let Some((at, store)) = self.any() else {
            return false;
        };
        let over = self.over(at);
        let added = tokio::select! {
            biased;
            () = over.cancelled() => return false,
            added = store.join_member(add, replaces.map(|id| id.to_string())) => added,
        };
        match added {
            Ok(member) => {
                self.add(member.id);
                self.start(member.id).await;
                true
            }
            Err(err) => {
                self.fault(None, &format!("no member was added: {err}"));
                false
            }
        }
    }

    /// Removes a member from the cluster, and then from the world; false when the cluster did not let it go.
    pub async fn leave(&self, member: MemberId) -> bool {
        let Some((at, store)) = self.any_but(member) else {
            return false;
        };
        let over = self.over(at);
        let name = member.to_string();
        let removed = tokio::select! {
            biased;
            () = over.cancelled() => return false,
            removed = store.remove_member(&name) => removed,
        };
        match removed {
            Ok(()) => {
                self.end_life(member, Crash::Kill);
                self.state().members.remove(&member);
                true
            }
            Err(err) => {
                self.fault(None, &format!("m{member} was not removed: {err}"));
                false
            }
        }
    }

    /// Ends a member's life as `crash` says; returns whether it was alive.
    pub fn end_life(&self, member: MemberId, crash: Crash) -> bool {
        let (life, disk) = {
            let mut state = self.state();
            let Some(member) = state.members.get_mut(&member) else {
                return false;
            };
            (member.life.take(), member.disk.clone())
        };
        let Some(life) = life else {
            return false;
        };
        self.inner.switch.detach(member);
        disk.crash(crash);
        life.over.cancel();
        let ending = tokio::spawn(life.store.kill());
        self.state().ending.push(ending);
        true
    }

    /// Begins a new life of a member that is down.
    pub async fn start(&self, member: MemberId) {
        let (config, disk, clock) = {
            let state = self.state();
            match state.members.get(&member) {
                Some(Member {
                    config,
                    disk,
                    clock,
                    life: None,
                    ..
                }) => (config.clone(), disk.clone(), *clock),
                _ => return,
            }
        };
        if let Some(synced) = disk.noted() {
            self.inner.judge.see(&Event::Noted { member, synced });
        }
        let place = self.inner.switch.place(member);
        let parts = Parts {
            engine: disk.engine(),
            mark: disk.slots(),
            transport: Arc::new(place.clone()),
            clock,
        };
        match RaftStore::open_with(config, parts).await {
            Ok((store, answers)) => {
                self.inner.judge.see(&Event::Started { member, clock });
                self.inner.switch.attach(&place, answers);
                let life = Life {
                    store,
                    over: CancellationToken::new(),
                };
                if let Some(member) = self.state().members.get_mut(&member) {
                    member.life = Some(life);
                    // It writes them anew.
                    member.whole_notes = None;
                }
            }
            Err(err) => self.refused(member, &err),
        }
    }

    fn refused(&self, member: MemberId, err: &OpenError) {
        let is_damaged = matches!(
            err,
            OpenError::Log(LogError::Damaged { .. } | LogError::Lost { .. } | LogError::Gap { .. })
        );
        self.inner.judge.see(&Event::Refused {
            member,
            reason: &err.to_string(),
            is_damaged,
        });
        if is_damaged {
            self.mend(member);
        }
    }

    /// Flips a bit in the log of a member that is down.
    pub fn damage(&self, member: MemberId, rng: &mut StdRng) -> bool {
        self.harm(member, |disk| {
            let (index, undo) = disk.damage_log(rng)?;
            Some((format!("entry {index} damaged"), undo))
        })
    }

    /// Takes from the disk of a member that is down what it had synced last. Only the notes can tell, so they must be whole.
    pub fn lose_synced(&self, member: MemberId, rng: &mut StdRng) -> bool {
        let are_whole = |found: &Member| found.whole_notes.is_none();
        if !self.state().members.get(&member).is_some_and(are_whole) {
            return false;
        }
        self.harm(member, |disk| {
            let (lost, undo) = disk.lose_synced(rng)?;
            let what = match lost {
                Lost::Entry(index) => format!("entry {index}, its last one, lost"),
                Lost::Vote => "vote lost".to_owned(),
            };
            Some((what, undo))
        })
    }

    fn harm(
        &self,
        member: MemberId,
        harm: impl FnOnce(&Disk) -> Option<(String, WriteBatch)>,
    ) -> bool {
        let mut state = self.state();
        let Some(found) = state.members.get_mut(&member) else {
            return false;
        };
        let Some((what, undo)) = harm(&found.disk) else {
            return false;
        };
        found.damage.push(undo);
        drop(state);
        let what = &what;
        self.inner.judge.see(&Event::Damaged { member, what });
        true
    }

    /// Flips bits in what a member that is down noted of its log. Not where its log is damaged too: one of them must be whole.
    pub fn damage_notes(&self, member: MemberId, rng: &mut StdRng) {
        let mut state = self.state();
        let Some(found) = state.members.get_mut(&member) else {
            return;
        };
        if !found.damage.is_empty() {
            return;
        }
        let whole = found.disk.damage_notes(rng);
        found.whole_notes.get_or_insert(whole);
        drop(state);
        self.inner.judge.see(&Event::NotesDamaged { member });
    }

    fn mend(&self, member: MemberId) {
        let mut state = self.state();
        if let Some(member) = state.members.get_mut(&member) {
            // What was done last is undone first.
            for undo in std::mem::take(&mut member.damage).iter().rev() {
                member.disk.mend(undo);
            }
            if let Some(whole) = member.whole_notes.take() {
                member.disk.mend_notes(whole);
            }
        }
    }

    /// Starts all members that are down, some of which may need another try, and repairs network and disks.
    pub async fn heal(&self) {
        self.weather(|weather| *weather = Weather::default());
        for member in self.members() {
            self.disk(member).heal();
            self.clock(member).set_rate(1.0);
            if self
                .store(member)
                .is_some_and(|store| store.failed().is_some())
            {
                self.end_life(member, Crash::PowerCut);
            }
            self.start(member).await;
            // One whose log is damaged refuses first, and is then mended.
            self.start(member).await;
        }
    }

    /// Ends all lives and waits for what they leave behind.
    pub async fn end(&self) {
        for member in self.members() {
            self.end_life(member, Crash::Kill);
        }
        let ending = std::mem::take(&mut self.state().ending);
        for task in ending {
            // How a member that was killed ends is of no interest.
            let _ = task.await;
        }
    }

    /// Changes how the network is.
    pub fn weather(&self, change: impl FnOnce(&mut Weather)) {
        self.inner.switch.set(change);
    }

    /// Keeps an archive, in the place of the one before.
    pub fn keep_archive(&self, archive: Bytes) {
        self.state().archive = Some(archive);
    }

    /// The last archive that was saved.
    pub fn last_archive(&self) -> Option<Bytes> {
        self.state().archive.clone()
    }

    /// Takes note of a fault.
    pub fn fault(&self, kind: Option<&'static str>, what: &str) {
        if let Some(kind) = kind {
            *self.state().faults.entry(kind.to_owned()).or_default() += 1;
        }
        self.inner.judge.see(&Event::Fault { what });
    }

    /// The faults that were done.
    pub fn faults(&self) -> BTreeMap<String, u64> {
        self.state().faults.clone()
    }

    /// The members of the world, running or not.
    pub fn members(&self) -> Vec<MemberId> {
        self.state().members.keys().copied().collect()
    }

    /// The members of the world that the cluster counts among its own: a removal may have been done though nobody was told so.
    pub fn in_cluster(&self) -> Vec<MemberId> {
        let known = self.inner.judge.facts(|facts| {
            let last = facts.memberships.last_key_value();
            last.map(|(_, membership)| {
                membership
                    .nodes()
                    .map(|(id, _)| *id)
                    .collect::<BTreeSet<_>>()
            })
        });
        let is_known =
            |member: &MemberId| known.as_ref().is_none_or(|known| known.contains(member));
        self.members().into_iter().filter(is_known).collect()
    }

    /// Starts members that the cluster admitted though nobody was told so.
    pub async fn start_unknown(&self) {
        let admitted = self.inner.judge.facts(|facts| {
            let last = facts.memberships.last_key_value();
            last.map_or(BTreeSet::new(), |(_, last)| {
                last.nodes().map(|(id, _)| *id).collect()
            })
        });
        for member in admitted {
            if !self.members().contains(&member) {
                self.add(member);
                self.start(member).await;
            }
        }
    }

    /// A member that runs.
    pub fn store(&self, member: MemberId) -> Option<RaftStore> {
        let state = self.state();
        let life = state.members.get(&member)?.life.as_ref()?;
        Some(life.store.clone())
    }

    /// The member that leads, as it says itself.
    pub fn leader(&self) -> Option<MemberId> {
        let state = self.state();
        let leads = |member: &Member| {
            let life = member.life.as_ref();
            life.is_some_and(|life| life.store.leader_state().is_leader)
        };
        let leader = state.members.iter().find(|(_, member)| leads(member));
        leader.map(|(id, _)| *id)
    }

    /// Ends when the present life of a member does.
    pub fn over(&self, member: MemberId) -> CancellationToken {
        let state = self.state();
        let life = state
            .members
            .get(&member)
            .and_then(|member| member.life.as_ref());
        life.map_or_else(
            || {
                let over = CancellationToken::new();
                over.cancel();
                over
            },
            |life| life.over.clone(),
        )
    }

    /// The disk of a member.
    pub fn disk(&self, member: MemberId) -> Disk {
        self.state().members[&member].disk.clone()
    }

    /// The steady clock of a member.
    pub fn clock(&self, member: MemberId) -> SteadyClock {
        self.state().members[&member].clock
    }

    /// What a member is opened with.
    pub fn config(&self, member: MemberId, cluster_id: &str) -> Config {
        let inner = &self.inner;
        let name = format!("m{member}");
        Config {
            data_dir: inner.dir.path().join(cluster_id).join(&name),
            cluster_id: cluster_id.to_owned(),
            member_id: member,
            peer_address: format!("{name}:1"),
            name,
            listen: ([127, 0, 0, 1], 1).into(),
            api_url: String::new(),
            tls: None,
            timings: Timings {
                request: Duration::from_secs(3),
                snapshot: Duration::from_secs(10),
                ..Timings::default()
            },
            limits: inner.limits.clone(),
        }
    }

    /// The network as a member that is not of the cluster sees it: nobody is there.
    pub fn nowhere(&self) -> Arc<dyn Transport> {
        Arc::new(self.inner.switch.place(MemberId::MAX))
    }

    /// A number for a request, never given twice.
    pub fn next_op(&self) -> u64 {
        let mut state = self.state();
        state.ops += 1;
        state.ops
    }

    /// A request was answered.
    pub fn count_answer(&self) {
        self.state().answered += 1;
    }

    /// How many requests were answered.
    pub fn answered(&self) -> u64 {
        self.state().answered
    }

    /// How each member is, in a few words.
    pub fn describe(&self) -> String {
        let state = self.state();
        let each = state.members.iter().map(|(id, member)| match &member.life {
            None => format!("m{id} is down"),
            Some(life) => match life.store.failed() {
                Some(why) => format!("m{id} failed: {why}"),
                None => format!("m{id} {:?}", life.store.leader_state()),
            },
        });
        let members = self.inner.judge.facts(|facts| {
            let last = facts.memberships.last_key_value();
            last.map(|(index, last)| format!("; the members are {last} since entry {index}"))
        });
        each.collect::<Vec<_>>().join(", ") + &members.unwrap_or_default()
    }

    /// A member that runs, if possible the one that leads.
    pub fn any(&self) -> Option<(MemberId, RaftStore)> {
        let leader = self.leader();
        let candidates = leader.into_iter().chain(self.members());
        let running = |member: MemberId| Some((member, self.store(member)?));
        candidates.into_iter().find_map(running)
    }

    fn any_but(&self, not: MemberId) -> Option<(MemberId, RaftStore)> {
        let running = |member: MemberId| Some((member, self.store(member)?));
        let candidates = self.members().into_iter().filter(|member| *member != not);
        candidates.into_iter().find_map(running)
    }

    fn voters(&self) -> usize {
        let Some((_, store)) = self.any() else {
            return 0;
        };
        store.members().iter().filter(|member| member.voter).count()
    }

    fn add(&self, member: MemberId) {
        let inner = &self.inner;
        let added = Member {
            config: self.config(member, CLUSTER),
            disk: Disk::new(member, inner.disk_seed, inner.judge.clone()),
            clock: SteadyClock::simulated(),
            life: None,
            damage: Vec::new(),
            whole_notes: None,
        };
        self.state().members.insert(member, added);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .expect("no holder of the lock panics")
    }
}
