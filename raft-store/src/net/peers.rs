//! The connections to the other members: one a member and purpose, made when first used, made anew when it went silent.

use super::guard::Outgoing;
use super::io::{self, Tls};
use super::traffic::{Meter, Traffic};
use super::transport::Purpose;
use super::transport::{Transport, Wire};
use crate::types::MemberId;
use hyper_util::rt::TokioIo;
use rpc::raft::raft_client::RaftClient;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};

/// The largest message that is sent or accepted.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A refusal is logged once in so long.
const REFUSAL_TOLD_EVERY: Duration = Duration::from_secs(10);

/// A typed client of one member.
pub type Client = RaftClient<InterceptedService<Wire, Outgoing>>;

/// The connections of one member.
pub struct Peers {
    cluster_id: String,
    member_id: MemberId,
    tls: Option<Tls>,
    connect_limit: Duration,
    /// Takes the place of the network in a simulation.
    transport: Option<Arc<dyn Transport>>,
    /// When it was last told that another member refuses this one.
    refusal_told: Mutex<Option<Instant>>,
    channels: Mutex<BTreeMap<(MemberId, Purpose), (String, Wire)>>,
    /// Where the members are according to the newest membership; whoever asks for a client may know an older address.
    addresses: Mutex<BTreeMap<MemberId, String>>,
    traffic: Arc<Traffic>,
}

impl Peers {
    /// No connections yet.
    pub fn new(
        cluster_id: &str,
        member_id: MemberId,
        tls: Option<Tls>,
        connect_limit: Duration,
        transport: Option<Arc<dyn Transport>>,
    ) -> Self {
        Peers {
            cluster_id: cluster_id.to_owned(),
            member_id,
            tls,
            connect_limit,
            transport,
            refusal_told: Mutex::default(),
            channels: Mutex::default(),
            addresses: Mutex::default(),
            traffic: Arc::default(),
        }
    }

    /// What goes over all connections, those that others made too.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    /// Takes over where the members are.
    pub fn know(&self, addresses: BTreeMap<MemberId, String>) {
        *self.addresses.lock().expect("no holder of the lock panics") = addresses;
    }

    /// Tells, now and then, that another member will have nothing to do with this one: a person must act.
    pub fn refused(&self, by: MemberId, reason: &str) {
        let mut told = self
            .refusal_told
            .lock()
            .expect("no holder of the lock panics");
        if told.is_none_or(|told| told.elapsed() >= REFUSAL_TOLD_EVERY) {
            *told = Some(Instant::now());
            tracing::error!(by, reason, "another member refuses this one");
        }
    }

    /// Who calls.
    pub fn member_id(&self) -> MemberId {
        self.member_id
    }

    /// A client of the member `to` at `address`. It connects when it is first used.
    pub fn client(&self, to: MemberId, address: &str, purpose: Purpose) -> Client {
        let moved = self
            .addresses
            .lock()
            .expect("no holder of the lock panics")
            .get(&to)
            .cloned();
        let address = moved.as_deref().unwrap_or(address);
        let mut channels = self.channels.lock().expect("no holder of the lock panics");
        let known = channels
            .get(&(to, purpose))
            .filter(|(known, _)| known == address);
        let channel = match known {
            Some((_, channel)) => channel.clone(),
            None => {
                let channel = match &self.transport {
                    Some(transport) => Wire::Simulated(transport.connect(to, purpose)),
                    None => Wire::Real(self.connect(to, address, purpose)),
                };
                channels.insert((to, purpose), (address.to_owned(), channel.clone()));
                channel
            }
        };
        let outgoing = Outgoing::new(&self.cluster_id, self.member_id, to)
            .expect("the cluster's id was checked to fit a header when the store was opened");
        RaftClient::with_interceptor(channel, outgoing)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Whether nobody listens at `address`, so that the process that did is gone. A simulated network says nothing of that.
    pub async fn refuses(&self, address: &str, limit: Duration) -> bool {
        self.transport.is_none() && io::refuses(address, limit).await
    }

    /// Forgets a connection that went silent; the next client makes a new one.
    pub fn reset(&self, to: MemberId, purpose: Purpose) {
        self.channels
            .lock()
            .expect("no holder of the lock panics")
            .remove(&(to, purpose));
    }

    /// Closes every connection.
    pub fn close(&self) {
        self.channels
            .lock()
            .expect("no holder of the lock panics")
            .clear();
    }

    fn connect(&self, to: MemberId, address: &str, purpose: Purpose) -> Channel {
        let (address, tls, limit) = (
            Arc::<str>::from(address),
            self.tls.clone(),
            self.connect_limit,
        );
        let traffic = self.traffic.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (address, tls, meter) = (address.clone(), tls.clone(), Meter::of(&traffic, to));
            async move {
                io::connect(&address, tls.as_ref(), limit, meter)
                    .await
                    .map(TokioIo::new)
            }
        });
        let window = match purpose {
            Purpose::Log | Purpose::Snapshot => 8 << 20,
            Purpose::Pulse | Purpose::Forward => 2 << 20,
        };
        // The host is told by the connector; HTTP/2 only wants some authority.
        Endpoint::from_static("http://member")
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(2))
            .initial_stream_window_size(window)
            .initial_connection_window_size(window)
            .connect_with_connector_lazy(connector)
    }
}
