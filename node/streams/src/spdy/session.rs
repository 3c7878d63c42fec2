//! One SPDY/3.1 connection as the server sees it: bytes in, events and the replies to send out. Pure.
//!
//! Knows streams by number and headers only; what a stream is for, its user decides by [`Session::accept`] or
//! [`Session::refuse`]. There are no flow control windows: spdystream, which kubectl speaks SPDY by, neither sends nor
//! honours WINDOW_UPDATE, so the back-pressure is that of the TCP connection.
//!
//! ```text
//! SYN_STREAM -> opened --accept--> open --FIN--> finished
//!                  \--refuse--> unknown <--RST_STREAM--/
//! ```

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::frame::{Decoder, Frame, FrameError, ResetStatus, StreamId};
use super::headers::{Deflater, HeaderError, Headers, Inflater};

/// What a client did to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It opened the stream: accept or refuse it.
    Opened { id: StreamId, headers: Headers },
    /// It sent bytes on an accepted stream.
    Data { id: StreamId, bytes: Bytes },
    /// It will send no more on the stream, which it half-closed.
    Finished { id: StreamId },
    /// It wants nothing more of the stream, in neither direction.
    Reset { id: StreamId },
}

/// Bytes after which the connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Header(#[from] HeaderError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Finished,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    input: BytesMut,
    decoder: Decoder,
    inflater: Inflater,
    deflater: Deflater,
    streams: BTreeMap<StreamId, State>,
    /// The newest stream that the client opened.
    last: Option<StreamId>,
    events: VecDeque<Event>,
    replies: BytesMut,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self {
            input: BytesMut::new(),
            decoder: Decoder::default(),
            inflater: Inflater::new(),
            deflater: Deflater::new(),
            streams: BTreeMap::new(),
            last: None,
            events: VecDeque::new(),
            replies: BytesMut::new(),
        }
    }

    /// Where bytes from the client are to be appended.
    pub(crate) fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// The next event; None when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, SessionError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.decoder.decode(&mut self.input)? {
                Some(frame) => self.handle(frame)?,
                None => return Ok(None),
            }
        }
    }

    /// What is to be sent to the client; None when nothing is.
    pub(crate) fn take_replies(&mut self) -> Option<Bytes> {
        (!self.replies.is_empty()).then(|| self.replies.split().freeze())
    }

    /// Answers an opened stream: its data will be given out.
    pub(crate) fn accept(&mut self, id: StreamId) {
        let block = self.deflater.write(&Headers::default());
        let reply = Frame::SynReply {
            id,
            fin: false,
            block,
        };
        reply.encode(&mut self.replies);
    }

    /// Turns an opened stream down.
    pub(crate) fn refuse(&mut self, id: StreamId) {
        self.streams.remove(&id);
        self.events.retain(|event| !event.is_of(id));
        self.reset(id, ResetStatus::REFUSED_STREAM);
    }

    /// Drops what is known of a stream that is over on both sides.
    pub(crate) fn forget(&mut self, id: StreamId) {
        self.streams.remove(&id);
    }

    fn reset(&mut self, id: StreamId, status: ResetStatus) {
        Frame::Reset { id, status }.encode(&mut self.replies);
    }

    fn handle(&mut self, frame: Frame) -> Result<(), SessionError> {
        match frame {
            Frame::SynStream { id, fin, block, .. } => {
                let headers = self.inflater.read(&block)?;
                self.open(id, fin, headers);
            }
            Frame::SynReply { block, .. } => drop(self.inflater.read(&block)?),
            Frame::Headers { id, fin, block } => {
                self.inflater.read(&block)?;
                self.data(id, fin, Bytes::new());
            }
            Frame::Data { id, fin, bytes } => self.data(id, fin, bytes),
            Frame::Reset { id, .. } => {
                if self.streams.remove(&id).is_some() {
                    self.events.push_back(Event::Reset { id });
                }
            }
            // Odd pings are the client's and come back; even ones are answers to ours.
            Frame::Ping(id) if id % 2 == 1 => Frame::Ping(id).encode(&mut self.replies),
            // A client that goes away closes the connection by itself.
            Frame::GoAway { .. } | Frame::Ping(_) => {}
            Frame::Settings(_) | Frame::WindowUpdate { .. } | Frame::Unknown(_) => {}
        }
        Ok(())
    }

    fn open(&mut self, id: StreamId, fin: bool, headers: Headers) {
        if !id.is_of_client() || Some(id) <= self.last {
            self.reset(id, ResetStatus::PROTOCOL_ERROR);
            return;
        }
        self.last = Some(id);
        self.streams.insert(id, State::Open);
        self.events.push_back(Event::Opened { id, headers });
        if fin {
            self.finish(id);
        }
    }

    fn data(&mut self, id: StreamId, fin: bool, bytes: Bytes) {
        match self.streams.get(&id) {
            Some(State::Open) => {
                if !bytes.is_empty() {
                    self.events.push_back(Event::Data { id, bytes });
                }
                if fin {
                    self.finish(id);
                }
            }
            Some(State::Finished) => {}
            None => self.reset(id, ResetStatus::INVALID_STREAM),
        }
    }

    fn finish(&mut self, id: StreamId) {
        self.streams.insert(id, State::Finished);
        self.events.push_back(Event::Finished { id });
    }
}

