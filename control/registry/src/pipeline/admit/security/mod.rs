//! Pod security: how far a pod may reach into its node, by the level that its namespace's labels say; `baseline` where they say
//! nothing. Rules and words: Kubernetes' PodSecurity plugin and its Pod Security Standards.

mod baseline;
mod restricted;
mod view;

use super::{Attributes, Operation};
use crate::pipeline::{Pipeline, store};
use crate::strategy::edit::{self, Members};
use crate::strategy::field_value;
use mvcc::Consistency;
use objects::{Cause, GroupResource, Object, ObjectKey, Status};

use std::collections::BTreeMap;
use std::fmt;
use view::{PodView, Violation};

/// A check: what it has against a pod, by the rules of a minor version of Kubernetes.
type Check = fn(&PodView<'_>, u32) -> Option<Violation>;

const LABEL: &str = "pod-security.kubernetes.io/";
/// The checks of `baseline` that are stricter in `restricted`, by their place in the list.
const OVERRIDDEN: [usize; 3] = [1, 3, 9];
/// How many of a namespace's pods are looked at when its level changes.
const PODS_MAX: usize = 3000;
/// How many kinds of complaints about them are told.
const TOLD_MAX: usize = 20;

/// How much a pod may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Level {
    Privileged,
    #[default]
    Baseline,
    Restricted,
}

impl Level {
    const NAMES: [(&'static str, Level); 3] = [
        ("privileged", Level::Privileged),
        ("baseline", Level::Baseline),
        ("restricted", Level::Restricted),
    ];

    fn parse(text: &str) -> Option<Self> {
        let mut names = Self::NAMES.iter();
        names
            .find(|(name, _)| *name == text)
            .map(|(_, level)| *level)
    }

    fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// A level by the rules of a minor version; None for the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rules {
    level: Level,
    minor: Option<u32>,
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}:v1.{minor}", self.level.as_str()),
            None => write!(f, "{}:latest", self.level.as_str()),
        }
    }
}

impl Rules {
    /// What a namespace's labels say for a mode. A label that cannot be read enforces the strictest, and tells nothing.
    fn of(labels: &BTreeMap<String, String>, mode: &str) -> Self {
        let level = labels.get(&format!("{LABEL}{mode}"));
        let version = labels.get(&format!("{LABEL}{mode}-version"));
        let unreadable = match mode {
            "enforce" => Level::Restricted,
            _ => Level::Privileged,
        };
        Rules {
            level: level.map_or(Level::default(), |text| {
                Level::parse(text).unwrap_or(unreadable)
            }),
            minor: version.and_then(|text| parse_version(text).flatten()),
        }
    }

    /// What these rules have against a pod.
    fn judge(self, pod: &PodView<'_>) -> Vec<Violation> {
        let minor = self.minor.unwrap_or(u32::MAX);
        let restricts = self.level == Level::Restricted;
        let baseline = baseline::CHECKS.iter().enumerate().filter(|(index, _)| {
            let stricter = restricts && OVERRIDDEN.contains(index);
            self.level != Level::Privileged && !stricter
        });
        let restricted = restricted::CHECKS.iter().filter(|_| restricts);
        baseline
            .map(|(_, check)| check)
            .chain(restricted)
            .filter(|(since, _)| minor >= *since)
            .filter_map(|(_, check)| check(pod, minor))
            .collect()
    }
}

/// `latest` is no number; None for what is no version.
fn parse_version(text: &str) -> Option<Option<u32>> {
    match text {
        "latest" => Some(None),
        text => {
            let minor = text.strip_prefix("v1.")?;
            let plain = minor == "0" || !minor.starts_with('0');
            let digits = minor.bytes().all(|byte| byte.is_ascii_digit());
            (plain && digits)
                .then(|| minor.parse().ok())
                .flatten()
                .map(Some)
        }
    }
}

/// Refuses a pod beyond its namespace's level, and tells of templates and pods beyond the levels of warnings and the audit.
pub async fn validate(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &Object,
) -> Result<(), Status> {
    if asked.operation == Operation::Delete {
        return Ok(());
    }
    if asked.is_of("", "namespaces") {
        return check_namespace(pipeline, asked, object).await;
    }
    let is_pod = is_judged_pod(asked, object);
    let template = template_path(asked);
    let pod = match template {
        Some(path) => template_view(object, path),
        None if is_pod => edit::read_map(&object.body, "spec").map(|spec| PodView {
            annotations: &object.metadata.annotations,
            spec,
        }),
        None => None,
    };
    let Some(pod) = pod else {
        return Ok(());
    };
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let labels = labels_of(pipeline, namespace).await?;
    let enforced = Rules::of(&labels, "enforce");
    if is_pod {
        let remarks = asked.remarks();
        remarks.annotate(format!("{LABEL}enforce-policy"), enforced.to_string());
        let found = enforced.judge(&pod);
        if !found.is_empty() {
            let why = format!("violates PodSecurity \"{enforced}\": {}", told(&found));
            return Err(asked.forbidden(&object.metadata.name, &why));
        }
    }
    tell(asked, &labels, &pod);
    Ok(())
}

