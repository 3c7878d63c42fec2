//! What each request is in the etcd v3 API. Values are decimal numbers; a list is numbers with spaces between them.

use super::client::{Client, Refused};
use crate::history::{CONDITION, Change, Failure, Outcome, Reply, Request, Seen, Step, Told};
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::mvccpb::KeyValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::Status;

/// Seconds that a lock's lease lives; nobody prolongs it.
pub const LOCK_TTL: u64 = 2;

type Answer = Result<Reply, Refused>;

impl Client {
    pub(super) async fn send(&mut self, request: &Request) -> Answer {
        match request {
            Request::Read { key, serializable } => self.read(key, *serializable).await,
            Request::Write { key, value } => self.write(key, *value).await,
            Request::Cas {
                key,
                value,
                revision,
                ..
            } => {
                let compare = self.changed_at(key, *revision);
                let put = self.put(key, *value, 0);
                self.when(vec![compare], vec![put]).await
            }
            Request::Add { set, element } => {
                let key = element_key(set, *element);
                let compare = self.created_at(&key, 0);
                let put = self.put(&key, *element, 0);
                self.when(vec![compare], vec![put]).await
            }
            Request::Remove { set, element } => self.remove(&element_key(set, *element)).await,
            Request::Elements { set } => self.elements(set).await,
            Request::Txn { steps } => self.transaction(steps).await,
            Request::Transfer { from, to, amount } => self.transfer(*from, *to, *amount).await,
            Request::Balances { at } => self.balances(*at).await,
            Request::Change { changes } => self.change(changes).await,
            Request::Grant { lease, ttl } => self.grant_with_key(*lease, *ttl).await,
            Request::KeepAlive { lease } => self.keep_alive(*lease).await,
            Request::IsAttached { lease } => {
                let found = self.range(self.one(&lease_key(*lease))).await?;
                let held = found.count > 0;
                Ok(at(found.header, Told::Held { held }))
            }
            Request::Revoke { lease } => self.revoke(*lease).await,
            Request::Acquire { lock, lease } => self.acquire(lock, *lease).await,
            Request::Guarded {
                lock,
                token,
                fenced,
            } => self.guarded(lock, *token, *fenced).await,
            Request::Release { lock, token } => {
                let compare = self.created_at(lock, *token);
                let delete = self.delete(lock);
                self.when(vec![compare], vec![delete]).await
            }
            Request::Compact { revision } => {
                let request = pb::CompactionRequest {
                    revision: *revision as i64,
                    physical: false,
                };
                let done = self.kv.compact(request).await?.into_inner();
                Ok(at(done.header, Told::Done))
            }
            Request::Hash { revision } => self.hash(*revision).await,
            Request::Snapshot => self.snapshot().await,
            Request::Keep { key, value } => self.write(&kept_key(*key), *value).await,
            Request::Kept => self.kept().await,
            Request::Save => Err(Refused::surely(
                "harness",
                "a state is saved by an administrator, not by a client",
            )),
            Request::Digest { at } => self.digest(*at).await,
            Request::Follow { from } => self.follow(*from).await,
        }
    }

    fn key(&self, name: &str) -> bytes::Bytes {
        format!("{}{name}", self.prefix).into()
    }

