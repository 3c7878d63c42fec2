//! Lines of workloads that differ from replica sets: stateful and daemon sets, jobs, autoscalers, budgets.

use super::workload::{CONTAINERS, IMAGES, SELECTOR};
use super::{AGE, Column, NAME, number, shown, text, wide};
use objects::Timestamp;
use serde_json::{Value, json};

/// The columns of stateful sets.
pub const STATEFUL_SETS: &[Column] = &[
    NAME,
    shown(
        "Ready",
        "Pods that are ready, and that there shall be.",
        |set, _| {
            let ready = text::number(set, "/status/readyReplicas");
            json!(format!("{ready}/{}", text::number(set, "/spec/replicas")))
        },
    ),
    AGE,
    CONTAINERS,
    IMAGES,
];

/// The columns of daemon sets.
pub const DAEMON_SETS: &[Column] = &[
    NAME,
    number("Desired", "Nodes that shall run a pod.", |set, _| {
        json!(text::number(set, "/status/desiredNumberScheduled"))
    }),
    number("Current", "Nodes that run one.", |set, _| {
        json!(text::number(set, "/status/currentNumberScheduled"))
    }),
    number("Ready", "Nodes whose pod is ready.", |set, _| {
        json!(text::number(set, "/status/numberReady"))
    }),
    number(
        "Up-to-date",
        "Nodes whose pod is of the newest template.",
        |set, _| json!(text::number(set, "/status/updatedNumberScheduled")),
    ),
    number(
        "Available",
        "Nodes whose pod has been ready for minReadySeconds.",
        |set, _| json!(text::number(set, "/status/numberAvailable")),
    ),
    shown("Node Selector", "Which nodes are meant.", |set, _| {
        json!(text::labels(
            set.pointer("/spec/template/spec/nodeSelector")
        ))
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// The columns of controller revisions.
pub const CONTROLLER_REVISIONS: &[Column] = &[
    NAME,
    shown("Controller", "Whose revision it is.", |revision, _| {
        json!(text::or_none(&controller(revision)))
    }),
    number("Revision", "Its number.", |revision, _| {
        json!(text::number(revision, "/revision"))
    }),
    AGE,
];

fn controller(object: &Value) -> String {
    let owners = text::list(object, "/metadata/ownerReferences");
    let owner = owners
        .iter()
        .find(|owner| owner.get("controller") == Some(&json!(true)));
    let Some(owner) = owner else {
        return String::new();
    };
    let kind = text::at(owner, "/kind").to_lowercase();
    let group = text::at(owner, "/apiVersion")
        .split_once('/')
        .map(|(group, _)| group);
    let resource = group.map_or(kind.clone(), |group| format!("{kind}.{group}"));
    format!("{resource}/{}", text::at(owner, "/name"))
}

/// The columns of pod templates.
pub const POD_TEMPLATES: &[Column] = &[
    NAME,
    shown(
        "Containers",
        "Names of each container in the template.",
        |object, _| {
            json!(text::joined(
                text::list(object, "/template/spec/containers"),
                "name"
            ))
        },
    ),
    shown(
        "Images",
        "Images referenced by each container in the template.",
        |object, _| {
            json!(text::joined(
                text::list(object, "/template/spec/containers"),
                "image"
            ))
        },
    ),
    shown("Pod Labels", "The labels of its pods.", |object, _| {
        json!(text::labels(object.pointer("/template/metadata/labels")))
    }),
];

/// The columns of jobs.
pub const JOBS: &[Column] = &[
    NAME,
    shown("Status", "Status of the job.", |job, _| {
        json!(job_status(job))
    }),
    shown(
        "Completions",
        "Pods that succeeded, and that shall.",
        |job, _| json!(completions(job)),
    ),
    shown("Duration", "How long it ran.", |job, now| {
        json!(duration(job, now))
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn job_status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        let mut conditions = text::list(job, "/status/conditions").iter();
        conditions.any(|condition| {
            text::at(condition, "/type") == kind && text::at(condition, "/status") == "True"
        })
    };
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if job.pointer("/metadata/deletionTimestamp").is_some() => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = text::number(job, "/status/succeeded");
    if job.pointer("/spec/completions").is_some() {
        return format!("{succeeded}/{}", text::number(job, "/spec/completions"));
    }
    match text::number(job, "/spec/parallelism") {
        0 | 1 => format!("{succeeded}/1"),
        parallelism => format!("{succeeded}/1 of {parallelism}"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let time = |pointer: &str| Timestamp::parse(text::at(job, pointer));
    let Some(start) = time("/status/startTime") else {
        return String::new();
    };
    let end = time("/status/completionTime").or_else(|| {
        let failed = text::list(job, "/status/conditions")
            .iter()
            .find(|condition| text::at(condition, "/type") == "Failed")?;
        Timestamp::parse(text::at(failed, "/lastTransitionTime"))
    });
    text::human(end.unwrap_or(now).since(start))
}

/// The columns of cron jobs.
pub const CRON_JOBS: &[Column] = &[
    NAME,
    shown("Schedule", "When a job is due.", |cron, _| {
        json!(text::at(cron, "/spec/schedule"))
    }),
    shown("Timezone", "Whose clock counts.", |cron, _| {
        json!(text::or_none(text::at(cron, "/spec/timeZone")))
    }),
    shown("Suspend", "Whether none is started.", |cron, _| {
        json!(if cron.pointer("/spec/suspend") == Some(&json!(true)) {
            "True"
        } else {
            "False"
        })
    }),
    number("Active", "Jobs that run.", |cron, _| {
        json!(text::list(cron, "/status/active").len())
    }),
    shown(
        "Last Schedule",
        "When the last job was due.",
        |cron, now| {
            json!(match text::at(cron, "/status/lastScheduleTime") {
                "" => text::NONE.to_owned(),
                time => text::age_of(time, now),
            })
        },
    ),
    AGE,
    wide(
        "Containers",
        "Names of each container in the template.",
        |cron, _| {
            let containers = "/spec/jobTemplate/spec/template/spec/containers";
            json!(text::joined(text::list(cron, containers), "name"))
        },
    ),
    wide(
        "Images",
        "Images referenced by each container in the template.",
        |cron, _| {
            let containers = "/spec/jobTemplate/spec/template/spec/containers";
            json!(text::joined(text::list(cron, containers), "image"))
        },
    ),
    wide("Selector", "Which pods count.", |cron, _| {
        json!(text::selector(
            cron.pointer("/spec/jobTemplate/spec/selector")
        ))
    }),
];

/// The columns of autoscalers.
pub const AUTOSCALERS: &[Column] = &[
    NAME,
    shown("Reference", "What is scaled.", |scaler, _| {
        let kind = text::at(scaler, "/spec/scaleTargetRef/kind");
        json!(format!(
            "{kind}/{}",
            text::at(scaler, "/spec/scaleTargetRef/name")
        ))
    }),
    shown(
        "Targets",
        "The metrics, and what they shall be.",
        |scaler, _| json!(targets(scaler)),
    ),
    shown("MinPods", "The fewest pods.", |scaler, _| {
        json!(match text::number(scaler, "/spec/minReplicas") {
            0 => "<unset>".to_owned(),
            count => count.to_string(),
        })
    }),
    number("MaxPods", "The most pods.", |scaler, _| {
        json!(text::number(scaler, "/spec/maxReplicas"))
    }),
    number("Replicas", "Pods that there are.", |scaler, _| {
        json!(text::number(scaler, "/status/currentReplicas"))
    }),
    AGE,
];

/// The metrics of a scaler, in autoscaling/v2's form or with autoscaling/v1's one target.
fn targets(scaler: &Value) -> String {
    if let Some(target) = scaler.pointer("/spec/targetCPUUtilizationPercentage") {
        let current = scaler.pointer("/status/currentCPUUtilizationPercentage");
        let current = current.map_or("<unknown>".to_owned(), |percent| format!("{percent}%"));
        return format!("cpu: {current}/{target}%");
    }
    let metrics = text::list(scaler, "/spec/metrics");
    let current = text::list(scaler, "/status/currentMetrics");
    let shown: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(index, metric)| target(metric, current.get(index).unwrap_or(&Value::Null)))
        .collect();
    match &shown[..] {
        [] => text::NONE.to_owned(),
        [first, second, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second} + {} more...", rest.len())
        }
        shown => shown.join(", "),
    }
}

fn target(metric: &Value, current: &Value) -> String {
    let kind = text::at(metric, "/type");
    let member = match kind.chars().next() {
        Some(first) => format!("{}{}", first.to_lowercase(), &kind[first.len_utf8()..]),
        None => return "<unknown type>".to_owned(),
    };
    let amount = |object: &Value, part: &str, name: &str| {
        let value = object.pointer(&format!("/{member}/{part}/{name}"))?;
        Some(
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned),
        )
    };
    let both = |name: &str, unit: &str, note: &str| {
        let wanted = amount(metric, "target", name)?;
        let is = amount(current, "current", name);
        let is = is.map_or("<unknown>".to_owned(), |is| format!("{is}{unit}"));
        Some(format!("{is}/{wanted}{unit}{note}"))
    };
    let text = both("averageUtilization", "%", "")
        .or_else(|| {
            both(
                "averageValue",
                "",
                if kind == "External" { " (avg)" } else { "" },
            )
        })
        .or_else(|| both("value", "", ""))
        .unwrap_or("<unknown>/<auto>".to_owned());
    match kind {
        "Resource" | "ContainerResource" => {
            format!("{}: {text}", text::at(metric, &format!("/{member}/name")))
        }
        _ => text,
    }
}

/// The columns of disruption budgets.
pub const DISRUPTION_BUDGETS: &[Column] = &[
    NAME,
    shown("Min Available", "Pods that must stay.", |budget, _| {
        json!(count_or(budget, "/spec/minAvailable"))
    }),
    shown("Max Unavailable", "Pods that may be away.", |budget, _| {
        json!(count_or(budget, "/spec/maxUnavailable"))
    }),
    number(
        "Allowed Disruptions",
        "Pods that may be evicted now.",
        |budget, _| json!(text::number(budget, "/status/disruptionsAllowed")),
    ),
    AGE,
];

fn count_or(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => "N/A".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(count) => count.to_string(),
    }
}
