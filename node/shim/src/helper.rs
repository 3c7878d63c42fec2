//! Starts the short-lived helpers that call libcontainer, and takes their results.
//! A helper gets one socket as its standard input: the task and the container's standard streams go in, the process id and
//! a terminal's master come out. The container becomes the shim's child (`as_sibling`), so that the shim can wait for it.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
};
use prost::Message;
use rpc::shim::{HelperResult, HelperTask};

/// A helper takes milliseconds; one that is stuck (a frozen cgroup, a dead disk) is killed.
const HELPER_TIME_MAX: Duration = Duration::from_secs(60);
/// Tasks and results are short: an id, some paths, an error.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// What a helper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Creates and starts a container.
    Create,
    /// Starts a process in a container.
    Exec,
}

/// A running helper.
pub struct Helper {
    child: Child,
    socket: OwnedFd,
    /// When it is killed.
    pub deadline: Instant,
}

/// What a helper achieved.
pub struct Started {
    /// Process id on the host.
    pub pid: i32,
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
}

impl Helper {
    /// Starts `role` on `task`, handing over `streams` (standard input, output and error, or none for a terminal).
    pub fn start(role: Role, task: &HelperTask, streams: &[OwnedFd]) -> Result<Self> {
        let (ours, theirs) = socket::socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .context("cannot make a socket pair")?;
        send(&ours, &task.encode_to_vec(), streams).context("cannot send the task")?;
        let name = match role {
            Role::Create => "oci-create",
            Role::Exec => "oci-exec",
        };
        // The file behind /proc/self/exe is the one that this shim began with, even after an upgrade.
        let child = Command::new("/proc/self/exe")
            .arg(name)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the helper")?;
        Ok(Self {
            child,
            socket: ours,
            deadline: Instant::now() + HELPER_TIME_MAX,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("the kernel's process ids fit in i32")
    }

    /// Kills a helper that is past its deadline.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// The result of a helper that has exited and was reaped.
    pub fn result(&self) -> Result<Started, String> {
        let (bytes, mut descriptors) = receive(&self.socket, MsgFlags::MSG_DONTWAIT)
            .map_err(|error| format!("the helper died without a result: {error:#}"))?;
        let result = HelperResult::decode(bytes.as_slice())
            .map_err(|error| format!("the helper's result is damaged: {error}"))?;
        if result.error.is_empty() {
            Ok(Started {
                pid: result.pid,
                terminal: descriptors.pop(),
            })
        } else {
            Err(result.error)
        }
    }
}

/// Sends one message with descriptors.
pub fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<()> {
    let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    socket::sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Receives one message with at most three descriptors. An end of file is an error.
pub fn receive(socket: &impl AsFd, flags: MsgFlags) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = nix::cmsg_space!([i32; 3]);
    let (length, descriptors) = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = socket::recvmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &mut slices,
            Some(&mut space),
            flags | MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let mut descriptors = vec![];
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel has just made these descriptors for us and nobody else knows them.
                descriptors.extend(
                    received
                        .into_iter()
                        .map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }),
                );
            }
        }
        (message.bytes, descriptors)
    };
    if length == 0 && descriptors.is_empty() {
        return Err(Errno::ECONNRESET.into());
    }
    bytes.truncate(length);
    Ok((bytes, descriptors))
}
