//! The helpers that call libcontainer: `oci-create` and `oci-exec`. Each does one thing, reports and exits.
//! Traps that are handled here: Rust's ignored SIGPIPE and the shim's signal mask would be inherited by the container; an
//! exec'd process would run without the container's seccomp filter; a failing execve would be told as an exit code only.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use libcontainer::capabilities::drop_privileges;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::{SyscallType, create_syscall};
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use nix::sys::socket::MsgFlags;
use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxSeccomp, Process, Spec};
use prost::Message;
use rpc::shim::{HelperResult, HelperTask, TerminalSize};

use crate::process::resize_terminal;
use crate::{helper, trace};

/// The role `shim oci-create`: creates and starts a container.
pub fn create() -> Result<()> {
    serve(create_container)
}

/// The role `shim oci-exec`: starts a process in a running container.
pub fn exec() -> Result<()> {
    serve(exec_in_container)
}

struct Outcome {
    pid: i32,
    terminal: Option<OwnedFd>,
}

fn serve(work: fn(&HelperTask, Vec<OwnedFd>) -> Result<Outcome>) -> Result<()> {
    reset_signals()?;
    let socket = take_stdin()?;
    let (bytes, streams) =
        helper::receive(&socket, MsgFlags::empty()).context("cannot receive the task")?;
    let task = HelperTask::decode(bytes.as_slice()).context("the task is damaged")?;
    let state_root = Path::new(&task.state_root);
    let (result, terminal) = match trace::collect(state_root).and_then(|()| work(&task, streams)) {
        Ok(Outcome { pid, terminal }) => (
            HelperResult {
                pid,
                error: String::new(),
            },
            terminal,
        ),
        Err(error) => (
            HelperResult {
                pid: 0,
                error: with_cause(format!("{error:#}"), trace::first(state_root)),
            },
            None,
        ),
    };
    let descriptors: Vec<OwnedFd> = terminal.into_iter().collect();
    helper::send(&socket, &result.encode_to_vec(), &descriptors).context("cannot send the result")
}

/// A container must not inherit Rust's ignored SIGPIPE nor the shim's blocked signals.
fn reset_signals() -> Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { nix::sys::signal::sigaction(Signal::SIGPIPE, &default) }
        .context("cannot reset SIGPIPE")?;
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .context("cannot clear the signal mask")
}

/// Takes the task's socket away from descriptor 0, where the container would inherit it.
fn take_stdin() -> Result<OwnedFd> {
    // SAFETY: the shim has put the socket there.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    let socket = stdin
        .try_clone_to_owned()
        .context("no socket on standard input")?;
    let null = fs::File::open("/dev/null").context("cannot open /dev/null")?;
    nix::unistd::dup2_stdin(&null).context("cannot replace standard input")?;
    Ok(socket)
}

fn create_container(task: &HelperTask, streams: Vec<OwnedFd>) -> Result<Outcome> {
    let console = Console::listen(task)?;
    let (mut failure, report) = std::io::pipe().context("cannot make a pipe")?;
    let launch = Launch {
        report: Some(report.as_raw_fd()),
        confine: None,
        size: None,
    };
    let mut container = builder(task, streams, console.as_ref())?
        .with_executor(launch)
        .as_init(&task.bundle)
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()
        .map_err(flatten)?;
    drop(report);
    let pid = container
        .pid()
        .context("the container has no process")?
        .as_raw();
    let terminal = console.map(Console::accept).transpose()?;
    container.start().map_err(flatten)?;
    // The write end closes when the container's execve succeeds; before that it carries the reason why it did not.
    let mut reason = String::new();
    failure
        .read_to_string(&mut reason)
        .context("cannot hear of the container's start")?;
    if !reason.is_empty() {
        bail!(reason);
    }
    Ok(Outcome { pid, terminal })
}

fn exec_in_container(task: &HelperTask, streams: Vec<OwnedFd>) -> Result<Outcome> {
    let console = Console::listen(task)?;
    let confine = prepare_process(task)?;
    let pid = builder(task, streams, console.as_ref())?
        .with_executor(Launch {
            report: None,
            confine,
            size: task.size,
        })
        .as_tenant()
        .with_process(Some(&task.process_path))
        .with_detach(true)
        .as_sibling(true)
        .build()
        .map_err(flatten)?
        .as_raw();
    let terminal = console.map(Console::accept).transpose()?;
    Ok(Outcome { pid, terminal })
}

fn builder(
    task: &HelperTask,
    streams: Vec<OwnedFd>,
    console: Option<&Console>,
) -> Result<ContainerBuilder> {
    let mut builder = ContainerBuilder::new(task.container_id.clone(), SyscallType::default())
        .with_root_path(&task.state_root)
        .map_err(flatten)?;
    if let Some(console) = console {
        return Ok(builder.with_console_socket(Some(&console.path)));
    }
    let mut streams = streams.into_iter();
    let mut next = || streams.next().context("the task lacks a standard stream");
    builder = builder
        .with_stdin(next()?)
        .with_stdout(next()?)
        .with_stderr(next()?);
    Ok(builder)
}

