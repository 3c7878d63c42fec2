//! The machine goes down: pods end in order of their priority before it does.
//!
//! Told by SIGPWR, or by SIGTERM while systemd says that the system is stopping. Rule and words: Kubernetes' "Graceful node shutdown".

use std::sync::Arc;
use std::time::Duration;

use lifecycle::{Desired, Ended};
use tokio::process::Command;

use crate::context::Context;

const CRITICAL_PRIORITY: i32 = 2_000_000_000;
const ASK_TIME_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long pods get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Periods {
    /// All of them together.
    pub total: Duration,
    /// Of this, those that the cluster needs.
    pub critical: Duration,
}

/// Whether the whole system stops, and not the agent alone.
pub async fn system_is_stopping() -> bool {
    let mut ask = Command::new("systemctl");
    ask.arg("is-system-running").kill_on_drop(true);
    match tokio::time::timeout(ASK_TIME_MAX, ask.output()).await {
        Ok(Ok(answer)) => answer.stdout.trim_ascii() == b"stopping",
        // Without systemd nobody says so.
        _ => false,
    }
}

/// Ends the node's pods: ordinary ones, then critical ones.
pub async fn end_pods(context: &Arc<Context>, periods: Periods) {
    let first = periods.total.saturating_sub(periods.critical);
    for (critical, period) in [(false, first), (true, periods.critical)] {
        let pods = context.known.all();
        let turn: Vec<Arc<Desired>> = pods
            .into_iter()
            .filter(|pod| is_critical(pod) == critical && !pod.has_ended())
            .collect();
        for pod in &turn {
            context.known.end(&pod.uid, ended(pod, period));
        }
        let gone = async {
            while turn.iter().any(|pod| context.pods.get(&pod.uid).is_some()) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(period, gone).await.is_err() {
            tracing::warn!(
                ?period,
                critical,
                "not all pods ended in their time; the machine ends them"
            );
        }
    }
}

fn is_critical(pod: &Desired) -> bool {
    pod.spec()
        .priority
        .is_some_and(|priority| priority >= CRITICAL_PRIORITY)
}

fn ended(pod: &Desired, period: Duration) -> Ended {
    // The status must still be told before the machine is down.
    let period = u32::try_from(period.as_secs()).unwrap_or(u32::MAX);
    Ended {
        reason: "Terminated",
        message: "Pod was terminated in response to imminent node shutdown.".to_owned(),
        grace_s: pod.grace_s().min(period.saturating_sub(1)),
    }
}
