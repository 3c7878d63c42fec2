//! The sockets of the DNS server: UDP and TCP on one address, and the way upstream.
//!
//! Bounds: [`FORWARDS_MAX`] questions upstream at a time (one more is dropped, and the client asks again),
//! [`CONNECTIONS_MAX`] TCP connections (one more waits), [`IDLE_MAX`] for a silent connection, [`UPSTREAM_WITHIN`] for one
//! upstream. Answers from memory, the cluster's own and upstream's, need neither task nor wait.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::answer::{Action, answer, encode, encode_udp, payload_max, refusal};
use super::cache::Cache;
use super::zone::Zone;

/// Questions upstream at a time.
pub const FORWARDS_MAX: usize = 512;
/// TCP connections at a time.
pub const CONNECTIONS_MAX: usize = 128;
/// How long a TCP connection may be silent.
pub const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long one upstream may take.
pub const UPSTREAM_WITHIN: Duration = Duration::from_secs(2);
/// Upstream servers that are used, as libc uses three; a question waits for all of them at most.
pub const UPSTREAMS_MAX: usize = 3;
/// The pause after a socket's error, so that a lasting one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// A running server. It ends when the handle is dropped.
#[derive(Debug)]
pub struct DnsHandle {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    zone: RwLock<Arc<Zone>>,
    upstreams: RwLock<Arc<[SocketAddr]>>,
    /// What upstream said.
    cache: Mutex<Cache>,
    /// The upstream that answered last.
    preferred: AtomicUsize,
    rotation: AtomicUsize,
    forwards: Semaphore,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drop for DnsHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl DnsHandle {
    /// Binds UDP and TCP at `address` and begins to answer.
    pub async fn start(
        address: SocketAddr,
        upstreams: &[SocketAddr],
        zone: Zone,
    ) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        // Port 0 is one port of TCP's choice for both.
        let address = tcp.local_addr()?;
        let udp = Arc::new(UdpSocket::bind(address).await?);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            zone: RwLock::new(Arc::new(zone)),
            upstreams: RwLock::new(usable(upstreams, address)),
            cache: Mutex::default(),
            preferred: AtomicUsize::new(0),
            rotation: AtomicUsize::new(0),
            forwards: Semaphore::new(FORWARDS_MAX),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        shared.tasks.spawn(
            stop.clone()
                .run_until_cancelled_owned(serve_udp(shared.clone(), udp)),
        );
        shared.tasks.spawn(
            stop.clone()
                .run_until_cancelled_owned(serve_tcp(shared.clone(), tcp)),
        );
        Ok(Self {
            shared,
            address,
            stop,
        })
    }

    /// Answers from `zone` from now on.
    pub fn update(&self, zone: Zone) {
        *self
            .shared
            .zone
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(zone);
    }

    /// Asks these upstream servers from now on.
    pub fn set_upstreams(&self, upstreams: &[SocketAddr]) {
        *self
            .shared
            .upstreams
            .write()
            .unwrap_or_else(PoisonError::into_inner) = usable(upstreams, self.address);
        // Others may say otherwise.
        let mut cache = self
            .shared
            .cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *cache = Cache::default();
    }

    /// Where the server answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops and waits until the sockets are closed.
    pub async fn stop(self) {
        self.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// Without ourselves: a question would go round for ever.
fn usable(upstreams: &[SocketAddr], own: SocketAddr) -> Arc<[SocketAddr]> {
    upstreams
        .iter()
        .filter(|upstream| **upstream != own)
        .take(UPSTREAMS_MAX)
        .copied()
        .collect()
}

impl Shared {
    fn decide(&self, bytes: &[u8]) -> Action {
        let zone = self
            .zone
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let action = answer(&zone, bytes, self.rotation.fetch_add(1, Ordering::Relaxed));
        match action {
            Action::Forward(request) => match self.remembered(&request) {
                Some(reply) => Action::Reply(reply),
                None => Action::Forward(request),
            },
            action => action,
        }
    }

    fn remembered(&self, question: &Message) -> Option<Message> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(question, Instant::now())
    }

    fn remember(&self, question: &Message, reply: &[u8]) {
        if let Ok(reply) = Message::from_vec(reply) {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.put(question, reply, Instant::now());
        }
    }

    fn upstreams(&self) -> Arc<[SocketAddr]> {
        self.upstreams
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Carries out what needs upstream; the bytes are the reply.
    async fn resolve(&self, action: Action, raw: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match action {
            Action::Ignore => None,
            Action::Reply(reply) => Some(encode(&reply)),
            Action::Forward(request) => Some(match self.ask(raw, transport).await {
                Some(reply) => {
                    self.remember(&request, &reply);
                    reply
                }
                None => encode(&refusal(&request, ResponseCode::ServFail)),
            }),
            Action::Chase {
                reply,
                target,
                kind,
            } => Some(self.chase(reply, target, kind, transport).await),
        }
    }

    async fn chase(
        &self,
        mut reply: Message,
        target: Name,
        kind: RecordType,
        transport: Transport,
    ) -> Vec<u8> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(target, kind));
        let answer = match self.remembered(&question) {
            Some(answer) => Some(answer),
            None => {
                let answer = self.ask(&encode(&question), transport).await;
                if let Some(answer) = &answer {
                    self.remember(&question, answer);
                }
                answer.and_then(|bytes| Message::from_vec(&bytes).ok())
            }
        };
        match answer {
            Some(answer) => {
                reply.metadata.truncation = answer.metadata.truncation;
                reply.add_answers(answer.answers);
            }
            None => reply.metadata.response_code = ResponseCode::ServFail,
        }
        encode(&reply)
    }