    fn one(&self, name: &str) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.key(name),
            ..pb::RangeRequest::default()
        }
    }

    /// All keys that begin with a name.
    fn all(&self, name: &str) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.key(name),
            range_end: after_prefix(&self.key(name)),
            ..pb::RangeRequest::default()
        }
    }

    fn changed_at(&self, name: &str, revision: u64) -> pb::Compare {
        pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Mod.into(),
            key: self.key(name),
            target_union: Some(pb::compare::TargetUnion::ModRevision(revision as i64)),
            ..pb::Compare::default()
        }
    }

    fn created_at(&self, name: &str, revision: u64) -> pb::Compare {
        pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Create.into(),
            key: self.key(name),
            target_union: Some(pb::compare::TargetUnion::CreateRevision(revision as i64)),
            ..pb::Compare::default()
        }
    }

    fn put(&self, name: &str, value: impl ToString, lease: u64) -> pb::RequestOp {
        let put = pb::PutRequest {
            key: self.key(name),
            value: value.to_string().into(),
            lease: lease as i64,
            ..pb::PutRequest::default()
        };
        op(pb::request_op::Request::RequestPut(put))
    }

    fn delete(&self, name: &str) -> pb::RequestOp {
        let delete = pb::DeleteRangeRequest {
            key: self.key(name),
            ..pb::DeleteRangeRequest::default()
        };
        op(pb::request_op::Request::RequestDeleteRange(delete))
    }

    async fn range(&mut self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        Ok(self.kv.range(request).await?.into_inner())
    }

    async fn txn(
        &mut self,
        compare: Vec<pb::Compare>,
        success: Vec<pb::RequestOp>,
    ) -> Result<pb::TxnResponse, Status> {
        let request = pb::TxnRequest {
            compare,
            success,
            failure: vec![],
        };
        Ok(self.kv.txn(request).await?.into_inner())
    }

    /// A transaction of which only whether it held is told.
    async fn when(&mut self, compare: Vec<pb::Compare>, success: Vec<pb::RequestOp>) -> Answer {
        let done = self.txn(compare, success).await?;
        let held = done.succeeded;
        Ok(at(done.header, Told::Held { held }))
    }

    async fn read(&mut self, key: &str, serializable: bool) -> Answer {
        let request = pb::RangeRequest {
            serializable,
            ..self.one(key)
        };
        let found = self.range(request).await?;
        let (value, changed) = match found.kvs.first() {
            None => (None, None),
            Some(kv) => (Some(number(&kv.value)?), Some(kv.mod_revision as u64)),
        };
        Ok(at(found.header, Told::Value { value, changed }))
    }

    async fn write(&mut self, key: &str, value: u64) -> Answer {
        let request = pb::PutRequest {
            key: self.key(key),
            value: value.to_string().into(),
            ..pb::PutRequest::default()
        };
        let done = self.kv.put(request).await?.into_inner();
        Ok(at(done.header, Told::Done))
    }

    async fn remove(&mut self, key: &str) -> Answer {
        let request = pb::DeleteRangeRequest {
            key: self.key(key),
            ..pb::DeleteRangeRequest::default()
        };
        let done = self.kv.delete_range(request).await?.into_inner();
        let held = done.deleted > 0;
        Ok(at(done.header, Told::Held { held }))
    }

    async fn elements(&mut self, set: &str) -> Answer {
        let found = self.range(self.all(&format!("{set}/"))).await?;
        let numbers = found.kvs.iter().map(|kv| number(&kv.value));
        let elements = numbers.collect::<Result<_, _>>()?;
        Ok(at(found.header, Told::Elements { elements }))
    }

    /// Reads what is read or appended to at one revision; then, where anything is written, writes on the condition that
    /// nothing of that changed.
    async fn transaction(&mut self, steps: &[Step]) -> Answer {
        let mut read: Vec<&str> = steps
            .iter()
            .filter(|step| !matches!(step, Step::Write { .. }))
            .map(Step::key)
            .collect();
        read.sort_unstable();
        read.dedup();
        let (header, seen) = self.seen(&read).await?;
        if steps.iter().all(|step| step.value().is_none()) {
            return Ok(at(header, Told::Read { seen }));
        }
        let mut written: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Read { .. } => {}
                Step::Write { key, value } => drop(written.insert(key, vec![*value])),
                Step::Append { key, value } => {
                    let before = seen.iter().find(|seen| seen.key == *key);
                    let list = written.entry(key).or_insert_with(|| {
                        before.map(|seen| seen.values.clone()).unwrap_or_default()
                    });
                    list.push(*value);
                }
            }
        }
        let compare = seen
            .iter()
            .map(|seen| self.changed_at(&seen.key, seen.revision))
            .collect();
        let puts = written
            .iter()
            .map(|(key, values)| self.put(key, listed(values), 0))
            .collect();
        let done = self.txn(compare, puts).await?;
        if !done.succeeded {
            return Err(Refused::surely(CONDITION, "what was read had changed"));
        }
        Ok(at(done.header, Told::Read { seen }))
    }

    async fn seen(
        &mut self,
        keys: &[&str],
    ) -> Result<(Option<pb::ResponseHeader>, Vec<Seen>), Refused> {
        if keys.is_empty() {
            return Ok((None, vec![]));
        }
        let ranges = keys
            .iter()
            .map(|key| op(pb::request_op::Request::RequestRange(self.one(key))))
            .collect();
        let done = self.txn(vec![], ranges).await.map_err(before_a_write)?;
        let mut seen = Vec::new();
        for (key, response) in keys.iter().zip(&done.responses) {
            let kv = match &response.response {
                Some(pb::response_op::Response::ResponseRange(range)) => range.kvs.first(),
                _ => return Err(unreadable("an answer that is no range")),
            };
            seen.push(Seen {
                key: (*key).to_owned(),
                values: kv
                    .map(|kv| numbers(&kv.value))
                    .transpose()?
                    .unwrap_or_default(),
                revision: kv.map_or(0, |kv| kv.mod_revision as u64),
            });
        }
        Ok((done.header, seen))
    }

    async fn transfer(&mut self, from: u32, to: u32, amount: u64) -> Answer {
        let found = self
            .range(self.all("bank/"))
            .await
            .map_err(before_a_write)?;
        let account = |number: u32| -> Result<&KeyValue, Refused> {
            let key = self.key(&account_key(number));
            let mut kvs = found.kvs.iter();
            kvs.find(|kv| kv.key == key)
                .ok_or_else(|| unreadable(&format!("no account {number}")))
        };
        let (source, target) = (account(from)?, account(to)?);
        let compare = vec![
            self.changed_at(&account_key(from), source.mod_revision as u64),
            self.changed_at(&account_key(to), target.mod_revision as u64),
        ];
        let puts = vec![
            self.put(
                &account_key(from),
                signed(&source.value)? - amount as i64,
                0,
            ),
            self.put(&account_key(to), signed(&target.value)? + amount as i64, 0),
        ];
        self.when(compare, puts).await
    }

    async fn balances(&mut self, revision: Option<u64>) -> Answer {
        let request = pb::RangeRequest {
            revision: revision.unwrap_or(0) as i64,
            serializable: revision.is_some(),
            ..self.all("bank/")
        };
        let found = self.range(request).await?;
        let balances = found.kvs.iter().map(|kv| signed(&kv.value));
        let accounts = balances.collect::<Result<_, _>>()?;
        Ok(at(found.header, Told::Balances { accounts }))
    }

    async fn change(&mut self, changes: &[Change]) -> Answer {
        let ops = changes
            .iter()
            .map(|change| match change.value {
                Some(value) => self.put(&change.key, value, 0),
                None => self.delete(&change.key),
            })
            .collect();
        let done = self.txn(vec![], ops).await?;
        let took = done
            .responses
            .iter()
            .map(|response| match &response.response {
                Some(pb::response_op::Response::ResponseDeleteRange(delete)) => delete.deleted > 0,
                _ => true,
            })
            .collect();
        Ok(at(done.header, Told::Changed { took }))
    }

    async fn grant(&mut self, lease: u64, ttl: u64) -> Result<u64, Status> {
        let request = pb::LeaseGrantRequest {
            ttl: ttl as i64,
            id: lease as i64,
        };
        Ok(self.lease.lease_grant(request).await?.into_inner().ttl as u64)
    }

    async fn grant_with_key(&mut self, lease: u64, ttl: u64) -> Answer {
        let ttl = self.grant(lease, ttl).await?;
        let request = pb::PutRequest {
            key: self.key(&lease_key(lease)),
            value: lease.to_string().into(),
            lease: lease as i64,
            ..pb::PutRequest::default()
        };
        let done = self.kv.put(request).await?.into_inner();
        Ok(at(done.header, Told::Lease { ttl }))
    }

    async fn keep_alive(&mut self, lease: u64) -> Answer {
        let id = lease as i64;
        let one = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let mut answers = self.lease.lease_keep_alive(one).await?.into_inner();
        let answer = answers
            .next()
            .await
            .unwrap_or_else(|| Err(Status::unknown("the stream ended without an answer")))?;
        let ttl = answer.ttl.max(0) as u64;
        Ok(at(answer.header, Told::Lease { ttl }))
    }

    async fn revoke(&mut self, lease: u64) -> Answer {
        let id = lease as i64;
        let request = pb::LeaseRevokeRequest { id };
        let done = self.lease.lease_revoke(request).await?.into_inner();
        Ok(at(done.header, Told::Done))
    }

    async fn acquire(&mut self, lock: &str, lease: u64) -> Answer {
        self.grant(lease, LOCK_TTL).await?;
        let compare = self.created_at(lock, 0);
        let put = self.put(lock, lease, lease);
        self.when(vec![compare], vec![put]).await
    }

    async fn guarded(&mut self, lock: &str, token: u64, fenced: bool) -> Answer {
        let compare = fenced.then(|| self.created_at(lock, token));
        let put = self.put(&format!("{lock}-guarded"), token, 0);
        self.when(compare.into_iter().collect(), vec![put]).await
    }

    async fn hash(&mut self, revision: u64) -> Answer {
        let request = pb::HashKvRequest {
            revision: revision as i64,
        };
        let done = self.maintenance.hash_kv(request).await?.into_inner();
        let told = Told::Hash {
            hash: u64::from(done.hash),
            compacted: done.compact_revision.max(0) as u64,
        };
        Ok(at(done.header, told))
    }

    /// A snapshot ends with the checksum of all before it (SHA-256).
    async fn snapshot(&mut self) -> Answer {
        let request = pb::SnapshotRequest {};
        let mut pieces = self.maintenance.snapshot(request).await?.into_inner();
        let mut end: Vec<u8> = Vec::new();
        let (mut sum, mut bytes) = (Sha256::new(), 0);
        while let Some(piece) = pieces.next().await {
            let blob = piece?.blob;
            bytes += blob.len() as u64;
            end.extend_from_slice(&blob);
            let checked = end.len().saturating_sub(CHECKSUM_BYTES);
            sum.update(&end[..checked]);
            end.drain(..checked);
        }
        let whole = end == sum.finalize().as_slice();
        Ok(Reply {
            revision: None,
            told: Told::Snapshot { bytes, whole },
        })
    }
}

