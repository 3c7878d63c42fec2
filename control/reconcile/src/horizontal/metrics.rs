//! How many replicas a metric asks for. Rules: Kubernetes' replica calculator: what a pod uses beside what it requests or beside
//! an amount; pods that are not ready yet or have no metrics are counted so that they damp a change and never drive one.

use super::Target;
use crate::{pods, view};
use k8s_openapi::api::core::v1::Pod;
use objects::{Quantity, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// For so long after its start a pod's use of CPU counts only where it was measured while the pod was ready.
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
/// A pod that was first unready for this long after its start, and still is, was never ready.
const INITIAL_READINESS: Duration = Duration::from_secs(30);

/// What a pod uses, as metrics.k8s.io tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodUsage {
    /// The pod's name.
    pub name: String,
    /// The end of the time over which it was measured.
    pub at: Option<Timestamp>,
    /// How long that was.
    pub window: Duration,
    /// By container, by resource.
    pub containers: BTreeMap<String, BTreeMap<String, Quantity>>,
}

/// A resource of pods, or of one container of each.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `cpu`, `memory`.
    pub resource: &'a str,
    /// Of this container alone.
    pub container: Option<&'a str>,
}

/// By how much a ratio may miss 1 without a change of scale.
#[derive(Clone, Copy, Debug)]
pub struct Tolerances {
    /// Above 1.
    pub up: f64,
    /// Below 1.
    pub down: f64,
}

impl Tolerances {
    fn allow(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What a metric asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// So many replicas.
    pub replicas: i64,
    /// What is used, in percent of what is requested.
    pub utilization: Option<i64>,
    /// What each pod uses on average, in thousandths.
    pub average_milli: i64,
}

/// What it is compared with: thousandths for each pod, or percent of its request.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// Thousandths of the resource's unit.
    AverageMilli(i64),
    /// Percent of the request.
    Utilization(i64),
}

type Millis = BTreeMap<String, i64>;

/// The replicas that a resource's use asks for; else why it cannot be said.
pub fn replicas(
    target: &Target,
    all: &[Arc<Pod>],
    usage: &Result<Vec<PodUsage>, String>,
    asked: Asked<'_>,
    goal: Goal,
    tolerances: Tolerances,
    now: Timestamp,
) -> Result<Proposal, String> {
    let selector = target.selector.as_ref().map_err(String::clone)?;
    let all: Vec<&Pod> = all
        .iter()
        .map(Arc::as_ref)
        .filter(|pod| view::matches(selector, &pod.metadata))
        .collect();
    let measured = measured(usage, &all, asked).map_err(|why| {
        format!(
            "unable to get metrics for resource {}: {why}",
            asked.resource
        )
    })?;
    if all.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = Groups::of(&all, &measured, asked.resource, now);
    let mut used: Millis = measured
        .iter()
        .filter(|(name, _)| !groups.ignored.contains(**name) && !groups.unready.contains(**name))
        .map(|(name, (milli, _))| ((*name).to_owned(), *milli))
        .collect();
    if used.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let scale = match goal {
        Goal::AverageMilli(milli) => Scale::Average(milli),
        Goal::Utilization(percent) => Scale::Requests(percent, requests(&all, asked)?),
    };
    let first = scale.compare(&used)?;
    let proposal = |replicas| Proposal {
        replicas,
        utilization: first.utilization,
        average_milli: first.average_milli,
    };
    let unready_count = first.ratio > 1.0 && !groups.unready.is_empty();
    if !unready_count && groups.missing.is_empty() {
        return Ok(proposal(match tolerances.allow(first.ratio) {
            true => target.replicas,
            false => ceil(first.ratio * float(groups.ready)),
        }));
    }
    // What is not known speaks against the change: as if it were idle for more replicas, as if it were busy for fewer.
    for name in &groups.missing {
        let assumed = if first.ratio < 1.0 {
            scale.busy(name)
        } else {
            0
        };
        if first.ratio != 1.0 {
            used.insert((*name).to_owned(), assumed);
        }
    }
    if unready_count {
        let idle = groups.unready.iter().map(|name| ((*name).to_owned(), 0));
        used.extend(idle);
    }
    let second = scale.compare(&used)?.ratio;
    let turned = (first.ratio < 1.0 && second > 1.0) || (first.ratio > 1.0 && second < 1.0);
    if tolerances.allow(second) || turned {
        return Ok(proposal(target.replicas));
    }
    let replicas = ceil(second * float(used.len()));
    let against = (second < 1.0 && replicas > target.replicas)
        || (second > 1.0 && replicas < target.replicas);
    Ok(proposal(if against { target.replicas } else { replicas }))
}

