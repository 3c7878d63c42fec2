//! CertificateSigningRequests. Rules: Kubernetes' certificates/v1 validation and its registry/certificates.

use super::check::{frozen, named};
use super::edit::{
    Members, map_at, read_list, read_map, read_maps, read_number, read_text, read_texts,
};
use super::{Context, Strategy};
use crate::Faults;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::Object;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The signing requests' strategy.
pub struct SigningRequests;

const SECONDS_MIN: i64 = 600;
const PEM_HEAD: &[u8] = b"-----BEGIN CERTIFICATE REQUEST-----";
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl Strategy for SigningRequests {
    fn prepare_create(&self, object: &mut Object, context: &Context<'_>) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        // Who asks is told by the server, never by the request.
        for name in ["username", "uid", "groups", "extra"] {
            spec.shift_remove(name);
        }
        spec.insert("username".to_owned(), json!(context.caller.user));
        if !context.caller.groups.is_empty() {
            spec.insert("groups".to_owned(), json!(context.caller.groups));
        }
        if !context.caller.uid.is_empty() {
            spec.insert("uid".to_owned(), json!(context.caller.uid));
        }
        if !context.caller.extra.is_empty() {
            spec.insert("extra".to_owned(), json!(context.caller.extra));
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        check_request(spec, faults);
        named(spec, "signerName", "spec", signer_name, faults);
        if read_list(spec, "usages").is_empty() {
            faults.required("spec.usages", "");
        }
        let mut seen = BTreeSet::new();
        for (index, usage) in read_texts(spec, "usages").enumerate() {
            let field = format!("spec.usages[{index}]");
            if !USAGES.contains(&usage) {
                faults.unsupported(&field, usage, &USAGES);
            }
            if !seen.insert(usage) {
                faults.duplicate(&field, &json!(usage));
            }
        }
        if let Some(seconds) =
            read_number(spec, "expirationSeconds").filter(|seconds| *seconds < SECONDS_MIN)
        {
            let detail =
                format!("may not specify a duration less than {SECONDS_MIN} seconds (10 minutes)");
            faults.invalid("spec.expirationSeconds", &Value::from(seconds), &detail);
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["spec"], faults);
    }

    fn validate_status(&self, object: &Object, old: &Object, faults: &mut Faults) {
        check_conditions(object, faults);
        let (new, was) = (certificate(object), certificate(old));
        if !was.is_empty() && new != was {
            let why = "updates may not modify a certificate that is set";
            faults.forbidden("status.certificate", why);
        }
        // What was decided stays decided, whichever subresource writes.
        for decision in ["Approved", "Denied"] {
            if has_condition(old, decision) && !has_condition(object, decision) {
                let why = format!("updates may not remove a condition of type {decision:?}");
                faults.forbidden("status.conditions", &why);
            }
        }
    }
}

fn check_conditions(object: &Object, faults: &mut Faults) {
    for (index, condition) in conditions(object) {
        let field = format!("status.conditions[{index}]");
        let (kind, status) = (read_text(condition, "type"), read_text(condition, "status"));
        if kind.is_empty() {
            faults.required(format!("{field}.type"), "");
        }
        match (kind, status) {
            (_, "") => faults.required(format!("{field}.status"), ""),
            ("Approved" | "Denied" | "Failed", status) if status != "True" => {
                faults.unsupported(format!("{field}.status"), status, &["True"]);
            }
            _ => {}
        }
    }
    if has_condition(object, "Approved") && has_condition(object, "Denied") {
        let why = "Approved and Denied conditions are mutually exclusive";
        faults.invalid_text("status.conditions", "Denied", why);
    }
}

fn conditions(object: &Object) -> impl Iterator<Item = (usize, &Members)> {
    let status = read_map(&object.body, "status");
    status
        .into_iter()
        .flat_map(|status| read_maps(status, "conditions"))
}

fn has_condition(object: &Object, kind: &str) -> bool {
    conditions(object).any(|(_, condition)| read_text(condition, "type") == kind)
}

fn certificate(object: &Object) -> &str {
    read_map(&object.body, "status").map_or("", |status| read_text(status, "certificate"))
}

fn check_request(spec: &Members, faults: &mut Faults) {
    let text = spec
        .get("request")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let field = "spec.request";
    match STANDARD.decode(text) {
        Ok(pem) if pem.trim_ascii_start().starts_with(PEM_HEAD) => {}
        _ => faults.invalid_text(field, text, "PEM block type must be CERTIFICATE REQUEST"),
    }
}

/// A domain and a path: `kubernetes.io/kubelet-serving`.
fn signer_name(name: &str) -> Vec<String> {
    let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    match name.split_once('/') {
        Some((domain, path)) if domain.contains('.') && !path.is_empty() => {
            objects::names::dns1123_subdomain(domain)
        }
        _ => vec![form.to_owned()],
    }
}
