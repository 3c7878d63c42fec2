//! Watches: writers change a few keys in small transactions; watchers, each with what it wants, tell what comes. Watches are
//! opened now and in the past, asked for progress, closed at any time, and taken up again at any member.
//!
//! Now and then all writers are silent, for so long that every watch is told how far it is; what comes next is a change of a key
//! that is not changed otherwise. A promise that reaches further than it may is broken by that.

use super::ask::{after_prefix, number as parsed};
use super::client::Client;
use super::process::{Process, Shared};
use super::{Kind, number, together};
use crate::history::{Change, Event, Notice, Outcome, Request, Wanted, WatchPart};
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::mvccpb;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Writers at least; more where the rate asks for it.
const WRITERS_MIN: u64 = 4;
const WRITERS_MAX: u64 = 32;
const WRITES_PER_WRITER: f64 = 100.0;
const WATCHERS: u64 = 9;
const KEYS: u32 = 6;
const CHANGES_MAX: usize = 3;
/// Of the watchers, those of everything that are closed only when their connection breaks.
const LASTING: u64 = 3;
/// One more that lasts, and watches nothing but the key that changes only after a silence.
const PATIENT: u64 = LASTING;
/// The writers' silence: when it begins in each round, and how long it is. Ours tell progress every 5 seconds.
const ROUND: Duration = Duration::from_secs(30);
const SILENCE_BEGINS: Duration = Duration::from_secs(8);
const SILENCE: Duration = Duration::from_millis(5600);
/// The change after the silence comes before all others by this much.
const HEAD_START: Duration = Duration::from_millis(400);
/// How far in the past a watch begins, at most.
const AGO_MAX: u64 = 200;
const ASK_PROGRESS_EVERY: Duration = Duration::from_millis(700);
/// A watch is made within this.
const CREATE_DEADLINE: Duration = Duration::from_secs(2);
/// When the run is over every watch reaches its end within this.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(15);

/// What watchers know of each other: the last revision, once all writers are over.
struct Common {
    /// 0 while there are writers.
    last: AtomicU64,
    next_watch: AtomicU64,
    /// The revision before the first change.
    begun: u64,
}

pub(super) async fn run(shared: Arc<Shared>, per_second: f64) -> Vec<String> {
    let mut last = Process::new(&shared, number(Kind::Watch, 2, 0), per_second);
    let Some(begun) = revision_now(&mut last).await else {
        return vec!["no watch began: no member answered".to_owned()];
    };
    let common = Arc::new(Common {
        last: AtomicU64::new(0),
        next_watch: AtomicU64::new(0),
        begun,
    });
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|watcher| {
            let watcher = Watcher::new(&shared, &common, watcher);
            tokio::spawn(watcher.run())
        })
        .collect();
    let writers = ((per_second / WRITES_PER_WRITER) as u64).clamp(WRITERS_MIN, WRITERS_MAX);
    let began = Instant::now();
    let breaker = Process::new(&shared, number(Kind::Watch, 2, 1), per_second);
    let breaker = tokio::spawn(break_silence(breaker, began));
    together(writers, |process| {
        let process = number(Kind::Watch, 0, process);
        let process = Process::new(&shared, process, per_second / writers as f64);
        write(process, began)
    })
    .await;
    breaker.await.expect("a process does not panic");
    let end = || Request::Change {
        changes: (0..KEYS)
            .map(name)
            .chain([rare()])
            .map(|key| put(&shared, key))
            .collect(),
    };
    let word = last.insist(end, super::LAST_WORD_DEADLINE).await;
    let mut problems = Vec::new();
    match word {
        Some(Outcome::Ok(reply)) => {
            let revision = reply.revision.unwrap_or(u64::MAX);
            common.last.store(revision, Ordering::Relaxed);
        }
        _ => {
            common.last.store(u64::MAX, Ordering::Relaxed);
            problems.push("the last change of the watched keys".to_owned());
        }
    }
    for watcher in watchers {
        watcher.await.expect("a watcher does not panic");
    }
    problems
}

/// Some member's newest revision; None where the load ends before any answers.
async fn revision_now(process: &mut Process) -> Option<u64> {
    for at in 0.. {
        let read = Request::Read {
            key: "watched".to_owned(),
            serializable: false,
        };
        if let Outcome::Ok(reply) = process.prepare(at, &read).await {
            return reply.revision;
        }
        if !process.rest(Duration::from_millis(200)).await {
            return None;
        }
    }
    None
}

