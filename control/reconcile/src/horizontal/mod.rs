//! Keeps the scale of a workload where its metrics ask for it.
//!
//! Looks every [`PERIOD`] and changes nothing in between, so that rates are rates. Never touches pods. What it recommended and
//! changed lately is kept beside it, not in the store: a new leader begins with the scale as it finds it. Metrics of custom and
//! external kinds have no source here, and are told as such. Semantics: autoscaling/v2, Kubernetes' controller.

mod behavior;
mod metrics;
mod target;

pub use behavior::History;
pub use metrics::PodUsage;
pub use target::{Target, find};

use crate::conditions::{self, Condition};
use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, EventType, Plan, Precondition};
use crate::status::StatusEdit;
use crate::view::{Viewed, resources};
use behavior::Range;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricTarget,
};
use k8s_openapi::api::core::v1::Pod;
use metrics::{Goal, Proposal, Tolerances};
use objects::{ObjectError, ObjectKey, Quantity, Timestamp, Uid};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often an autoscaler is looked at.
pub const PERIOD: Duration = Duration::from_secs(15);

/// How soon it is looked whether the metrics are there that were asked for.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
const TOLERANCE: f64 = 0.1;
const DISABLED: &str = "scaling is disabled since the replica count of the target is zero";

/// What pods use. Its answer may be some seconds old; it never waits.
pub trait PodMetrics: Send + Sync {
    /// What the pods of a namespace use; else why that is not known. None while it is being asked for the first time.
    fn usage(&self, namespace: &str) -> Option<Result<Vec<PodUsage>, String>>;
}

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The autoscaler.
    pub scaler: Viewed<HorizontalPodAutoscaler>,
    /// What it scales; else why that is not known.
    pub target: Result<Target, String>,
    /// The pods of its namespace.
    pub pods: Vec<Arc<Pod>>,
    /// What they use; else why that is not known.
    pub usage: Result<Vec<PodUsage>, String>,
    /// Why the last plan of this autoscaler could not be executed, if it could not.
    pub failure: Option<String>,
}

/// Returns the change of scale that the metrics ask for, and the autoscaler's status.
pub fn reconcile(input: &Input, history: &mut History, now: Timestamp) -> Plan {
    let scaler = &input.scaler;
    if scaler.is_deleting() {
        return Plan::nothing();
    }
    let due = history.looked.map(|looked| looked.plus(PERIOD));
    if let Some(due) = due.filter(|due| *due > now) {
        return Plan {
            wake_at: Some(due),
            ..Plan::nothing()
        };
    }
    history.looked = Some(now);
    let mut report = Report::of(scaler, now);
    let scaled = match &input.target {
        Ok(target) => {
            history.begin(target.replicas, now);
            report.able(
                true,
                "SucceededGetScale",
                "the HPA controller was able to get the target's current scale",
            );
            decide(input, target, history, &mut report)
        }
        Err(why) => {
            let told =
                format!("the HPA controller was unable to get the target's current scale: {why}");
            report.able(false, "FailedGetScale", &told);
            report.warn("FailedGetScale", why.clone());
            None
        }
    };
    report.plan(input, scaled, now.plus(PERIOD))
}

