//! Nodes: they bring their status with them, and keep the pod network that they were given.
//! Rules: Kubernetes' registry/core/node and its validation.

use super::edit::{Members, map_at, read_map, read_maps, read_text};
use super::{Context, Strategy, field_text};
use crate::Faults;
use objects::{Object, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The nodes' strategy.
pub struct Nodes;

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "PreferNoSchedule"];

impl Strategy for Nodes {
    fn default_fields(&self, object: &mut Object) {
        if let Some(spec) = map_at(&mut object.body, "spec") {
            let network = read_text(spec, "podCIDR").to_owned();
            if !network.is_empty() {
                spec.entry("podCIDRs").or_insert_with(|| json!([network]));
            }
        }
    }

    fn prepare_create(&self, object: &mut Object, _context: &Context<'_>) {
        if let Some(status) = map_at(&mut object.body, "status")
            && let (None, Some(capacity)) =
                (status.get("allocatable"), status.get("capacity").cloned())
        {
            status.insert("allocatable".to_owned(), capacity);
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        check_taints(spec, faults);
        let network = read_text(spec, "podCIDR");
        if !network.is_empty() && network.parse::<ipnet::IpNet>().is_err() {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            faults.invalid_text("spec.podCIDR", network, detail);
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        for name in ["podCIDR", "providerID"] {
            let text = |object: &Object| {
                read_map(&object.body, "spec")
                    .map(|spec| read_text(spec, name).to_owned())
                    .unwrap_or_default()
            };
            let (new, old) = (text(object), text(old));
            if !old.is_empty() && new != old {
                let detail =
                    format!("node updates may not change {name} except from \"\" to valid");
                faults.forbidden(format!("spec.{name}"), &detail);
            }
        }
    }

    fn keeps_status_on_create(&self) -> bool {
        true
    }

    fn field(&self, object: &Value, path: &str) -> String {
        match (path, field_text(object, path)) {
            ("spec.unschedulable", text) if text.is_empty() => "false".to_owned(),
            (_, text) => text,
        }
    }
}

fn check_taints(spec: &Members, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (index, taint) in read_maps(spec, "taints") {
        let field = format!("spec.taints[{index}]");
        let (key, value, effect) = (
            read_text(taint, "key"),
            read_text(taint, "value"),
            read_text(taint, "effect"),
        );
        faults.invalid_texts(format!("{field}.key"), key, &names::qualified_name(key));
        faults.invalid_texts(format!("{field}.value"), value, &names::label_value(value));
        match effect {
            "" => faults.required(format!("{field}.effect"), ""),
            effect if EFFECTS.contains(&effect) => {}
            effect => faults.unsupported(format!("{field}.effect"), effect, &EFFECTS),
        }
        if !seen.insert((key, effect)) {
            faults.duplicate(&field, &Value::Object(taint.clone()));
        }
    }
}
