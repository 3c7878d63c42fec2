//! Which stream of a connection is which stream of a command, by the header `streamtype`. Pure.
//! The kubelet's rule: the client opens one stream for each that it asked for in the request, and one for the error.

use bytes::Bytes;

use super::frame::StreamId;
use super::headers::Headers;
use super::session::Event;
use crate::command::{Channel, Size, Wants};
use crate::drive::Incoming;

/// A size is some thirty bytes; what is longer is none.
const SIZE_BYTES_MAX: usize = 256;

/// The streams of a command, as far as the client has opened them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) error: Option<StreamId>,
    pub(crate) stdin: Option<StreamId>,
    pub(crate) stdout: Option<StreamId>,
    pub(crate) stderr: Option<StreamId>,
    pub(crate) resize: Option<StreamId>,
}

impl Streams {
    /// Where output goes; None for a stream that the client did not ask for.
    pub(crate) fn output(&self, channel: Channel) -> Option<StreamId> {
        match channel {
            Channel::Stdout => self.stdout,
            Channel::Stderr => self.stderr,
        }
    }

    /// All but the error's.
    pub(crate) fn of_process(&self) -> impl Iterator<Item = StreamId> + use<> {
        [self.stdin, self.stdout, self.stderr, self.resize]
            .into_iter()
            .flatten()
    }
}

/// Gives streams their roles and events their meaning.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    wants: Wants,
    streams: Streams,
    /// The beginning of a terminal size whose end has not come.
    size: Vec<u8>,
}

impl Roles {
    pub(crate) fn new(wants: Wants) -> Self {
        Self {
            wants,
            ..Self::default()
        }
    }

    /// Gives a new stream its role; false for one that was not asked for, or twice.
    pub(crate) fn assign(&mut self, id: StreamId, headers: &Headers) -> bool {
        let Wants {
            stdin,
            stdout,
            stderr,
            tty,
        } = self.wants;
        let (wanted, role) = match headers.get("streamtype") {
            Some("error") => (true, &mut self.streams.error),
            Some("stdin") => (stdin, &mut self.streams.stdin),
            Some("stdout") => (stdout, &mut self.streams.stdout),
            Some("stderr") => (stderr && !tty, &mut self.streams.stderr),
            Some("resize") => (tty, &mut self.streams.resize),
            _ => return false,
        };
        if !wanted || role.is_some() {
            return false;
        }
        *role = Some(id);
        true
    }

    /// Every stream of the command, once the client has opened them all.
    pub(crate) fn complete(&self) -> Option<Streams> {
        let Wants {
            stdin,
            stdout,
            stderr,
            tty,
        } = self.wants;
        let streams = &self.streams;
        let complete = streams.error.is_some()
            && streams.stdin.is_some() == stdin
            && streams.stdout.is_some() == stdout
            && streams.stderr.is_some() == (stderr && !tty)
            && streams.resize.is_some() == tty;
        complete.then_some(self.streams)
    }

    /// What an event means for the command.
    pub(crate) fn interpret(&mut self, event: Event) -> Option<Incoming> {
        match event {
            Event::Data { id, bytes } if Some(id) == self.streams.stdin => {
                Some(Incoming::Stdin(bytes))
            }
            Event::Data { id, bytes } if Some(id) == self.streams.resize => {
                self.newest_size(&bytes).map(Incoming::Resize)
            }
            Event::Finished { id } | Event::Reset { id } if Some(id) == self.streams.stdin => {
                Some(Incoming::StdinEnd)
            }
            _ => None,
        }
    }

    /// The stream is JSON objects one after another, which frames may cut anywhere; the last whole one counts.
    fn newest_size(&mut self, bytes: &Bytes) -> Option<Size> {
        self.size.extend_from_slice(bytes);
        let mut sizes = serde_json::Deserializer::from_slice(&self.size).into_iter::<Size>();
        let mut newest = None;
        let broken = loop {
            match sizes.next() {
                Some(Ok(size)) => newest = Some(size),
                Some(Err(error)) => break !error.is_eof(),
                None => break false,
            }
        };
        let used = sizes.byte_offset();
        self.size.drain(..used);
        if broken || self.size.len() > SIZE_BYTES_MAX {
            self.size.clear();
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(pieces: &[&'static str]) -> Vec<Option<(u16, u16)>> {
        let mut roles = Roles::new(Wants::default());
        pieces
            .iter()
            .map(|piece| roles.newest_size(&Bytes::from_static(piece.as_bytes())))
            .map(|size| size.map(|size| (size.width, size.height)))
            .collect()
    }

    #[test]
    fn sizes_are_read_from_frames_cut_anywhere() {
        assert_eq!(
            sizes(&[
                "{\"Width\":80,\"Height\":24}\n",
                "{\"Width\":81,\"Hei",
                "ght\":25}\n{\"Width\":82,\"Height\":26}\n",
            ]),
            [Some((80, 24)), None, Some((82, 26))]
        );
    }

    #[test]
    fn what_is_no_size_is_passed_over() {
        assert_eq!(
            sizes(&["nonsense", "{\"Width\":1,\"Height\":2}"]),
            [None, Some((1, 2))]
        );
        assert_eq!(sizes(&["{\"Width\":-1,\"Height\":2}"]), [None]);
    }
}