/// The action that brings the target to the scale that it should have.
fn decide(
    input: &Input,
    target: &Target,
    history: &mut History,
    report: &mut Report<'_>,
) -> Option<Action> {
    let spec = input.scaler.view.spec.as_ref()?;
    let range = Range {
        min: spec.min_replicas.unwrap_or(1).into(),
        max: spec.max_replicas.into(),
    };
    let current = target.replicas;
    report.edit.set_count("currentReplicas", current);
    let (desired, reason) = if current == 0 && range.min != 0 {
        report.active(false, "ScalingDisabled", DISABLED);
        (current, String::new())
    } else if current > range.max {
        (
            range.max,
            "Current number of replicas above Spec.MaxReplicas".to_owned(),
        )
    } else if current < range.min {
        (
            range.min,
            "Current number of replicas below Spec.MinReplicas".to_owned(),
        )
    } else {
        let (asked, metric) = by_metrics(input, target, report)?;
        let behavior = spec.behavior.as_ref();
        let limited = behavior::limit(history, behavior, range, current, asked, report.now);
        report.able(true, limited.able.0, limited.able.1);
        let (is_limited, reason, message) = limited.limited;
        report.set("ScalingLimited", is_limited, reason, message);
        let reason = match asked > current {
            true => format!("{metric} above target"),
            false => "All metrics below target".to_owned(),
        };
        (limited.replicas, reason)
    };
    if let Some(why) = &input.failure {
        let told = format!("the HPA controller was unable to update the target scale: {why}");
        report.able(false, "FailedUpdateScale", &told);
        report.warn(
            "FailedRescale",
            format!("New size: {desired}; reason: {reason}; error: {why}"),
        );
    }
    report.edit.set_count("desiredReplicas", desired);
    if desired == current {
        return None;
    }
    history.ask(current, desired, report.now);
    if input.failure.is_none() {
        let told = format!("the HPA controller was able to update the target scale to {desired}");
        report.able(true, "SucceededRescale", &told);
        report.edit.set("lastScaleTime", json!(report.now));
        report.event(
            EventType::Normal,
            "SuccessfulRescale",
            format!("New size: {desired}; reason: {reason}"),
        );
    }
    let metadata = &target.object.metadata;
    Some(Action::Patch {
        key: target.key.clone(),
        precondition: Precondition::unchanged(&metadata.uid.0, &metadata.resource_version),
        merge: json!({"spec": {"replicas": desired}}),
        subresource: Some("scale"),
    })
}

/// The most replicas that any metric asks for, and that metric's name. None when nothing can be said, or when only fewer could be
/// said while some metric is not known.
fn by_metrics(input: &Input, target: &Target, report: &mut Report<'_>) -> Option<(i64, String)> {
    if let Err(why) = &target.selector {
        let message = match &**why {
            "selector is required" => "the HPA target's scale is missing a selector",
            why => why,
        };
        let reason = match &**why {
            "selector is required" => "SelectorRequired",
            _ => "InvalidSelector",
        };
        report.active(false, "InvalidSelector", message);
        report.warn(reason, why.clone());
        return None;
    }
    let spec = input.scaler.view.spec.as_ref()?;
    let specs = spec.metrics.as_deref().unwrap_or_default();
    let (mut best, mut statuses, mut wrong) = (None::<(i64, String)>, Vec::new(), Vec::new());
    for metric in specs {
        match by_metric(input, target, metric, report.now) {
            Ok((name, proposal, status)) => {
                statuses.push(status);
                if best
                    .as_ref()
                    .is_none_or(|(most, _)| proposal.replicas > *most)
                {
                    best = Some((proposal.replicas, name));
                }
            }
            Err(unknown) => wrong.push(unknown),
        }
    }
    report.edit.set("currentMetrics", Value::Array(statuses));
    for unknown in &wrong {
        report.warn(unknown.reason, unknown.why.clone());
    }
    if let Some(first) = wrong.first() {
        let is_less = best
            .as_ref()
            .is_none_or(|(most, _)| *most < target.replicas);
        if is_less {
            let told = format!(
                "the HPA was unable to compute the replica count: {}",
                first.why
            );
            report.active(false, first.reason, &told);
            report.warn(
                "FailedComputeMetricsReplicas",
                format!(
                    "invalid metrics ({} invalid out of {}), first error is: {}{}",
                    wrong.len(),
                    specs.len(),
                    first.context,
                    first.why
                ),
            );
            return None;
        }
    }
    let (replicas, name) = best?;
    let told = format!("the HPA was able to successfully calculate a replica count from {name}");
    report.active(true, "ValidMetricFound", &told);
    Some((replicas, name))
}

/// Why a metric says nothing.
struct Unknown {
    reason: &'static str,
    context: String,
    why: String,
}