impl Client {
    async fn kept(&mut self) -> Answer {
        let found = self.range(self.all(KEPT)).await?;
        let kept = found.kvs.iter().map(|kv| {
            let name = &kv.key[kv.key.len().min(self.prefix.len() + KEPT.len())..];
            Ok((number(name)?, number(&kv.value)?, kv.mod_revision as u64))
        });
        let kept = kept.collect::<Result<_, Refused>>()?;
        Ok(at(found.header, Told::Kept { kept }))
    }

    /// Keys with a lease are left out: they go by themselves.
    async fn digest(&mut self, revision: Option<u64>) -> Answer {
        let request = pb::RangeRequest {
            revision: revision.unwrap_or(0) as i64,
            ..self.all("")
        };
        let found = self.range(request).await?;
        let (mut sum, mut keys) = (Sha256::new(), 0);
        for kv in found.kvs.iter().filter(|kv| kv.lease == 0) {
            keys += 1;
            for part in [&kv.key, &kv.value] {
                sum.update((part.len() as u64).to_be_bytes());
                sum.update(part);
            }
            for part in [kv.create_revision, kv.mod_revision, kv.version] {
                sum.update(part.to_be_bytes());
            }
        }
        let sum = sum.finalize();
        let first = sum.first_chunk().expect("a SHA-256 is longer");
        let digest = u64::from_be_bytes(*first);
        Ok(at(found.header, Told::Digest { digest, keys }))
    }

