//! Whether the other end of a connection keeps up: a client that takes nothing of its answer, or asks nothing, is cut off.
//!
//! ```text
//! request begins ──> its answer is handed over piece by piece ──> all of it was taken
//!                    └ a piece is not taken for long, or the whole takes too long: cut
//! no request for long: closed
//! ```
//!
//! A piece counts as taken when the next one is asked for. Streams have no end, so that only their pieces count. Whoever sends
//! slowly is the concern of the request's deadline and of HTTP/1.1's own for headers.

use crate::answer::{Body, BodyError};
use crate::flow::Turn;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Answers are handed over in pieces of so many bytes: what is taken within [`Limits::piece`].
const PIECE_BYTES: usize = 64 * 1024;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For its first request.
    pub first_request: Duration,
    /// For its next request.
    pub next_request: Duration,
    /// For a piece of an answer.
    pub piece: Duration,
    /// For an answer that is no stream.
    pub answer: Duration,
}

/// What one connection's client is doing; cheap to clone.
#[derive(Clone)]
pub struct Pace(Arc<Mutex<State>>);

struct State {
    begun: Instant,
    requests: u64,
    in_flight: BTreeMap<u64, Answering>,
    idle_since: Instant,
}

#[derive(Default)]
struct Answering {
    /// Since when a piece waits to be taken.
    handed: Option<Instant>,
    /// When the first piece of an answer with an end was handed over.
    began: Option<Instant>,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// It asks nothing.
    Idle,
    /// It does not take its answer.
    Stalled,
}

impl Pace {
    /// A connection begins.
    pub fn begin() -> Self {
        let now = Instant::now();
        Pace(Arc::new(Mutex::new(State {
            begun: now,
            requests: 0,
            in_flight: BTreeMap::new(),
            idle_since: now,
        })))
    }

    /// A request came; it is in flight until what is returned is dropped.
    pub fn request(&self) -> InFlight {
        let mut state = self.lock();
        state.requests += 1;
        let id = state.requests;
        state.in_flight.insert(id, Answering::default());
        InFlight {
            pace: self.clone(),
            id,
        }
    }

    /// Whether the client keeps up.
    pub fn verdict(&self, limits: &Limits, now: Instant) -> Verdict {
        let state = self.lock();
        let passed = |since: Instant| now.saturating_duration_since(since);
        let is_over = |since: Option<Instant>, limit: Duration| {
            since.is_some_and(|since| passed(since) > limit)
        };
        let is_stalled = state.in_flight.values().any(|answering| {
            is_over(answering.handed, limits.piece) || is_over(answering.began, limits.answer)
        });
        let is_idle = state.in_flight.is_empty()
            && match state.requests {
                0 => passed(state.begun) > limits.first_request,
                _ => passed(state.idle_since) > limits.next_request,
            };
        match (is_stalled, is_idle) {
            (true, _) => Verdict::Stalled,
            (false, true) => Verdict::Idle,
            (false, false) => Verdict::Fine,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is not yet answered to its end.
pub struct InFlight {
    pace: Pace,
    id: u64,
}

impl InFlight {
    fn note(&self, change: impl FnOnce(&mut Answering)) {
        if let Some(answering) = self.pace.lock().in_flight.get_mut(&self.id) {
            change(answering);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.pace.lock();
        state.in_flight.remove(&self.id);
        state.idle_since = Instant::now();
    }
}

/// A body that is handed over in pieces, and tells when each was taken. It holds the request's turn until its end.
pub struct Paced {
    body: Body,
    rest: Bytes,
    has_end: bool,
    in_flight: InFlight,
    _turn: Option<Turn>,
}

impl Paced {
    /// Of an answer; `has_end` tells one that is no stream.
    pub fn new(body: Body, has_end: bool, in_flight: InFlight, turn: Option<Turn>) -> Self {
        Paced {
            body,
            rest: Bytes::new(),
            has_end,
            in_flight,
            _turn: turn,
        }
    }

    fn hand_over(&mut self) -> Bytes {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        let (now, has_end) = (Instant::now(), self.has_end);
        self.in_flight.note(|answering| {
            answering.handed = Some(now);
            if has_end {
                answering.began.get_or_insert(now);
            }
        });
        piece
    }
}

impl hyper::body::Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.rest.is_empty() {
            self.in_flight.note(|answering| answering.handed = None);
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.hand_over();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(inner.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::full;
    use http_body_util::BodyExt;

    const LIMITS: Limits = Limits {
        first_request: Duration::from_secs(10),
        next_request: Duration::from_secs(100),
        piece: Duration::from_secs(30),
        answer: Duration::from_secs(60),
    };

    /// What is judged after so many seconds in which nothing happens.
    fn after(pace: &Pace, seconds: u64) -> Verdict {
        pace.verdict(&LIMITS, Instant::now() + Duration::from_secs(seconds))
    }

    #[test]
    fn who_asks_nothing_is_idle() {
        let pace = Pace::begin();
        assert_eq!(
            (after(&pace, 9), after(&pace, 11)),
            (Verdict::Fine, Verdict::Idle)
        );
        let request = pace.request();
        assert_eq!(after(&pace, 1000), Verdict::Fine);
        drop(request);
        assert_eq!(
            (after(&pace, 99), after(&pace, 101)),
            (Verdict::Fine, Verdict::Idle)
        );
    }

    #[tokio::test]
    async fn who_takes_nothing_is_stalled_and_who_takes_slowly_too() {
        let pace = Pace::begin();
        let body = full(vec![b'x'; 3 * PIECE_BYTES + 1]);
        let mut body = Paced::new(body, true, pace.request(), None);
        let hint = hyper::body::Body::size_hint(&body);
        assert_eq!(hint.exact(), Some(3 * PIECE_BYTES as u64 + 1));
        assert_eq!(after(&pace, 1000), Verdict::Fine);
        for size in [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 1] {
            let frame = body.frame().await.expect("a piece").expect("is good");
            assert_eq!(frame.into_data().expect("data").len(), size);
            let verdicts = (after(&pace, 29), after(&pace, 31));
            assert_eq!(verdicts, (Verdict::Fine, Verdict::Stalled));
        }
        assert!(body.frame().await.is_none());
        // Every piece is taken, and yet the whole takes too long.
        let verdicts = (after(&pace, 59), after(&pace, 61));
        assert_eq!(verdicts, (Verdict::Fine, Verdict::Stalled));
        drop(body);
        assert_eq!(after(&pace, 61), Verdict::Fine);
        let mut stream = Paced::new(full("x"), false, pace.request(), None);
        stream.frame().await.expect("a piece").expect("is good");
        assert_eq!(after(&pace, 31), Verdict::Stalled);
        assert!(stream.frame().await.is_none());
        assert_eq!(after(&pace, 1000), Verdict::Fine);
    }
}
