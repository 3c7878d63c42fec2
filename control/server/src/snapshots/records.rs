//! The records in the store: read from the local replica or linearizably, written under a condition.

use anyhow::{Context, Result};
use mvcc::{Compare, Consistency, KeyRange, Op, RangeRequest, Store, StoreError, Txn};
use objects::snapshots::{SavedSnapshot, SnapshotProgress, SnapshotRun, SnapshotSchedule};
use objects::{Revision, Term, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const SCHEDULES: &str = "/trireme/snapshots/schedules/";
const REQUESTS: &str = "/trireme/snapshots/requests/";
const STATES: &str = "/trireme/snapshots/states/";
const SAVED: &str = "/trireme/snapshots/saved/";

/// How it goes with one schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The last moment that was served; at first, when the schedule was made.
    pub done: Timestamp,
    pub running: Option<SnapshotProgress>,
    pub last: Option<SnapshotRun>,
    pub last_success: Option<SnapshotRun>,
    /// How many failed since.
    pub failures: u32,
    /// Not before this, after a failure.
    pub retry_at: Option<Timestamp>,
}

impl State {
    /// Nothing was done yet, and nothing of before `now` is wanted.
    pub fn new(now: Timestamp) -> Self {
        State {
            done: now,
            running: None,
            last: None,
            last_success: None,
            failures: 0,
            retry_at: None,
        }
    }
}

/// A request for a run now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// For which moment.
    pub due: Timestamp,
}

/// A record and the revision at which it was read.
#[derive(Clone, Debug)]
pub struct Kept<T> {
    pub value: T,
    pub revision: Revision,
}

/// Everything of one schedule.
#[derive(Clone, Debug)]
pub struct Entry {
    pub schedule: SnapshotSchedule,
    pub state: Option<Kept<State>>,
    pub request: Option<Kept<Request>>,
}

/// All schedules, by name.
pub async fn entries(store: &dyn Store, consistency: Consistency) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (
        _,
        Kept {
            value: schedule, ..
        },
    ) in list::<SnapshotSchedule>(store, SCHEDULES, consistency).await?
    {
        let (state, request) = (
            STATES.to_owned() + &schedule.name,
            REQUESTS.to_owned() + &schedule.name,
        );
        entries.push(Entry {
            state: get(store, &state, consistency).await?,
            request: get(store, &request, consistency).await?,
            schedule,
        });
    }
    Ok(entries)
}

/// One schedule.
pub async fn entry(store: &dyn Store, name: &str) -> Result<Option<Entry>> {
    let entries = entries(store, Consistency::Linearizable).await?;
    Ok(entries
        .into_iter()
        .find(|entry| entry.schedule.name == name))
}

/// All snapshots, in the order of their names.
pub async fn saved(store: &dyn Store, consistency: Consistency) -> Result<Vec<SavedSnapshot>> {
    let all = list(store, SAVED, consistency).await?;
    Ok(all.into_iter().map(|(_, kept)| kept.value).collect())
}

/// Keeps a schedule; a new one gets `state`.
pub async fn put_schedule(
    store: &dyn Store,
    schedule: &SnapshotSchedule,
    state: &State,
) -> Result<()> {
    let state_key = STATES.to_owned() + &schedule.name;
    let begin = Txn {
        compare: vec![Compare::absent(state_key.clone())],
        success: vec![put(&state_key, state)],
        ..Txn::default()
    };
    let key = SCHEDULES.to_owned() + &schedule.name;
    write(
        store,
        Txn {
            success: vec![put(&key, schedule), Op::Txn(Box::new(begin))],
            ..Txn::default()
        },
    )
    .await
    .map(drop)
}

/// Forgets a schedule, not its snapshots; tells whether there was one.
pub async fn remove_schedule(store: &dyn Store, name: &str) -> Result<bool> {
    let key = SCHEDULES.to_owned() + name;
    let exists = Compare {
        op: mvcc::CompareOp::Greater,
        ..Compare::absent(key.clone())
    };
    let gone = [SCHEDULES, STATES, REQUESTS].map(|prefix| Op::delete(prefix.to_owned() + name));
    write(
        store,
        Txn {
            compare: vec![exists],
            success: gone.into(),
            ..Txn::default()
        },
    )
    .await
}

