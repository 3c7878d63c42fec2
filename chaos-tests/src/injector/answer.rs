//! The harness' side: one thread takes launchers, one thread a started member answers its questions until it is over.

use super::launch::{SYNCS, WRITES};
use super::{Calls, Effect};
use anyhow::{Context, Result, bail};
use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags, ScmpSyscall};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Mutex, Weak};
use std::time::{Duration, Instant};

/// How soon threads notice that the injector is no more.
const STOP_POLL: Duration = Duration::from_millis(200);

/// What is in force, and what it did.
#[derive(Default)]
pub struct State {
    pub effect: Option<(Calls, Effect)>,
    pub touched: u64,
    pub asked: u64,
}

/// What the threads know.
#[derive(Clone)]
pub struct Answers {
    /// Gone with the injector, which ends the threads.
    pub state: Weak<Mutex<State>>,
    /// Only files below are touched.
    pub disk: PathBuf,
}

impl Answers {
    /// Takes launchers until the injector is no more.
    pub fn serve(self, listener: &UnixListener) {
        while self.state.strong_count() > 0 {
            if !is_readable(listener, STOP_POLL) {
                continue;
            }
            let Ok((launcher, _)) = listener.accept() else {
                return;
            };
            let answers = self.clone();
            let thread = std::thread::Builder::new()
                .name("calls".to_owned())
                .spawn(move || {
                    if let Err(error) = answers.member(launcher) {
                        eprintln!("warning: a member's calls are not answered: {error:#}");
                    }
                });
            if let Err(error) = thread {
                eprintln!("warning: a member's calls are not answered: {error}");
            }
        }
    }

    fn member(&self, mut launcher: UnixStream) -> Result<()> {
        let questions = receive(&launcher)?;
        launcher
            .write_all(b"a")
            .context("the launcher is no more")?;
        drop(launcher);
        self.answer(&questions);
        Ok(())
    }

    /// Answers until the member is over. A question that is delayed waits in `late`, while others are answered.
    fn answer(&self, questions: &OwnedFd) {
        let mut late: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
        while self.state.strong_count() > 0 {
            let now = Instant::now();
            while late.peek().is_some_and(|Reverse((due, _))| *due <= now) {
                if let Some(Reverse((_, id))) = late.pop() {
                    go_on(questions, id);
                }
            }
            let next = late.peek().map(|Reverse((due, _))| *due - now);
            let wait = next.map_or(STOP_POLL, |next| next.min(STOP_POLL));
            let mut polled = [PollFd::new(questions.as_fd(), PollFlags::POLLIN)];
            let timeout =
                PollTimeout::try_from(wait.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
            if !matches!(poll(&mut polled, timeout), Ok(1..)) {
                continue;
            }
            let events = polled[0].revents().unwrap_or(PollFlags::empty());
            if events.contains(PollFlags::POLLHUP) {
                return;
            }
            // A caller that was killed meanwhile takes its question with it.
            let Ok(question) = ScmpNotifReq::receive(questions.as_raw_fd()) else {
                continue;
            };
            match self.effect(&question) {
                None => go_on(questions, question.id),
                Some(Effect::Delay(delay)) => {
                    late.push(Reverse((Instant::now() + delay, question.id)));
                }
                Some(Effect::Fail(errno)) => {
                    let flags = ScmpNotifRespFlags::empty();
                    let answer = ScmpNotifResp::new_error(question.id, -(errno as i32), flags);
                    let _ = answer.respond(questions.as_raw_fd());
                }
            }
        }
    }

    fn effect(&self, question: &ScmpNotifReq) -> Option<Effect> {
        let state = self.state.upgrade()?;
        let mut state = state.lock().expect("no thread panics with the state");
        state.asked += 1;
        let (calls, effect) = state.effect?;
        if calls_of(question.data.syscall) != Some(calls) {
            return None;
        }
        let link = format!("/proc/{}/fd/{}", question.pid, question.data.args[0]);
        let is_on_disk = std::fs::read_link(link).is_ok_and(|path| path.starts_with(&self.disk));
        if !is_on_disk {
            return None;
        }
        state.touched += 1;
        Some(effect)
    }
}

fn calls_of(call: ScmpSyscall) -> Option<Calls> {
    let name = call.get_name().ok()?;
    if SYNCS.contains(&name.as_str()) {
        Some(Calls::Sync)
    } else if WRITES.contains(&name.as_str()) {
        Some(Calls::Write)
    } else {
        None
    }
}

fn go_on(questions: &OwnedFd, id: u64) {
    let answer = ScmpNotifResp::new_continue(id, ScmpNotifRespFlags::empty());
    let _ = answer.respond(questions.as_raw_fd());
}

fn is_readable(file: &impl AsFd, wait: Duration) -> bool {
    let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(wait.as_millis()).unwrap_or(PollTimeout::MAX);
    matches!(poll(&mut polled, timeout), Ok(1..))
}

/// The descriptor that a launcher sends.
fn receive(launcher: &UnixStream) -> Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    recvmsg(launcher, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        .context("the launcher sent nothing")?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(descriptor) = descriptors.next()
        {
            return Ok(descriptor);
        }
    }
    bail!("the launcher sent no descriptor")
}