/// Warns and notes by the levels of these modes.
fn tell(asked: &Attributes<'_>, labels: &BTreeMap<String, String>, pod: &PodView<'_>) {
    let audit = Rules::of(labels, "audit");
    let found = audit.judge(pod);
    if !found.is_empty() {
        let why = format!("would violate PodSecurity \"{audit}\": {}", told(&found));
        asked
            .remarks()
            .annotate(format!("{LABEL}audit-violations"), why);
    }
    let warn = Rules::of(labels, "warn");
    let found = warn.judge(pod);
    if !found.is_empty() {
        let why = format!("would violate PodSecurity \"{warn}\": {}", told(&found));
        asked.remarks().warn(why);
    }
}

fn told(found: &[Violation]) -> String {
    let found: Vec<String> = found.iter().map(Violation::told).collect();
    found.join(", ")
}

/// Whether it is a pod whose reach the write may change.
fn is_judged_pod(asked: &Attributes<'_>, object: &Object) -> bool {
    let row = &asked.target.resource;
    if !row.group.is_empty() || row.resource != "pods" {
        return false;
    }
    match (asked.target.subresource_name(), asked.old) {
        ("", None) => true,
        ("" | "ephemeralcontainers" | "resize", Some(old)) => reach(object) != reach(old),
        _ => false,
    }
}

/// What of a pod the checks may look at: images do not matter.
fn reach(pod: &Object) -> (Vec<(&String, &String)>, Members) {
    let mut spec = edit::read_map(&pod.body, "spec")
        .cloned()
        .unwrap_or_default();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in edit::maps_in(&mut spec, list) {
            container.shift_remove("image");
        }
    }
    (pod.metadata.annotations.iter().collect(), spec)
}

/// Where a kind that makes pods keeps their template; None for other kinds.
fn template_path(asked: &Attributes<'_>) -> Option<&'static str> {
    if !asked.target.subresource_name().is_empty() {
        return None;
    }
    let row = &asked.target.resource;
    match (row.group.as_str(), row.resource.as_str()) {
        ("", "podtemplates") => Some("template"),
        ("", "replicationcontrollers") => Some("spec.template"),
        ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets") => {
            Some("spec.template")
        }
        ("batch", "jobs") => Some("spec.template"),
        ("batch", "cronjobs") => Some("spec.jobTemplate.spec.template"),
        _ => None,
    }
}

fn template_view<'a>(object: &'a Object, path: &str) -> Option<PodView<'a>> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let template = field_value(&object.body, path)?.as_object()?;
    Some(PodView {
        annotations: &NONE,
        spec: edit::read_map(template, "spec")?,
    })
}

async fn labels_of(
    pipeline: &Pipeline,
    namespace: &str,
) -> Result<BTreeMap<String, String>, Status> {
    let key = ObjectKey::new(GroupResource::new("", "namespaces"), None, namespace);
    let stored = store::read(pipeline, &key, Consistency::Stale).await?;
    Ok(stored
        .map(|stored| stored.object.metadata.labels)
        .unwrap_or_default())
}

/// Whether the namespace's labels can be read; warns of pods that a stricter level would have refused.
async fn check_namespace(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    namespace: &Object,
) -> Result<(), Status> {
    let labels = &namespace.metadata.labels;
    let mut causes = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let level = format!("{LABEL}{mode}");
        let version = format!("{level}-version");
        if let Some(text) = labels
            .get(&level)
            .filter(|text| Level::parse(text).is_none())
        {
            let detail = "must be one of privileged, baseline, restricted";
            causes.push(invalid(&level, text, detail));
        }
        if let Some(text) = labels
            .get(&version)
            .filter(|text| parse_version(text).is_none())
        {
            causes.push(invalid(&version, text, "must be \"latest\" or \"v1.x\""));
        }
    }
    let changed = asked.old.is_none_or(|old| old.metadata.labels != *labels);
    if !causes.is_empty() && changed {
        let name = &namespace.metadata.name;
        return Err(Status::invalid("", "Namespace", name, causes));
    }
    let rules = Rules::of(labels, "enforce");
    let before = asked
        .old
        .map(|old| Rules::of(&old.metadata.labels, "enforce"));
    match before {
        Some(before) if before != rules && rules.level != Level::Privileged => {
            look_at_pods(pipeline, asked, &namespace.metadata.name, rules).await
        }
        _ => Ok(()),
    }
}

fn invalid(label: &str, text: &str, detail: &str) -> Cause {
    Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: {text:?}: {detail}"),
        field: format!("metadata.labels[{label}]"),
    }
}

async fn look_at_pods(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    namespace: &str,
    rules: Rules,
) -> Result<(), Status> {
    let pods = GroupResource::new("", "pods");
    let pods = store::all(pipeline, &pods, Some(namespace)).await?;
    let mut told: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods.iter().take(PODS_MAX) {
        let Some(spec) = edit::read_map(&pod.object.body, "spec") else {
            continue;
        };
        let annotations = &pod.object.metadata.annotations;
        let found = rules.judge(&PodView { annotations, spec });
        if found.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = found.iter().map(Violation::reason).collect();
        let name = pod.object.metadata.name.clone();
        told.entry(reasons.join(", ")).or_insert((name, 0)).1 += 1;
    }
    if told.is_empty() {
        return Ok(());
    }
    let remarks = asked.remarks();
    remarks.warn(format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{rules}\""
    ));
    for (reasons, (name, count)) in told.into_iter().take(TOLD_MAX) {
        let others = match count {
            1 => String::new(),
            2 => " (and 1 other pod)".to_owned(),
            count => format!(" (and {} other pods)", count - 1),
        };
        remarks.warn(format!("{name}{others}: {reasons}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
