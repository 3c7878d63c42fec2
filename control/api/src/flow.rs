//! How much is done at once: each request takes a seat of its priority level or waits its turn, each stream a place; beyond that
//! 429. What runs next is decided by [`registry::flow`]; here is the time, and whoever waits.
//!
//! Streams wait for nothing, so that no flood of requests starves a watch; one flow alone cannot take all their places.

use crate::ApiConfig;
use http::Method;
use mvcc::{Event, KeyRange, RangeRequest, Store, StoreError};
use objects::{
    GroupResource, Object, ObjectKey, Reason, Revision, Status, StatusDetails, resource_prefix,
};
use registry::Caller;
use registry::flow::{self, Arrival, Class, Counts, Flows, GROUP, Refusal, Ticket, WAIT_BOUNDS};
use registry::rbac::Request;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

/// A request waits for its turn this long at most; the rest of its deadline is for doing it.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// The seats are divided anew this often.
const TICK: Duration = Duration::from_secs(1);
/// A list takes a seat more for so many objects, up to so many seats.
const OBJECTS_A_SEAT: usize = 100;
const SEATS_MAX: u32 = 10;
/// One flow may hold this part of the streams' places.
const STREAMS_A_FLOW: usize = 4;
/// Bodies that are being read or worked on hold so many bytes at most.
const BODY_BYTES_MAX: usize = 256 << 20;
const BODY_UNIT: usize = 1024;

/// The server's seats and places; cheap to clone.
#[derive(Clone)]
pub struct Flow(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    streams: Arc<Semaphore>,
    streams_a_flow: usize,
    bodies: Arc<Semaphore>,
    /// How many objects the last list of a resource held.
    sizes: Mutex<HashMap<GroupResource, usize>>,
    /// Requests in flight that only read, and those that change something.
    in_flight: [AtomicUsize; 2],
    began: Instant,
}

struct State {
    flows: Flows,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
    streams: HashMap<(String, u64), usize>,
}

/// A request that runs, or waits to; dropping it ends it.
pub struct Turn {
    flow: Flow,
    ticket: Ticket,
    kind: usize,
}

/// The place of a watch, a followed log, or a tunnel; dropping it frees it.
pub struct Place {
    flow: Flow,
    whose: (String, u64),
    _place: OwnedSemaphorePermit,
}

impl Flow {
    /// As many seats and places as the configuration says.
    pub fn new(config: &ApiConfig) -> Self {
        let seats = u32::try_from(config.requests_max).unwrap_or(u32::MAX);
        Flow(Arc::new(Inner {
            state: Mutex::new(State {
                flows: Flows::new(seats),
                waiting: HashMap::new(),
                streams: HashMap::new(),
            }),
            streams: Arc::new(Semaphore::new(config.streams_max)),
            streams_a_flow: config.streams_max.div_ceil(STREAMS_A_FLOW),
            bodies: Arc::new(Semaphore::new(BODY_BYTES_MAX / BODY_UNIT)),
            sizes: Mutex::default(),
            in_flight: Default::default(),
            began: Instant::now(),
        }))
    }

    /// Where a request belongs.
    pub fn classify(&self, caller: &Caller, request: &Request<'_>) -> Class {
        self.state().flows.classify(caller, request)
    }

    /// Waits for the request's turn; 429 when too much waits already, or its turn does not come.
    pub async fn request(
        &self,
        class: &Class,
        method: &Method,
        seats: u32,
    ) -> Result<Turn, Status> {
        let (ticket, called) = {
            let mut state = self.state();
            let arrival = state.flows.arrive(class, seats, self.now());
            state.call();
            match arrival {
                Arrival::Refused(why) => return Err(refusal(why)),
                Arrival::Runs(ticket) => (ticket, None),
                Arrival::Waits(ticket) => {
                    let (call, called) = oneshot::channel();
                    state.waiting.insert(ticket, call);
                    (ticket, Some(called))
                }
            }
        };
        let kind = usize::from(!matches!(*method, Method::GET | Method::HEAD));
        self.0.in_flight[kind].fetch_add(1, Ordering::Relaxed);
        let turn = Turn {
            flow: self.clone(),
            ticket,
            kind,
        };
        if let Some(called) = called
            && tokio::time::timeout(WAIT_MAX, called).await.is_err()
        {
            let gave_up = self.state().flows.time_out(ticket, self.now());
            if gave_up {
                return Err(refusal(Refusal::TimeOut));
            }
        }
        Ok(turn)
    }

