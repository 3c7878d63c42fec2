//! Members of a store to be broken: each with a disk of its own, in a network whose every packet passes the harness, reached
//! through the etcd v3 API. What runs is a [`Target`]: our masters, or any etcd.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use chaos::testbed::{Choice, Options, Testbed};
//! let mut bed = Testbed::start(Options::of(Choice::parse("etcd")?)?).await?;
//! let leader = bed.wait_for_leader().await?.name;
//! bed.kill(&leader).await?;
//! bed.start_member(&leader)?;
//! bed.wait_until_whole().await?;
//! # Ok(()) }
//! ```
//!
//! Clusters with nodes and pods are [`crate::cluster`]'s. Dropping a testbed ends the processes and removes namespaces, disks and
//! data; the logs stay where the options say.

mod choice;
mod control;
mod disk;
mod etcd;
mod probe;
mod target;

pub use choice::Choice;
pub use disk::{Canaries, Damage, Disk, PowerLoss, SECTOR, damage};
pub use etcd::PROGRAM as ETCD;
pub use probe::{Known, Leader, Probe, Status, connect};
pub use target::{Endpoint, Files, Launch, Member, Saved, Start, Target, TlsMaterial};

use crate::cluster::Process;
use crate::faketime::{self, Clock};
use crate::injector::Injector;
use crate::machines::{self, Machines};
use crate::tunswitch::Network;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Removes what harnesses that are no more left on the machine: namespaces, mounts, folders. Every testbed begins with it.
pub fn sweep() {
    crate::cluster::sweep();
    disk::sweep();
    faketime::sweep();
}

const POLL: Duration = Duration::from_millis(50);
/// A cluster whose faults were healed is whole within this. How long clients waited is the report's to tell; this only ends runs
/// that would hang, also on a machine that others use.
pub const WHOLE_DEADLINE: Duration = Duration::from_secs(120);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// The address of m1 ends in this plus one.
const FIRST_PLACE: u8 = 10;

/// What to start.
pub struct Options {
    /// The store.
    pub choice: Choice,
    /// How many members: m1, m2, ….
    pub members: u8,
    /// Where logs stay; None keeps them with the data, which goes.
    pub logs: Option<PathBuf>,
    /// Fixes the fate of packets.
    pub seed: u64,
    /// Starts members so that their system calls on files can be answered by the harness.
    pub with_injector: bool,
    /// Starts members so that their clock can be faked, where the target allows it.
    pub with_clock: bool,
}

impl Options {
    /// Three members, without what faults of single calls and of the clock need.
    pub fn of(choice: Choice) -> Result<Self> {
        Ok(Options {
            choice,
            members: 3,
            logs: None,
            seed: 0,
            with_injector: false,
            with_clock: false,
        })
    }
}

struct Machine {
    member: Member,
    process: Option<Process>,
    is_paused: bool,
    /// Whether it ever ran with the data that it has.
    was_started: bool,
    injector: Option<Injector>,
    clock: Option<Clock>,
    disk: Disk,
}

impl Machine {
    /// Ends the process if it runs, and removes what libfaketime keeps of it.
    fn drop_process(&mut self) {
        if let Some(process) = self.process.take() {
            process.first_pid().into_iter().for_each(faketime::forget);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.drop_process();
    }
}

impl machines::Machine for Machine {
    fn process(&mut self) -> &mut Option<Process> {
        &mut self.process
    }

    fn running(&self) -> Option<&Process> {
        self.process.as_ref()
    }
}

/// The members and all that they stand on.
pub struct Testbed {
    // Fields drop in this order: processes and their disks, then their network, then the folder.
    machines: Machines<Machine>,
    network: Network,
    target: Box<dyn Target>,
    with_injector: bool,
    with_clock: bool,
    is_begun: bool,
    folder: tempfile::TempDir,
}

impl Testbed {
    /// Starts members and waits until all of them vote and answer.
    pub async fn start(options: Options) -> Result<Self> {
        sweep();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}{}-", disk::PREFIX, std::process::id()))
            .tempdir()
            .context("no temporary folder can be made")?;
        let logs = options.logs.unwrap_or_else(|| folder.path().join("logs"));
        let target = options.choice.target(folder.path())?;
        let with_clock = options.with_clock && target.clock_problem().is_none();
        let mut bed = Testbed {
            machines: Machines::new(logs)?,
            network: Network::create(options.seed)?,
            target,
            with_injector: options.with_injector,
            with_clock,
            is_begun: false,
            folder,
        };
        for number in 1..=options.members {
            bed.add_machine(number)?;
        }
        bed.begin().await?;
        Ok(bed)
    }