impl Event {
    fn is_of(&self, stream: StreamId) -> bool {
        match self {
            Event::Opened { id, .. }
            | Event::Data { id, .. }
            | Event::Finished { id }
            | Event::Reset { id } => *id == stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: StreamId = StreamId::new(1);

    fn syn(id: u32, fin: bool, deflater: &mut Deflater) -> Frame {
        Frame::SynStream {
            id: StreamId::new(id),
            associated: StreamId::new(0),
            priority: 0,
            fin,
            unidirectional: false,
            block: deflater.write(&Headers::default()),
        }
    }

    fn data(id: u32, fin: bool, bytes: &'static [u8]) -> Frame {
        Frame::Data {
            id: StreamId::new(id),
            fin,
            bytes: Bytes::from_static(bytes),
        }
    }

    /// Feeds frames, accepting every stream, and returns the events and the frames that answer.
    fn run(session: &mut Session, frames: &[Frame]) -> (Vec<Event>, Vec<Frame>) {
        for frame in frames {
            frame.encode(session.input());
        }
        let mut events = Vec::new();
        while let Some(event) = session.next().expect("frames are right") {
            if let Event::Opened { id, .. } = event {
                session.accept(id);
            }
            events.push(event);
        }
        let mut bytes = BytesMut::from(&session.take_replies().unwrap_or_default()[..]);
        let mut decoder = Decoder::default();
        let mut replies = Vec::new();
        while let Some(frame) = decoder.decode(&mut bytes).expect("own frames") {
            replies.push(frame);
        }
        (events, replies)
    }

    #[test]
    fn a_stream_opens_carries_data_and_ends() {
        let mut client = Deflater::new();
        let frames = [
            syn(1, false, &mut client),
            data(1, false, b"a"),
            data(1, true, b"b"),
            data(1, false, b"late"),
        ];
        let (events, replies) = run(&mut Session::new(), &frames);
        let opened = Event::Opened {
            id: ONE,
            headers: Headers::default(),
        };
        let bytes = |bytes: &'static [u8]| Event::Data {
            id: ONE,
            bytes: Bytes::from_static(bytes),
        };
        let finished = Event::Finished { id: ONE };
        assert_eq!(events, [opened, bytes(b"a"), bytes(b"b"), finished]);
        assert!(matches!(replies[..], [Frame::SynReply { fin: false, .. }]));
    }

    #[test]
    fn pings_of_the_client_come_back_and_answers_do_not() {
        let (_, replies) = run(&mut Session::new(), &[Frame::Ping(7), Frame::Ping(2)]);
        assert_eq!(replies, [Frame::Ping(7)]);
    }

    #[test]
    fn unknown_streams_and_numbers_out_of_order_are_reset() {
        let mut client = Deflater::new();
        let mut session = Session::new();
        let (_, replies) = run(&mut session, &[data(9, false, b"x")]);
        let status = ResetStatus::INVALID_STREAM;
        let id = StreamId::new(9);
        assert_eq!(replies, [Frame::Reset { id, status }]);
        run(&mut session, &[syn(5, false, &mut client)]);
        for number in [5, 3, 8] {
            let (events, replies) = run(&mut session, &[syn(number, false, &mut client)]);
            assert_eq!(events, []);
            let (id, status) = (StreamId::new(number), ResetStatus::PROTOCOL_ERROR);
            assert_eq!(replies, [Frame::Reset { id, status }]);
        }
    }

    #[test]
    fn a_refused_stream_gives_no_more_events() {
        let mut client = Deflater::new();
        let mut session = Session::new();
        syn(1, true, &mut client).encode(session.input());
        assert!(matches!(session.next(), Ok(Some(Event::Opened { .. }))));
        session.refuse(ONE);
        assert_eq!(session.next(), Ok(None));
    }

    #[test]
    fn a_reset_ends_a_stream() {
        let mut client = Deflater::new();
        let (id, status) = (ONE, ResetStatus(5));
        let frames = [syn(1, false, &mut client), Frame::Reset { id, status }];
        let (events, _) = run(&mut Session::new(), &frames);
        assert_eq!(events[1..], [Event::Reset { id: ONE }]);
    }

    proptest! {
        #[test]
        fn random_frames_never_panic(
            frames in prop::collection::vec((0u8..5, 0u32..8, any::<bool>()), 0..40),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut client = Deflater::new();
            let mut session = Session::new();
            for (kind, id, fin) in frames {
                let frame = match kind {
                    0 => syn(id, fin, &mut client),
                    1 => data(id, fin, b"x"),
                    2 => Frame::Reset { id: StreamId::new(id), status: ResetStatus(1) },
                    3 => Frame::Ping(id),
                    _ => Frame::GoAway { last: StreamId::new(id), status: 0 },
                };
                frame.encode(session.input());
            }
            session.input().extend_from_slice(&rest);
            while let Ok(Some(event)) = session.next() {
                match event {
                    Event::Opened { id, .. } if id > StreamId::new(4) => session.refuse(id),
                    Event::Opened { id, .. } => session.accept(id),
                    _ => {}
                }
            }
        }
    }
}
