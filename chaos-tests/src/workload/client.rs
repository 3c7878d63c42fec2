//! One process' connection to one member: the etcd v3 API, each request sent once and given up after a deadline.
//! Never repeats anything, and never guesses: where an answer does not say that nothing was done, nobody knows.

use crate::history::{Failure, Outcome, Request};
use crate::testbed::Endpoint;
use anyhow::{Context, Result};
use rpc::etcd::etcdserverpb::kv_client::KvClient;
use rpc::etcd::etcdserverpb::lease_client::LeaseClient;
use rpc::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use rpc::etcd::etcdserverpb::watch_client::WatchClient;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, ConnectError, Status};

/// A request without an answer by then is given up.
const DEADLINE: Duration = Duration::from_secs(1);
/// The class of a failure that is no answer in time.
pub(super) const TIMEOUT: &str = "timeout";
/// A snapshot takes as long as the store is large.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(20);
/// Answers of this size are refused rather than read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A connection. It is made when it is first needed, and made anew by the first request after it broke.
#[derive(Clone)]
pub struct Client {
    pub(super) kv: KvClient<Channel>,
    pub(super) lease: LeaseClient<Channel>,
    pub(super) maintenance: MaintenanceClient<Channel>,
    pub(super) watch: WatchClient<Channel>,
    pub(super) prefix: String,
}

impl Client {
    /// To one member. All keys get the prefix.
    pub fn new(endpoint: &Endpoint, prefix: &str) -> Result<Self> {
        let channel = channel(endpoint)?;
        Ok(Client {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone())
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            watch: WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
            prefix: prefix.to_owned(),
        })
    }

    /// One request, sent once.
    pub async fn ask(&mut self, request: &Request) -> Outcome {
        let deadline = match request {
            Request::Snapshot | Request::Digest { .. } | Request::Follow { .. } => {
                SNAPSHOT_DEADLINE
            }
            _ => DEADLINE,
        };
        let is_write = request.is_write();
        match tokio::time::timeout(deadline, self.send(request)).await {
            Ok(Ok(reply)) => Outcome::Ok(reply),
            Ok(Err(Refused::Answer(status))) => outcome_of(&status, is_write),
            Ok(Err(Refused::Surely(failure))) => Outcome::Fail(failure),
            Err(_) => unknown(
                Failure::new(TIMEOUT, format!("no answer within {deadline:?}")),
                is_write,
            ),
        }
    }
}

/// Why a request has no answer.
pub(super) enum Refused {
    /// The member, or the connection, said so.
    Answer(Status),
    /// It was not asked for what would change something.
    Surely(Failure),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Refused::Answer(status)
    }
}

impl Refused {
    /// Nothing was changed.
    pub fn surely(class: &str, text: impl Into<String>) -> Self {
        Refused::Surely(Failure::new(class, text))
    }
}

fn channel(endpoint: &Endpoint) -> Result<Channel> {
    let mut channel = Channel::from_shared(endpoint.url.clone())
        .with_context(|| format!("{} is no URL", endpoint.url))?
        .connect_timeout(DEADLINE)
        .tcp_nodelay(true);
    if let Some(tls) = &endpoint.tls {
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&tls.ca))
            .identity(Identity::from_pem(&tls.certificate, &tls.key));
        channel = channel
            .tls_config(config)
            .with_context(|| format!("TLS for {} cannot be set up", endpoint.url))?;
    }
    Ok(channel.connect_lazy())
}

/// What a status says of a request. A read without an answer changed nothing, whatever became of it.
pub(super) fn outcome_of(status: &Status, is_write: bool) -> Outcome {
    let class = match status.code() {
        _ if is_unsent(status) => "unreachable".to_owned(),
        Code::Unavailable if status.message().contains("no leader") => "no leader".to_owned(),
        code => format!("{code:?}").to_lowercase(),
    };
    let failure = Failure::new(&class, status.message());
    if is_surely_undone(status) {
        Outcome::Fail(failure)
    } else {
        unknown(failure, is_write)
    }
}

fn unknown(failure: Failure, is_write: bool) -> Outcome {
    if is_write {
        Outcome::Info(failure)
    } else {
        Outcome::Fail(failure)
    }
}

/// Whether a member says that it did nothing and will do nothing. The texts are etcd's.
fn is_surely_undone(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::OutOfRange
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented
        | Code::ResourceExhausted => true,
        Code::Unavailable => is_unsent(status) || status.message() == "etcdserver: no leader",
        _ => is_unsent(status),
    }
}

/// Whether no connection could be made, so that nothing was sent.
fn is_unsent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_surely_undone_has_failed() {
        let outcome = |code, text: &str| outcome_of(&Status::new(code, text), true);
        let fails = [
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::Unavailable, "etcdserver: no leader"),
        ];
        for (code, text) in fails {
            assert!(matches!(outcome(code, text), Outcome::Fail(_)), "{text}");
        }
        let unknown = [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unknown, "transport error"),
            (Code::Cancelled, "operation was canceled"),
        ];
        for (code, text) in unknown {
            assert!(matches!(outcome(code, text), Outcome::Info(_)), "{text}");
            let read = outcome_of(&Status::new(code, text), false);
            assert!(matches!(read, Outcome::Fail(_)), "{text}");
        }
    }

    #[tokio::test]
    async fn who_is_not_there_was_not_told_anything() {
        let endpoint = Endpoint {
            name: "nobody".to_owned(),
            url: "http://127.0.0.1:9".to_owned(),
            tls: None,
        };
        let mut client = Client::new(&endpoint, "p/").expect("a URL");
        let key = "k".to_owned();
        let outcome = client.ask(&Request::Write { key, value: 1 }).await;
        let Outcome::Fail(failure) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(failure.class, "unreachable");
    }
}