    /// A place for a watch, a followed log, or a tunnel.
    pub fn stream(&self, class: &Class) -> Result<Place, Status> {
        let place = Arc::clone(&self.0.streams).try_acquire_owned();
        let place = place.map_err(|_| refusal(Refusal::NoSeat))?;
        let whose = (class.level.clone(), class.flow);
        let mut state = self.state();
        let is_exempt = state.flows.is_exempt(&class.level);
        let held = state.streams.entry(whose.clone()).or_default();
        if *held >= self.0.streams_a_flow && !is_exempt {
            return Err(refusal(Refusal::NoSeat));
        }
        *held += 1;
        Ok(Place {
            flow: self.clone(),
            whose,
            _place: place,
        })
    }

    /// Room for a piece of a body; 429 when bodies take too much already.
    pub fn body(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let units = u32::try_from(bytes.div_ceil(BODY_UNIT)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0.bodies).try_acquire_many_owned(units);
        room.map_err(|_| refusal(Refusal::NoSeat))
    }

    /// How many seats a list takes, as far as it is known: of a page, or of all there were the last time.
    pub fn seats_of_list(&self, resource: &GroupResource, limit: Option<usize>) -> u32 {
        let sizes = self.0.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sizes.get(resource).copied().unwrap_or_default();
        let objects = limit.map_or(known, |limit| limit.min(known));
        let seats = u32::try_from(objects.div_ceil(OBJECTS_A_SEAT)).unwrap_or(SEATS_MAX);
        seats.clamp(1, SEATS_MAX)
    }

    /// Notes how many objects there are.
    pub fn note_list(&self, resource: &GroupResource, objects: usize) {
        let mut sizes = self.0.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        match sizes.get_mut(resource) {
            Some(known) => *known = objects,
            None => drop(sizes.insert(resource.clone(), objects)),
        }
    }

    /// Reads the levels and schemas anew, as they were at a revision.
    pub async fn read_all(&self, store: &dyn Store, revision: Revision) -> Result<(), StoreError> {
        let mut objects = Vec::new();
        for resource in ["prioritylevelconfigurations", "flowschemas"] {
            let prefix = resource_prefix(&GroupResource::new(GROUP, resource));
            let mut request = RangeRequest::new(KeyRange::prefix(prefix));
            request.revision = Some(revision);
            let found = store.range(request).await?.kvs;
            let read = |kv: mvcc::KeyValue| Object::from_stored(&kv.value, kv.mod_revision).ok();
            objects.extend(found.into_iter().filter_map(read));
        }
        // A cluster that is being made has not got its own yet.
        if !objects.is_empty() {
            self.change(|flows| flows.replace(&objects));
        }
        Ok(())
    }

    /// Takes in a change of the store; others than those of its group are left aside.
    pub fn apply(&self, event: &Event) {
        let Some(key) = ObjectKey::from_store_key(event.key()) else {
            return;
        };
        if key.resource.group != GROUP {
            return;
        }
        match event {
            Event::Put { kv, .. } => {
                if let Ok(object) = Object::from_stored(&kv.value, kv.mod_revision) {
                    self.change(|flows| flows.set(&key, Some(&object)));
                }
            }
            Event::Delete { .. } => self.change(|flows| flows.set(&key, None)),
        }
    }

    /// Divides the seats again and again; ends never.
    pub async fn keep(self) {
        loop {
            tokio::time::sleep(TICK).await;
            let now = self.now();
            self.change(|flows| flows.tick(now));
        }
    }

    /// What is counted, as Prometheus' text, under kube-apiserver's names.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        {
            let state = self.state();
            write_levels(&mut text, &state.flows);
            write_counts(&mut text, &state.flows);
            let streams: usize = state.streams.values().sum();
            family(
                &mut text,
                "apiserver_longrunning_requests",
                "gauge",
                "Watches, followed logs and tunnels that are open.",
            );
            sample(&mut text, "apiserver_longrunning_requests", &[], streams);
        }
        let name = "apiserver_current_inflight_requests";
        family(
            &mut text,
            name,
            "gauge",
            "Requests that run or wait their turn.",
        );
        for (kind, count) in ["readOnly", "mutating"].iter().zip(&self.0.in_flight) {
            let count = count.load(Ordering::Relaxed);
            sample(&mut text, name, &[("request_kind", kind)], count);
        }
        text
    }

    fn change(&self, change: impl FnOnce(&mut Flows)) {
        let mut state = self.state();
        change(&mut state.flows);
        state.call();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }
}

