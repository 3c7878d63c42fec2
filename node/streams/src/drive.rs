//! The loop of one connection: what the client sends goes to the command, what the command makes goes to the client.
//! Reading and writing wait for each other only through the command itself, so a client that writes all its input before
//! it reads is served too. Never knows the protocol: that is behind [`Receive`] and [`Transmit`].
//!
//! ```text
//! running --End written--> draining --client closes, or DRAIN_MAX--> closed
//!    \------ client closes, protocol broken, write stalled -----------/
//! ```

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::command::{Channel, Ends, Outgoing, PIECE_BYTES_MAX, Size};
use crate::outcome::Outcome;

/// While a command does not read its input, nothing of the client's is read, its pings neither; it hears from us this
/// often instead. kubectl gives up after 15 s of silence.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(3);
/// A client that takes nothing at all for so long is taken for gone: the kubelet's default for idle streams.
pub(crate) const WRITE_STALL_MAX: Duration = Duration::from_secs(4 * 3600);
/// A client has this long to close after it was told the end. Closing first would lose what it has not read yet.
const DRAIN_MAX: Duration = Duration::from_secs(600);
/// To say goodbye on the connection itself, which TLS does.
const CLOSE_MAX: Duration = Duration::from_secs(1);
const CONTROLS_MAX: usize = 16;

/// Why a connection ended before its command did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the client has closed the connection")]
    Closed,
    #[error("the client has read nothing for {} s", WRITE_STALL_MAX.as_secs())]
    Stalled,
    #[error("the client broke the protocol: {0}")]
    Protocol(String),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Stdin(Bytes),
    StdinEnd,
    Resize(Size),
    /// Bytes that the protocol wants sent back as they are.
    Reply(Bytes),
}

/// The protocol's reading half. Its future may be dropped only at the end of the connection.
pub(crate) trait Receive: Send {
    /// The next thing that the client sent.
    fn receive(&mut self) -> impl Future<Output = Result<Incoming, Broken>> + Send;
}

/// The protocol's writing half.
pub(crate) trait Transmit<R>: Send {
    fn data(
        &mut self,
        channel: Channel,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), Broken>> + Send;
    fn reply(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), Broken>> + Send;
    fn heartbeat(&mut self) -> impl Future<Output = Result<(), Broken>> + Send;
    /// Sends the Status and says that nothing follows.
    fn end(&mut self, status: Bytes) -> impl Future<Output = Result<(), Broken>> + Send;
    /// Closes the connection.
    fn close(self, reader: R) -> impl Future<Output = Result<(), Broken>> + Send;
}

/// What the reading side asks of the writing side.
pub(crate) enum Control {
    Reply(Bytes),
    Heartbeat,
}

/// The streams that a client feeds.
#[derive(Debug)]
pub(crate) struct Feeds {
    pub(crate) stdin: Option<mpsc::Sender<Bytes>>,
    pub(crate) resize: Option<watch::Sender<Size>>,
}

/// Serves one connection to its end. Dropping what it holds tells the command's owner.
pub(crate) async fn drive<R: Receive, T: Transmit<R>>(mut reader: R, mut writer: T, ends: Ends) {
    let Ends {
        feeds,
        queue,
        closed,
    } = ends;
    let closed = closed.drop_guard();
    converse(&mut reader, &mut writer, feeds, queue).await;
    drop(closed);
    // A client that is gone already cannot be told.
    let _ = timeout(CLOSE_MAX, writer.close(reader)).await;
}

/// Moves bytes both ways until the end was told and the client has closed, or the client is gone.
async fn converse<R: Receive, T: Transmit<R>>(
    reader: &mut R,
    writer: &mut T,
    feeds: Feeds,
    mut queue: mpsc::Receiver<Outgoing>,
) {
    let (control, mut controls) = mpsc::channel(CONTROLS_MAX);
    let mut reading = std::pin::pin!(read(reader, feeds, control));
    let written = tokio::select! {
        broken = &mut reading => Err(broken),
        written = write(writer, &mut queue, &mut controls) => written,
    };
    match written {
        Ok(delivered) => {
            drop(queue);
            if let Some(delivered) = delivered {
                // An owner that does not wait for it need not know.
                let _ = delivered.send(());
            }
            let drain = async {
                tokio::select! {
                    _ = &mut reading => {}
                    () = answer(writer, &mut controls) => {}
                }
            };
            if timeout(DRAIN_MAX, drain).await.is_err() {
                debug!("the client did not close the connection after the command's end");
            }
        }
        Err(broken) => debug!(reason = %broken, "the client left before the command's end"),
    }
}

