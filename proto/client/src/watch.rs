//! One watch: JSON lines into events.

use crate::{Client, Deadline, Error, Payload};
use bytes::{Buf, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use objects::Status;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

const LINE_BYTES_MAX: usize = 16 << 20;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WatchKind {
    /// It came into being, or into the selection.
    Added,
    /// It changed.
    Modified,
    /// It went, or left the selection; the object is its last state.
    Deleted,
    /// Nothing; only the resource version is new.
    Bookmark,
    /// The watch failed; the object is a Status.
    Error,
}

/// An event of a watch.
#[derive(Clone, Debug, Deserialize)]
pub struct WatchEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: WatchKind,
    /// The object.
    pub object: Value,
}

/// Events until the server ends the watch or the connection breaks.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, Error>>;

impl Client {
    /// Watches; `path` carries the query, `watch=true` included. A failure told in the stream comes as [`Error::Api`].
    pub async fn watch(&self, path: &str) -> Result<WatchStream, Error> {
        self.watch_accepting(path, "application/json").await
    }

    /// Watches another representation: each event's object is a Table, say.
    pub async fn watch_accepting(
        &self,
        path: &str,
        accept: &'static str,
    ) -> Result<WatchStream, Error> {
        let deadline = Deadline(Duration::from_secs(10));
        let body = self
            .open_accepting(Method::GET, path, Payload::Empty, accept, deadline)
            .await?;
        let state = Some(Lines {
            body,
            buffer: BytesMut::new(),
            searched: 0,
            path: path.to_owned(),
        });
        let events = stream::unfold(state, |state| async move {
            let mut lines = state?;
            match lines.next().await {
                Ok(Some(event)) => Some((Ok(event), Some(lines))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(events.boxed())
    }
}

struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// So many bytes at the buffer's beginning end no line.
    searched: usize,
    path: String,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<WatchEvent>, Error> {
        loop {
            let unread = &self.buffer[self.searched..];
            if let Some(at) = unread.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                return self.decode(&line).map(Some);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(self.unreadable(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.interrupted(crate::http::chain(&error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn decode(&self, line: &[u8]) -> Result<WatchEvent, Error> {
        let event: WatchEvent =
            serde_json::from_slice(line).map_err(|error| self.unreadable(error.to_string()))?;
        if event.kind == WatchKind::Error {
            let status: Status = serde_json::from_value(event.object)
                .map_err(|error| self.unreadable(error.to_string()))?;
            return Err(status.into());
        }
        Ok(event)
    }

    fn unreadable(&self, reason: String) -> Error {
        Error::Unreadable {
            server: "the server".to_owned(),
            what: format!("watch {}", self.path),
            reason,
        }
    }

    fn interrupted(&self, reason: String) -> Error {
        let what = format!("watch {}", self.path);
        Error::Interrupted {
            server: "the server".to_owned(),
            what,
            reason,
            write: false,
        }
    }
}