/// The metric's name, what it asks for, and its place in the status.
fn by_metric(
    input: &Input,
    target: &Target,
    metric: &MetricSpec,
    now: Timestamp,
) -> Result<(String, Proposal, Value), Unknown> {
    let (asked, goal, reason, member) = match (&metric.resource, &metric.container_resource) {
        (Some(source), _) if metric.type_ == "Resource" => {
            let asked = metrics::Asked {
                resource: &source.name,
                container: None,
            };
            (asked, &source.target, "FailedGetResourceMetric", "resource")
        }
        (_, Some(source)) if metric.type_ == "ContainerResource" => {
            let container = Some(source.container.as_str());
            let asked = metrics::Asked {
                resource: &source.name,
                container,
            };
            (
                asked,
                &source.target,
                "FailedGetContainerResourceMetric",
                "containerResource",
            )
        }
        _ => {
            let reason = match &*metric.type_ {
                "Object" => "FailedGetObjectMetric",
                "Pods" => "FailedGetPodsMetric",
                "External" => "FailedGetExternalMetric",
                _ => "InvalidMetricSourceType",
            };
            let why = format!(
                "unable to get metrics: nothing on this cluster serves metrics of type {}",
                metric.type_
            );
            return Err(Unknown {
                reason,
                context: String::new(),
                why,
            });
        }
    };
    let resource = asked.resource;
    let unknown = |what: &str, why: String| {
        let kind = if asked.container.is_some() {
            "container"
        } else {
            "resource"
        };
        let context = format!("failed to get {resource} {kind} metric value: ");
        Unknown {
            reason,
            context,
            why: format!("{what}{why}"),
        }
    };
    let (goal, name, what) = goal_of(resource, goal).map_err(|why| unknown("", why))?;
    let what = format!("failed to get {resource} {what}: ");
    let usage = &input.usage;
    let tolerances = tolerances(&input.scaler);
    let proposal = metrics::replicas(target, &input.pods, usage, asked, goal, tolerances, now)
        .map_err(|why| unknown(&what, why))?;
    let mut current =
        json!({"averageValue": Quantity::from_milli(proposal.average_milli).to_string()});
    if let Some(percent) = proposal.utilization {
        current["averageUtilization"] = json!(percent);
    }
    let mut told = json!({"name": resource, "current": current});
    if let Some(container) = asked.container {
        told["container"] = json!(container);
    }
    Ok((name, proposal, json!({"type": metric.type_, member: told})))
}

/// What a metric is compared with, its name, and the word for what is asked.
fn goal_of(resource: &str, target: &MetricTarget) -> Result<(Goal, String, &'static str), String> {
    if let Some(average) = &target.average_value {
        let average = Quantity::parse(&average.0).map_err(|error| error.to_string())?;
        let goal = Goal::AverageMilli(average.milli());
        return Ok((goal, format!("{resource} resource"), "usage"));
    }
    let Some(percent) = target.average_utilization else {
        return Err("invalid resource metric source: neither an average utilization nor an average value was set".to_owned());
    };
    let name = format!("{resource} resource utilization (percentage of request)");
    Ok((Goal::Utilization(percent.into()), name, "utilization"))
}

fn tolerances(scaler: &Viewed<HorizontalPodAutoscaler>) -> Tolerances {
    let spec = scaler.view.spec.as_ref();
    let behavior = spec.and_then(|spec| spec.behavior.as_ref());
    let of = |rules: Option<&HPAScalingRules>| {
        let said = rules.and_then(|rules| Quantity::parse(&rules.tolerance.as_ref()?.0).ok());
        said.map_or(TOLERANCE, |said| metrics::float_of(said.milli()) / 1000.0)
    };
    Tolerances {
        up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
    }
}

/// The status and the events, as the decision goes on.
struct Report<'a> {
    scaler: &'a Viewed<HorizontalPodAutoscaler>,
    edit: StatusEdit,
    told: BTreeMap<&'static str, (bool, String, String)>,
    events: Vec<Action>,
    now: Timestamp,
}

impl<'a> Report<'a> {
    fn of(scaler: &'a Viewed<HorizontalPodAutoscaler>, now: Timestamp) -> Self {
        Report {
            scaler,
            edit: StatusEdit::of(scaler),
            told: BTreeMap::new(),
            events: Vec::new(),
            now,
        }
    }

