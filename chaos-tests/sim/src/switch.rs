//! The network between simulated members: carries the same HTTP requests that the real one does, each on its own time, or not.
//!
//! Single calls may be late, lost, repeated and overtake each other. A stream of appends keeps its order, as a connection does;
//! where the network is cut it waits, and breaks after a while. Appends that were on a stream may come again later, alone.

use crate::judge::{Event, Judge};
use bytes::{Buf, Bytes};
use futures::channel::mpsc;
use futures::{SinkExt, future};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message as _;
use raft_store::types::{LogId, MemberId, log_id};
use raft_store::{Answers, Pipe, Purpose, Transport, TransportError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rpc::raft as proto;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt;

/// A stream that was cut breaks after so long, as the real one's keep-alive does it.
const BREAKS_AFTER: Duration = Duration::from_secs(3);
/// Frames that may wait in one direction of a stream.
const FRAMES: usize = 64;
/// An append comes again within so long.
const AGAIN_WITHIN: std::ops::Range<u64> = 1..3_000;

/// What a message says, as far as Raft cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Entries, or none, of a leader.
    Append {
        /// The leader's term.
        term: u64,
        /// Who it is.
        leader: MemberId,
        /// The entry before those in it.
        previous: Option<LogId>,
        /// Up to where it says that entries are committed.
        commit: Option<LogId>,
        /// How many entries it carries.
        entries: usize,
    },
    /// A vote was granted.
    Granted {
        /// In this term
        term: u64,
        /// to this member.
        candidate: MemberId,
    },
    /// Anything else.
    Other(String),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Append {
                term,
                previous,
                commit,
                entries,
                ..
            } => {
                let index = |log_id: &Option<LogId>| log_id.map_or(0, |log_id| log_id.index);
                let (previous, commit) = (index(previous), index(commit));
                write!(
                    f,
                    "append t{term} {entries} after {previous} committed {commit}"
                )
            }
            Message::Granted { term, candidate } => write!(f, "vote t{term} for m{candidate}"),
            Message::Other(what) => f.write_str(what),
        }
    }
}

/// How the network is.
#[derive(Clone, Debug, PartialEq)]
pub struct Weather {
    /// Directions in which nothing passes.
    pub cut: BTreeSet<(MemberId, MemberId)>,
    /// How long a message takes, in microseconds.
    pub delay: std::ops::Range<u64>,
    /// How likely a single call or its answer is lost.
    pub loss: f64,
    /// How likely one comes twice.
    pub twice: f64,
}

impl Default for Weather {
    fn default() -> Self {
        Weather {
            cut: BTreeSet::new(),
            delay: 100..3_000,
            loss: 0.0,
            twice: 0.0,
        }
    }
}

/// The network.
#[derive(Clone)]
pub struct Switch {
    state: Arc<Mutex<State>>,
    weather: watch::Sender<Weather>,
    judge: Judge,
}

struct State {
    rng: StdRng,
    /// Who is there, each with the number of its life.
    members: BTreeMap<MemberId, (u64, Answers)>,
    lives: u64,
}

impl Switch {
    /// A network without members.
    pub fn new(seed: u64, judge: Judge) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            members: BTreeMap::new(),
            lives: 0,
        };
        Switch {
            state: Arc::new(Mutex::new(state)),
            weather: watch::Sender::new(Weather::default()),
            judge,
        }
    }

    /// Changes how the network is.
    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// The network as a new life of a member sees it.
    pub fn place(&self, member: MemberId) -> Place {
        let mut state = self.state();
        state.lives += 1;
        Place {
            switch: self.clone(),
            member,
            life: state.lives,
        }
    }

    /// The member answers from now on.
    pub fn attach(&self, place: &Place, answers: Answers) {
        let mut state = self.state();
        state.members.insert(place.member, (place.life, answers));
    }

    /// The member is gone, and nothing that it sent or was sent arrives any more.
    pub fn detach(&self, member: MemberId) {
        self.state().members.remove(&member);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn chance(&self, likely: f64) -> bool {
        likely > 0.0 && self.state().rng.random_bool(likely)
    }

    fn random(&self, range: std::ops::Range<u64>) -> u64 {
        self.state().rng.random_range(range)
    }

    fn delay(&self) -> Duration {
        let range = self.weather.borrow().delay.clone();
        Duration::from_micros(self.random(range))
    }

    fn is_cut(&self, from: MemberId, to: MemberId) -> bool {
        self.weather.borrow().cut.contains(&(from, to))
    }

    fn lives(&self, member: MemberId, life: u64) -> bool {
        let state = self.state();
        state
            .members
            .get(&member)
            .is_some_and(|(now, _)| *now == life)
    }

    fn find(&self, member: MemberId) -> Option<(u64, Answers)> {
        self.state().members.get(&member).cloned()
    }
}

/// The network as one life of a member sees it.
#[derive(Clone)]
pub struct Place {
    switch: Switch,
    member: MemberId,
    life: u64,
}

