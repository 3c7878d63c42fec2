//! `/cluster/v1/…`: what is asked of the cluster itself rather than of its objects.
//!
//! Never knows Raft: the binary implements [`Cluster`] over the store. Administrators may do everything, nodes may read
//! status and members, others what a role allows them on these paths; a join needs nothing but its token.

use crate::ApiServer;
use crate::answer::{Answer, Body, BodyError, Content};
use crate::auth::{bearer_token, is_node};
use crate::query::Query;
use async_trait::async_trait;
use base64::Engine;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use objects::cluster::{
    ClusterStatus, JoinRequest, JoinResponse, KeyRotation, KeysRotated, Member, MemberAdd,
    MemberCheck, MemberList, MemberReplace, Replacement,
};
use objects::identities::MASTER_USER;
use objects::past::HistoryKeep;
use objects::snapshots::{
    SnapshotList, SnapshotRequested, SnapshotScheduleList, SnapshotSchedulePut,
    SnapshotScheduleStatus,
};
use objects::{Reason, Status, StatusDetails};
use registry::Caller;
use registry::rbac::Request as PathRequest;
use serde::de::DeserializeOwned;

/// The header that carries a snapshot's passphrase, base64.
pub const PASSPHRASE_HEADER: &str = "x-trireme-passphrase";

/// The header that carries the public key of a snapshot's key file, hexadecimal.
pub const PUBLIC_KEY_HEADER: &str = "x-trireme-snapshot-key";

/// The most that a body may hold here: who joins is not known yet.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// An archive of the store as it is streamed.
pub type Archive = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// What becomes of the cluster's keys in a snapshot.
#[derive(Clone, PartialEq, Eq)]
pub enum SnapshotKeys {
    /// They are within, sealed under this passphrase.
    Sealed(Vec<u8>),
    /// They are within, sealed for the holder of the key file with this public key.
    SealedFor(String),
    /// They are left out, as the caller said explicitly.
    LeftOut,
}

/// One thing that health endpoints look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name: `store`.
    pub name: &'static str,
    /// What is wrong with it, if anything.
    pub problem: Option<String>,
}

/// By what a machine proves that it may join.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// A join token, not checked yet.
    Token(&'a str),
    /// The certificate of a master, checked already: one that lost its data comes back as a new member.
    MastersCertificate,
}

