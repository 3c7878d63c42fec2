//! Follows the pods that are bound to this node and keeps a worker for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Reflected, encode_segment, reflect};
use lifecycle::{Desired, Ended, eviction};
use serde_json::Value;
use tokio::sync::{Notify, broadcast, mpsc, watch};

use super::end;
use super::worker::{self, Wanted};
use crate::context::Context;

/// Changes that wait; the reflector waits when there are more.
const QUEUED_MAX: usize = 64;
/// Ended workers that wait to be noticed.
const ENDED_MAX: usize = 64;
const RETRY_AFTER: Duration = Duration::from_secs(5);

struct Running {
    wanted: watch::Sender<Wanted>,
    poke: Arc<Notify>,
}

struct Manager {
    context: Arc<Context>,
    workers: BTreeMap<String, Running>,
    ended: mpsc::Sender<String>,
}

/// Runs the node's pods, for ever.
pub async fn run(context: Arc<Context>) {
    let (sender, mut reflected) = mpsc::channel(QUEUED_MAX);
    let selector = encode_segment(&format!("spec.nodeName={}", context.node));
    tokio::spawn(reflect(
        context.client.clone(),
        format!("/api/v1/pods?fieldSelector={selector}"),
        sender,
    ));
    let mut exits = context.pods.subscribe();
    let (ended, mut endings) = mpsc::channel(ENDED_MAX);
    let mut manager = Manager {
        context,
        workers: BTreeMap::new(),
        ended,
    };
    loop {
        tokio::select! {
            Some(reflected) = reflected.recv() => manager.reflected(reflected).await,
            exit = exits.recv() => manager.exited(exit),
            Some(uid) = endings.recv() => manager.ended(&uid),
        }
    }
}

impl Manager {
    async fn reflected(&mut self, reflected: Reflected) {
        match reflected {
            Reflected::All(objects) => self.all(objects).await,
            Reflected::Change(Change::Set(object)) => self.set(object),
            Reflected::Change(Change::Removed(object)) => {
                if let Some(uid) = object["metadata"]["uid"].as_str() {
                    self.removed(uid);
                }
            }
        }
    }

    async fn all(&mut self, objects: Vec<Value>) {
        let mut known: BTreeSet<String> = objects
            .iter()
            .filter_map(|object| object["metadata"]["uid"].as_str().map(str::to_owned))
            .collect();
        for object in objects {
            self.set(object);
        }
        let gone: Vec<String> = self
            .workers
            .keys()
            .filter(|uid| !known.contains(*uid))
            .cloned()
            .collect();
        for uid in &gone {
            self.removed(uid);
        }
        known.extend(self.workers.keys().cloned());
        self.end_orphans(&known).await;
        tracing::info!(
            pods = self.workers.len(),
            "the list of this node's pods is complete"
        );
    }

    /// What is on disk and neither known nor being ended by a worker.
    async fn end_orphans(&self, known: &BTreeSet<String>) {
        for pod in self.context.pods.list() {
            let uid = pod.spec.uid;
            if known.contains(&uid) {
                continue;
            }
            let context = self.context.clone();
            tokio::spawn(async move {
                while let Err(error) = end::orphan(&context, &uid).await {
                    tracing::warn!(%uid, %error, "cannot end the unknown pod; trying again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            });
        }
        // No pod is attached meanwhile that would be missing here: pods come by this task only.
        let on_disk = self.context.pods.list().into_iter().map(|pod| pod.spec.uid);
        let live = on_disk
            .chain(known.iter().cloned())
            .filter_map(|uid| network::PodUid::parse(uid).ok())
            .collect();
        if let Err(error) = self.context.network.retain_pods(&live).await {
            tracing::warn!(%error, "networks of pods that are gone could not be removed");
        }
    }

    fn set(&mut self, object: Value) {
        let desired = match Desired::parse(object) {
            Ok(desired) => Arc::new(desired),
            Err(error) => {
                tracing::error!(%error, "the API sent a pod that this node cannot read; it is not run");
                return;
            }
        };
        self.context.known.set(desired.clone());
        let wanted = Wanted {
            desired: desired.clone(),
            removed: false,
        };
        if let Some(running) = self.workers.get(&desired.uid) {
            running.wanted.send_replace(wanted);
        } else {
            self.start(wanted);
        }
    }

    fn start(&mut self, wanted: Wanted) {
        let uid = wanted.desired.uid.clone();
        let (sender, receiver) = watch::channel(wanted);
        let poke = Arc::new(Notify::new());
        self.context.known.wake_by(&uid, poke.clone());
        if let Some(ended) = self.refusal(&uid) {
            self.context.known.end(&uid, ended);
        }
        let (context, ended) = (self.context.clone(), self.ended.clone());
        self.workers.insert(
            uid.clone(),
            Running {
                wanted: sender,
                poke: poke.clone(),
            },
        );
        tokio::spawn(async move {
            worker::run(context, receiver, poke).await;
            // The manager ends only with the process.
            let _ = ended.send(uid).await;
        });
    }

    /// Why a pod that is new here is not taken, if it is not.
    fn refusal(&self, uid: &str) -> Option<Ended> {
        let pod = self.context.known.get(uid)?;
        if self.context.pods.get(uid).is_some() || pod.has_ended() || pod.is_deleting() {
            return None;
        }
        let refused = |reason, message| Ended {
            reason,
            message,
            grace_s: 0,
        };
        if *self.context.shuts_down.borrow() {
            let message = "Pod was rejected as the node is shutting down.";
            return Some(refused("NodeShutdown", message.to_owned()));
        }
        let pressures = self.context.pressures.borrow();
        let message = eviction::refusal(&pressures, &pod)?;
        Some(refused("Evicted", message))
    }

    /// A worker has ended. Where its pod came back meanwhile, as by a restore of the cluster, it gets a new one.
    fn ended(&mut self, uid: &str) {
        let Some(running) = self.workers.remove(uid) else {
            return;
        };
        let wanted = running.wanted.borrow().clone();
        self.context.probe_counts.forget(uid);
        if !wanted.removed && !wanted.desired.is_deleting() {
            self.start(wanted);
        } else {
            self.context.known.forget(uid);
        }
    }

    fn removed(&mut self, uid: &str) {
        if let Some(running) = self.workers.get(uid) {
            running.wanted.send_modify(|wanted| wanted.removed = true);
        }
    }

    fn exited(&self, exit: Result<node_runtime::Event, broadcast::error::RecvError>) {
        match exit {
            Ok(node_runtime::Event::Exited { pod, .. }) => {
                if let Some(running) = self.workers.get(&pod) {
                    running.poke.notify_one();
                }
            }
            // Events were lost: everybody looks.
            Err(broadcast::error::RecvError::Lagged(_)) => self
                .workers
                .values()
                .for_each(|running| running.poke.notify_one()),
            // Only when the runtime goes, and it does not before this.
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }
}