/// Asks for a run.
pub async fn put_request(store: &dyn Store, name: &str, request: &Request) -> Result<()> {
    let key = REQUESTS.to_owned() + name;
    write(
        store,
        Txn {
            success: vec![put(&key, request)],
            ..Txn::default()
        },
    )
    .await
    .map(drop)
}

/// The leader's right to go on with a schedule: its term, and the state as it last wrote or read it.
#[derive(Clone, Debug)]
pub struct Claim {
    pub name: String,
    pub term: Term,
    /// The revision of the state; zero when there is none.
    pub revision: Revision,
}

impl Claim {
    /// Writes the state with these further steps, if nobody else did since; false when somebody did.
    pub async fn write(&mut self, store: &dyn Store, state: &State, more: Vec<Op>) -> Result<bool> {
        let key = STATES.to_owned() + &self.name;
        let txn = Txn {
            compare: vec![Compare::unchanged(key.clone(), self.revision)],
            success: [vec![put(&key, state)], more].concat(),
            failure: Vec::new(),
            fence: Some(self.term),
        };
        let response = match store.txn(txn).await {
            Err(StoreError::Fenced { .. }) => return Ok(false),
            response => response.context("the state of a snapshot's run could not be noted")?,
        };
        if response.succeeded {
            self.revision = response.revision;
        }
        Ok(response.succeeded)
    }
}

/// The step that takes a request away.
pub fn drop_request(name: &str) -> Op {
    Op::delete(REQUESTS.to_owned() + name)
}

/// The step that notes a snapshot.
pub fn note_saved(snapshot: &SavedSnapshot) -> Op {
    put(&saved_key(snapshot), snapshot)
}

/// Forgets a snapshot that is deleted.
pub async fn forget_saved(store: &dyn Store, snapshot: &SavedSnapshot) -> Result<()> {
    write(
        store,
        Txn {
            success: vec![Op::delete(saved_key(snapshot))],
            ..Txn::default()
        },
    )
    .await
    .map(drop)
}

fn saved_key(snapshot: &SavedSnapshot) -> String {
    SAVED.to_owned() + &snapshot.name
}

fn put(key: &str, value: &impl Serialize) -> Op {
    let json = serde_json::to_vec(value).expect("records are plain data with string keys");
    Op::put(key.to_owned(), json)
}

async fn write(store: &dyn Store, txn: Txn) -> Result<bool> {
    let response = store
        .txn(txn)
        .await
        .context("the snapshots' schedule could not be kept")?;
    Ok(response.succeeded)
}

async fn get<T: DeserializeOwned>(
    store: &dyn Store,
    key: &str,
    consistency: Consistency,
) -> Result<Option<Kept<T>>> {
    let found = read(store, KeyRange::key(key.to_owned()), consistency).await?;
    Ok(found.into_iter().next().map(|(_, kept)| kept))
}

async fn list<T: DeserializeOwned>(
    store: &dyn Store,
    prefix: &str,
    consistency: Consistency,
) -> Result<Vec<(String, Kept<T>)>> {
    read(store, KeyRange::prefix(prefix.to_owned()), consistency).await
}

/// The records of a range; one that cannot be understood is told and left out, so that it does not stop the others.
async fn read<T: DeserializeOwned>(
    store: &dyn Store,
    range: KeyRange,
    consistency: Consistency,
) -> Result<Vec<(String, Kept<T>)>> {
    let request = RangeRequest {
        consistency,
        ..RangeRequest::new(range)
    };
    let found = store
        .range(request)
        .await
        .context("the snapshots' records cannot be read")?;
    let record = |kv: mvcc::KeyValue| {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        match serde_json::from_slice(&kv.value) {
            Ok(value) => Some((
                key,
                Kept {
                    value,
                    revision: kv.mod_revision,
                },
            )),
            Err(error) => {
                tracing::error!(key, %error, "a record of the snapshots cannot be understood; set it again");
                None
            }
        }
    };
    Ok(found.kvs.into_iter().filter_map(record).collect())
}
