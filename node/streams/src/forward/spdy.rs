//! Port-forward over SPDY frames: a connection is a stream of type `data` and one of type `error` with the same request id.
//!
//! ```text
//! one of a pair opened -> both opened: carried -> over: both ends closed, forgotten
//!            \--------- reset: forgotten ---------/
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Connect, PIECES_MAX, Said, carry, parse_port};
use crate::drive::{Broken, HEARTBEAT, WRITE_STALL_MAX};
use crate::spdy::frame::{Frame, StreamId};
use crate::spdy::headers::Headers;
use crate::spdy::session::{Event, Session};

const READ_BYTES: usize = 64 * 1024;
/// Connections of one client at a time, whole ones and halves; further streams are refused.
const PAIRS_MAX: usize = 512;
/// What waits to be written to the client; then what makes it waits.
const QUEUE_MAX: usize = 64;
/// A client has this long to take what is left to tell it once it has gone.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// A connection: its data stream, and where its failure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    data: StreamId,
    error: StreamId,
}

/// What is to be written.
enum Outgoing {
    Said(Said<Pair>),
    Bytes(Bytes),
    Heartbeat,
}

/// Serves one client to its end.
pub(super) async fn serve<R, W>(from: R, to: W, connect: Connect) -> Result<(), Broken>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let (queue, outgoing) = mpsc::channel(QUEUE_MAX);
    let (said, heard) = mpsc::channel(QUEUE_MAX);
    let mut reader = Reader {
        from,
        session: Session::new(),
        pairs: Pairs::default(),
        carried: BTreeMap::new(),
        tasks: JoinSet::new(),
        queue,
        said,
        connect,
    };
    let mut writing = std::pin::pin!(write(to, outgoing));
    tokio::select! {
        broken = reader.run(heard) => {
            drop(reader);
            // What is queued already may be the reason why the client goes.
            let _ = timeout(FLUSH_MAX, &mut writing).await;
            match broken {
                Broken::Closed => Ok(()),
                broken => Err(broken),
            }
        }
        written = &mut writing => written,
    }
}

struct Reader<R> {
    from: R,
    session: Session,
    pairs: Pairs,
    /// By its data stream, where a connection's input goes; None once the client has sent all.
    carried: BTreeMap<StreamId, Carried>,
    tasks: JoinSet<()>,
    queue: mpsc::Sender<Outgoing>,
    said: mpsc::Sender<Said<Pair>>,
    connect: Connect,
}

struct Carried {
    pair: Pair,
    input: Option<mpsc::Sender<Bytes>>,
    task: tokio::task::AbortHandle,
}