    async fn begin(&mut self) -> Result<()> {
        let names = self.names();
        let (first, others) = names.split_first().context("a testbed has members")?;
        self.start_member(first)?;
        if self.target.first_alone() {
            self.wait_for_first(first).await?;
        }
        for name in others {
            self.start_member(name)?;
        }
        self.is_begun = true;
        self.wait_until_whole().await
    }

    async fn wait_for_first(&mut self, first: &str) -> Result<()> {
        let until = Instant::now() + WHOLE_DEADLINE;
        let member = self.machines.of(first)?.member.clone();
        while !self.target.is_ready(&member)? {
            self.fail_where_ended()?;
            ensure!(
                Instant::now() < until,
                "{first} did not begin within {WHOLE_DEADLINE:?}; see {}",
                self.log(first).display()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Makes a place for a further member with an empty disk; it is not started. Its name is returned.
    pub fn add_machine(&mut self, number: u8) -> Result<String> {
        let name = format!("m{number}");
        ensure!(
            !self.machines.contains_key(&name),
            "{name} is there already"
        );
        let disk = Disk::create(self.folder.path(), &name)?;
        let injector = self
            .with_injector
            .then(|| Injector::new(self.folder.path(), &name, disk.mounted_at()))
            .transpose()?;
        let clock = self
            .with_clock
            .then(|| Clock::new(self.folder.path(), &name))
            .transpose()?;
        // Last, since it goes only with a machine that is there.
        let address = self.network.add(&name, FIRST_PLACE + number)?;
        let member = Member {
            name: name.clone(),
            address,
            data: disk.data(),
        };
        let machine = Machine {
            member,
            process: None,
            is_paused: false,
            was_started: false,
            injector,
            clock,
            disk,
        };
        self.machines.insert(name.clone(), machine);
        Ok(name)
    }

    /// Starts a member, which must not run. One whose data was wiped joins the others, who must have admitted it.
    pub fn start_member(&mut self, name: &str) -> Result<()> {
        let members: Vec<Member> = self.members();
        let (is_begun, namespace, log) =
            (self.is_begun, self.network.namespace(name), self.log(name));
        let machine = self.machines.of_mut(name)?;
        ensure!(machine.process.is_none(), "{name} runs already");
        let start = match (machine.was_started, is_begun) {
            (true, _) => Start::Again,
            (false, true) => Start::Joins,
            (false, false) => Start::New,
        };
        let Launch { program, args } = self.target.launch(&machine.member, &members, start);
        let mut command = Vec::new();
        if let Some(clock) = &machine.clock {
            command.extend(clock.command());
        }
        if let Some(injector) = &machine.injector {
            command.extend(injector.command()?);
        }
        command.push(program.display().to_string());
        command.extend(args);
        let (program, args) = command.split_first().context("a command has a program")?;
        let process = Process::start(name, &namespace, program.as_ref(), args, &log)?;
        machine.process = Some(process);
        machine.was_started = true;
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self, name: &str) -> Result<()> {
        self.machines.of_mut(name)?.is_paused = false;
        let process = self.machines.take(name)?;
        let pid = process.first_pid();
        process.kill().await?;
        pid.into_iter().for_each(faketime::forget);
        Ok(())
    }

    /// Makes sure that nothing of a member runs, whether it was killed before, ended by itself or lives.
    pub async fn make_gone(&mut self, name: &str) -> Result<()> {
        match self.machines.of(name)?.process {
            Some(_) => self.kill(name).await,
            None => Ok(()),
        }
    }

    /// SIGTERM, and waits for an orderly end: success, or the signal itself, which some programs raise again at their end.
    pub async fn stop(&mut self, name: &str) -> Result<()> {
        let process = self.machines.take(name)?;
        let status = process.end(STOP_DEADLINE).await?;
        let is_orderly = status.success() || status.signal() == Some(Signal::SIGTERM as i32);
        ensure!(is_orderly, "{name} did not stop well: {status}");
        Ok(())
    }

    /// SIGSTOP.
    pub fn pause(&mut self, name: &str) -> Result<()> {
        self.machines.running(name)?.signal(Signal::SIGSTOP)?;
        self.machines.of_mut(name)?.is_paused = true;
        Ok(())
    }

    /// SIGCONT.
    pub fn resume(&mut self, name: &str) -> Result<()> {
        self.machines.running(name)?.signal(Signal::SIGCONT)?;
        self.machines.of_mut(name)?.is_paused = false;
        Ok(())
    }

    /// Ends every fault: the network passes everything, disks have room, calls and clocks are right again, and every member that
    /// was stopped runs.
    pub async fn restore(&mut self) -> Result<()> {
        self.network.heal();
        for name in self.names() {
            if self.machines.of(&name)?.is_paused {
                self.resume(&name)?;
            }
            self.restore_clock(&name).await?;
            let machine = self.machines.of_mut(&name)?;
            if let Some(injector) = &machine.injector {
                injector.heal();
            }
            machine.disk.drain()?;
            if !self.is_running(&name) {
                self.machines.of_mut(&name)?.drop_process();
                self.start_member(&name)?;
            }
        }
        Ok(())
    }

    /// A wrong rate ends with the process only, and the library leaves memory behind for one that was killed.
    async fn restore_clock(&mut self, name: &str) -> Result<()> {
        let has_rate = self
            .machines
            .of(name)?
            .clock
            .as_ref()
            .is_some_and(Clock::has_rate);
        if has_rate && self.is_running(name) {
            self.kill(name).await?;
        }
        match &mut self.machines.of_mut(name)?.clock {
            Some(clock) => clock.reset(),
            None => Ok(()),
        }
    }

    /// Tells the others that a member is no more, and ends it.
    pub async fn expel(&mut self, name: &str) -> Result<()> {
        let member = self.machines.of(name)?.member.clone();
        let probe = self.probe_without(name)?;
        self.target.expel(&probe, &member).await?;
        if self.is_running(name) {
            self.kill(name).await?;
        }
        self.machines.of_mut(name)?.process = None;
        Ok(())
    }

    /// Starts a member that was expelled, with an empty disk, as a new one of the same name.
    pub async fn rejoin(&mut self, name: &str) -> Result<()> {
        let probe = self.probe_without(name)?;
        let machine = self.machines.of_mut(name)?;
        ensure!(machine.process.is_none(), "{name} runs; stop it first");
        machine.disk.wipe()?;
        machine.was_started = false;
        let member = machine.member.clone();
        self.target.admit(&probe, &member).await?;
        self.start_member(name)
    }

    /// Kills every member and destroys what all of them had.
    pub async fn lose_everything(&mut self) -> Result<()> {
        for name in self.names() {
            self.make_gone(&name).await?;
            let machine = self.machines.of_mut(&name)?;
            machine.disk.wipe()?;
            machine.was_started = false;
        }
        Ok(())
    }

    /// Makes a new cluster of what was saved, after everything was lost: the first member of the state, the others as they join it.
    pub async fn restore_from(&mut self, saved: &Path) -> Result<()> {
        let names = self.names();
        let (first, others) = names.split_first().context("a testbed has members")?;
        let member = self.machines.of(first)?.member.clone();
        self.target.restore(saved, &member).await?;
        self.machines.of_mut(first)?.was_started = true;
        self.start_member(first)?;
        self.wait_for_first(first).await?;
        for name in others {
            self.start_member(name)?;
        }
        self.wait_until_whole().await
    }

    /// A place for files of the harness that goes with the testbed.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Adds a member: its place, its admission, its process.
    pub async fn add_member(&mut self) -> Result<String> {
        let number = (1..=100)
            .find(|number| !self.machines.contains_key(&format!("m{number}")))
            .context("there is room for a member")?;
        let probe = self.probe()?;
        let name = self.add_machine(number)?;
        let member = self.machines.of(&name)?.member.clone();
        let admitted = self.target.admit(&probe, &member).await;
        let started = match admitted {
            Ok(()) => self.start_member(&name),
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            self.forget(&name).await?;
            return Err(error);
        }
        Ok(name)
    }

    /// Removes a member: from the cluster, then its process and its disk.
    pub async fn remove_member(&mut self, name: &str) -> Result<()> {
        self.expel(name).await?;
        self.forget(name).await
    }

    async fn forget(&mut self, name: &str) -> Result<()> {
        if self.is_running(name) {
            self.kill(name).await?;
        }
        self.machines.remove(name);
        self.network.remove(name)
    }

    /// Waits until one leader is known to all, every member votes, has what was committed when this was called, and answers a
    /// linearizable read.
    pub async fn wait_until_whole(&mut self) -> Result<()> {
        let until = Instant::now() + WHOLE_DEADLINE;
        let mut goal = None;
        loop {
            let problem = match self.problem(&mut goal).await {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            self.fail_where_ended()?;
            if Instant::now() > until {
                bail!(
                    "the members did not become whole within {WHOLE_DEADLINE:?}: {problem:#}; logs: {}",
                    self.machines.logs().display()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether the members are whole now. `goal` is None at the first call and keeps the entry that members must have, which
    /// under load none of them has by the time that it is told.
    pub async fn is_whole(&self, goal: &mut Option<u64>) -> bool {
        self.problem(goal).await.is_ok()
    }

    /// What keeps the members from being whole. `goal` keeps the index that they must reach.
    async fn problem(&self, goal: &mut Option<u64>) -> Result<()> {
        let probe = self.probe()?;
        let statuses = probe.statuses().await;
        // A member that led before may tell of entries that nobody will ever have.
        let leader = statuses
            .iter()
            .filter_map(|(_, status)| status.as_ref())
            .filter(|status| status.leader == status.id)
            .max_by_key(|status| status.term);
        let wanted = *goal.get_or_insert(leader.context("no member leads")?.committed);
        let mut leaders = Vec::new();
        for (name, status) in &statuses {
            let status = status
                .as_ref()
                .with_context(|| format!("{name} does not answer"))?;
            ensure!(status.leader != 0, "{name} knows no leader");
            ensure!(!status.is_learner, "{name} is a learner");
            ensure!(
                status.applied >= wanted,
                "{name} has applied {} of {wanted} entries",
                status.applied
            );
            leaders.push(status.leader);
        }
        leaders.dedup();
        ensure!(leaders.len() == 1, "the members follow several leaders");
        let mut known: Vec<String> = probe
            .members()
            .await?
            .into_iter()
            .map(|known| known.name)
            .collect();
        known.sort();
        ensure!(
            known == self.names(),
            "the members know of {}",
            known.join(", ")
        );
        for name in self.names() {
            probe
                .reads(&name)
                .await
                .with_context(|| format!("{name} does not serve reads"))?;
        }
        Ok(())
    }

    /// Waits until a leader is known.
    pub async fn wait_for_leader(&self) -> Result<Leader> {
        let probe = self.probe()?;
        let until = Instant::now() + WHOLE_DEADLINE;
        loop {
            if let Some(leader) = probe.leader().await {
                return Ok(leader);
            }
            ensure!(
                Instant::now() < until,
                "no leader is known after {WHOLE_DEADLINE:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// The members' names, in order.
    pub fn names(&self) -> Vec<String> {
        self.machines.keys().cloned().collect()
    }

    fn members(&self) -> Vec<Member> {
        let members = self.machines.values();
        members.map(|machine| machine.member.clone()).collect()
    }

    /// Where the members serve clients.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let members = self.machines.values();
        members
            .map(|machine| self.target.endpoint(&machine.member))
            .collect()
    }

    /// A connection to each member.
    pub fn probe(&self) -> Result<Probe> {
        Probe::new(&self.endpoints())
    }

    fn probe_without(&self, name: &str) -> Result<Probe> {
        let mut endpoints = self.endpoints();
        endpoints.retain(|endpoint| endpoint.name != name);
        Probe::new(&endpoints)
    }

    /// What runs here.
    pub fn target(&self) -> &dyn Target {
        self.target.as_ref()
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// A member's disk.
    pub fn disk(&mut self, name: &str) -> Result<&mut Disk> {
        Ok(&mut self.machines.of_mut(name)?.disk)
    }

    /// What answers a member's system calls.
    pub fn injector(&self, name: &str) -> Result<&Injector> {
        self.machines.of(name)?.injector.as_ref().context(
            "the members were started without the filter that lets the harness answer system calls",
        )
    }

    /// A member's clock.
    pub fn clock(&mut self, name: &str) -> Result<&mut Clock> {
        if let Some(problem) = self.target.clock_problem() {
            bail!(problem);
        }
        let clock = self.machines.of_mut(name)?.clock.as_mut();
        clock.context("the members were started without libfaketime")
    }

    /// A member's process id.
    pub fn pid(&self, name: &str) -> Result<u32> {
        self.machines.pid(name)
    }

    /// Whether a member's process was started and did not end.
    pub fn is_running(&mut self, name: &str) -> bool {
        self.machines.is_running(name)
    }

    /// A member's log.
    pub fn log(&self, name: &str) -> PathBuf {
        self.machines.log(name)
    }

    /// The members whose process ended by itself, and how.
    pub fn ended(&mut self) -> Vec<(String, String)> {
        let ended = self.machines.ended().into_iter().map(|(name, status)| {
            let said = self.machines.last_said(&name);
            (name, format!("{status}: {said}"))
        });
        ended.collect()
    }

    /// An error that names a process that ended by itself, with the end of its log.
    pub fn fail_where_ended(&mut self) -> Result<()> {
        self.machines.fail_where_ended()
    }
}
