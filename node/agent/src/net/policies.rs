//! Follows network policies, namespaces and pods, and gives the isolation of this node's pods to the network.
//!
//! A new pod asks by [`Policies::admit`] before it gets its link, so that its rules are there before its first packet. Pods of
//! other nodes are followed only while there is a policy. A pod's facts are kept until its worker has ended it: rules don't
//! go because the API forgot it first.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use network::{Network, PodUid};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::followed::{Followed, TOGETHER};
use super::policy::{self, Known, NamespaceFacts, PodFacts, PolicyFacts};

/// Pods that wait for their rules or are forgotten; more wait in line.
const QUEUED_MAX: usize = 64;
/// How long a new pod waits for its rules, also when no master tells the policies; then its sandbox is tried again.
const ADMIT_WITHIN: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Asks for the rules of new pods. Cheap to clone.
#[derive(Clone)]
pub struct Policies {
    requests: mpsc::Sender<Request>,
}

enum Request {
    Admit {
        pod: PodFacts,
        ip: Ipv4Addr,
        done: oneshot::Sender<Result<(), String>>,
    },
    Forget {
        uid: String,
    },
}

impl Policies {
    /// Starts following.
    pub fn start(client: Client, network: Arc<Network>) -> Self {
        let (requests, receiver) = mpsc::channel(QUEUED_MAX);
        tokio::spawn(follow(client, network, receiver));
        Self { requests }
    }

    /// Returns when the rules for the pod at `ip` are in force.
    pub async fn admit(&self, pod: &Value, ip: Ipv4Addr) -> Result<(), String> {
        let Some(pod) = policy::pod(pod) else {
            return Ok(()); // It has ended and gets no container.
        };
        let (done, answer) = oneshot::channel();
        let asked = async {
            let request = Request::Admit { pod, ip, done };
            self.requests.send(request).await.map_err(|_| ())?;
            answer.await.map_err(|_| ())
        };
        match tokio::time::timeout(ADMIT_WITHIN, asked).await {
            Ok(Ok(admitted)) => admitted,
            // Only when the process ends.
            Ok(Err(())) => Err("the agent is stopping".to_owned()),
            Err(_) => Err(
                "the network policies are not known yet: no master has told them; trying again"
                    .to_owned(),
            ),
        }
    }

    /// Drops what is known of a pod that has no container any more.
    pub async fn forget(&self, uid: &str) {
        // Nobody receives only when the process ends.
        let _ = self
            .requests
            .send(Request::Forget {
                uid: uid.to_owned(),
            })
            .await;
    }
}

struct State {
    client: Client,
    network: Arc<Network>,
    policies: Followed<PolicyFacts>,
    namespaces: Followed<NamespaceFacts>,
    /// All pods, while there is a policy.
    pods: Option<Followed<PodFacts>>,
    /// This node's pods, by UID.
    local: BTreeMap<String, PodFacts>,
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
}

async fn follow(client: Client, network: Arc<Network>, mut requests: mpsc::Receiver<Request>) {
    let mut state = State {
        policies: Followed::start(
            &client,
            "/apis/networking.k8s.io/v1/networkpolicies",
            policy::policy,
        ),
        namespaces: Followed::start(&client, "/api/v1/namespaces", policy::namespace),
        pods: None,
        local: BTreeMap::new(),
        waiting: vec![],
        client,
        network,
    };
    // What changed and is not in force yet.
    let mut due = false;
    let mut retry = tokio::time::interval(RETRY_AFTER);
    loop {
        let at_once = tokio::select! {
            changed = state.policies.changed() => { due |= changed; false }
            changed = state.namespaces.changed() => { due |= changed; false }
            changed = changed_pods(&mut state.pods) => { due |= changed; false }
            request = requests.recv() => match request {
                Some(request) => { due |= state.take(request); true }
                None => return,
            },
            _ = retry.tick() => true,
        };
        if !due || !state.is_complete() {
            continue;
        }
        if !at_once {
            tokio::time::sleep(TOGETHER).await;
            state.take_waiting();
        }
        while let Ok(request) = requests.try_recv() {
            state.take(request);
        }
        due = !state.apply().await;
    }
}

async fn changed_pods(pods: &mut Option<Followed<PodFacts>>) -> bool {
    match pods {
        Some(pods) => pods.changed().await,
        None => std::future::pending().await,
    }
}

impl State {
    fn take(&mut self, request: Request) -> bool {
        match request {
            Request::Admit { pod, ip, done } => {
                tracing::debug!(uid = %pod.uid, %ip, "rules for a new pod");
                self.local.insert(pod.uid.clone(), pod);
                self.waiting.retain(|waiting| !waiting.is_closed());
                self.waiting.push(done);
                true
            }
            Request::Forget { uid } => self.local.remove(&uid).is_some(),
        }
    }

    fn take_waiting(&mut self) {
        self.policies.take_waiting();
        self.namespaces.take_waiting();
        if let Some(pods) = &mut self.pods {
            pods.take_waiting();
        }
    }

    /// Whether all is known that rules follow from. Follows pods from the first policy to the last.
    fn is_complete(&mut self) -> bool {
        if !self.policies.complete || !self.namespaces.complete {
            return false;
        }
        if self.policies.items.is_empty() {
            self.pods = None;
            return true;
        }
        let client = &self.client;
        let follow = || Followed::start(client, "/api/v1/pods", policy::pod);
        self.pods.get_or_insert_with(follow).complete
    }

    /// Gives the isolation to the network; true if it is in force.
    async fn apply(&mut self) -> bool {
        let none = BTreeMap::new();
        let pods = self.pods.as_ref().map_or(&none, |pods| &pods.items);
        let ips = self.network.pod_ips().await;
        let is_ours = |pod: &&PodFacts| {
            PodUid::parse(pod.uid.as_str()).is_ok_and(|uid| ips.contains_key(&uid))
        };
        for pod in pods.values().filter(is_ours) {
            self.local.insert(pod.uid.clone(), pod.clone());
        }
        let local: Vec<(Ipv4Addr, Option<PodFacts>)> = ips
            .iter()
            .map(|(uid, ip)| (*ip, self.local.get(uid.as_str()).cloned()))
            .collect();
        let known = Known {
            policies: &self.policies.items,
            namespaces: &self.namespaces.items,
            pods,
            local: &local,
        };
        let done = self
            .network
            .sync_policies(policy::isolations(&known))
            .await
            .map_err(|error| error.to_string());
        if let Err(error) = &done {
            tracing::warn!(%error, "cannot set the rules for network policies; trying again");
        }
        for waiting in self.waiting.drain(..) {
            // Who has given up waiting asks again.
            let _ = waiting.send(done.clone());
        }
        done.is_ok()
    }
}
