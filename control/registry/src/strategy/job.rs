//! Jobs: pods that end. Rules: Kubernetes' batch/v1 defaults and validation and its registry/batch/job.

use super::check::{IMMUTABLE, at_least, frozen, one_of};
use super::edit::{
    Members, default, default_text, map_at, read_flag, read_map, read_number, read_text,
};
use super::template::{
    check_selected, check_selector, default_template, put_in_template, template_spec,
    template_warnings, validate_template,
};
use super::{Context, Strategy, field_value};
use crate::Faults;
use objects::{Object, names};
use serde_json::{Value, json};

/// The jobs' strategy.
pub struct Jobs;

/// Labels of a job's pods, each with the one of old beside it.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
const NUMBERS: [&str; 5] = [
    "parallelism",
    "completions",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "activeDeadlineSeconds",
];
/// What the job controller does not know.
const IGNORED: [&str; 5] = [
    "podFailurePolicy",
    "successPolicy",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "managedBy",
];
const INDEXED_MAX: i64 = 100_000;
const POLICIES: [&str; 2] = ["Failed", "TerminatingOrFailed"];

impl Strategy for Jobs {
    fn default_fields(&self, object: &mut Object) {
        let labels = field_value(&object.body, "spec.template.metadata.labels").cloned();
        if object.metadata.labels.is_empty()
            && let Some(Value::Object(labels)) = labels
        {
            object.metadata.labels = labels
                .into_iter()
                .map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned()))
                .collect();
        }
        if let Some(spec) = map_at(&mut object.body, "spec") {
            default_job_spec(spec);
        }
    }

    fn put_in_place(&self, body: &mut Value, faults: &mut Faults) {
        put_in_template(body, faults);
    }

    fn prepare_create(&self, object: &mut Object, _context: &Context<'_>) {
        let (uid, name) = (object.metadata.uid.0.clone(), object.metadata.name.clone());
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        if read_flag(spec, "manualSelector") {
            return;
        }
        if let Some(template) = map_at(spec, "template")
            && let Some(meta) = map_at(template, "metadata")
            && let Some(labels) = map_at(meta, "labels")
        {
            for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
                for key in keys {
                    labels.insert(key.to_owned(), json!(value));
                }
            }
        }
        if let Some(selector) = map_at(spec, "selector")
            && let Some(labels) = map_at(selector, "matchLabels")
        {
            labels.insert(UID_LABELS[0].to_owned(), json!(uid));
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        validate_job_spec(spec, "spec", faults);
        if let Some(selector) = check_selector(spec, "job", faults) {
            check_selected(spec, selector.as_ref(), faults);
        }
        let name = &object.metadata.name;
        let indexed = read_text(spec, "completionMode") == "Indexed";
        let last = read_number(spec, "completions").unwrap_or(1).max(1) - 1;
        if indexed && !names::dns1123_label(&format!("{name}-{last}")).is_empty() {
            let detail = "will not be able to create pod with invalid DNS label: the name and the index of a completion make the pod's host name";
            faults.invalid_text("metadata.name", name, detail);
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let fixed = [
            "spec.selector",
            "spec.completionMode",
            "spec.podFailurePolicy",
            "spec.backoffLimitPerIndex",
            "spec.managedBy",
            "spec.successPolicy",
        ];
        frozen(object, old, &fixed, faults);
        if !is_waiting(old) {
            frozen(object, old, &["spec.template"], faults);
        }
        check_completions(object, old, faults);
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        let spec = read_map(&object.body, "spec");
        let ignored = IGNORED
            .iter()
            .filter(|name| spec.is_some_and(|spec| spec.contains_key(**name)))
            .map(|name| format!("spec.{name}: this server's job controller does not act on it"));
        template_warnings(object)
            .into_iter()
            .chain(ignored)
            .collect()
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn field(&self, object: &Value, path: &str) -> String {
        match super::field_text(object, "status.succeeded") {
            count if path == "status.successful" && count.is_empty() => "0".to_owned(),
            count => count,
        }
    }

    fn field_sources(&self, _path: &str) -> Vec<String> {
        vec!["status.succeeded".to_owned()]
    }
}

/// Whether the job is suspended and has not started: its template may still be changed.
fn is_waiting(job: &Object) -> bool {
    field_value(&job.body, "spec.suspend") == Some(&json!(true))
        && field_value(&job.body, "status.startTime").is_none_or(Value::is_null)
}

/// The completions of an indexed job may follow its parallelism; others never change.
fn check_completions(object: &Object, old: &Object, faults: &mut Faults) {
    let at = |object: &Object, name: &str| field_value(&object.body, name).cloned();
    let (new, old) = (at(object, "spec.completions"), at(old, "spec.completions"));
    let indexed = at(object, "spec.completionMode") == Some(json!("Indexed"));
    let elastic = indexed && new == at(object, "spec.parallelism");
    if new != old && !elastic {
        faults.invalid("spec.completions", &new.unwrap_or_default(), IMMUTABLE);
    }
}

/// Fills in the spec of a job.
fn default_job_spec(spec: &mut Members) {
    default_template(spec);
    // A job without either of the two has one pod; one with a parallelism alone ends with the first success.
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        default(spec, "completions", 1);
        default(spec, "parallelism", 1);
    }
    default(spec, "parallelism", 1);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    default(
        spec,
        "backoffLimit",
        if per_index { i64::from(i32::MAX) } else { 6 },
    );
    default_text(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    let policy = if spec.contains_key("podFailurePolicy") {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    default_text(spec, "podReplacementPolicy", policy);
    default(spec, "manualSelector", false);
}

/// Checks the spec of a job, or of a cron job's template, but for its selector.
pub fn validate_job_spec(spec: &Members, field: &str, faults: &mut Faults) {
    for name in NUMBERS {
        at_least(spec, name, field, 0, faults);
    }
    let modes = ["Indexed", "NonIndexed"];
    one_of(spec, "completionMode", field, &modes, faults);
    one_of(spec, "podReplacementPolicy", field, &POLICIES, faults);
    validate_template(spec, &format!("{field}.template"), faults);
    let restart = template_spec(spec).map(|pod| read_text(pod, "restartPolicy"));
    if let Some("Always" | "") = restart {
        let field = format!("{field}.template.spec.restartPolicy");
        faults.required(field, "valid values: \"OnFailure\", \"Never\"");
    }
    if spec.contains_key("podFailurePolicy") && restart == Some("OnFailure") {
        let field = format!("{field}.template.spec.restartPolicy");
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        faults.invalid_text(field, "OnFailure", detail);
    }
    check_indexed(spec, field, faults);
}

fn check_indexed(spec: &Members, field: &str, faults: &mut Faults) {
    let indexed = read_text(spec, "completionMode") == "Indexed";
    let completions = read_number(spec, "completions");
    if indexed && completions.is_none() {
        let detail = "when completion mode is Indexed";
        faults.required(format!("{field}.completions"), detail);
    }
    for (name, number) in [
        ("completions", completions),
        ("parallelism", read_number(spec, "parallelism")),
    ] {
        if let Some(number) = number.filter(|number| indexed && *number > INDEXED_MAX) {
            let detail = format!(
                "must be less than or equal to {INDEXED_MAX} when completion mode is Indexed"
            );
            faults.invalid(format!("{field}.{name}"), &json!(number), &detail);
        }
    }
    for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        at_least(spec, name, field, 0, faults);
        if spec.contains_key(name) && !indexed {
            let detail = "requires indexed completion mode";
            faults.invalid(format!("{field}.{name}"), &spec[name], detail);
        }
    }
}