impl Transport for Place {
    fn connect(&self, to: MemberId, _: Purpose) -> Pipe {
        let place = self.clone();
        Pipe::new(tower::service_fn(move |request| {
            let place = place.clone();
            async move { place.call(to, request).await }
        }))
    }
}

impl Place {
    async fn call(
        &self,
        to: MemberId,
        request: Request<Body>,
    ) -> Result<Response<Body>, TransportError> {
        let method = method_of(&request);
        match method.as_str() {
            "Append" | "Snapshot" => self.stream(to, method, request).await,
            _ => self.single(to, method, request).await,
        }
    }

    /// A call whose request and answer are one message each.
    async fn single(
        &self,
        to: MemberId,
        method: String,
        request: Request<Body>,
    ) -> Result<Response<Body>, TransportError> {
        let (parts, body) = request.into_parts();
        let call = Whole::read(body).await?;
        self.tell(self.member, to, &method, &call, true);
        let Weather { loss, twice, .. } = self.switch.weather.borrow().clone();
        if self.switch.is_cut(self.member, to) || self.switch.chance(loss) {
            return future::pending().await;
        }
        // What changes something may not come twice: the connection below sees to that.
        let may_come_twice = matches!(
            method.as_str(),
            "Heartbeat" | "Vote" | "PreVote" | "ReadIndex"
        );
        if may_come_twice && self.switch.chance(twice) {
            self.again(to, &parts, &call);
        }
        sleep(self.switch.delay()).await;
        let (life, answers) = self.switch.find(to).ok_or_else(refused)?;
        let request = Request::from_parts(parts, call.body());
        // What arrived is worked on whether or not its sender still waits.
        let answering = tokio::spawn(async move {
            let Ok(response) = answers.oneshot(request).await;
            let (parts, body) = response.into_parts();
            Whole::read(body).await.map(|whole| (parts, whole))
        });
        let (parts, answer) = answering.await??;
        self.tell(to, self.member, &method, &answer, false);
        if self.switch.is_cut(to, self.member) || self.switch.chance(loss) {
            return future::pending().await;
        }
        sleep(self.switch.delay()).await;
        match self.switch.lives(to, life) && self.switch.lives(self.member, self.life) {
            true => Ok(Response::from_parts(parts, answer.body())),
            false => future::pending().await,
        }
    }

    /// The same call comes once more, later.
    fn again(&self, to: MemberId, parts: &http::request::Parts, call: &Whole) {
        let mut request = Request::new(call.body());
        *request.uri_mut() = parts.uri.clone();
        *request.method_mut() = parts.method.clone();
        *request.headers_mut() = parts.headers.clone();
        let later = Duration::from_millis(self.switch.random(AGAIN_WITHIN));
        let switch = self.switch.clone();
        tokio::spawn(async move {
            sleep(later).await;
            if let Some((_, answers)) = switch.find(to) {
                // Nobody waits for the second answer.
                let _ = answers.oneshot(request).await;
            }
        });
    }

    async fn stream(
        &self,
        to: MemberId,
        method: String,
        request: Request<Body>,
    ) -> Result<Response<Body>, TransportError> {
        sleep(self.switch.delay()).await;
        if !self.passes(self.member, to).await {
            return Err("the connection broke".into());
        }
        let (life, answers) = self.switch.find(to).ok_or_else(refused)?;
        let link = Link {
            place: self.clone(),
            to,
            life,
            method,
        };
        let (parts, body) = request.into_parts();
        let template = (parts.uri.clone(), parts.headers.clone());
        let request = Request::from_parts(parts, link.carry(body, Some(template)));
        let Ok(response) = answers.oneshot(request).await;
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(parts, link.carry(body, None)))
    }

    /// Waits until the direction is open; false when that takes too long.
    async fn passes(&self, from: MemberId, to: MemberId) -> bool {
        let mut weather = self.switch.weather.subscribe();
        let open = weather.wait_for(|weather| !weather.cut.contains(&(from, to)));
        matches!(timeout(BREAKS_AFTER, open).await, Ok(Ok(_)))
    }

    fn tell(&self, from: MemberId, to: MemberId, method: &str, whole: &Whole, is_call: bool) {
        if !self.switch.lives(self.member, self.life) {
            return;
        }
        for message in messages(method, &whole.data, is_call) {
            self.switch.judge.see(&Event::Sent {
                from,
                to,
                message: &message,
            });
        }
    }
}

/// A stream between two lives.
#[derive(Clone)]
struct Link {
    place: Place,
    to: MemberId,
    life: u64,
    method: String,
}

type Template = (http::Uri, http::HeaderMap);

