//! A remote command as its owner sees it: bytes in, bytes out, terminal sizes, and one end.
//! The same whatever protocol carries it; never knows which one does.

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::drive::Feeds;
use crate::outcome::Outcome;

/// Standard input and output are cut into pieces of at most this size.
pub(crate) const PIECE_BYTES_MAX: usize = 32 * 1024;
/// So many pieces of input, and as many of output, wait; then the side that makes them waits.
const PIECES_MAX: usize = 16;

/// The streams that a command's request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The client sends standard input.
    pub stdin: bool,
    /// The client wants standard output.
    pub stdout: bool,
    /// The client wants standard error; with a terminal there is none.
    pub stderr: bool,
    /// The command gets a terminal, whose size the client sends.
    pub tty: bool,
}

/// A terminal's size in characters, as clients send it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Size {
    /// Columns.
    #[serde(rename = "Width", alias = "width")]
    pub width: u16,
    /// Rows.
    #[serde(rename = "Height", alias = "height")]
    pub height: u16,
}

/// The client has gone: nothing more reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has closed the connection")]
pub struct Gone;

/// A client that waits for a command's output, and perhaps gives it input.
///
/// Take the streams out of their fields, move bytes until the process ends, then call [`RemoteCommand::finish`].
/// Dropped without it, the client is told that the command's end is unknown.
#[derive(Debug)]
pub struct RemoteCommand {
    /// What the client types; the end is the end of standard input, or the client's going. Dropping it discards the rest.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    /// To the client's standard output.
    pub stdout: Option<Output>,
    /// To the client's standard error; None with a terminal.
    pub stderr: Option<Output>,
    /// Sizes of the client's terminal; None without one.
    pub resize: Option<Resizes>,
    queue: mpsc::Sender<Outgoing>,
    closed: CancellationToken,
}

impl RemoteCommand {
    /// Waits until the client has gone (or, after [`RemoteCommand::finish`], has been served): a command that only this
    /// client can see should then be ended.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.closed.clone().cancelled_owned()
    }

    /// Tells the client how the command ended, after all output that was sent before, and closes the connection.
    /// Returns once the client's side has taken everything, however slowly it reads.
    pub async fn finish(self, outcome: Outcome) -> Result<(), Gone> {
        let Self { queue, .. } = self;
        let (delivered, wait) = oneshot::channel();
        let end = Outgoing::End { outcome, delivered };
        queue.send(end).await.map_err(|_| Gone)?;
        drop(queue);
        wait.await.map_err(|_| Gone)
    }
}

/// A way to the client's standard output or standard error. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Output {
    channel: Channel,
    queue: mpsc::Sender<Outgoing>,
}

impl Output {
    /// Sends bytes in pieces; waits while the client does not read.
    pub async fn send(&self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
            let data = Outgoing::Data(self.channel, piece);
            self.queue.send(data).await.map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// Sizes of the client's terminal. Only the newest counts: those that nobody waited for are passed over.
#[derive(Debug)]
pub struct Resizes(watch::Receiver<Size>);

impl Resizes {
    /// Waits for the next size; None when no more will come.
    pub async fn next(&mut self) -> Option<Size> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }
}

/// Where output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
}

/// What the owner of a command gives to the connection.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Data(Channel, Bytes),
    End {
        outcome: Outcome,
        delivered: oneshot::Sender<()>,
    },
}

/// The connection's ends of a command's streams.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) feeds: Feeds,
    pub(crate) queue: mpsc::Receiver<Outgoing>,
    pub(crate) closed: CancellationToken,
}

/// A command and the connection's ends of it.
pub(crate) fn pair(wants: Wants) -> (RemoteCommand, Ends) {
    let (queue, outgoing) = mpsc::channel(PIECES_MAX);
    let (stdin, input) = wants.stdin.then(|| mpsc::channel(PIECES_MAX)).unzip();
    let (resize, sizes) = wants.tty.then(|| watch::channel(Size::default())).unzip();
    let closed = CancellationToken::new();
    let output = |channel| Output {
        channel,
        queue: queue.clone(),
    };
    let command = RemoteCommand {
        stdin: input,
        stdout: wants.stdout.then(|| output(Channel::Stdout)),
        stderr: (wants.stderr && !wants.tty).then(|| output(Channel::Stderr)),
        resize: sizes.map(Resizes),
        closed: closed.clone(),
        queue,
    };
    let ends = Ends {
        feeds: Feeds { stdin, resize },
        queue: outgoing,
        closed,
    };
    (command, ends)
}