    /// The last word on a condition counts: one that turns and turns back has not changed.
    fn set(&mut self, condition_type: &'static str, is_true: bool, reason: &str, message: &str) {
        let told = (is_true, reason.to_owned(), message.to_owned());
        self.told.insert(condition_type, told);
    }

    fn able(&mut self, is_true: bool, reason: &str, message: &str) {
        self.set("AbleToScale", is_true, reason, message);
    }

    fn active(&mut self, is_true: bool, reason: &str, message: &str) {
        self.set("ScalingActive", is_true, reason, message);
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        self.event(EventType::Warning, reason, message);
    }

    fn event(&mut self, event_type: EventType, reason: &'static str, message: String) {
        self.events.push(Action::Event {
            regarding: self.scaler.reference(),
            event_type,
            reason,
            message,
        });
    }

    fn plan(mut self, input: &Input, scaled: Option<Action>, wake_at: Timestamp) -> Plan {
        let mut all = self.edit.conditions();
        for (condition_type, (is_true, reason, message)) in &self.told {
            let condition = Condition {
                condition_type,
                status: if *is_true { "True" } else { "False" },
                reason,
                message,
            };
            conditions::set(&mut all, &condition, self.now);
        }
        self.edit.set_conditions(all);
        let generation = self.scaler.object.metadata.generation;
        self.edit.set_nonzero("observedGeneration", generation);
        // desiredReplicas is required, also where nothing is known yet.
        self.edit
            .set_count("desiredReplicas", self.edit.count("desiredReplicas"));
        let status = self
            .edit
            .into_update(self.scaler, resources::horizontalpodautoscalers());
        let mut actions: Vec<Action> = scaled.into_iter().collect();
        if input.failure.is_some() && status.is_some() {
            actions.clear(); // They would fail again, and the status that tells of it would never be written.
        }
        actions.extend(self.events);
        Plan {
            actions,
            status,
            wake_at: Some(wake_at),
        }
    }
}

/// Runs [`reconcile`] for every HorizontalPodAutoscaler.
pub struct HorizontalController {
    metrics: Arc<dyn PodMetrics>,
    histories: Mutex<BTreeMap<Uid, History>>,
}

impl HorizontalController {
    /// With what tells of the pods' use.
    pub fn new(metrics: Arc<dyn PodMetrics>) -> Self {
        HorizontalController {
            metrics,
            histories: Mutex::default(),
        }
    }
}

impl Controller for HorizontalController {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn keys_for(&self, change: &Change<'_>, _: &dyn World) -> Vec<ObjectKey> {
        let is_scaler = change.key.resource == resources::horizontalpodautoscalers();
        if is_scaler && change.after.is_none() {
            let mut histories = self
                .histories
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            histories.remove(&change.latest().map(|it| it.uid.clone()).unwrap_or_default());
        }
        match is_scaler {
            true => vec![change.key.clone()],
            false => Vec::new(),
        }
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(scaler) = asked.object::<HorizontalPodAutoscaler>()? else {
            return Ok(Plan::nothing());
        };
        let Some(usage) = self.metrics.usage(scaler.namespace()) else {
            return Ok(Plan {
                wake_at: Some(asked.now.plus(FIRST_ANSWER)),
                ..Plan::nothing()
            });
        };
        let reference = scaler.view.spec.as_ref().map(|spec| &spec.scale_target_ref);
        let target = match reference {
            Some(reference) => find(asked, reference),
            None => Err("spec.scaleTargetRef is missing".to_owned()),
        };
        let selector = target.as_ref().ok();
        let selector = selector.and_then(|target| target.selector.as_ref().ok());
        let input = Input {
            pods: match selector {
                Some(selector) => asked.neighbours(&resources::pods(), &|record| {
                    selector.matches(&record.labels)
                })?,
                None => Vec::new(),
            },
            usage,
            failure: asked.failure.map(str::to_owned),
            scaler,
            target,
        };
        let uid = input.scaler.uid().clone();
        let mut histories = self
            .histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let history = histories.entry(uid).or_default();
        Ok(reconcile(&input, history, asked.now))
    }
}
