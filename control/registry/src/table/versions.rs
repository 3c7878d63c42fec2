//! Kinds that are served in more versions than the one that is stored, and the way between the two.
//! Rules: Kubernetes' conversions of autoscaling/v1 and events.k8s.io/v1, and its order of versions.

use serde_json::{Map, Value, json};
use std::cmp::Ordering;

/// In which version a row's objects are stored, when it is not the row's own.
pub struct StoredAs {
    /// The group that is stored.
    pub group: &'static str,
    /// The version that is stored.
    pub version: &'static str,
    /// The plural that is stored.
    pub resource: &'static str,
    /// Turns the members of an object of the row's version into the stored ones; types are not its part.
    pub to_stored: fn(&mut Members),
    /// The way back.
    pub from_stored: fn(&mut Members),
}

type Members = Map<String, Value>;

impl StoredAs {
    /// Brings an object of the row's version into the stored one.
    pub fn store(&self, object: &mut Value) {
        if let Value::Object(members) = object {
            (self.to_stored)(members);
            let version = match self.group {
                "" => self.version.to_owned(),
                group => format!("{group}/{}", self.version),
            };
            members.insert("apiVersion".to_owned(), json!(version));
        }
    }

    /// Brings a stored object into the row's version, whose `apiVersion` is given.
    pub fn load(&self, object: &mut Value, api_version: &str) {
        if let Value::Object(members) = object {
            (self.from_stored)(members);
            members.insert("apiVersion".to_owned(), json!(api_version));
        }
    }
}

/// Sorts versions as clients prefer them: stable before beta before alpha, the newer first.
pub fn preference(one: &str, other: &str) -> Ordering {
    rank(other).cmp(&rank(one)).then_with(|| one.cmp(other))
}

/// How mature a version is and its numbers; what is no `v1`, `v1beta1` or `v1alpha1` comes last.
fn rank(version: &str) -> Option<(u8, u32, u32)> {
    let text = version.strip_prefix('v')?;
    for (word, maturity) in [("alpha", 0), ("beta", 1)] {
        if let Some((major, minor)) = text.split_once(word) {
            return Some((maturity, major.parse().ok()?, minor.parse().ok()?));
        }
    }
    Some((2, text.parse().ok()?, 0))
}

/// autoscaling/v1, which knows one metric only; the others travel in annotations.
pub static AUTOSCALERS_V2: StoredAs = StoredAs {
    group: "autoscaling",
    version: "v2",
    resource: "horizontalpodautoscalers",
    to_stored: autoscaler_to_v2,
    from_stored: autoscaler_to_v1,
};

const CPU_TARGET: &str = "targetCPUUtilizationPercentage";
const CPU_CURRENT: &str = "currentCPUUtilizationPercentage";
/// What autoscaling/v1 has no member for: the annotation, the part, the member of v2.
const CARRIED: [(&str, &str, &str); 4] = [
    ("autoscaling.alpha.kubernetes.io/metrics", "spec", "metrics"),
    (
        "autoscaling.alpha.kubernetes.io/behavior",
        "spec",
        "behavior",
    ),
    (
        "autoscaling.alpha.kubernetes.io/current-metrics",
        "status",
        "currentMetrics",
    ),
    (
        "autoscaling.alpha.kubernetes.io/conditions",
        "status",
        "conditions",
    ),
];

fn autoscaler_to_v2(object: &mut Members) {
    for (annotation, part, member) in CARRIED {
        let Some(carried) = take_annotation(object, annotation) else {
            continue;
        };
        if let Ok(value) = serde_json::from_str(&carried) {
            map_of(object, part).insert(member.to_owned(), value);
        }
    }
    for (part, member, list, pointer) in [
        ("spec", CPU_TARGET, "metrics", "target"),
        ("status", CPU_CURRENT, "currentMetrics", "current"),
    ] {
        let Some(Value::Object(part)) = object.get_mut(part) else {
            continue;
        };
        let percent = part.shift_remove(member).filter(|value| !value.is_null());
        let Some(percent) = percent else {
            continue;
        };
        let amount = match pointer {
            "target" => json!({"type": "Utilization", "averageUtilization": percent}),
            _ => json!({"averageUtilization": percent}),
        };
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", pointer: amount}});
        let metrics = part.entry(list).or_insert_with(|| json!([]));
        if let Value::Array(metrics) = metrics {
            metrics.insert(0, metric);
        }
    }
}