/// The socket on which libcontainer hands over a terminal's master.
struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    fn listen(task: &HelperTask) -> Result<Option<Self>> {
        if !task.terminal {
            return Ok(None);
        }
        // Bound by its short name: the whole path may be longer than a socket's name can be.
        std::env::set_current_dir(&task.state_root)
            .with_context(|| format!("cannot enter {}", task.state_root))?;
        let _ = fs::remove_file("console.sock");
        let listener =
            UnixListener::bind("console.sock").context("cannot listen for the terminal")?;
        Ok(Some(Self {
            path: Path::new(&task.state_root).join("console.sock"),
            listener,
        }))
    }

    fn accept(self) -> Result<OwnedFd> {
        let (stream, _): (UnixStream, _) = self.listener.accept().context("no terminal came")?;
        let (_, mut descriptors) =
            helper::receive(&stream, MsgFlags::empty()).context("cannot receive the terminal")?;
        let _ = fs::remove_file(&self.path);
        descriptors.pop().context("the message has no terminal")
    }
}

/// What an exec'd process is confined to just before its execve.
#[derive(Clone)]
struct Confine {
    seccomp: LinuxSeccomp,
    /// None: the process object asks for `noNewPrivileges`, its capabilities are final already.
    capabilities: Option<LinuxCapabilities>,
}

/// Copies the container's state beside the process object (libcontainer leaves sockets there, which go with the folder),
/// and arranges the seccomp filter that libcontainer leaves out: loading one needs CAP_SYS_ADMIN where privileges may be
/// gained, so that the process gets it for a moment and loses it in `Launch::exec`.
fn prepare_process(task: &HelperTask) -> Result<Option<Confine>> {
    let bundle = Path::new(&task.bundle);
    let state = Path::new(&task.state_root).join(&task.container_id);
    fs::create_dir_all(&state).context("cannot make the exec's folder")?;
    fs::copy(
        bundle
            .join("state")
            .join(&task.container_id)
            .join("state.json"),
        state.join("state.json"),
    )
    .context("cannot read the container's state: is it running?")?;
    let spec = Spec::load(bundle.join("config.json")).map_err(flatten)?;
    let Some(seccomp) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().clone())
    else {
        return Ok(None);
    };
    let bytes = fs::read(&task.process_path).context("cannot read the process object")?;
    let mut process: Process =
        serde_json::from_slice(&bytes).context("the process object is damaged")?;
    if process.no_new_privileges() == Some(true) {
        return Ok(Some(Confine {
            seccomp,
            capabilities: None,
        }));
    }
    let last = process
        .capabilities()
        .clone()
        .context("the process object lacks capabilities")?;
    process.set_capabilities(Some(with_confining(&last)));
    let bytes = serde_json::to_vec(&process).context("cannot write the process object")?;
    fs::write(&task.process_path, bytes).context("cannot write the process object")?;
    Ok(Some(Confine {
        seccomp,
        capabilities: Some(last),
    }))
}

fn with_confining(capabilities: &LinuxCapabilities) -> LinuxCapabilities {
    let mut raised = capabilities.clone();
    let raise = |set: &Option<std::collections::HashSet<Capability>>| {
        let mut set = set.clone().unwrap_or_default();
        set.insert(Capability::SysAdmin);
        set.insert(Capability::Setpcap);
        Some(set)
    };
    raised.set_bounding(raise(capabilities.bounding()));
    raised.set_effective(raise(capabilities.effective()));
    raised.set_permitted(raise(capabilities.permitted()));
    raised
}

/// The last step in the container's process: confine, execve, and say why if that fails.
#[derive(Clone)]
struct Launch {
    report: Option<RawFd>,
    confine: Option<Confine>,
    /// Of the terminal that is standard input by now.
    size: Option<TerminalSize>,
}

impl Executor for Launch {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        if let Some(size) = &self.size {
            resize_terminal(0, size);
        }
        let result = self.confine().and_then(|()| DefaultExecutor {}.exec(spec));
        if let (Err(error), Some(report)) = (&result, self.report) {
            let text = error_text(error);
            // SAFETY: `create_container` made this pipe and keeps it open until here; close-on-exec ends it after.
            let report = unsafe { BorrowedFd::borrow_raw(report) };
            let _ = nix::unistd::write(report, text.as_bytes());
        }
        result
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }
}

impl Launch {
    fn confine(&self) -> Result<(), ExecutorError> {
        let Some(confine) = &self.confine else {
            return Ok(());
        };
        libcontainer::seccomp::initialize_seccomp(&confine.seccomp)
            .map_err(|error| ExecutorError::Other(error.to_string()))?;
        let Some(capabilities) = &confine.capabilities else {
            return Ok(());
        };
        drop_privileges(capabilities, create_syscall().as_ref())
            .map_err(|error| ExecutorError::Other(error.to_string()))
    }
}

fn with_cause(error: String, cause: Option<String>) -> String {
    match cause {
        Some(cause) if !error.contains(&cause) => format!("{error} ({cause})"),
        _ => error,
    }
}

fn error_text(error: &ExecutorError) -> String {
    flatten(error).to_string()
}

/// One line of an error and its causes, without repeating what an outer message already says.
fn flatten(error: impl std::error::Error) -> anyhow::Error {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let message = inner.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = inner.source();
    }
    anyhow::anyhow!(text)
}
