//! The store: every call goes to etcd, whose answer is the newest state there is; nothing is kept here but how far it is.

use crate::announce::{self, Announced};
use crate::leadership::{self, LEADER_KEY};
use crate::{from_etcd, to_etcd, watch};
use async_trait::async_trait;
use futures::StreamExt;
use mvcc::{
    At, KeyVersions, LeaderState, LeaderStream, Moment, Past, RangeRequest, RangeResponse, Store,
    StoreError, Txn, TxnResponse, VersionsRequest, WatchRequest, WatchStream,
};
use objects::{Revision, Term};
use rpc::etcd::etcdserverpb as pb;
use rpc::etcd::etcdserverpb::kv_client::KvClient;
use rpc::etcd::etcdserverpb::lease_client::LeaseClient;
use rpc::etcd::etcdserverpb::watch_client::WatchClient;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;
use tokio_stream::wrappers::WatchStream as StatesStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};

/// No call takes longer.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(10);
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// A silent connection is given up after both.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_MAX: Duration = Duration::from_secs(3);
/// A list of every object is one answer.
const ANSWER_BYTES_MAX: usize = 1 << 30;
const WINDOW_BYTES: u32 = 8 << 20;

/// Where etcd is, and as whom it is asked.
#[derive(Clone, Debug)]
pub struct Config {
    /// URLs of its members, as `https://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// What TLS needs beyond the system's; None for `http`.
    pub tls: Option<Tls>,
    /// This master's name, which is what the leader's key holds.
    pub name: String,
}

/// PEM texts.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Who signed etcd's certificate.
    pub ca: String,
    /// This client's certificate and key, where etcd asks for them.
    pub identity: Option<(String, String)>,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No endpoint.
    #[error("no endpoint of etcd is given; name at least one, as https://10.0.0.1:2379")]
    NoEndpoint,
    /// An endpoint or the TLS is not usable.
    #[error("the etcd at {0} cannot be asked with these settings")]
    Settings(String, #[source] tonic::transport::Error),
    /// etcd does not answer.
    #[error(
        "the etcd at {0} does not answer; check its endpoints, and the certificates where it asks for them"
    )]
    Silent(String, #[source] StoreError),
}

/// The store over an etcd. Copies share everything.
#[derive(Clone)]
pub struct EtcdStore(Arc<Inner>);

pub(crate) struct Inner {
    pub name: String,
    channel: Channel,
    applied: AtomicU64,
    pub leader: tokio::sync::watch::Sender<LeaderState>,
    /// Its name, as far as is known.
    pub leader_name: Mutex<Option<String>>,
    pub masters: tokio::sync::watch::Sender<Vec<Announced>>,
}

impl EtcdStore {
    /// Connects, and asks once so that wrong settings show at once. It does not stand for leadership before
    /// [`EtcdStore::stand`] runs.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let all = config.endpoints.join(", ");
        if config.endpoints.is_empty() {
            return Err(OpenError::NoEndpoint);
        }
        let endpoints: Result<Vec<Endpoint>, _> = config
            .endpoints
            .iter()
            .map(|url| endpoint(url, config.tls.as_ref()))
            .collect();
        let endpoints = endpoints.map_err(|error| OpenError::Settings(all.clone(), error))?;
        let store = EtcdStore(Arc::new(Inner {
            name: config.name,
            channel: Channel::balance_list(endpoints.into_iter()),
            applied: AtomicU64::new(0),
            leader: tokio::sync::watch::Sender::new(LeaderState::default()),
            leader_name: Mutex::default(),
            masters: tokio::sync::watch::Sender::new(vec![]),
        }));
        let key = mvcc::KeyRange::key(LEADER_KEY);
        match store.range(RangeRequest::new(key)).await {
            Ok(_) => Ok(store),
            Err(error) => Err(OpenError::Silent(all, error)),
        }
    }

    /// Stands for leadership until `stop`, and then gives it up.
    pub async fn stand(&self, stop: CancellationToken) {
        leadership::stand(&self.0, stop).await;
    }

    /// Says that this master lives and where its API is, until `stop`.
    pub async fn announce(&self, api_url: &str, stop: CancellationToken) {
        announce::announce(&self.0, api_url, stop).await;
    }

    /// The masters that live, as far as this one knows; it must [announce](EtcdStore::announce) itself.
    pub fn masters(&self) -> Vec<Announced> {
        self.0.masters.borrow().clone()
    }

    /// The leadership as far as this master knows, and the name of whoever leads.
    pub fn leads(&self) -> (LeaderState, Option<String>) {
        let state = *self.0.leader.borrow();
        let name = self
            .0
            .leader_name
            .lock()
            .expect("no holder of the lock panics");
        (state, name.clone().filter(|_| state.has_leader))
    }
}

fn endpoint(url: &str, tls: Option<&Tls>) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_MAX)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let Some(Tls { ca, identity }) = tls else {
        return Ok(endpoint);
    };
    let mut settings = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some((certificate, key)) = identity {
        settings = settings.identity(Identity::from_pem(certificate, key));
    }
    endpoint.tls_config(settings)
}

