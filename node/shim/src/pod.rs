//! The shim's one loop: the agent's connections, the containers' streams, the helpers, the children's ends.
//!
//! ```text
//! Run  ──▶ helper runs ──▶ running ──▶ ended (draining its outputs) ──▶ exited: status written, event sent ──▶ Forget
//! Exec ──▶ helper runs ──▶ running ──▶ ended (draining its outputs) ──▶ Exited sent, gone
//! ```
//! Nothing here blocks: every descriptor is non-blocking and every wait is the one `poll`.

mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rpc::shim::{Container, Failure, State, reply, stream_output};

use crate::client::{Client, Mode};
use crate::clock::now_ns;
use crate::helper::Helper;
use crate::logfile::Stream;
use crate::process::{Ended, Ends, Process};
use crate::rest::Rest;
use crate::status;

/// More connections are refused: the agent uses one, and one a stream.
const CLIENTS_MAX: usize = 1024;

/// The pod.
pub struct Pod {
    listener: UnixListener,
    signals: SignalFd,
    clients: BTreeMap<u64, Client>,
    processes: BTreeMap<u64, Process>,
    helpers: BTreeMap<i32, Pending>,
    /// Children that ended while a helper runs: its result may name one of them.
    early: BTreeMap<i32, WaitStatus>,
    next_key: u64,
    stopping: bool,
    rest: Rest,
}

/// A helper that runs, and what its result is for.
struct Pending {
    helper: Helper,
    client: u64,
    ends: Ends,
    purpose: Purpose,
}

enum Purpose {
    Run {
        request_id: u64,
        run: rpc::shim::Run,
    },
    Exec {
        dir: PathBuf,
    },
}

#[derive(Clone, Copy)]
enum Source {
    Listener,
    Signals,
    Client(u64),
    Output(u64, usize),
    Input(u64),
}

impl Pod {
    /// A pod without containers. `signals` must be blocked.
    pub fn new(listener: UnixListener, signals: SigSet) -> Result<Self> {
        listener
            .set_nonblocking(true)
            .context("cannot make the socket non-blocking")?;
        let signals =
            SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
                .context("cannot make a signal descriptor")?;
        let mut rest = Rest::default();
        rest.after_work();
        Ok(Self {
            listener,
            signals,
            clients: BTreeMap::new(),
            processes: BTreeMap::new(),
            helpers: BTreeMap::new(),
            early: BTreeMap::new(),
            next_key: 1,
            stopping: false,
            rest,
        })
    }

    /// Serves until told to shut down.
    pub fn serve(&mut self) -> Result<()> {
        while !(self.stopping && self.clients.values().all(|client| !client.has_output())) {
            let ready = self.poll()?;
            for (source, flags) in ready {
                self.handle(source, flags);
            }
            self.expire_helpers();
            self.settle();
            self.flush_clients();
            self.rest.rest_if_due();
        }
        let _ = std::fs::remove_file(crate::daemon::SOCKET);
        Ok(())
    }

    fn poll(&self) -> Result<Vec<(Source, PollFlags)>> {
        let interests = self.interests();
        let mut descriptors: Vec<PollFd> = interests
            .iter()
            .map(|(_, raw, flags)| {
                // SAFETY: every descriptor is owned by `self`, which is borrowed until `poll` returns.
                PollFd::new(unsafe { BorrowedFd::borrow_raw(*raw) }, *flags)
            })
            .collect();
        match nix::poll::poll(&mut descriptors, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot poll"),
        }
        let ready =
            interests
                .iter()
                .zip(&descriptors)
                .filter_map(|((source, _, _), descriptor)| {
                    descriptor
                        .revents()
                        .filter(|flags| !flags.is_empty())
                        .map(|flags| (*source, flags))
                });
        Ok(ready.collect())
    }

