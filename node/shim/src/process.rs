//! A process of the pod that the shim pumps for: a container's first process, or one started by exec.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::{Buf, BytesMut};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::wait::WaitStatus;
use rpc::shim::{Container, Exited, TerminalSize};

use crate::logfile::{LogFile, Stream};

/// Standard input that the process has not read yet; beyond it the agent's connection waits.
const INPUT_BYTES_FULL: usize = 64 * 1024;
/// Descendants may hold the outputs open after the process's end: how long to wait for what they write.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(500);

/// What belongs to a container and not to an exec.
pub struct ContainerPart {
    /// What the agent is told.
    pub record: Container,
    /// Folder of config.json and the status.
    pub bundle: PathBuf,
    /// Its log.
    pub log: Option<LogFile>,
    /// Where the kernel counts its OOM kills.
    pub oom_path: String,
    /// Close standard input when the first viewer is done with it.
    pub stdin_once: bool,
}

/// A pumped process.
pub struct Process {
    /// Set for a container.
    pub container: Option<ContainerPart>,
    /// Process id on the host.
    pub pid: i32,
    /// Connections that get its output.
    pub viewers: BTreeSet<u64>,
    /// How it ended.
    pub ended: Option<Ended>,
    /// Outputs that are open.
    pub outputs: Vec<(Stream, File)>,
    /// Standard input, while it is open.
    pub input: Option<File>,
    input_pending: BytesMut,
    input_ending: bool,
    terminal: bool,
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Code and signal.
    pub exited: Exited,
    /// Nanoseconds since 1970.
    pub at_ns: i64,
    /// Until when its outputs are waited for.
    pub drain_until: Instant,
}

impl Ended {
    /// From what `waitpid` told; None for a process that goes on.
    pub fn from_wait(status: WaitStatus, at_ns: i64) -> Option<Self> {
        let exited = match status {
            WaitStatus::Exited(_, code) => Exited {
                exit_code: code,
                signal: 0,
            },
            WaitStatus::Signaled(_, signal, _) => Exited {
                exit_code: 128 + signal as i32,
                signal: signal as i32,
            },
            _ => return None,
        };
        Some(Self {
            exited,
            at_ns,
            drain_until: Instant::now() + DRAIN_TIME_MAX,
        })
    }
}

/// The shim's ends of a process's standard streams.
#[derive(Default)]
pub struct Ends {
    /// Written by the shim.
    pub input: Option<OwnedFd>,
    /// Read by the shim.
    pub stdout: Option<OwnedFd>,
    /// Read by the shim.
    pub stderr: Option<OwnedFd>,
}

/// Makes pipes for a process: the ends that the helper gets (input, output, error) and ours.
pub fn pipes(stdin: bool) -> Result<(Vec<OwnedFd>, Ends)> {
    let mut ends = Ends::default();
    let input: OwnedFd = if stdin {
        let (read, write) = std::io::pipe().context("cannot make a pipe")?;
        ends.input = Some(write.into());
        read.into()
    } else {
        File::open("/dev/null")
            .context("cannot open /dev/null")?
            .into()
    };
    let (stdout_read, stdout_write) = std::io::pipe().context("cannot make a pipe")?;
    let (stderr_read, stderr_write) = std::io::pipe().context("cannot make a pipe")?;
    ends.stdout = Some(stdout_read.into());
    ends.stderr = Some(stderr_read.into());
    Ok((vec![input, stdout_write.into(), stderr_write.into()], ends))
}

impl Process {
    /// Takes the streams of a started process. With a terminal, its master is input and output.
    pub fn new(
        pid: i32,
        ends: Ends,
        terminal: Option<OwnedFd>,
        container: Option<ContainerPart>,
    ) -> Result<Self> {
        let is_terminal = terminal.is_some();
        let ends = match terminal {
            Some(master) => {
                let input = master.try_clone().context("cannot copy the terminal")?;
                Ends {
                    input: Some(input),
                    stdout: Some(master),
                    stderr: None,
                }
            }
            None => ends,
        };
        let mut outputs = vec![];
        for (stream, end) in [(Stream::Stdout, ends.stdout), (Stream::Stderr, ends.stderr)] {
            if let Some(end) = end {
                outputs.push((stream, nonblocking(end)?));
            }
        }
        Ok(Self {
            container,
            pid,
            viewers: BTreeSet::new(),
            ended: None,
            outputs,
            input: ends.input.map(nonblocking).transpose()?,
            input_pending: BytesMut::new(),
            input_ending: false,
            terminal: is_terminal,
        })
    }