/// Reads until the client is gone.
async fn read(
    reader: &mut impl Receive,
    mut feeds: Feeds,
    control: mpsc::Sender<Control>,
) -> Broken {
    loop {
        let incoming = match reader.receive().await {
            Ok(incoming) => incoming,
            Err(broken) => return broken,
        };
        match incoming {
            Incoming::Reply(bytes) => {
                if control.send(Control::Reply(bytes)).await.is_err() {
                    return Broken::Closed;
                }
            }
            other => feeds.feed(other, &control).await,
        }
    }
}

impl Feeds {
    /// Hands over what came. Input without a reader is dropped, so that the client's going is still seen.
    pub(crate) async fn feed(&mut self, incoming: Incoming, control: &mpsc::Sender<Control>) {
        match incoming {
            Incoming::Stdin(bytes) => self.feed_stdin(bytes, control).await,
            Incoming::StdinEnd => self.stdin = None,
            Incoming::Resize(size) => {
                if let Some(resize) = &self.resize {
                    resize.send_replace(size);
                }
            }
            Incoming::Reply(_) => {}
        }
    }

    async fn feed_stdin(&mut self, mut bytes: Bytes, control: &mpsc::Sender<Control>) {
        while let (Some(stdin), false) = (&self.stdin, bytes.is_empty()) {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
            if !send_patiently(stdin, piece, control).await {
                self.stdin = None;
            }
        }
    }
}

/// Waits until the command has room for a piece of input; false when it reads no more.
async fn send_patiently(
    stdin: &mpsc::Sender<Bytes>,
    piece: Bytes,
    control: &mpsc::Sender<Control>,
) -> bool {
    let mut sending = std::pin::pin!(stdin.send(piece));
    loop {
        tokio::select! {
            sent = &mut sending => return sent.is_ok(),
            // A full queue means that the client is being written to anyway.
            () = sleep(HEARTBEAT) => drop(control.try_send(Control::Heartbeat)),
        }
    }
}

/// Writes until the command's end is told.
async fn write<R>(
    writer: &mut impl Transmit<R>,
    queue: &mut mpsc::Receiver<Outgoing>,
    controls: &mut mpsc::Receiver<Control>,
) -> Result<Option<oneshot::Sender<()>>, Broken> {
    loop {
        tokio::select! {
            biased;
            Some(control) = controls.recv() => in_time(obey(writer, control)).await?,
            outgoing = queue.recv() => match outgoing {
                Some(Outgoing::Data(channel, bytes)) => in_time(writer.data(channel, bytes)).await?,
                Some(Outgoing::End { outcome, delivered }) => {
                    in_time(writer.end(outcome.status())).await?;
                    return Ok(Some(delivered));
                }
                None => {
                    let unknown = Outcome::Failed("the node gave up the command; how it ended is unknown".into());
                    in_time(writer.end(unknown.status())).await?;
                    return Ok(None);
                }
            },
        }
    }
}

/// Goes on answering pings while the client takes its time to close.
async fn answer<R>(writer: &mut impl Transmit<R>, controls: &mut mpsc::Receiver<Control>) {
    while let Some(control) = controls.recv().await {
        if let Control::Reply(_) = control
            && obey(writer, control).await.is_err()
        {
            return;
        }
    }
}

async fn obey<R>(writer: &mut impl Transmit<R>, control: Control) -> Result<(), Broken> {
    match control {
        Control::Reply(bytes) => writer.reply(bytes).await,
        Control::Heartbeat => writer.heartbeat().await,
    }
}

async fn in_time(writing: impl Future<Output = Result<(), Broken>>) -> Result<(), Broken> {
    timeout(WRITE_STALL_MAX, writing)
        .await
        .unwrap_or(Err(Broken::Stalled))
}
