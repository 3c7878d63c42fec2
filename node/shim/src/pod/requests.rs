//! What the agent asks of the pod, and what becomes of a helper's result.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use rpc::shim::{
    Attach, Container, Containers, Done, Exec, Failure, Greeting, HelperTask, Request, Run, State,
    StreamInput, reply, request, stream_input, stream_output,
};

use super::{Pending, Pod, Purpose};
use crate::client::Mode;
use crate::clock::now_ns;
use crate::helper::{Helper, Role, Started};
use crate::logfile::LogFile;
use crate::process::{ContainerPart, Ended, Ends, Process, pipes};
use crate::status;

impl Pod {
    /// Handles all that a connection has sent. A connection that breaks the protocol is dropped.
    pub(super) fn read_client(&mut self, key: u64) {
        let Some(client) = self.clients.get_mut(&key) else {
            return;
        };
        let open = client.fill();
        loop {
            let Some(client) = self.clients.get_mut(&key) else {
                return;
            };
            let progress = match client.mode {
                Mode::Control { .. } => client
                    .next_frame::<Request>()
                    .map(|frame| frame.map(|request| self.request(key, request))),
                Mode::StreamPending => Ok(None),
                Mode::Stream { process, .. } => client
                    .next_frame::<StreamInput>()
                    .map(|frame| frame.map(|input| self.stream_input(process, input))),
            };
            match progress {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(_) => return self.drop_client(key),
            }
        }
        if open.is_err() {
            self.drop_client(key);
        }
    }

    fn request(&mut self, client: u64, request: Request) {
        let id = request.id;
        let answer = match request.body {
            Some(request::Body::Hello(_)) => Ok(Some(reply::Body::Greeting(Greeting {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: std::process::id(),
            }))),
            Some(request::Body::Run(run)) => self.run(client, id, run),
            Some(request::Body::Signal(signal)) => self.signal(&signal.id, signal.signal).map(done),
            Some(request::Body::List(_)) => Ok(Some(reply::Body::Containers(Containers {
                containers: self.records(),
            }))),
            Some(request::Body::Forget(forget)) => self.forget(&forget.id).map(done),
            Some(request::Body::Subscribe(_)) => {
                self.set_mode(client, Mode::Control { subscribed: true });
                Ok(Some(reply::Body::Done(Done {})))
            }
            Some(request::Body::Shutdown(_)) => self.shutdown().map(done),
            Some(request::Body::Exec(exec)) => return self.begin_exec(client, &exec),
            Some(request::Body::Attach(attach)) => return self.attach(client, &attach),
            None => Err(anyhow::anyhow!(
                "the request is empty or newer than this shim"
            )),
        };
        let body = match answer {
            Ok(Some(body)) => body,
            Ok(None) => return,
            Err(error) => reply::Body::Failure(Failure {
                message: format!("{error:#}"),
            }),
        };
        if let Some(client) = self.clients.get_mut(&client) {
            client.reply(id, body);
        }
    }

