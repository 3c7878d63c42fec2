//! What pods use, for the autoscalers: reads `metrics.k8s.io` of this master's own API, whoever serves it, and keeps the last answer of
//! each namespace that has been asked for lately.

use crate::clock;
use client::{Client, Config, Identity};
use objects::{Quantity, Timestamp};
use reconcile::horizontal::{PERIOD, PodMetrics, PodUsage};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A namespace for which nobody asks any more is forgotten.
const UNASKED_MAX: Duration = Duration::from_secs(120);

/// The last answers; cheap to clone.
#[derive(Clone, Default)]
pub struct Usage(Arc<Kept>);

#[derive(Default)]
struct Kept {
    namespaces: Mutex<BTreeMap<String, Namespace>>,
    asked: Notify,
}

struct Namespace {
    asked: Timestamp,
    read: Option<Timestamp>,
    answer: Option<Result<Vec<PodUsage>, String>>,
}

impl PodMetrics for Usage {
    fn usage(&self, namespace: &str) -> Option<Result<Vec<PodUsage>, String>> {
        let now = clock::now();
        let mut namespaces = self.namespaces();
        if let Some(known) = namespaces.get_mut(namespace) {
            known.asked = now;
            return known.answer.clone();
        }
        let unread = Namespace {
            asked: now,
            read: None,
            answer: None,
        };
        namespaces.insert(namespace.to_owned(), unread);
        self.0.asked.notify_one();
        None
    }
}

impl Usage {
    /// Reads what is asked for, by the API at `url`, until `stop`.
    pub async fn run(
        self,
        url: String,
        ca_pem: String,
        identity: Identity,
        stop: CancellationToken,
    ) {
        let config = Config {
            servers: vec![url],
            ca_pem,
            identity: Some(identity),
            ..Config::default()
        };
        let client = match Client::new(&config) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "autoscalers get no metrics: the own API cannot be asked");
                return;
            }
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.asked.notified() => {}
                () = tokio::time::sleep(PERIOD / 3) => {}
            }
            for namespace in self.due(clock::now()) {
                let answer = tokio::select! {
                    () = stop.cancelled() => return,
                    answer = read(&client, &namespace) => answer,
                };
                if let Some(known) = self.namespaces().get_mut(&namespace) {
                    known.answer = Some(answer);
                    known.read = Some(clock::now());
                }
            }
        }
    }

    /// The namespaces whose answer is missing or old.
    fn due(&self, now: Timestamp) -> Vec<String> {
        let mut namespaces = self.namespaces();
        namespaces.retain(|_, known| known.asked.plus(UNASKED_MAX) > now);
        let old = |known: &Namespace| known.read.is_none_or(|read| read.plus(PERIOD) <= now);
        let due = namespaces.iter().filter(|(_, known)| old(known));
        due.map(|(name, _)| name.clone()).collect()
    }

    fn namespaces(&self) -> MutexGuard<'_, BTreeMap<String, Namespace>> {
        let lock = self.0.namespaces.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct PodMetricsList {
    items: Vec<Measured>,
}

#[derive(Deserialize)]
struct Measured {
    metadata: Named,
    timestamp: Option<Timestamp>,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, Quantity>,
}

async fn read(client: &Client, namespace: &str) -> Result<Vec<PodUsage>, String> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
    let answer = tokio::time::timeout(ANSWER_MAX, client.get::<PodMetricsList>(&path)).await;
    let list = answer
        .map_err(|_| format!("no answer within {ANSWER_MAX:?}"))?
        .map_err(|error| error.to_string())?;
    Ok(list.items.into_iter().map(usage_of).collect())
}

fn usage_of(measured: Measured) -> PodUsage {
    let window = measured.window.parse::<jiff::SignedDuration>();
    let window = window.ok().and_then(|window| window.try_into().ok());
    let containers = measured.containers.into_iter();
    PodUsage {
        name: measured.metadata.name,
        at: measured.timestamp,
        window: window.unwrap_or_default(),
        containers: containers.map(|it| (it.name, it.usage)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_metrics_servers_say_is_read() {
        let list: PodMetricsList = serde_json::from_str(
            r#"{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": [
            {"metadata": {"name": "a", "namespace": "x", "creationTimestamp": "2026-01-01T00:00:00Z"},
             "timestamp": "2026-01-01T00:00:00Z", "window": "1m2.5s",
             "containers": [{"name": "c", "usage": {"cpu": "1500000n", "memory": "12Mi"}}]}]}"#,
        )
        .expect("a list");
        let [usage]: [PodUsage; 1] = list
            .items
            .into_iter()
            .map(usage_of)
            .collect::<Vec<_>>()
            .try_into()
            .expect("one pod");
        assert_eq!(usage.window, Duration::from_millis(62_500));
        assert_eq!(usage.at, Timestamp::parse("2026-01-01T00:00:00Z"));
        assert_eq!(usage.containers["c"]["cpu"].milli(), 2); // Rounded up, as Kubernetes does.
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let usage = Usage::default();
        assert_eq!(usage.usage("a"), None);
        let now = clock::now();
        assert_eq!(usage.due(now), ["a"]);
        assert!(usage.due(now.plus(2 * UNASKED_MAX)).is_empty());
        assert!(usage.namespaces().is_empty());
    }
}