impl Inner {
    /// Tells who leads.
    pub fn tell_leader(&self, name: &str, term: Term, is_leader: bool) {
        let mut known = self
            .leader_name
            .lock()
            .expect("no holder of the lock panics");
        *known = Some(name.to_owned());
        drop(known);
        self.leader.send_replace(LeaderState {
            term,
            is_leader,
            has_leader: true,
        });
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn leases(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub fn watches(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    fn applied(&self) -> Revision {
        Revision(self.applied.load(Ordering::Acquire))
    }

    /// The store was seen at this revision.
    fn saw(&self, header: Option<&pb::ResponseHeader>) {
        self.applied
            .fetch_max(from_etcd::told(header).0, Ordering::AcqRel);
    }

    /// Waits for a call, but not for ever. `asked` is the revision that it asks for.
    async fn within<T>(
        &self,
        asked: Revision,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, StoreError> {
        match timeout(CALL_MAX, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(from_etcd::error(&status, asked, self.applied())),
            Err(_) => Err(StoreError::Unavailable(format!(
                "etcd did not answer within {CALL_MAX:?}"
            ))),
        }
    }

    pub async fn etcd_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, StoreError> {
        let response = self
            .within(Revision(0), self.kv().txn(Request::new(request)))
            .await?;
        self.saw(response.header.as_ref());
        Ok(response)
    }

    pub async fn etcd_range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let asked = request.revision.unwrap_or_default();
        let request = Request::new(to_etcd::range(request));
        let response = self.within(asked, self.kv().range(request)).await?;
        self.saw(response.header.as_ref());
        Ok(from_etcd::range_response(response))
    }

    pub async fn forget_before(&self, revision: Revision) -> Result<(), StoreError> {
        let request = pb::CompactionRequest {
            revision: to_etcd::revision(revision),
            physical: false,
        };
        let response = self
            .within(revision, self.kv().compact(Request::new(request)))
            .await?;
        self.saw(response.header.as_ref());
        Ok(())
    }

    /// A transaction that is done only while the leader of `term` leads.
    async fn fenced(
        &self,
        term: Term,
        request: pb::TxnRequest,
    ) -> Result<(pb::TxnResponse, Revision), StoreError> {
        use pb::request_op::Request as Step;
        use pb::response_op::Response as Done;
        let look = pb::RangeRequest {
            key: LEADER_KEY.into(),
            ..pb::RangeRequest::default()
        };
        let guarded = pb::TxnRequest {
            compare: vec![to_etcd::created_at(LEADER_KEY, Revision(term.0))],
            success: vec![to_etcd::step(Step::RequestTxn(request))],
            failure: vec![to_etcd::step(Step::RequestRange(look))],
        };
        let response = self.etcd_txn(guarded).await?;
        let at = from_etcd::told(response.header.as_ref());
        let only = response.responses.into_iter().next();
        match only.and_then(|step| step.response) {
            Some(Done::ResponseTxn(inner)) => Ok((inner, at)),
            Some(Done::ResponseRange(found)) => {
                let leads = found.kvs.first().map(|kv| kv.create_revision);
                Err(StoreError::Fenced {
                    held: term,
                    // Whoever leads next does so in a term of which this much is sure.
                    current: Term(leads.map_or(at.next(), from_etcd::revision).0),
                })
            }
            _ => Err(strange("a fenced transaction")),
        }
    }
}

fn strange(what: &str) -> StoreError {
    StoreError::Unavailable(format!("etcd's answer to {what} has not what was asked"))
}

fn unknown_to_etcd(what: &str) -> StoreError {
    StoreError::Refused(format!(
        "{what} cannot be had on etcd, which notes neither authors nor times; run the masters on their own store for that"
    ))
}

#[async_trait]
impl Store for EtcdStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.0.etcd_range(request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        let (fence, asked) = (txn.fence, from_etcd::Asked::of(&txn));
        let request = to_etcd::txn(txn);
        let (response, at) = match fence {
            Some(term) => self.0.fenced(term, request).await?,
            None => {
                let response = self.0.etcd_txn(request).await?;
                let at = from_etcd::told(response.header.as_ref());
                (response, at)
            }
        };
        from_etcd::txn_response(response, asked, at).ok_or_else(|| strange("a transaction"))
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        let begun = timeout(CALL_MAX, watch::watch(self.0.watches(), request)).await;
        let stream = begun.map_err(|_| {
            StoreError::Unavailable(format!("etcd did not begin a watch within {CALL_MAX:?}"))
        })??;
        let inner = self.0.clone();
        let noted = stream.inspect(move |batch| {
            if let Ok(batch) = batch {
                inner.applied.fetch_max(batch.revision.0, Ordering::AcqRel);
            }
        });
        Ok(noted.boxed())
    }

    async fn versions(&self, _: VersionsRequest) -> Result<KeyVersions, StoreError> {
        Err(unknown_to_etcd("the history of an object"))
    }

    async fn past(&self) -> Result<Past, StoreError> {
        Err(unknown_to_etcd("what was at a time"))
    }

    async fn moment(&self, _: At) -> Result<Moment, StoreError> {
        Err(unknown_to_etcd("what was at a time"))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.forget_before(revision).await
    }

    fn applied_revision(&self) -> Revision {
        self.0.applied()
    }

    fn leader(&self) -> LeaderStream {
        StatesStream::new(self.0.leader.subscribe()).boxed()
    }
}