    fn interests(&self) -> Vec<(Source, RawFd, PollFlags)> {
        let mut interests = vec![
            (
                Source::Listener,
                self.listener.as_raw_fd(),
                PollFlags::POLLIN,
            ),
            (Source::Signals, self.signals.as_raw_fd(), PollFlags::POLLIN),
        ];
        for (key, client) in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, self.reads_from(client));
            flags.set(PollFlags::POLLOUT, client.has_output());
            interests.push((Source::Client(*key), client.socket.as_raw_fd(), flags));
        }
        for (key, process) in &self.processes {
            if !self.exec_viewer_is_full(process) {
                // From the last: closing one must not move another that is still to be handled.
                for (index, (_, file)) in process.outputs.iter().enumerate().rev() {
                    interests.push((
                        Source::Output(*key, index),
                        file.as_raw_fd(),
                        PollFlags::POLLIN,
                    ));
                }
            }
            if let (true, Some(file)) = (process.has_input(), &process.input) {
                interests.push((Source::Input(*key), file.as_raw_fd(), PollFlags::POLLOUT));
            }
        }
        interests
    }

    fn reads_from(&self, client: &Client) -> bool {
        match client.mode {
            Mode::Control { .. } => !client.is_full(),
            Mode::StreamPending => false,
            Mode::Stream { process, .. } => !self
                .processes
                .get(&process)
                .is_some_and(Process::input_is_full),
        }
    }

    /// An exec's process waits for a slow reader; a container's never does.
    fn exec_viewer_is_full(&self, process: &Process) -> bool {
        process.container.is_none()
            && process
                .viewers
                .iter()
                .any(|key| self.clients.get(key).is_some_and(Client::is_full))
    }

    fn timeout(&self) -> PollTimeout {
        let deadlines = self.helpers.values().map(|pending| pending.helper.deadline);
        let drains = self
            .processes
            .values()
            .filter(|process| !process.is_settled());
        let drains = drains.filter_map(|process| process.ended.map(|ended| ended.drain_until));
        let Some(next) = deadlines.chain(drains).chain(self.rest.due()).min() else {
            return PollTimeout::NONE;
        };
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => {
                while matches!(self.signals.read_signal(), Ok(Some(_))) {}
                self.reap();
            }
            Source::Client(key) => {
                if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                    self.read_client(key);
                }
            }
            Source::Output(key, index) => self.pump_output(key, index),
            Source::Input(key) => {
                if let Some(process) = self.processes.get_mut(&key) {
                    process.flush_input();
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            self.rest.after_work();
            if self.clients.len() >= CLIENTS_MAX {
                continue;
            }
            if let Ok(client) = Client::new(socket) {
                let key = self.key();
                self.clients.insert(key, client);
            }
        }
    }

    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn pump_output(&mut self, key: u64, index: usize) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let Some((stream, data)) = process.read_output(index, now_ns()) else {
            return;
        };
        let data = bytes::Bytes::from(data);
        for viewer in &process.viewers {
            if let Some(client) = self.clients.get_mut(viewer) {
                client.stream(match stream {
                    Stream::Stdout => stream_output::Body::Stdout(data.clone()),
                    Stream::Stderr => stream_output::Body::Stderr(data.clone()),
                });
            }
        }
    }

    /// Takes every child that ended: a helper, a process, or an orphan that came to this subreaper.
    fn reap(&mut self) {
        loop {
            let status = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(status) => status,
            };
            let Some(pid) = status.pid().map(Pid::as_raw) else {
                continue;
            };
            if let Some(pending) = self.helpers.remove(&pid) {
                self.finish_helper(pending);
            } else if let Some(process) = self
                .processes
                .values_mut()
                .find(|process| process.pid == pid && process.ended.is_none())
            {
                process.ended = Ended::from_wait(status, now_ns());
            } else {
                self.early.insert(pid, status);
            }
        }
        if self.helpers.is_empty() {
            self.early.clear();
        }
    }

    fn expire_helpers(&mut self) {
        let now = Instant::now();
        for pending in self
            .helpers
            .values_mut()
            .filter(|pending| now >= pending.helper.deadline)
        {
            pending.helper.kill();
            // Its end comes by SIGCHLD; until then it is not killed again at every turn.
            pending.helper.deadline = now + Duration::from_secs(3600);
        }
    }

    /// Tells the end of each process whose outputs are drained.
    fn settle(&mut self) {
        let now = Instant::now();
        let done: Vec<u64> = self
            .processes
            .iter()
            .filter(|(_, process)| !process.is_settled() && process.is_done(now))
            .map(|(key, _)| *key)
            .collect();
        for key in done {
            self.settle_process(key);
        }
    }

    fn settle_process(&mut self, key: u64) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let Some(ended) = process.ended else { return };
        self.rest.after_work();
        process.outputs.clear();
        process.input = None;
        for viewer in std::mem::take(&mut process.viewers) {
            if let Some(client) = self.clients.get_mut(&viewer) {
                client.stream(stream_output::Body::Exited(ended.exited));
                client.finished = true;
            }
        }
        let Some(part) = process.container.as_mut() else {
            self.processes.remove(&key);
            return;
        };
        if let Some(mut log) = part.log.take() {
            log.finish(ended.at_ns);
        }
        part.record = exited(&part.record, &ended, status::oom_kills(&part.oom_path));
        // The agent is told in any case; a full disk costs only the record for a later shim-less agent.
        let _ = status::write(&part.bundle, &part.record);
        let event = part.record.clone();
        self.publish(&event);
    }

    fn publish(&mut self, container: &Container) {
        for client in self.clients.values_mut() {
            if client.mode == (Mode::Control { subscribed: true }) {
                client.reply(0, reply::Body::Event(container.clone()));
            }
        }
    }

    fn flush_clients(&mut self) {
        let mut gone = BTreeSet::new();
        for (key, client) in &mut self.clients {
            if client.flush().is_err() || (client.finished && !client.has_output()) {
                gone.insert(*key);
            }
        }
        for key in gone {
            self.drop_client(key);
        }
    }

    /// Forgets a connection; an exec's process goes with it.
    fn drop_client(&mut self, key: u64) {
        let Some(client) = self.clients.remove(&key) else {
            return;
        };
        self.rest.after_work();
        let Mode::Stream { process, exec } = client.mode else {
            return;
        };
        let Some(process) = self.processes.get_mut(&process) else {
            return;
        };
        process.viewers.remove(&key);
        if exec && process.ended.is_none() {
            let _ = nix::sys::signal::kill(
                Pid::from_raw(process.pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }

    fn fail(&mut self, client: u64, request_id: Option<u64>, message: String) {
        let Some(client) = self.clients.get_mut(&client) else {
            return;
        };
        match request_id {
            Some(id) => client.reply(id, reply::Body::Failure(Failure { message })),
            None => {
                client.stream(stream_output::Body::Error(Failure { message }));
                client.finished = true;
            }
        }
    }
}

/// A container's record after its end. An OOM kill is the kernel's count beside an end by SIGKILL, be it of the first
/// process or of a child that a shell reports.
fn exited(record: &Container, ended: &Ended, oom_kills: u64) -> Container {
    Container {
        state: State::Exited as i32,
        finished_at_ns: ended.at_ns,
        exit_code: ended.exited.exit_code,
        signal: ended.exited.signal,
        oom_killed: ended.exited.exit_code == 137 && oom_kills > 0,
        ..record.clone()
    }
}