    /// What a watch of everything from a revision on is told first: that this revision is no more, or nothing of the kind.
    async fn follow(&mut self, from: u64) -> Answer {
        let all = self.all("");
        let create = pb::WatchCreateRequest {
            key: all.key,
            range_end: all.range_end,
            start_revision: from as i64,
            ..pb::WatchCreateRequest::default()
        };
        let create = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
        };
        // The stream of requests stays open, or the watch would end with it.
        let requests = tokio_stream::once(create).chain(tokio_stream::pending());
        let mut answers = self.watch.watch(requests).await?.into_inner();
        let until = tokio::time::Instant::now() + FOLLOWED_FOR;
        while let Ok(answer) = tokio::time::timeout_at(until, answers.next()).await {
            let answer = answer.unwrap_or_else(|| Err(Status::unknown("the stream ended")))?;
            if answer.compact_revision > 0 {
                let revision = answer.compact_revision as u64;
                return Ok(at(answer.header, Told::Compacted { revision }));
            }
        }
        Ok(Reply {
            revision: None,
            told: Told::Done,
        })
    }
}

const CHECKSUM_BYTES: usize = 32;
/// A watch whose beginning is gone says so at once.
const FOLLOWED_FOR: Duration = Duration::from_secs(3);
/// Before the keys that are to be kept.
const KEPT: &str = "kept/";

fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn at(header: Option<pb::ResponseHeader>, told: Told) -> Reply {
    Reply {
        revision: header.map(|header| header.revision as u64),
        told,
    }
}

fn element_key(set: &str, element: u64) -> String {
    format!("{set}/{element:012}")
}

/// The key of an account.
pub fn account_key(number: u32) -> String {
    format!("bank/{number:04}")
}

fn kept_key(key: u64) -> String {
    format!("{KEPT}{key:06}")
}

fn lease_key(lease: u64) -> String {
    format!("leased/{lease}")
}

/// The first key after all that begin with a prefix, which is not empty and does not end with the highest byte.
pub(super) fn after_prefix(prefix: &[u8]) -> bytes::Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// A read that a write was to follow failed: nothing was written.
fn before_a_write(status: Status) -> Refused {
    match super::client::outcome_of(&status, false) {
        Outcome::Fail(failure) => Refused::Surely(failure),
        _ => Refused::Answer(status),
    }
}

fn unreadable(text: &str) -> Refused {
    Refused::Surely(Failure::new("unreadable", text))
}

fn text(value: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(value).map_err(|_| unreadable("a value that is no text"))
}

pub(super) fn number(value: &[u8]) -> Result<u64, Refused> {
    let text = text(value)?;
    text.parse()
        .map_err(|_| unreadable(&format!("{text:?} is no number")))
}

fn signed(value: &[u8]) -> Result<i64, Refused> {
    let text = text(value)?;
    text.parse()
        .map_err(|_| unreadable(&format!("{text:?} is no number")))
}

fn numbers(value: &[u8]) -> Result<Vec<u64>, Refused> {
    text(value)?
        .split_whitespace()
        .map(|part| number(part.as_bytes()))
        .collect()
}

fn listed(values: &[u64]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(" ")
}
