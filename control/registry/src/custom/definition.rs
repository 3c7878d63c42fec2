//! CustomResourceDefinitions: defaults, status, validation. Rules: Kubernetes' apiextensions/v1.

use super::jsonpath::JsonPath;
use super::{cost, structural};
use crate::Faults;
use crate::strategy::edit::{
    self, Members, default_text, maps_in, read_list, read_map, read_maps, read_text, read_texts,
};
use crate::strategy::{Context, Strategy, check};
use objects::{Object, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const APPROVED: &str = "api-approved.kubernetes.io";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 10] = [
    "",
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "name",
    "password",
];

/// The strategy of definitions.
pub struct Definitions;

impl Strategy for Definitions {
    fn default_fields(&self, object: &mut Object) {
        let spec = made(&mut object.body, "spec");
        let names = made(spec, "names");
        let kind = read_text(names, "kind").to_owned();
        if !kind.is_empty() {
            default_text(names, "singular", &kind.to_ascii_lowercase());
            default_text(names, "listKind", &format!("{kind}List"));
        }
        let conversion = made(spec, "conversion");
        default_text(conversion, "strategy", "None");
        let webhook = conversion.get_mut("webhook");
        let service = webhook.and_then(|webhook| {
            webhook
                .pointer_mut("/clientConfig/service")?
                .as_object_mut()
        });
        if let Some(service) = service {
            edit::default(service, "port", 443);
        }
        for version in maps_in(spec, "versions") {
            for column in maps_in(version, "additionalPrinterColumns") {
                if column.get("priority") == Some(&json!(0)) {
                    column.shift_remove("priority");
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Object, _context: &Context<'_>) {
        let stored = stored_version(&object.body);
        let status = json!({
            "conditions": [],
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": [stored],
        });
        object.body.insert("status".to_owned(), status);
        let finalizers = &mut object.metadata.finalizers;
        if !finalizers.iter().any(|name| name == CLEANUP) {
            finalizers.push(CLEANUP.to_owned());
        }
    }

    fn prepare_update(&self, object: &mut Object, _old: &Object, _context: &Context<'_>) {
        let stored = stored_version(&object.body);
        let status = made(&mut object.body, "status");
        let versions = status.entry("storedVersions").or_insert_with(|| json!([]));
        if let Value::Array(versions) = versions
            && !versions.contains(&json!(stored))
        {
            versions.push(json!(stored));
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(&object.body, "spec");
        check_spec(spec, faults);
        let expected = format!(
            "{}.{}",
            read_text(part(spec, "names"), "plural"),
            read_text(spec, "group")
        );
        if object.metadata.name != expected {
            let told = "must be spec.names.plural+\".\"+spec.group";
            faults.invalid_text("metadata.name", &object.metadata.name, told);
        }
    }

    fn validate_new(&self, object: &Object, faults: &mut Faults) {
        let group = read_text(part(&object.body, "spec"), "group");
        let is_protected = ["k8s.io", "kubernetes.io"]
            .iter()
            .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
        if is_protected && !object.metadata.annotations.contains_key(APPROVED) {
            let told = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
            faults.required("metadata.annotations[api-approved.kubernetes.io]", told);
        }
        // What is not even well-formed has no cost.
        if !faults.is_empty() {
            return;
        }
        for (at, version) in read_maps(part(&object.body, "spec"), "versions") {
            let schema = version.get("schema");
            if let Some(schema) = schema.and_then(|schema| schema.get("openAPIV3Schema")) {
                let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
                cost::check(schema, &field, faults);
            }
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let mut frozen = vec!["spec.group", "spec.scope"];
        if is_established(old) {
            frozen.extend(["spec.names.plural", "spec.names.kind"]);
        }
        check::frozen(object, old, &frozen, faults);
        let versions: BTreeSet<&str> = read_maps(part(&object.body, "spec"), "versions")
            .map(|(_, version)| read_text(version, "name"))
            .collect();
        for (at, stored) in read_texts(part(&object.body, "status"), "storedVersions").enumerate() {
            if !versions.contains(stored) {
                let told =
                    "missing from spec.versions; must not remove versions that have been stored";
                faults.invalid_text(format!("status.storedVersions[{at}]"), stored, told);
            }
        }
    }

    fn validate_status(&self, object: &Object, _old: &Object, faults: &mut Faults) {
        let stored = stored_version(&object.body);
        let versions: Vec<&str> =
            read_texts(part(&object.body, "status"), "storedVersions").collect();
        if !versions.contains(&stored.as_str()) {
            faults.invalid(
                "status.storedVersions",
                &json!(versions),
                &format!("must have the storage version {stored}"),
            );
        }
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        let mut told = Vec::new();
        for (at, version) in read_maps(part(&object.body, "spec"), "versions") {
            let source = version
                .get("schema")
                .and_then(|schema| schema.get("openAPIV3Schema"));
            if let Some(source) = source {
                structural::unknown_formats(
                    source,
                    &format!("spec.versions[{at}].schema.openAPIV3Schema"),
                    &mut told,
                );
            }
        }
        told
    }

    fn has_generation(&self) -> bool {
        true
    }
}

/// The map at a name, made where there is none.
fn made<'a>(members: &'a mut Members, name: &str) -> &'a mut Members {
    let value = members.entry(name).or_insert(Value::Null);
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made above")
}

/// The map at a name; an empty one where there is none.
fn part<'a>(members: &'a Members, name: &str) -> &'a Members {
    static NOTHING: LazyLock<Members> = LazyLock::new(Members::new);
    read_map(members, name).unwrap_or(&NOTHING)
}

fn is_established(object: &Object) -> bool {
    let conditions = read_list(part(&object.body, "status"), "conditions");
    conditions
        .iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

fn stored_version(body: &Members) -> String {
    let mut versions = read_maps(part(body, "spec"), "versions");
    let stored = versions.find(|(_, version)| version.get("storage") == Some(&Value::Bool(true)));
    stored
        .map(|(_, version)| read_text(version, "name").to_owned())
        .unwrap_or_default()
}

fn check_spec(spec: &Members, faults: &mut Faults) {
    let group = check::named(spec, "group", "spec", names::dns1123_subdomain, faults);
    if !group.is_empty() && !group.contains('.') {
        faults.invalid_text(
            "spec.group",
            group,
            "should be a domain with at least one dot",
        );
    }
    check::choice(spec, "scope", "spec", &["Cluster", "Namespaced"], faults);
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(true)) {
        let told = "must be false in order to use defaults in the schema";
        faults.invalid("spec.preserveUnknownFields", &Value::Bool(true), told);
    }
    check_names(part(spec, "names"), faults);
    check_conversion(part(spec, "conversion"), faults);
    let versions: Vec<(usize, &Members)> = read_maps(spec, "versions").collect();
    let mut seen = BTreeSet::new();
    let mut stored = 0;
    for (at, version) in &versions {
        let field = format!("spec.versions[{at}]");
        let name = check::named(version, "name", &field, names::dns1035_label, faults);
        if !name.is_empty() && !seen.insert(name) {
            faults.duplicate(format!("{field}.name"), &json!(name));
        }
        stored += u32::from(version.get("storage") == Some(&Value::Bool(true)));
        check_version(version, &field, faults);
    }
    if stored != 1 {
        let names: Vec<&str> = versions
            .iter()
            .map(|(_, version)| read_text(version, "name"))
            .collect();
        faults.invalid(
            "spec.versions",
            &json!(names),
            "must have exactly one version marked as storage version",
        );
    }
}

fn check_names(names: &Members, faults: &mut Faults) {
    let field = "spec.names";
    check::named(names, "plural", field, names::dns1035_label, faults);
    check::named(names, "singular", field, names::dns1035_label, faults);
    let lower = |text: &str| names::dns1035_label(&text.to_ascii_lowercase());
    for name in ["kind", "listKind"] {
        check::named(
            names,
            name,
            field,
            |text| names::dns1035_label(&text.to_ascii_lowercase()),
            faults,
        );
    }
    for list in ["shortNames", "categories"] {
        for (at, name) in read_texts(names, list).enumerate() {
            faults.invalid_texts(format!("{field}.{list}[{at}]"), name, &lower(name));
        }
    }
    let kind = read_text(names, "kind");
    if !kind.is_empty() && kind == read_text(names, "listKind") {
        faults.invalid_text(
            "spec.names.listKind",
            kind,
            "kind and listKind may not be the same",
        );
    }
}

fn check_conversion(conversion: &Members, faults: &mut Faults) {
    let field = "spec.conversion";
    check::choice(conversion, "strategy", field, &["None", "Webhook"], faults);
    let webhook = conversion.get("webhook").and_then(Value::as_object);
    match (read_text(conversion, "strategy"), webhook) {
        ("Webhook", None) => faults.required(
            format!("{field}.webhook.clientConfig"),
            "required when strategy is set to Webhook",
        ),
        ("Webhook", Some(webhook)) => check_webhook(webhook, &format!("{field}.webhook"), faults),
        (_, Some(_)) => faults.forbidden(
            format!("{field}.webhook"),
            "should not be set when strategy is not set to Webhook",
        ),
        _ => {}
    }
}

fn check_webhook(webhook: &Members, field: &str, faults: &mut Faults) {
    let versions: Vec<&str> = read_texts(webhook, "conversionReviewVersions").collect();
    if versions.is_empty() {
        faults.required(format!("{field}.conversionReviewVersions"), "");
    } else if !versions
        .iter()
        .any(|version| *version == "v1" || *version == "v1beta1")
    {
        let told = "must include at least one of v1, v1beta1";
        faults.invalid(
            format!("{field}.conversionReviewVersions"),
            &json!(versions),
            told,
        );
    }
    let client = webhook.get("clientConfig").and_then(Value::as_object);
    let Some(client) = client else {
        return faults.required(
            format!("{field}.clientConfig"),
            "required when strategy is set to Webhook",
        );
    };
    let url = read_text(client, "url");
    match (url, client.get("service").and_then(Value::as_object)) {
        ("", None) => faults.required(
            format!("{field}.clientConfig"),
            "exactly one of url or service is required",
        ),
        ("", Some(service)) => {
            for name in ["namespace", "name"] {
                if read_text(service, name).is_empty() {
                    faults.required(format!("{field}.clientConfig.service.{name}"), "");
                }
            }
        }
        (_, Some(_)) => {
            faults.required(
                format!("{field}.clientConfig.url"),
                "exactly one of url or service is required",
            );
        }
        (url, None) if !url.starts_with("https://") => {
            let told =
                "'https' is the only allowed URL scheme; desired format: https://host[/path]";
            faults.invalid_text(format!("{field}.clientConfig.url"), url, told);
        }
        _ => {}
    }
}

fn check_version(version: &Members, field: &str, faults: &mut Faults) {
    let schema = version
        .get("schema")
        .and_then(|schema| schema.get("openAPIV3Schema"));
    let place = format!("{field}.schema.openAPIV3Schema");
    match schema.filter(|schema| schema.is_object()) {
        Some(schema) => structural::check(schema, &place, faults),
        None => faults.required(place, "schemas are required"),
    }
    for (at, column) in read_maps(version, "additionalPrinterColumns") {
        let field = format!("{field}.additionalPrinterColumns[{at}]");
        if read_text(column, "name").is_empty() {
            faults.required(format!("{field}.name"), "");
        }
        check::choice(column, "type", &field, &COLUMN_TYPES, faults);
        check::one_of(column, "format", &field, &COLUMN_FORMATS, faults);
        check_path(column, "jsonPath", &field, faults);
    }
    let selectable = read_maps(version, "selectableFields");
    for (at, selected) in selectable {
        let field = format!("{field}.selectableFields[{at}]");
        if let Some(path) = check_path(selected, "jsonPath", &field, faults) {
            check_selectable(
                &path,
                schema,
                read_text(selected, "jsonPath"),
                &field,
                faults,
            );
        }
    }
    let scale = version
        .get("subresources")
        .and_then(|of| of.get("scale"))
        .and_then(Value::as_object);
    if let Some(scale) = scale {
        let field = format!("{field}.subresources.scale");
        check_scale_path(scale, "specReplicasPath", &["spec"], true, &field, faults);
        check_scale_path(
            scale,
            "statusReplicasPath",
            &["status"],
            true,
            &field,
            faults,
        );
        check_scale_path(
            scale,
            "labelSelectorPath",
            &["spec", "status"],
            false,
            &field,
            faults,
        );
    }
}

fn check_path(members: &Members, name: &str, field: &str, faults: &mut Faults) -> Option<JsonPath> {
    let text = read_text(members, name);
    if text.is_empty() {
        faults.required(format!("{field}.{name}"), "");
        return None;
    }
    match JsonPath::parse(text) {
        Ok(path) => Some(path),
        Err(why) => {
            faults.invalid_text(format!("{field}.{name}"), text, &why);
            None
        }
    }
}

fn check_scale_path(
    scale: &Members,
    name: &str,
    roots: &[&str],
    required: bool,
    field: &str,
    faults: &mut Faults,
) {
    if !required && read_text(scale, name).is_empty() {
        return;
    }
    let Some(path) = check_path(scale, name, field, faults) else {
        return;
    };
    let under = path
        .members()
        .is_some_and(|members| members.len() > 1 && roots.contains(&members[0]));
    if !under {
        let roots: Vec<String> = roots.iter().map(|root| format!(".{root}")).collect();
        let told = format!("should be a json path under {}", roots.join(" or "));
        faults.invalid_text(format!("{field}.{name}"), read_text(scale, name), &told);
    }
}

fn check_selectable(
    path: &JsonPath,
    schema: Option<&Value>,
    text: &str,
    field: &str,
    faults: &mut Faults,
) {
    let members = path.members();
    let reached = members.as_ref().and_then(|members| {
        members
            .iter()
            .try_fold(schema?, |at, member| at.get("properties")?.get(*member))
    });
    let kind = reached
        .and_then(|schema| schema.get("type"))
        .and_then(Value::as_str);
    match (members, kind) {
        (Some(members), _) if members.first() == Some(&"metadata") => {
            faults.invalid_text(format!("{field}.jsonPath"), text, "must not point to fields in metadata");
        }
        (Some(_), Some("string" | "integer" | "boolean")) => {}
        (_, Some(_)) => faults.invalid_text(
            format!("{field}.jsonPath"),
            text,
            "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
        ),
        (_, None) => faults.invalid_text(format!("{field}.jsonPath"), text, "is an invalid path: does not refer to a valid field"),
    }
}