fn autoscaler_to_v1(object: &mut Members) {
    for (part, member, list, pointer) in [
        ("spec", CPU_TARGET, "metrics", "target"),
        ("status", CPU_CURRENT, "currentMetrics", "current"),
    ] {
        let Some(Value::Object(part)) = object.get_mut(part) else {
            continue;
        };
        let Some(Value::Array(metrics)) = part.get_mut(list) else {
            continue;
        };
        let path = format!("/resource/{pointer}/averageUtilization");
        let cpu = metrics.iter().position(|metric| {
            metric.pointer("/resource/name") == Some(&json!("cpu"))
                && metric.pointer(&path).is_some()
        });
        if let Some(at) = cpu {
            let metric = metrics.remove(at);
            let percent = metric.pointer(&path).cloned().unwrap_or_default();
            part.insert(member.to_owned(), percent);
        }
    }
    for (annotation, part, member) in CARRIED {
        let Some(Value::Object(part)) = object.get_mut(part) else {
            continue;
        };
        let carried = part.shift_remove(member);
        let carried = carried.filter(|value| value.as_array().is_none_or(|list| !list.is_empty()));
        if let Some(value) = carried {
            let metadata = map_of(object, "metadata");
            map_of(metadata, "annotations").insert(annotation.to_owned(), json!(value.to_string()));
        }
    }
}

fn take_annotation(object: &mut Members, name: &str) -> Option<String> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?;
    match annotations.as_object_mut()?.shift_remove(name)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn map_of<'a>(members: &'a mut Members, name: &str) -> &'a mut Members {
    let value = members.entry(name).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made a map above")
}

/// Policies that change objects, in the beta version, whose members are those of v1.
pub static MUTATING_POLICIES_V1: StoredAs = same_in_v1("mutatingadmissionpolicies");
/// The same of their bindings.
pub static MUTATING_BINDINGS_V1: StoredAs = same_in_v1("mutatingadmissionpolicybindings");

const fn same_in_v1(resource: &'static str) -> StoredAs {
    StoredAs {
        group: "admissionregistration.k8s.io",
        version: "v1",
        resource,
        to_stored: |_| (),
        from_stored: |_| (),
    }
}

/// events.k8s.io/v1, which names the members of core/v1 anew.
pub static CORE_EVENTS: StoredAs = StoredAs {
    group: "",
    version: "v1",
    resource: "events",
    to_stored: |event| rename(event, |(new, core)| (new, core)),
    from_stored: |event| rename(event, |(new, core)| (core, new)),
};

/// Members of an event: in events.k8s.io/v1, in core/v1.
const EVENT_MEMBERS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

type Names = (&'static str, &'static str);

fn rename(event: &mut Members, way: fn(Names) -> Names) {
    for names in EVENT_MEMBERS {
        let (from, to) = way(names);
        if let Some(value) = event.shift_remove(from) {
            event.insert(to.to_owned(), value);
        }
    }
}

/// The path in core/v1 of a member of events.k8s.io/v1.
pub fn core_event_path(path: &str) -> String {
    let (head, rest) = path
        .split_once('.')
        .map_or((path, ""), |(head, rest)| (head, rest));
    let known = EVENT_MEMBERS.iter().find(|(new, _)| *new == head);
    let head = known.map_or(head, |(_, core)| core);
    if rest.is_empty() {
        head.to_owned()
    } else {
        format!("{head}.{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_clients_expect() {
        let mut versions = ["v1beta1", "v1", "v2alpha1", "v2", "v1beta2", "x", "v11"];
        versions.sort_by(|one, other| preference(one, other));
        assert_eq!(
            versions,
            ["v11", "v2", "v1", "v1beta2", "v1beta1", "v2alpha1", "x"]
        );
    }

    #[test]
    fn an_autoscaler_loses_nothing_on_the_way_through_v1() {
        let stored = json!({
            "kind": "HorizontalPodAutoscaler",
            "apiVersion": "autoscaling/v2",
            "metadata": {"name": "web"},
            "spec": {
                "maxReplicas": 5,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
                    {"type": "Pods", "pods": {"metric": {"name": "requests"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            },
            "status": {
                "currentReplicas": 2,
                "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 30, "averageValue": "5m"}}}],
            },
        });
        let mut shown = stored.clone();
        AUTOSCALERS_V2.load(&mut shown, "autoscaling/v1");
        assert_eq!(shown["spec"][CPU_TARGET], 60);
        assert_eq!(shown["status"][CPU_CURRENT], 30);
        assert_eq!(shown["spec"].as_object().map(Map::len), Some(2));
        let mut back = shown;
        AUTOSCALERS_V2.store(&mut back);
        assert_eq!(back["spec"], stored["spec"]);
        assert_eq!(back["status"]["conditions"], stored["status"]["conditions"]);
    }
}