fn name(key: u32) -> String {
    format!("watched/{key}")
}

/// The key that changes only after a silence.
fn rare() -> String {
    "watched/rare".to_owned()
}

fn put(shared: &Shared, key: String) -> Change {
    Change {
        key,
        value: Some(shared.number()),
    }
}

/// How long the silence still is; None outside of one.
fn silence(since: Duration) -> Option<Duration> {
    let in_round = since.as_secs_f64() % ROUND.as_secs_f64();
    let into = in_round - SILENCE_BEGINS.as_secs_f64();
    let left = SILENCE.as_secs_f64() - into;
    (into >= 0.0 && left > 0.0).then(|| Duration::from_secs_f64(left))
}

/// Changes the key that is left alone otherwise, as the first after each silence.
async fn break_silence(mut process: Process, began: Instant) {
    loop {
        let pause = silence(began.elapsed());
        if !process.rest(pause.unwrap_or(HEAD_START)).await {
            return;
        }
        if pause.is_some() {
            let changes = vec![put(&process.shared, rare())];
            process.ask(Request::Change { changes }).await;
        }
    }
}

async fn write(mut process: Process, began: Instant) {
    while process.is_due().await {
        if let Some(pause) = silence(began.elapsed())
            && !process.rest(pause + HEAD_START).await
        {
            return;
        }
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..process.rng.random_range(1..=CHANGES_MAX) {
            let key = name(process.rng.random_range(0..KEYS));
            if changes.iter().all(|change| change.key != key) {
                changes.push(match process.rng.random_bool(0.8) {
                    true => put(&process.shared, key),
                    false => Change { key, value: None },
                });
            }
        }
        process.ask(Request::Change { changes }).await;
    }
}

/// One watch after another.
struct Watcher {
    shared: Arc<Shared>,
    common: Arc<Common>,
    rng: StdRng,
    is_lasting: bool,
    is_patient: bool,
    at: usize,
}

/// How a watch went on.
enum End {
    /// It is to be taken up again from this revision on.
    Resume(u64),
    /// What it would have told is compacted.
    Compacted,
    /// It told everything, or was given up after waiting for that.
    Over,
}

impl Watcher {
    fn new(shared: &Arc<Shared>, common: &Arc<Common>, watcher: u64) -> Self {
        Watcher {
            shared: shared.clone(),
            common: common.clone(),
            rng: StdRng::seed_from_u64(shared.seed ^ number(Kind::Watch, 1, watcher)),
            is_lasting: watcher <= PATIENT,
            is_patient: watcher == PATIENT,
            at: watcher as usize,
        }
    }