/// What each selected pod uses, and when that was measured. A pod of which a container's value is not known is left out.
fn measured<'a>(
    usage: &'a Result<Vec<PodUsage>, String>,
    all: &[&Pod],
    asked: Asked<'_>,
) -> Result<BTreeMap<&'a str, (i64, &'a PodUsage)>, String> {
    let usage = usage
        .as_ref()
        .map_err(|why| format!("unable to fetch metrics from resource metrics API: {why}"))?;
    let names: BTreeSet<&str> = all.iter().map(|pod| view::name(&pod.metadata)).collect();
    let chosen = usage.iter().filter(|pod| names.contains(&*pod.name));
    let mut measured = BTreeMap::new();
    let mut any = false;
    for pod in chosen {
        any = true;
        let milli = match asked.container {
            Some(name) => {
                let container = pod.containers.get(name).ok_or_else(|| {
                    format!(
                        "container {name} not present in metrics for pod {}",
                        pod.name
                    )
                })?;
                container
                    .get(asked.resource)
                    .map(|quantity| quantity.milli())
            }
            None => {
                let values = pod.containers.values();
                let values = values.map(|container| container.get(asked.resource));
                let sum: Option<Vec<i64>> = values
                    .map(|quantity| quantity.map(|quantity| quantity.milli()))
                    .collect();
                sum.filter(|all| !all.is_empty())
                    .map(|all| all.iter().fold(0, |sum: i64, one| sum.saturating_add(*one)))
            }
        };
        if let Some(milli) = milli {
            measured.insert(pod.name.as_str(), (milli, pod));
        }
    }
    if !any {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    Ok(measured)
}

/// The pods by how their metrics count.
#[derive(Default)]
struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

impl<'a> Groups<'a> {
    fn of(
        all: &[&'a Pod],
        measured: &BTreeMap<&str, (i64, &PodUsage)>,
        resource: &str,
        now: Timestamp,
    ) -> Self {
        let mut groups = Groups::default();
        for pod in all {
            let name = view::name(&pod.metadata);
            if pods::is_deleting(pod) || pods::phase(pod) == "Failed" {
                groups.ignored.insert(name);
            } else if pods::phase(pod) == "Pending" {
                groups.unready.insert(name);
            } else {
                match measured.get(name) {
                    None => drop(groups.missing.insert(name)),
                    Some((_, usage)) if resource == "cpu" && is_unready(pod, usage, now) => {
                        groups.unready.insert(name);
                    }
                    Some(_) => groups.ready += 1,
                }
            }
        }
        groups
    }
}

/// Whether what was measured is only that the pod starts.
fn is_unready(pod: &Pod, usage: &PodUsage, now: Timestamp) -> bool {
    let status = pod.status.as_ref();
    let started = status.and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else {
        return true;
    };
    let (started, is_false) = (Timestamp(started.0), ready.status == "False");
    let since = ready.last_transition_time.as_ref();
    let since = since.map_or(Timestamp::from_unix(0), |time| Timestamp(time.0));
    if started.plus(CPU_INITIALIZATION) > now {
        let measured = usage.at.unwrap_or(Timestamp::from_unix(0));
        return is_false || measured < since.plus(usage.window);
    }
    is_false && started.plus(INITIAL_READINESS) > since
}

/// What each pod requests.
fn requests(all: &[&Pod], asked: Asked<'_>) -> Result<Millis, String> {
    let mut requests = Millis::new();
    for pod in all {
        let name = view::name(&pod.metadata);
        let spec = pod.spec.as_ref();
        let containers = spec.map_or(&[][..], |spec| &spec.containers);
        let sidecars = spec.and_then(|spec| spec.init_containers.as_ref());
        let sidecars = sidecars.into_iter().flatten();
        let sidecars = sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always"));
        let mut sum = 0_i64;
        for container in containers.iter().chain(sidecars) {
            if asked.container.is_some_and(|name| name != container.name) {
                continue;
            }
            let resources = container.resources.as_ref();
            let requested = resources.and_then(|it| it.requests.as_ref()?.get(asked.resource));
            let requested = requested.and_then(|quantity| Quantity::parse(&quantity.0).ok());
            let Some(requested) = requested else {
                return Err(format!(
                    "missing request for {} in container {} of Pod {name}",
                    asked.resource, container.name
                ));
            };
            sum = sum.saturating_add(requested.milli());
        }
        requests.insert(name.to_owned(), sum);
    }
    Ok(requests)
}

enum Scale {
    Average(i64),
    Requests(i64, Millis),
}

struct Compared {
    ratio: f64,
    utilization: Option<i64>,
    average_milli: i64,
}

impl Scale {
    fn compare(&self, used: &Millis) -> Result<Compared, String> {
        match self {
            Scale::Average(goal) => {
                let average = total(used.values()) / whole(used.len()).max(1);
                Ok(Compared {
                    ratio: float_of(average) / float_of((*goal).max(1)),
                    utilization: None,
                    average_milli: average,
                })
            }
            Scale::Requests(goal, requests) => {
                let known: Vec<(&i64, &i64)> = used
                    .iter()
                    .filter_map(|(name, milli)| Some((milli, requests.get(name)?)))
                    .collect();
                let used = total(known.iter().map(|(used, _)| *used));
                let requested = total(known.iter().map(|(_, requested)| *requested));
                if requested == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let percent = used.saturating_mul(100) / requested;
                Ok(Compared {
                    ratio: float_of(percent) / float_of((*goal).max(1)),
                    utilization: Some(percent),
                    average_milli: used / whole(known.len()).max(1),
                })
            }
        }
    }

    /// What a pod is taken to use that may be as busy as it should be.
    fn busy(&self, name: &str) -> i64 {
        match self {
            Scale::Average(goal) => *goal,
            Scale::Requests(goal, requests) => {
                let requested = requests.get(name).copied().unwrap_or(0);
                requested.saturating_mul((*goal).max(100)) / 100
            }
        }
    }
}

fn total<'a>(values: impl Iterator<Item = &'a i64>) -> i64 {
    values.fold(0, |sum, value| sum.saturating_add(*value))
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn float(count: usize) -> f64 {
    float_of(whole(count))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio that decides about replicas needs no more than 52 bits"
)]
pub(super) fn float_of(number: i64) -> f64 {
    number as f64
}

/// The next whole number above; a number is no larger than replicas can be.
#[expect(
    clippy::cast_possible_truncation,
    reason = "it lies within what the type holds"
)]
pub(super) fn ceil(number: f64) -> i64 {
    number.ceil().clamp(0.0, f64::from(i32::MAX)) as i64
}