    fn set_mode(&mut self, client: u64, mode: Mode) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.mode = mode;
        }
    }

    fn records(&self) -> Vec<Container> {
        self.processes
            .values()
            .filter_map(|process| process.container.as_ref())
            .map(|part| part.record.clone())
            .collect()
    }

    fn find(&mut self, id: &str) -> Option<(u64, &mut Process)> {
        self.processes
            .iter_mut()
            .find(|(_, process)| {
                process
                    .container
                    .as_ref()
                    .is_some_and(|part| part.record.id == id)
            })
            .map(|(key, process)| (*key, process))
    }

    fn run(&mut self, client: u64, request_id: u64, run: Run) -> Result<Option<reply::Body>> {
        if let Some(record) = self
            .find(&run.id)
            .and_then(|(_, process)| process.container.as_ref())
            .map(|part| part.record.clone())
        {
            return Ok(Some(reply::Body::Container(record)));
        }
        let starting = |pending: &Pending| matches!(&pending.purpose, Purpose::Run { run: other, .. } if other.id == run.id);
        if self.helpers.values().any(starting) {
            bail!("container {} is being started by another request", run.id);
        }
        let bundle = Path::new(&run.bundle);
        let state_root = bundle.join("state");
        fs::create_dir_all(&state_root)
            .with_context(|| format!("cannot make {}", state_root.display()))?;
        let task = HelperTask {
            container_id: run.id.clone(),
            bundle: run.bundle.clone(),
            state_root: state_root.to_string_lossy().into_owned(),
            terminal: run.tty,
            process_path: String::new(),
            size: None,
        };
        let (stdin, tty) = (run.stdin, run.tty);
        self.start_helper(
            client,
            Role::Create,
            &task,
            stdin,
            tty,
            Purpose::Run { request_id, run },
        )?;
        Ok(None)
    }

    fn start_helper(
        &mut self,
        client: u64,
        role: Role,
        task: &HelperTask,
        stdin: bool,
        tty: bool,
        purpose: Purpose,
    ) -> Result<()> {
        let (streams, ends) = if tty {
            (vec![], Ends::default())
        } else {
            pipes(stdin)?
        };
        let helper = Helper::start(role, task, &streams)?;
        self.helpers.insert(
            helper.pid(),
            Pending {
                helper,
                client,
                ends,
                purpose,
            },
        );
        Ok(())
    }

    /// A helper ended: its container or process runs, or the asker is told why not.
    pub(super) fn finish_helper(&mut self, pending: Pending) {
        let Pending {
            helper,
            client,
            ends,
            purpose,
        } = pending;
        self.rest.after_work();
        let result = helper.result();
        match purpose {
            Purpose::Run { request_id, run } => match result
                .map_err(anyhow::Error::msg)
                .and_then(|started| self.add_container(&run, ends, started))
            {
                Ok(record) => {
                    if let Some(client) = self.clients.get_mut(&client) {
                        client.reply(request_id, reply::Body::Container(record));
                    }
                }
                Err(error) => self.fail(client, Some(request_id), format!("{error:#}")),
            },
            Purpose::Exec { dir } => {
                let _ = fs::remove_dir_all(dir);
                let added = result
                    .map_err(anyhow::Error::msg)
                    .and_then(|started| self.add_exec(client, ends, started));
                if let Err(error) = added {
                    self.fail(client, None, format!("{error:#}"));
                }
            }
        }
    }

    fn add_container(&mut self, run: &Run, ends: Ends, started: Started) -> Result<Container> {
        let now = now_ns();
        let record = Container {
            id: run.id.clone(),
            state: State::Running as i32,
            pid: started.pid,
            started_at_ns: now,
            ..Container::default()
        };
        let bundle = PathBuf::from(&run.bundle);
        status::write(&bundle, &record).context("cannot write the container's status")?;
        let log = match run.log_path.as_str() {
            "" => None,
            path => Some(
                LogFile::open(path.into(), run.log_bytes_max, run.log_files_max)
                    .with_context(|| format!("cannot open the log {path}"))?,
            ),
        };
        let part = ContainerPart {
            record: record.clone(),
            bundle,
            log,
            oom_path: run.oom_path.clone(),
            stdin_once: run.stdin_once,
        };
        let mut process = Process::new(started.pid, ends, started.terminal, Some(part))?;
        process.ended = self
            .early
            .remove(&started.pid)
            .and_then(|status| Ended::from_wait(status, now));
        let key = self.key();
        self.processes.insert(key, process);
        Ok(record)
    }

    fn add_exec(&mut self, client: u64, ends: Ends, started: Started) -> Result<()> {
        let mut process = Process::new(started.pid, ends, started.terminal, None)?;
        process.ended = self
            .early
            .remove(&started.pid)
            .and_then(|status| Ended::from_wait(status, now_ns()));
        let key = self.key();
        match self.clients.get_mut(&client) {
            Some(connection) => {
                process.viewers.insert(client);
                connection.mode = Mode::Stream {
                    process: key,
                    exec: true,
                };
                connection.stream(stream_output::Body::Started(Done {}));
            }
            // Nobody waits for it any more.
            None => drop(nix::sys::signal::kill(
                Pid::from_raw(started.pid),
                nix::sys::signal::Signal::SIGKILL,
            )),
        }
        self.processes.insert(key, process);
        Ok(())
    }

    fn signal(&mut self, id: &str, signal: i32) -> Result<()> {
        let (_, process) = self
            .find(id)
            .with_context(|| format!("there is no container {id}"))?;
        if process.ended.is_some() {
            return Ok(());
        }
        let signal = nix::sys::signal::Signal::try_from(signal)
            .with_context(|| format!("there is no signal {signal}"))?;
        nix::sys::signal::kill(Pid::from_raw(process.pid), signal)
            .with_context(|| format!("cannot send {signal} to container {id}"))
    }

    fn forget(&mut self, id: &str) -> Result<()> {
        let Some((key, process)) = self.find(id) else {
            return Ok(());
        };
        if !process.is_settled() {
            bail!("container {id} still runs; stop it first");
        }
        self.processes.remove(&key);
        Ok(())
    }

    fn shutdown(&mut self) -> Result<()> {
        if let Some(record) = self
            .records()
            .iter()
            .find(|record| record.state == State::Running as i32)
        {
            bail!("container {} still runs; stop it first", record.id);
        }
        if !self.helpers.is_empty() {
            bail!("a container is being started; try again");
        }
        self.stopping = true;
        Ok(())
    }

    fn begin_exec(&mut self, client: u64, exec: &Exec) {
        self.set_mode(client, Mode::StreamPending);
        if let Err(error) = self.start_exec(client, exec) {
            self.fail(client, None, format!("{error:#}"));
        }
    }

    fn start_exec(&mut self, client: u64, exec: &Exec) -> Result<()> {
        let (_, process) = self
            .find(&exec.container_id)
            .with_context(|| format!("there is no container {}", exec.container_id))?;
        let part = process.container.as_ref().context("not a container")?;
        if process.ended.is_some() {
            bail!("container {} is not running", exec.container_id);
        }
        let bundle = part.bundle.clone();
        let dir = bundle.join("execs").join(self.key().to_string());
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let process_path = dir.join("process.json");
        fs::write(&process_path, &exec.process).context("cannot write the process object")?;
        let task = HelperTask {
            container_id: exec.container_id.clone(),
            bundle: bundle.to_string_lossy().into_owned(),
            state_root: dir.to_string_lossy().into_owned(),
            terminal: exec.tty,
            process_path: process_path.to_string_lossy().into_owned(),
            size: exec.size,
        };
        self.start_helper(
            client,
            Role::Exec,
            &task,
            exec.stdin,
            exec.tty,
            Purpose::Exec { dir },
        )
    }

    fn attach(&mut self, client: u64, attach: &Attach) {
        self.set_mode(client, Mode::StreamPending);
        let Some((key, process)) = self.find(&attach.container_id) else {
            return self.fail(
                client,
                None,
                format!("there is no container {}", attach.container_id),
            );
        };
        if process.ended.is_some() {
            return self.fail(
                client,
                None,
                format!("container {} is not running", attach.container_id),
            );
        }
        if let Some(size) = &attach.size {
            process.resize(size);
        }
        process.viewers.insert(client);
        self.set_mode(
            client,
            Mode::Stream {
                process: key,
                exec: false,
            },
        );
        if let Some(client) = self.clients.get_mut(&client) {
            client.stream(stream_output::Body::Started(Done {}));
        }
    }

    fn stream_input(&mut self, process: u64, input: StreamInput) {
        let Some(process) = self.processes.get_mut(&process) else {
            return;
        };
        match input.body {
            Some(stream_input::Body::Stdin(data)) => process.push_input(&data),
            // A container's input outlives a viewer, unless it was asked to be used once.
            Some(stream_input::Body::StdinEnd(_)) if process.input_is_once() => process.end_input(),
            Some(stream_input::Body::StdinEnd(_)) | None => {}
            Some(stream_input::Body::Resize(size)) => process.resize(&size),
        }
    }
}

fn done(_: ()) -> Option<reply::Body> {
    Some(reply::Body::Done(Done {}))
}