    async fn run(mut self) {
        let mut wanted = self.wanted();
        loop {
            let id = self.common.next_watch.fetch_add(1, Ordering::Relaxed);
            let end = self.watch(id, &wanted).await;
            match end {
                End::Over => return,
                End::Compacted => wanted = self.wanted(),
                End::Resume(from) => {
                    self.at += 1;
                    let is_anew = !self.is_lasting && self.rng.random_bool(0.4);
                    if is_anew && self.common.last.load(Ordering::Relaxed) == 0 {
                        wanted = self.wanted();
                    } else {
                        wanted.from = from;
                        wanted.resumes = Some(id);
                    }
                    // A member that is down refuses at once; asking it without a pause would be a storm.
                    let pause = self.rng.random_range(20..300);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    /// What this watcher wants of a watch of its own choice.
    fn wanted(&mut self) -> Wanted {
        let newest = self.shared.newest();
        let mut wanted = Wanted {
            from: 0,
            key: None,
            prev: self.rng.random(),
            no_put: false,
            no_delete: false,
            resumes: None,
        };
        wanted.key = self.is_patient.then(rare);
        if self.is_lasting {
            wanted.from = self.common.begun + 1;
            if newest > self.common.begun + AGO_MAX {
                wanted.from = newest - AGO_MAX;
            }
            return wanted;
        }
        match self.rng.random_range(0..6) {
            0 => wanted.key = Some(name(self.rng.random_range(0..KEYS))),
            1 => wanted.no_put = true,
            2 => wanted.no_delete = true,
            _ => {}
        }
        if self.rng.random_bool(0.7) {
            let ago = self.rng.random_range(0..AGO_MAX);
            wanted.from = newest.saturating_sub(ago).max(self.common.begun + 1);
        }
        wanted
    }

    fn record(&self, watch: u64, part: WatchPart) {
        self.shared.recorder.add(Event::Watch { watch, part });
    }

    async fn watch(&mut self, id: u64, wanted: &Wanted) -> End {
        let endpoint = self.shared.endpoint(self.at);
        self.record(
            id,
            WatchPart::Asked {
                server: endpoint.name.clone(),
                wanted: wanted.clone(),
            },
        );
        let mut open = Open {
            id,
            from: wanted.from,
            closes_at: (!self.is_lasting)
                .then(|| Instant::now() + Duration::from_millis(self.rng.random_range(500..6000))),
            gives_up_at: None,
            asks_progress: wanted.key.is_none(),
        };
        let prefix = self.shared.prefix.clone();
        let opened = async {
            let mut client =
                Client::new(&endpoint, &prefix).map_err(|error| format!("{error:#}"))?;
            let (sender, receiver) = mpsc::channel(4);
            let create = create_request(&prefix, wanted);
            sender
                .try_send(create)
                .map_err(|error| format!("{error}"))?;
            let answers = client.watch.watch(ReceiverStream::new(receiver)).await;
            let answers = answers.map_err(|status| status.message().to_owned())?;
            Ok::<_, String>((sender, answers.into_inner()))
        };
        let end = match tokio::time::timeout(CREATE_DEADLINE, opened).await {
            Ok(Ok((sender, answers))) => self.follow(&mut open, sender, answers).await,
            Ok(Err(why)) => Closed::Broken(why),
            Err(_) => Closed::Broken("it was not made in time".to_owned()),
        };
        self.close(open, end)
    }

    fn close(&self, open: Open, end: Closed) -> End {
        let (why, complete, end) = match end {
            Closed::Compacted(revision) => {
                self.record(open.id, WatchPart::Compacted { revision });
                ("compacted".to_owned(), false, End::Compacted)
            }
            Closed::Broken(why) if self.is_given_up() => (why, false, End::Over),
            Closed::Broken(why) => (why, false, End::Resume(open.from)),
            Closed::Chosen => {
                let why = "closed by the watcher".to_owned();
                (why, false, End::Resume(open.from))
            }
            Closed::Reached => ("everything was told".to_owned(), true, End::Over),
            Closed::NotReached => {
                let why = format!("not everything was told within {CATCH_UP_DEADLINE:?}");
                (why, true, End::Over)
            }
        };
        self.record(open.id, WatchPart::Closed { why, complete });
        end
    }

    /// Whether the last change could not be made, so that there is nothing to wait for.
    fn is_given_up(&self) -> bool {
        self.common.last.load(Ordering::Relaxed) == u64::MAX
    }

    async fn follow(
        &mut self,
        open: &mut Open,
        sender: mpsc::Sender<pb::WatchRequest>,
        mut answers: Streaming<pb::WatchResponse>,
    ) -> Closed {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        let mut asks_at = Instant::now() + ASK_PROGRESS_EVERY;
        loop {
            tokio::select! {
                answer = answers.message() => {
                    let answer = match answer {
                        Ok(Some(answer)) => answer,
                        Ok(None) => return Closed::Broken("the member ended it".to_owned()),
                        Err(status) => return Closed::Broken(status.message().to_owned()),
                    };
                    if let Some(closed) = self.told(open, answer) {
                        return closed;
                    }
                }
                _ = tick.tick() => {
                    if open.asks_progress && Instant::now() > asks_at {
                        asks_at = Instant::now() + ASK_PROGRESS_EVERY;
                        let ask = pb::WatchProgressRequest {};
                        let ask = pb::watch_request::RequestUnion::ProgressRequest(ask);
                        // A member that reads none of them has enough of them.
                        drop(sender.try_send(pb::WatchRequest { request_union: Some(ask) }));
                    }
                    if let Some(closed) = self.is_over(open) {
                        return closed;
                    }
                }
            }
        }
    }

    fn is_over(&self, open: &mut Open) -> Option<Closed> {
        let last = self.common.last.load(Ordering::Relaxed);
        if last == u64::MAX {
            return Some(Closed::Broken("the run is over".to_owned()));
        }
        if last > 0 {
            if open.from > last {
                return Some(Closed::Reached);
            }
            let gives_up_at = open
                .gives_up_at
                .get_or_insert_with(|| Instant::now() + CATCH_UP_DEADLINE);
            return (Instant::now() > *gives_up_at).then_some(Closed::NotReached);
        }
        let closes_at = open.closes_at?;
        (Instant::now() > closes_at).then_some(Closed::Chosen)
    }

    fn told(&self, open: &mut Open, answer: pb::WatchResponse) -> Option<Closed> {
        let revision = answer.header.map_or(0, |header| header.revision as u64);
        if answer.compact_revision > 0 {
            return Some(Closed::Compacted(answer.compact_revision as u64));
        }
        if answer.canceled {
            return Some(Closed::Broken(format!(
                "canceled: {}",
                answer.cancel_reason
            )));
        }
        if answer.created {
            if open.from == 0 {
                open.from = revision + 1;
            }
            self.record(open.id, WatchPart::Created { revision });
            return None;
        }
        if answer.events.is_empty() {
            open.from = open.from.max(revision + 1);
            self.record(open.id, WatchPart::Progress { revision });
            return None;
        }
        let events: Result<Vec<Notice>, String> = answer
            .events
            .into_iter()
            .map(|event| notice(&self.shared.prefix, event))
            .collect();
        let events = match events {
            Ok(events) => events,
            Err(why) => return Some(Closed::Broken(why)),
        };
        if let Some(last) = events.last() {
            // Where a message is continued, its last revision is not told whole.
            let next = last.revision + u64::from(!answer.fragment);
            open.from = open.from.max(next);
        }
        let more = answer.fragment;
        self.record(
            open.id,
            WatchPart::Events {
                revision,
                more,
                events,
            },
        );
        None
    }
}

/// A watch that is open.
struct Open {
    id: u64,
    /// The next revision that is to come.
    from: u64,
    closes_at: Option<Instant>,
    gives_up_at: Option<Instant>,
    asks_progress: bool,
}

enum Closed {
    Chosen,
    Reached,
    NotReached,
    Compacted(u64),
    Broken(String),
}

fn create_request(prefix: &str, wanted: &Wanted) -> pb::WatchRequest {
    use pb::watch_create_request::FilterType;
    let (key, range_end) = match &wanted.key {
        Some(key) => (format!("{prefix}{key}").into(), bytes::Bytes::new()),
        None => {
            let all = format!("{prefix}watched/");
            let end = after_prefix(all.as_bytes());
            (all.into(), end)
        }
    };
    let filters = [
        (wanted.no_put, FilterType::Noput),
        (wanted.no_delete, FilterType::Nodelete),
    ];
    let create = pb::WatchCreateRequest {
        key,
        range_end,
        start_revision: wanted.from as i64,
        progress_notify: true,
        filters: filters
            .into_iter()
            .filter(|(is_set, _)| *is_set)
            .map(|(_, filter)| filter.into())
            .collect(),
        prev_kv: wanted.prev,
        watch_id: 0,
        fragment: true,
    };
    pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    }
}

fn notice(prefix: &str, event: mvccpb::Event) -> Result<Notice, String> {
    let is_put = event.r#type() == mvccpb::event::EventType::Put;
    let kv = event.kv.ok_or("an event without a key")?;
    let key = String::from_utf8_lossy(&kv.key).into_owned();
    let unreadable = |_| format!("a value of {key} that is no number");
    let prev = event
        .prev_kv
        .map(|prev| {
            Ok::<_, String>((
                parsed(&prev.value).map_err(unreadable)?,
                prev.mod_revision as u64,
            ))
        })
        .transpose()?;
    let value = is_put
        .then(|| parsed(&kv.value))
        .transpose()
        .map_err(unreadable)?;
    Ok(Notice {
        key: key.strip_prefix(prefix).unwrap_or(&key).to_owned(),
        value,
        revision: kv.mod_revision as u64,
        created: kv.create_revision as u64,
        version: kv.version as u64,
        prev,
    })
}