impl Link {
    /// Carries one direction of a stream: the calls, when there is a template for repeating them, or the answers.
    fn carry(&self, mut body: Body, calls: Option<Template>) -> Body {
        let (mut sender, frames) = mpsc::channel(FRAMES);
        let link = self.clone();
        tokio::spawn(async move {
            let mut last = Instant::now();
            while let Some(frame) = body.frame().await {
                let frame = link.pass(frame, calls.as_ref(), &mut last).await;
                let goes_on = frame.is_ok();
                if sender.send(frame).await.is_err() || !goes_on {
                    return;
                }
            }
        });
        Body::new(StreamBody::new(frames))
    }

    async fn pass(
        &self,
        frame: Result<Frame<Bytes>, Status>,
        calls: Option<&Template>,
        last: &mut Instant,
    ) -> Result<Frame<Bytes>, Status> {
        let frame = frame?;
        let (place, switch) = (&self.place, &self.place.switch);
        let (from, to) = match calls {
            Some(_) => (place.member, self.to),
            None => (self.to, place.member),
        };
        if let Some(data) = frame.data_ref() {
            let whole = Whole::of(data.clone());
            place.tell(from, to, &self.method, &whole, calls.is_some());
            if let Some(template) = calls
                && self.method == "Append"
                && switch.chance(switch.weather.borrow().twice)
            {
                self.again(template, &whole);
            }
        }
        // A frame never overtakes the one before it.
        *last = (*last).max(Instant::now() + switch.delay());
        sleep_until(*last).await;
        let is_whole = place.passes(from, to).await
            && switch.lives(self.to, self.life)
            && switch.lives(place.member, place.life);
        match is_whole {
            true => Ok(frame),
            false => Err(Status::unavailable("the connection broke")),
        }
    }

    /// The first append of a frame comes once more, later and alone.
    fn again(&self, (uri, headers): &Template, whole: &Whole) {
        let Some(first) = frames_of(&whole.data).into_iter().next() else {
            return;
        };
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri
            .to_string()
            .replace("/Append", "/Heartbeat")
            .parse()
            .expect("another method's path");
        *request.headers_mut() = headers.clone();
        let (parts, ()) = request.into_parts();
        self.place
            .again(self.to, &parts, &Whole::of(framed(&first)));
    }
}

fn refused() -> TransportError {
    Box::new(tonic::ConnectError("nobody listens there".into()))
}

fn method_of(request: &Request<Body>) -> String {
    let path = request.uri().path();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// A body that is one message.
#[derive(Clone, Default)]
struct Whole {
    data: Bytes,
    trailers: Option<http::HeaderMap>,
}

impl Whole {
    fn of(data: Bytes) -> Self {
        Whole {
            data,
            trailers: None,
        }
    }

    async fn read(body: Body) -> Result<Self, TransportError> {
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        Ok(Whole {
            data: collected.to_bytes(),
            trailers,
        })
    }

    fn body(&self) -> Body {
        let data = (!self.data.is_empty()).then(|| Frame::data(self.data.clone()));
        let trailers = self.trailers.clone().map(Frame::trailers);
        let frames: Vec<Result<Frame<Bytes>, Status>> =
            data.into_iter().chain(trailers).map(Ok).collect();
        Body::new(StreamBody::new(futures::stream::iter(frames)))
    }
}

/// The messages in gRPC's framing: a byte, four bytes of length, the message.
fn frames_of(data: &Bytes) -> Vec<Bytes> {
    let mut rest = data.clone();
    let mut messages = Vec::new();
    while rest.len() >= 5 {
        rest.advance(1);
        let length = rest.get_u32() as usize;
        if rest.len() < length {
            break;
        }
        messages.push(rest.split_to(length));
    }
    messages
}

fn framed(message: &Bytes) -> Bytes {
    let length = u32::try_from(message.len()).expect("a message is small");
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

fn messages(method: &str, data: &Bytes, is_call: bool) -> Vec<Message> {
    let read = |message: Bytes| read(method, message, is_call);
    frames_of(data).into_iter().map(read).collect()
}

fn read(method: &str, message: Bytes, is_call: bool) -> Message {
    match (method, is_call) {
        ("Append" | "Heartbeat", true) => read_append(message),
        ("Vote", false) => read_vote(message),
        _ => Message::Other(match is_call {
            true => format!("{method} ?"),
            false => format!("{method} !"),
        }),
    }
}

fn read_append(message: Bytes) -> Message {
    let Ok(append) = proto::AppendRequest::decode(message) else {
        return Message::Other("an append that cannot be read".to_owned());
    };
    let vote = append.vote.unwrap_or_default();
    let log_id = |of: proto::LogId| log_id(of.term, of.index);
    Message::Append {
        term: vote.term,
        leader: vote.voted_for,
        previous: append.previous.map(log_id),
        commit: append.leader_commit.map(log_id),
        entries: append.records.len(),
    }
}

fn read_vote(message: Bytes) -> Message {
    match proto::VoteResponse::decode(message) {
        Ok(proto::VoteResponse {
            vote: Some(vote),
            granted: true,
            ..
        }) => Message::Granted {
            term: vote.term,
            candidate: vote.voted_for,
        },
        _ => Message::Other("Vote no".to_owned()),
    }
}