    /// Reads once from the output at `index`, logs it and returns it. An end of file closes the output.
    pub fn read_output(&mut self, index: usize, now_ns: i64) -> Option<(Stream, Vec<u8>)> {
        let mut buffer = vec![0; 32 * 1024];
        let (stream, file) = self.outputs.get_mut(index)?;
        let stream = *stream;
        match file.read(&mut buffer) {
            Ok(length) if length > 0 => {
                buffer.truncate(length);
                if let Some(log) = self
                    .container
                    .as_mut()
                    .and_then(|container| container.log.as_mut())
                {
                    log.write(stream, &buffer, now_ns);
                }
                Some((stream, buffer))
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                None
            }
            // A terminal's master tells EIO when the last process has closed the other side.
            Ok(_) | Err(_) => {
                self.outputs.remove(index);
                None
            }
        }
    }

    /// Queues standard input.
    pub fn push_input(&mut self, data: &[u8]) {
        if self.input.is_some() && !self.input_ending {
            self.input_pending.extend_from_slice(data);
            self.flush_input();
        }
    }

    /// Closes standard input when all that is queued was read.
    pub fn end_input(&mut self) {
        // What the line discipline takes as the end of input.
        if self.terminal && self.input.is_some() {
            self.input_pending.extend_from_slice(&[4]);
        }
        self.input_ending = true;
        self.flush_input();
    }

    /// Writes what the process takes.
    pub fn flush_input(&mut self) {
        let Some(file) = self.input.as_mut() else {
            return;
        };
        while !self.input_pending.is_empty() {
            match file.write(&self.input_pending) {
                Ok(length) => self.input_pending.advance(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.input = None;
                    self.input_pending = BytesMut::new();
                    return;
                }
            }
        }
        if self.input_ending && !self.terminal {
            self.input = None;
        }
    }

    /// Its standard input ends with the viewer who says so.
    pub fn input_is_once(&self) -> bool {
        self.container.as_ref().is_none_or(|part| part.stdin_once)
    }

    /// There is input that the process has not taken.
    pub fn has_input(&self) -> bool {
        self.input.is_some() && !self.input_pending.is_empty()
    }

    /// More input should wait.
    pub fn input_is_full(&self) -> bool {
        self.input_pending.len() > INPUT_BYTES_FULL
    }

    /// Sets the terminal's size; nothing without a terminal.
    pub fn resize(&self, size: &TerminalSize) {
        let (true, Some(file)) = (self.terminal, &self.input) else {
            return;
        };
        resize_terminal(file.as_raw_fd(), size);
    }

    /// It ended, and its outputs are at their end or have been waited for long enough.
    pub fn is_done(&self, now: Instant) -> bool {
        self.ended
            .is_some_and(|ended| self.outputs.is_empty() || now >= ended.drain_until)
    }

    /// A container that was told as exited.
    pub fn is_settled(&self) -> bool {
        self.container
            .as_ref()
            .is_some_and(|part| part.record.state == rpc::shim::State::Exited as i32)
    }
}

/// Sets the size of the terminal behind a descriptor. One that is none stays as it is.
pub fn resize_terminal(descriptor: RawFd, size: &TerminalSize) {
    let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let size = nix::libc::winsize {
        ws_row: clamp(size.height),
        ws_col: clamp(size.width),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel only reads the structure, and refuses a descriptor that is closed.
    unsafe { nix::libc::ioctl(descriptor, nix::libc::TIOCSWINSZ, &size) };
}

fn nonblocking(descriptor: OwnedFd) -> Result<File> {
    let flags = fcntl(&descriptor, FcntlArg::F_GETFL).context("cannot read descriptor flags")?;
    let flags = OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK;
    fcntl(&descriptor, FcntlArg::F_SETFL(flags)).context("cannot set descriptor flags")?;
    Ok(File::from(descriptor))
}