impl<R: AsyncRead + Send + Unpin> Reader<R> {
    /// Reads until the client is gone, and passes on what connections say.
    async fn run(&mut self, mut heard: mpsc::Receiver<Said<Pair>>) -> Broken {
        loop {
            if let Err(broken) = self.handle_all(&mut heard).await {
                return broken;
            }
            let input = self.session.input();
            input.reserve(READ_BYTES);
            tokio::select! {
                count = self.from.read_buf(input) => match count {
                    Ok(0) => return Broken::Closed,
                    Ok(_) => {}
                    Err(error) => return error.into(),
                },
                Some(said) = heard.recv() => {
                    if let Err(broken) = self.pass_on(said).await {
                        return broken;
                    }
                }
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    async fn handle_all(&mut self, heard: &mut mpsc::Receiver<Said<Pair>>) -> Result<(), Broken> {
        while let Some(event) = self.session.next()? {
            match event {
                Event::Opened { id, headers } => self.open(id, &headers),
                Event::Data { id, bytes } => self.feed(id, bytes, heard).await?,
                Event::Finished { id } => {
                    if let Some(carried) = self.carried.get_mut(&id) {
                        carried.input = None;
                    }
                }
                Event::Reset { id } => self.reset(id).await?,
            }
        }
        match self.session.take_replies() {
            Some(bytes) => self.send(Outgoing::Bytes(bytes)).await,
            None => Ok(()),
        }
    }

    fn open(&mut self, id: StreamId, headers: &Headers) {
        if self.pairs.waiting() + self.carried.len() >= PAIRS_MAX {
            return self.session.refuse(id);
        }
        match self.pairs.assign(id, headers) {
            Assigned::Refused => self.session.refuse(id),
            Assigned::Waits => self.session.accept(id),
            Assigned::Complete(pair, port) => {
                self.session.accept(id);
                let (input, receiver) = mpsc::channel(PIECES_MAX);
                let task = carry(
                    pair,
                    port,
                    receiver,
                    self.said.clone(),
                    self.connect.clone(),
                );
                let carried = Carried {
                    pair,
                    input: Some(input),
                    task: self.tasks.spawn(task),
                };
                self.carried.insert(pair.data, carried);
            }
        }
    }

    /// Gives a connection its input. While it takes none, nothing of the client's is read, its pings neither; it hears from
    /// us meanwhile, and what other connections say passes on.
    async fn feed(
        &mut self,
        id: StreamId,
        bytes: Bytes,
        heard: &mut mpsc::Receiver<Said<Pair>>,
    ) -> Result<(), Broken> {
        let carried = self.carried.get(&id);
        let Some(input) = carried.and_then(|carried| carried.input.clone()) else {
            return Ok(()); // Its port has closed, or it is an error stream, on which clients say nothing.
        };
        let mut sending = std::pin::pin!(input.send(bytes));
        loop {
            tokio::select! {
                // A connection that has ended takes no more.
                _ = &mut sending => return Ok(()),
                Some(said) = heard.recv() => self.pass_on(said).await?,
                () = sleep(HEARTBEAT) => self.send(Outgoing::Heartbeat).await?,
            }
        }
    }

    async fn reset(&mut self, id: StreamId) -> Result<(), Broken> {
        self.pairs.forget(id);
        let of = |carried: &Carried| carried.pair.data == id || carried.pair.error == id;
        let Some(data) = self
            .carried
            .values()
            .find(|it| of(it))
            .map(|it| it.pair.data)
        else {
            return Ok(());
        };
        let carried = self.carried.get(&data).map(|it| (it.pair, it.task.clone()));
        if let Some((pair, task)) = carried {
            task.abort();
            // The client waits for the end of the other stream.
            self.pass_on(Said::Over(pair, None)).await?;
        }
        Ok(())
    }

    async fn pass_on(&mut self, said: Said<Pair>) -> Result<(), Broken> {
        if let Said::Over(pair, _) = &said {
            if self.carried.remove(&pair.data).is_none() {
                return Ok(()); // Told already, when the client reset it.
            }
            self.session.forget(pair.data);
            self.session.forget(pair.error);
        }
        self.send(Outgoing::Said(said)).await
    }

    /// By a unique reference: a shared one would need a reader that can be shared.
    async fn send(&mut self, outgoing: Outgoing) -> Result<(), Broken> {
        self.queue.send(outgoing).await.map_err(|_| Broken::Closed)
    }
}

/// Writes until nothing more can come, or the client takes nothing.
async fn write<W: AsyncWrite + Unpin>(
    mut to: W,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    let mut ping = 0_u32;
    while let Some(next) = outgoing.recv().await {
        match next {
            Outgoing::Said(said) => encode(said, &mut buffer),
            Outgoing::Bytes(bytes) => buffer.extend_from_slice(&bytes),
            Outgoing::Heartbeat => {
                ping = ping.wrapping_add(2);
                Frame::Ping(ping).encode(&mut buffer);
            }
        }
        let writing = async {
            to.write_all_buf(&mut buffer).await?;
            to.flush().await
        };
        timeout(WRITE_STALL_MAX, writing)
            .await
            .map_err(|_| Broken::Stalled)??;
    }
    Ok(())
}

fn encode(said: Said<Pair>, out: &mut BytesMut) {
    let frame = |id, fin, bytes| Frame::Data { id, fin, bytes };
    match said {
        Said::Data(pair, bytes) => frame(pair.data, false, bytes).encode(out),
        Said::DataEnd(pair) => frame(pair.data, true, Bytes::new()).encode(out),
        Said::Over(pair, None) => frame(pair.error, true, Bytes::new()).encode(out),
        Said::Over(pair, Some(why)) => {
            frame(pair.error, true, why.into()).encode(out);
            frame(pair.data, true, Bytes::new()).encode(out);
        }
    }
}

/// What becomes of a new stream.
#[derive(Debug, PartialEq, Eq)]
enum Assigned {
    Refused,
    Waits,
    Complete(Pair, u16),
}

/// Streams whose other half has not come, by request id.
#[derive(Debug, Default)]
struct Pairs(BTreeMap<String, Half>);

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    data: Option<StreamId>,
    error: Option<StreamId>,
}

impl Pairs {
    fn waiting(&self) -> usize {
        self.0.len()
    }

    fn assign(&mut self, id: StreamId, headers: &Headers) -> Assigned {
        let port = headers.get("port").and_then(parse_port);
        let (Some(port), Some(request)) = (port, headers.get("requestid")) else {
            return Assigned::Refused;
        };
        let half = self.0.entry(request.to_owned()).or_default();
        let place = match headers.get("streamtype") {
            Some("data") => &mut half.data,
            Some("error") => &mut half.error,
            _ => return self.refuse(request),
        };
        if place.replace(id).is_some() {
            return self.refuse(request);
        }
        let Half {
            data: Some(data),
            error: Some(error),
        } = *half
        else {
            return Assigned::Waits;
        };
        self.0.remove(request);
        Assigned::Complete(Pair { data, error }, port)
    }

    fn refuse(&mut self, request: &str) -> Assigned {
        self.0.remove(request);
        Assigned::Refused
    }

    fn forget(&mut self, id: StreamId) {
        self.0
            .retain(|_, half| half.data != Some(id) && half.error != Some(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str, port: &str, request: &str) -> Headers {
        let pairs = [("streamtype", kind), ("port", port), ("requestid", request)];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Headers::new(pairs.into_iter().map(owned).collect())
    }

    #[test]
    fn a_pair_is_joined_by_its_request() {
        let mut pairs = Pairs::default();
        let id = StreamId::new;
        assert_eq!(
            pairs.assign(id(1), &headers("error", "80", "0")),
            Assigned::Waits
        );
        assert_eq!(
            pairs.assign(id(3), &headers("error", "81", "1")),
            Assigned::Waits
        );
        let pair = Pair {
            data: id(5),
            error: id(1),
        };
        assert_eq!(
            pairs.assign(id(5), &headers("data", "80", "0")),
            Assigned::Complete(pair, 80)
        );
        assert_eq!(pairs.waiting(), 1);
        pairs.forget(id(3));
        assert_eq!(pairs.waiting(), 0);
    }

    #[test]
    fn what_names_no_port_or_comes_twice_is_refused() {
        let mut pairs = Pairs::default();
        let id = StreamId::new;
        assert_eq!(
            pairs.assign(id(1), &headers("data", "http", "0")),
            Assigned::Refused
        );
        assert_eq!(
            pairs.assign(id(3), &headers("stdin", "80", "0")),
            Assigned::Refused
        );
        assert_eq!(
            pairs.assign(id(5), &headers("data", "80", "0")),
            Assigned::Waits
        );
        assert_eq!(
            pairs.assign(id(7), &headers("data", "80", "0")),
            Assigned::Refused
        );
        assert_eq!(pairs.waiting(), 0);
    }
}