/// The cluster as the binary knows it. Every call has its own deadline.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Who is in it, who leads, how far each is.
    async fn status(&self) -> Result<ClusterStatus, Status>;

    /// Who is in it.
    async fn members(&self) -> Result<MemberList, Status>;

    /// Admits a master.
    async fn add_member(&self, add: MemberAdd) -> Result<Member, Status>;

    /// Removes a master by its name or id.
    async fn remove_member(&self, name_or_id: &str) -> Result<(), Status>;

    /// Lets another master take the place of one, named by its name or id.
    async fn replace_member(
        &self,
        name_or_id: &str,
        replace: MemberReplace,
    ) -> Result<Replacement, Status>;

    /// Compares the data of all masters at one revision.
    async fn check_members(&self) -> Result<Vec<MemberCheck>, Status>;

    /// Lets in whoever proves that it may; 401 when the proof is wrong.
    async fn join(&self, proof: Proof<'_>, request: JoinRequest) -> Result<JoinResponse, Status>;

    /// An archive of the store from which a cluster can be restored.
    async fn snapshot(&self, keys: SnapshotKeys) -> Result<Archive, Status>;

    /// The schedules of snapshots and how they go.
    async fn snapshot_schedules(&self) -> Result<SnapshotScheduleList, Status>;

    /// One schedule.
    async fn snapshot_schedule(&self, name: &str) -> Result<SnapshotScheduleStatus, Status>;

    /// Makes or changes a schedule.
    async fn put_snapshot_schedule(
        &self,
        name: &str,
        schedule: SnapshotSchedulePut,
    ) -> Result<SnapshotScheduleStatus, Status>;

    /// Forgets a schedule.
    async fn remove_snapshot_schedule(&self, name: &str) -> Result<(), Status>;

    /// Asks for a run of a schedule now.
    async fn run_snapshot_schedule(&self, name: &str) -> Result<SnapshotRequested, Status>;

    /// The snapshots that schedules made.
    async fn snapshots(&self) -> Result<SnapshotList, Status>;

    /// Hands leadership to `to`, or to whoever is furthest.
    async fn transfer_leader(&self, to: Option<&str>) -> Result<(), Status>;

    /// What the controllers think about an object, line by line.
    async fn explain(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Vec<String>, Status>;

    /// Sets how much of the past is kept; what is left out stays as it is.
    async fn keep_history(&self, keep: HistoryKeep) -> Result<(), Status>;

    /// What a master that was removed and still runs says to whoever asks it anything but its health.
    fn removed(&self) -> Option<String>;

    /// Puts new keys in the place of those that seal secrets or sign tokens.
    async fn rotate_keys(&self, rotation: KeyRotation) -> Result<KeysRotated, Status>;

    /// What `/metrics` says: Prometheus' text format.
    async fn metrics(&self) -> Result<String, Status>;

    /// What `/readyz` says beyond that the server answers: at least whether the store has a leader.
    fn readiness(&self) -> Vec<Check>;
}

/// Answers a request below `/cluster/v1/`; `segments` follow that.
pub async fn answer(
    server: &ApiServer,
    caller: Result<Caller, Status>,
    segments: &[String],
    parts: &Parts,
    query: &Query,
    body: &Bytes,
) -> Result<Answer, Status> {
    let cluster = server.cluster();
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    if is_join(&parts.method, segments) {
        let proof = match bearer_token(&parts.headers) {
            Some(token) => Proof::Token(token),
            None if is_master_itself(&caller) => Proof::MastersCertificate,
            None => return Err(Status::unauthorized()),
        };
        let answer = cluster.join(proof, read_json(body)?).await?;
        return Ok(Answer::value(StatusCode::OK, &answer));
    }
    authorize(server, &caller?, parts, &words).await?;
    match (&parts.method, &words[..]) {
        (&Method::GET, ["status"]) => Ok(ok(&cluster.status().await?)),
        (&Method::GET, ["members"]) => Ok(ok(&cluster.members().await?)),
        (&Method::POST, ["members"]) => {
            let member = cluster.add_member(read_json(body)?).await?;
            Ok(Answer::value(StatusCode::CREATED, &member))
        }
        (&Method::DELETE, ["members", member]) => {
            cluster.remove_member(member).await?;
            Ok(done(member))
        }
        (&Method::POST, ["members", member, "replace"]) => {
            let replacement = cluster.replace_member(member, read_json(body)?).await?;
            Ok(ok(&replacement))
        }
        (&Method::POST, ["keys", "rotate"]) => {
            Ok(ok(&cluster.rotate_keys(read_json(body)?).await?))
        }
        (&Method::POST, ["check"]) => Ok(ok(&cluster.check_members().await?)),
        (&Method::POST, ["leader", "transfer"]) => {
            cluster.transfer_leader(query.text("to")).await?;
            Ok(done("leader"))
        }
        (&Method::GET, ["snapshot"]) => {
            let keys = snapshot_keys(&parts.headers, query)?;
            Ok(archive(cluster.snapshot(keys).await?))
        }
        (method, ["snapshots", rest @ ..]) => snapshots(cluster, method, rest, body).await,
        (&Method::GET, ["explain"]) => {
            let (Some(resource), Some(name)) = (query.text("resource"), query.text("name")) else {
                return Err(Status::bad_request(
                    "explain needs the query parameters resource and name",
                ));
            };
            let lines = cluster
                .explain(resource, query.text("namespace"), name)
                .await?;
            Ok(ok(&serde_json::json!({ "lines": lines })))
        }
        _ => Err(not_found()),
    }
}

/// Answers a request below `/cluster/v1/snapshots/`.
async fn snapshots(
    cluster: &dyn Cluster,
    method: &Method,
    words: &[&str],
    body: &Bytes,
) -> Result<Answer, Status> {
    match (method, words) {
        (&Method::GET, []) => Ok(ok(&cluster.snapshots().await?)),
        (&Method::GET, ["schedules"]) => Ok(ok(&cluster.snapshot_schedules().await?)),
        (&Method::GET, ["schedules", name]) => Ok(ok(&cluster.snapshot_schedule(name).await?)),
        (&Method::PUT, ["schedules", name]) => {
            let put = read_json(body)?;
            Ok(ok(&cluster.put_snapshot_schedule(name, put).await?))
        }
        (&Method::DELETE, ["schedules", name]) => {
            cluster.remove_snapshot_schedule(name).await?;
            Ok(done(name))
        }
        (&Method::POST, ["schedules", name, "run"]) => {
            Ok(ok(&cluster.run_snapshot_schedule(name).await?))
        }
        _ => Err(not_found()),
    }
}

/// 404 for a path that leads nowhere, in apiserver's words.
pub fn not_found() -> Status {
    Status::failure(
        404,
        Reason::NotFound,
        "the server could not find the requested resource",
    )
}

fn is_master_itself(caller: &Result<Caller, Status>) -> bool {
    caller
        .as_ref()
        .is_ok_and(|caller| caller.user == MASTER_USER)
}

/// Whether a request asks to be let in.
pub fn is_join(method: &Method, segments: &[String]) -> bool {
    method == Method::POST && matches!(segments, [word] if word == "join")
}

/// Whether the caller may do it: nodes may read who is in the cluster, others need a role.
pub(crate) async fn authorize(
    server: &ApiServer,
    caller: &Caller,
    parts: &Parts,
    words: &[&str],
) -> Result<(), Status> {
    let readable = parts.method == Method::GET && matches!(words, ["status" | "members"]);
    if readable && is_node(caller) {
        return Ok(());
    }
    allow_path(server, caller, parts).await
}

/// Whether a role allows the path, which is no resource.
pub async fn allow_path(server: &ApiServer, caller: &Caller, parts: &Parts) -> Result<(), Status> {
    let verb = parts.method.as_str().to_ascii_lowercase();
    let request = PathRequest::path(&verb, parts.uri.path());
    server.allow(caller, &request).await
}

fn snapshot_keys(headers: &HeaderMap, query: &Query) -> Result<SnapshotKeys, Status> {
    if let Some(key) = headers.get(PUBLIC_KEY_HEADER) {
        let key = key.to_str().map_err(|_| {
            Status::bad_request(format!("the header {PUBLIC_KEY_HEADER} is no text"))
        })?;
        return Ok(SnapshotKeys::SealedFor(key.to_owned()));
    }
    let Some(passphrase) = headers.get(PASSPHRASE_HEADER) else {
        return match query.get("keys") {
            Some("none") => Ok(SnapshotKeys::LeftOut),
            _ => Err(Status::bad_request(format!(
                "a snapshot holds the cluster's keys: give a passphrase in the header {PASSPHRASE_HEADER} (base64), a key file's public key in {PUBLIC_KEY_HEADER}, or ask for one without keys by ?keys=none"
            ))),
        };
    };
    base64::engine::general_purpose::STANDARD
        .decode(passphrase.as_bytes())
        .ok()
        .filter(|passphrase| !passphrase.is_empty())
        .map(SnapshotKeys::Sealed)
        .ok_or_else(|| {
            Status::bad_request(format!(
                "the header {PASSPHRASE_HEADER} is no base64, or empty"
            ))
        })
}

fn archive(archive: Archive) -> Answer {
    let frames = archive.map(|part| part.map(Frame::data).map_err(BodyError::new));
    let body: Body = StreamBody::new(frames).boxed_unsync();
    let mut headers = HeaderMap::new();
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Answer {
        code: StatusCode::OK,
        headers,
        content: Content::Stream(body),
        turn: None,
    }
}

/// Reads a JSON body.
pub fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(body).map_err(|error| {
        Status::bad_request(format!("the request's body is not as agreed: {error}"))
    })
}

/// 200 with a value.
pub fn ok(value: &impl serde::Serialize) -> Answer {
    Answer::value(StatusCode::OK, value)
}

fn done(name: &str) -> Answer {
    Answer::status(&Status::success(StatusDetails {
        name: name.to_owned(),
        ..StatusDetails::default()
    }))
}