    /// The reply of the first upstream that gives one; the one that answered last is asked first.
    async fn ask(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let upstreams = self.upstreams();
        let first = self.preferred.load(Ordering::Relaxed);
        for turn in 0..upstreams.len() {
            let n = (first + turn) % upstreams.len();
            let upstream = upstreams[n];
            let reply = match transport {
                Transport::Udp => timeout(UPSTREAM_WITHIN, ask_udp(upstream, question)).await,
                Transport::Tcp => timeout(UPSTREAM_WITHIN, ask_tcp(upstream, question)).await,
            };
            match reply {
                Ok(Ok(reply)) => {
                    self.preferred.store(n, Ordering::Relaxed);
                    return Some(reply);
                }
                Ok(Err(error)) => debug!(%upstream, %error, "upstream DNS server failed"),
                Err(_) => debug!(%upstream, "upstream DNS server gave no answer in time"),
            }
        }
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; 65_535];
    loop {
        let (len, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                warn!(%error, "cannot receive DNS questions");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let question = &buffer[..len];
        match shared.decide(question) {
            Action::Ignore => {}
            Action::Reply(reply) => {
                // The request was read once already, so its size limit can be read again.
                let limit =
                    Message::from_vec(question).map_or(512, |request| payload_max(&request));
                send_udp(&socket, &encode_udp(&reply, limit), client).await;
            }
            action => spawn_forward(&shared, &socket, action, question.to_vec(), client),
        }
    }
}

/// Answers by a task of its own; dropped if too many wait for upstream already.
fn spawn_forward(
    shared: &Arc<Shared>,
    socket: &Arc<UdpSocket>,
    action: Action,
    question: Vec<u8>,
    client: SocketAddr,
) {
    if shared.forwards.available_permits() == 0 {
        debug!(%client, "too many questions upstream; one dropped");
        return;
    }
    let (task, socket, stop) = (shared.clone(), socket.clone(), shared.stop.clone());
    shared
        .tasks
        .spawn(stop.run_until_cancelled_owned(async move {
            let Ok(_permit) = task.forwards.try_acquire() else {
                return;
            };
            if let Some(reply) = task.resolve(action, &question, Transport::Udp).await {
                send_udp(&socket, &reply, client).await;
            }
        }));
}

async fn send_udp(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        debug!(%client, %error, "cannot send a DNS answer");
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok(permit) = shared.connections.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept DNS connections");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let (task, stop) = (shared.clone(), shared.stop.clone());
        shared
            .tasks
            .spawn(stop.run_until_cancelled_owned(async move {
                let _permit = permit;
                if let Err(error) = serve_connection(&task, stream).await {
                    debug!(%error, "DNS connection ended");
                }
            }));
    }
}

async fn serve_connection(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let question = timeout(IDLE_MAX, read_framed(&mut stream)).await??;
        let action = shared.decide(&question);
        let Some(reply) = shared.resolve(action, &question, Transport::Tcp).await else {
            return Ok(());
        };
        timeout(IDLE_MAX, write_framed(&mut stream, &reply)).await??;
    }
}

async fn ask_udp(upstream: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if upstream.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    // A port of its own a question, and only that server may answer to it.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if buffer[..len].get(..2) == question.get(..2) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(upstream: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_framed(&mut stream, question).await?;
    read_framed(&mut stream).await
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len())
        .map_err(|_| io::Error::other("a DNS message over 65,535 bytes"))?;
    let framed = [&len.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}