impl State {
    /// Wakes those whose turn came.
    fn call(&mut self) {
        for ticket in self.flows.take_called() {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                // Who is gone meanwhile ends his turn himself.
                let _ = waiting.send(());
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.flow.0.in_flight[self.kind].fetch_sub(1, Ordering::Relaxed);
        let now = self.flow.now();
        let mut state = self.flow.state();
        state.waiting.remove(&self.ticket);
        state.flows.end(self.ticket, now);
        state.call();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.flow.state();
        if let Some(held) = state.streams.get_mut(&self.whose) {
            *held -= 1;
            if *held == 0 {
                state.streams.remove(&self.whose);
            }
        }
    }
}

fn refusal(why: Refusal) -> Status {
    let message = match why {
        Refusal::TimeOut => "the request waited too long for its turn; try again later",
        _ => "the server has received too many requests and has asked us to try again later",
    };
    let mut status = Status::failure(429, Reason::TooManyRequests, message);
    status.details = Some(StatusDetails {
        retry_after_seconds: Some(1),
        ..StatusDetails::default()
    });
    status
}

fn write_levels(text: &mut String, flows: &Flows) {
    type Figure = fn(&flow::LevelFigures<'_>) -> usize;
    let gauges: [(&str, &str, Figure); 5] = [
        (
            "nominal_limit_seats",
            "Seats of the level's own.",
            |level| level.bounds.nominal as usize,
        ),
        (
            "lower_limit_seats",
            "Seats that it keeps for itself.",
            |level| level.bounds.lower as usize,
        ),
        ("upper_limit_seats", "Seats that it has at most.", |level| {
            level.bounds.upper as usize
        }),
        ("current_limit_seats", "Seats that it has now.", |level| {
            level.limit as usize
        }),
        (
            "current_executing_seats",
            "Seats that are taken.",
            |level| level.seats as usize,
        ),
    ];
    for (name, help, figure) in gauges {
        let name = format!("apiserver_flowcontrol_{name}");
        family(text, &name, "gauge", help);
        for level in flows.levels() {
            sample(
                text,
                &name,
                &[("priority_level", level.name)],
                figure(&level),
            );
        }
    }
}

fn write_counts(text: &mut String, flows: &Flows) {
    type Figure = fn(&Counts) -> u64;
    let families: [(&str, &str, &str, Figure); 3] = [
        (
            "current_inqueue_requests",
            "gauge",
            "Requests that wait.",
            |counts| counts.waiting as u64,
        ),
        (
            "current_executing_requests",
            "gauge",
            "Requests that run.",
            |counts| counts.running as u64,
        ),
        (
            "dispatched_requests_total",
            "counter",
            "Requests that ran.",
            |counts| counts.dispatched,
        ),
    ];
    let of = |(schema, level): &(String, String)| {
        [
            ("flow_schema", schema.clone()),
            ("priority_level", level.clone()),
        ]
    };
    for (name, kind, help, figure) in families {
        let name = format!("apiserver_flowcontrol_{name}");
        family(text, &name, kind, help);
        for (key, counts) in flows.counts() {
            let [schema, level] = &of(key);
            let labels = [(schema.0, &*schema.1), (level.0, &*level.1)];
            sample(text, &name, &labels, figure(counts));
        }
    }
    let name = "apiserver_flowcontrol_rejected_requests_total";
    family(text, name, "counter", "Requests that were refused.");
    for (key, counts) in flows.counts() {
        let [schema, level] = &of(key);
        for (why, count) in &counts.refused {
            let labels = [
                (schema.0, &*schema.1),
                (level.0, &*level.1),
                ("reason", why.as_str()),
            ];
            sample(text, name, &labels, count);
        }
    }
    write_waits(text, flows);
}

fn write_waits(text: &mut String, flows: &Flows) {
    let name = "apiserver_flowcontrol_request_wait_duration_seconds";
    family(text, name, "histogram", "How long those waited that ran.");
    for ((schema, level), counts) in flows.counts() {
        let labels = [
            ("flow_schema", &**schema),
            ("priority_level", &**level),
            ("execute", "true"),
        ];
        let bounds = WAIT_BOUNDS.iter().map(f64::to_string);
        let mut sum = 0;
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(counts.waits) {
            sum += count;
            let labels = [&labels[..], &[("le", &*bound)]].concat();
            sample(text, &format!("{name}_bucket"), &labels, sum);
        }
        let waited = counts.waited.as_secs_f64();
        sample(text, &format!("{name}_sum"), &labels, waited);
        sample(text, &format!("{name}_count"), &labels, sum);
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Names of schemas and levels are DNS names: nothing in a label needs an escape.
fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    let _ = match &labels[..] {
        [] => writeln!(text, "{name} {value}"),
        labels => writeln!(text, "{name}{{{}}} {value}", labels.join(",")),
    };
}
