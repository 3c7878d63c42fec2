//! Webhook configurations, admission policies and their bindings. Rules: Kubernetes' admissionregistration/v1
//! defaults and validation. Nothing is called or judged here: that is the admission's part.

use super::check::{choice, named, one_of, selector};
use super::edit::{
    Members, default, default_text, existing_map, map_at, maps_in, read_list, read_map, read_maps,
    read_number, read_text, read_texts,
};
use super::{Strategy, conditions};
use crate::{Faults, policy};
use cel::Environment;
use objects::{Object, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The strategy of both kinds of webhook configurations.
pub struct Webhooks;

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SECONDS_MAX: i64 = 30;

impl Strategy for Webhooks {
    fn default_fields(&self, object: &mut Object) {
        let mutating = object.types.kind.starts_with("Mutating");
        for hook in maps_in(&mut object.body, "webhooks") {
            default_text(hook, "failurePolicy", "Fail");
            default_text(hook, "matchPolicy", "Equivalent");
            if mutating {
                default_text(hook, "reinvocationPolicy", "Never");
            }
            map_at(hook, "namespaceSelector");
            map_at(hook, "objectSelector");
            default(hook, "timeoutSeconds", 10);
            for rule in maps_in(hook, "rules") {
                default_text(rule, "scope", "*");
            }
            let client = existing_map(hook, "clientConfig");
            if let Some(service) = client.and_then(|client| existing_map(client, "service")) {
                default(service, "port", 443);
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        for (index, hook) in read_maps(&object.body, "webhooks") {
            let field = format!("webhooks[{index}]");
            let name = named(hook, "name", &field, names::dns1123_subdomain, faults);
            if name.split('.').count() < 3 {
                let detail = "should be a domain with at least three segments separated by dots";
                faults.invalid_text(format!("{field}.name"), name, detail);
            }
            if !seen.insert(name) {
                faults.duplicate(format!("{field}.name"), &json!(name));
            }
            check_hook(hook, &field, faults);
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn desired(&self) -> &'static str {
        "webhooks"
    }
}

fn check_hook(hook: &Members, field: &str, faults: &mut Faults) {
    choice(
        hook,
        "sideEffects",
        field,
        &["None", "NoneOnDryRun"],
        faults,
    );
    if read_list(hook, "admissionReviewVersions").is_empty() {
        let detail = "must specify one of v1, v1beta1";
        faults.required(format!("{field}.admissionReviewVersions"), detail);
    } else if !read_texts(hook, "admissionReviewVersions").any(|version| version == "v1") {
        let shown = &hook["admissionReviewVersions"];
        let detail = "must include at least one of v1, v1beta1";
        faults.invalid(format!("{field}.admissionReviewVersions"), shown, detail);
    }
    one_of(hook, "failurePolicy", field, &FAILURE_POLICIES, faults);
    one_of(hook, "matchPolicy", field, &MATCH_POLICIES, faults);
    one_of(
        hook,
        "reinvocationPolicy",
        field,
        &["IfNeeded", "Never"],
        faults,
    );
    selector(hook, "namespaceSelector", field, faults);
    selector(hook, "objectSelector", field, faults);
    conditions::check(hook, field, faults);
    let seconds = read_number(hook, "timeoutSeconds").unwrap_or(1);
    if !(1..=SECONDS_MAX).contains(&seconds) {
        let detail = format!("the timeout value must be between 1 and {SECONDS_MAX} seconds");
        faults.invalid(format!("{field}.timeoutSeconds"), &json!(seconds), &detail);
    }
    check_rules(hook, "rules", field, faults);
    let nothing = Members::new();
    let client = read_map(hook, "clientConfig").unwrap_or(&nothing);
    let field = format!("{field}.clientConfig");
    match (
        client.get("url").and_then(Value::as_str),
        read_map(client, "service"),
    ) {
        (Some(url), None) => {
            if !url.starts_with("https://") {
                let detail =
                    "'https' is the only allowed URL scheme; desired format: https://host[/path]";
                faults.invalid_text(format!("{field}.url"), url, detail);
            }
        }
        (None, Some(service)) => {
            for name in ["namespace", "name"] {
                let field = format!("{field}.service");
                named(service, name, &field, names::dns1123_subdomain, faults);
            }
        }
        _ => faults.required(field, "exactly one of url or service is required"),
    }
}

/// Checks the list of rules at `list`.
fn check_rules(members: &Members, list: &str, field: &str, faults: &mut Faults) {
    for (index, rule) in read_maps(members, list) {
        let field = format!("{field}.{list}[{index}]");
        for name in ["operations", "apiGroups", "apiVersions", "resources"] {
            if read_list(rule, name).is_empty() {
                faults.required(format!("{field}.{name}"), "");
            }
        }
        for (index, operation) in read_texts(rule, "operations").enumerate() {
            if !OPERATIONS.contains(&operation) {
                let field = format!("{field}.operations[{index}]");
                faults.unsupported(field, operation, &OPERATIONS);
            }
        }
        one_of(
            rule,
            "scope",
            &field,
            &["*", "Cluster", "Namespaced"],
            faults,
        );
    }
}

/// The strategy of validating admission policies.
pub struct AdmissionPolicies;

impl Strategy for AdmissionPolicies {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        default_text(spec, "failurePolicy", "Fail");
        if let Some(constraints) = existing_map(spec, "matchConstraints") {
            default_constraints(constraints);
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        check_policy(spec, faults);
        let lists = ["validations", "auditAnnotations"];
        if lists.iter().all(|list| read_list(spec, list).is_empty()) {
            let detail = "validations or auditAnnotations must be present";
            faults.required("spec.validations", detail);
        }
        for (index, validation) in read_maps(spec, "validations") {
            if read_text(validation, "expression").trim().is_empty() {
                let field = format!("spec.validations[{index}].expression");
                faults.required(field, "expression is not specified");
            }
        }
        check_expressions(spec, faults);
    }

    fn has_generation(&self) -> bool {
        true
    }
}

/// What every policy must say.
fn check_policy(spec: &Members, faults: &mut Faults) {
    one_of(spec, "failurePolicy", "spec", &FAILURE_POLICIES, faults);
    match read_map(spec, "matchConstraints") {
        None => faults.required("spec.matchConstraints", ""),
        Some(constraints) => {
            if read_list(constraints, "resourceRules").is_empty() {
                faults.required("spec.matchConstraints.resourceRules", "");
            }
            let field = "spec.matchConstraints";
            check_rules(constraints, "resourceRules", field, faults);
        }
    }
}

/// The strategy of policies that change objects.
pub struct MutatingPolicies;

const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
/// What a mutation may be, and the member that says how.
const MUTATIONS: [(&str, &str); 2] = [
    ("ApplyConfiguration", "applyConfiguration"),
    ("JSONPatch", "jsonPatch"),
];

impl Strategy for MutatingPolicies {
    fn default_fields(&self, object: &mut Object) {
        AdmissionPolicies.default_fields(object);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        check_policy(spec, faults);
        choice(
            spec,
            "reinvocationPolicy",
            "spec",
            &REINVOCATION_POLICIES,
            faults,
        );
        if read_list(spec, "mutations").is_empty() {
            faults.required("spec.mutations", "mutations must contain at least one item");
        }
        for (index, mutation) in read_maps(spec, "mutations") {
            check_mutation(mutation, &format!("spec.mutations[{index}]"), faults);
        }
        check_operations(spec, faults);
        check_expressions(spec, faults);
    }

    fn has_generation(&self) -> bool {
        true
    }
}

fn check_mutation(mutation: &Members, field: &str, faults: &mut Faults) {
    let kinds = MUTATIONS.map(|(kind, _)| kind);
    choice(mutation, "patchType", field, &kinds, faults);
    let chosen = read_text(mutation, "patchType");
    for (kind, member) in MUTATIONS {
        let field = format!("{field}.{member}");
        match read_map(mutation, member) {
            Some(how) if kind == chosen && read_text(how, "expression").trim().is_empty() => {
                faults.required(format!("{field}.expression"), "expression is not specified");
            }
            Some(_) if kind == chosen => {}
            None if kind == chosen => {
                faults.required(
                    field,
                    &format!("must be specified when patchType is {kind}"),
                );
            }
            Some(_) => faults.forbidden(
                field,
                &format!("must not be specified when patchType is {chosen}"),
            ),
            None => {}
        }
    }
}

/// What goes, and what is only connected to, cannot be changed.
fn check_operations(spec: &Members, faults: &mut Faults) {
    let nothing = Members::new();
    let constraints = read_map(spec, "matchConstraints").unwrap_or(&nothing);
    for (index, rule) in read_maps(constraints, "resourceRules") {
        for (at, operation) in read_texts(rule, "operations").enumerate() {
            if ["CONNECT", "DELETE"].contains(&operation) {
                let field =
                    format!("spec.matchConstraints.resourceRules[{index}].operations[{at}]");
                faults.unsupported(field, operation, &["*", "CREATE", "UPDATE"]);
            }
        }
    }
}

/// Every expression must compile.
fn check_expressions(spec: &Members, faults: &mut Faults) {
    let mut environment = policy::environment(spec.get("paramKind").is_some_and(Value::is_object));
    let mut check = |members: &Members, field: String, environment: &Environment| {
        let (_, name) = field.rsplit_once('.').unwrap_or_default();
        let text = read_text(members, name).trim();
        if text.is_empty() {
            return None;
        }
        match cel::compile(text, environment) {
            Ok(program) => Some(program),
            Err(error) => {
                faults.invalid_text(field, text, &format!("compilation failed: {error}"));
                None
            }
        }
    };
    for (index, condition) in read_maps(spec, "matchConditions") {
        check(
            condition,
            format!("spec.matchConditions[{index}].expression"),
            &environment,
        );
    }
    environment = environment.composed();
    for (index, variable) in read_maps(spec, "variables") {
        let program = check(
            variable,
            format!("spec.variables[{index}].expression"),
            &environment,
        );
        if let Some(program) = program {
            environment.declare(read_text(variable, "name"), &program);
        }
    }
    for (list, name) in [
        ("validations", "expression"),
        ("validations", "messageExpression"),
        ("auditAnnotations", "valueExpression"),
    ] {
        for (index, of) in read_maps(spec, list) {
            check(of, format!("spec.{list}[{index}].{name}"), &environment);
        }
    }
    for (index, mutation) in read_maps(spec, "mutations") {
        for (_, member) in MUTATIONS {
            if let Some(how) = read_map(mutation, member) {
                let field = format!("spec.mutations[{index}].{member}.expression");
                check(how, field, &environment);
            }
        }
    }
}

fn default_constraints(constraints: &mut Members) {
    default_text(constraints, "matchPolicy", "Equivalent");
    map_at(constraints, "namespaceSelector");
    map_at(constraints, "objectSelector");
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in maps_in(constraints, list) {
            default_text(rule, "scope", "*");
        }
    }
}

/// The strategy of bindings of validating admission policies.
pub struct AdmissionBindings;

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

impl Strategy for AdmissionBindings {
    fn default_fields(&self, object: &mut Object) {
        let spec = map_at(&mut object.body, "spec");
        if let Some(matched) = spec.and_then(|spec| existing_map(spec, "matchResources")) {
            default_constraints(matched);
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        MutatingBindings.validate(object, faults);
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        let actions: BTreeSet<&str> = read_texts(spec, "validationActions").collect();
        if actions.is_empty() {
            faults.required("spec.validationActions", "");
        }
        for action in actions.iter().filter(|action| !ACTIONS.contains(action)) {
            faults.unsupported("spec.validationActions", action, &ACTIONS);
        }
        if actions.contains("Deny") && actions.contains("Warn") {
            let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
            faults.invalid("spec.validationActions", &spec["validationActions"], detail);
        }
    }

    fn has_generation(&self) -> bool {
        true
    }
}

/// The strategy of bindings of policies that change objects.
pub struct MutatingBindings;

impl Strategy for MutatingBindings {
    fn default_fields(&self, object: &mut Object) {
        AdmissionBindings.default_fields(object);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        named(spec, "policyName", "spec", names::dns1123_subdomain, faults);
    }

    fn has_generation(&self) -> bool {
        true
    }
}
