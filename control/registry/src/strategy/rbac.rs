//! Roles and their bindings, in a namespace and in the cluster. Rules: Kubernetes' rbac/v1 defaults and validation; who may
//! grant what is no strategy's part.

use super::Strategy;
use super::check::named;
use super::edit::{
    Members, default, default_text, existing_map, maps_in, read_list, read_map, read_maps,
    read_text,
};
use crate::Faults;
use objects::{Object, names};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The strategy of roles and cluster roles.
pub struct Roles;

impl Strategy for Roles {
    fn default_fields(&self, object: &mut Object) {
        default(&mut object.body, "rules", Value::Null);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let namespaced = object.types.kind == "Role";
        for (index, rule) in read_maps(&object.body, "rules") {
            check_rule(rule, namespaced, &format!("rules[{index}]"), faults);
        }
        let aggregation = read_map(&object.body, "aggregationRule");
        if let Some(aggregation) = aggregation {
            let field = "aggregationRule.clusterRoleSelectors";
            if read_list(aggregation, "clusterRoleSelectors").is_empty() {
                faults.required(
                    field,
                    "at least one clusterRoleSelector required if aggregationRule is non-nil",
                );
            }
            for (index, value) in read_list(aggregation, "clusterRoleSelectors")
                .iter()
                .enumerate()
            {
                if let Err(error) = objects::LabelSelector::from_value(value) {
                    faults.invalid(format!("{field}[{index}]"), value, &error.to_string());
                }
            }
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }
}

fn check_rule(rule: &Members, namespaced: bool, field: &str, faults: &mut Faults) {
    let empty = |name: &str| read_list(rule, name).is_empty();
    if empty("verbs") {
        faults.required(
            format!("{field}.verbs"),
            "verbs must contain at least one value",
        );
    }
    let paths = format!("{field}.nonResourceURLs");
    if !empty("nonResourceURLs") {
        let shown = &rule["nonResourceURLs"];
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            faults.invalid(&paths, shown, detail);
        }
        if ["apiGroups", "resources", "resourceNames"]
            .iter()
            .any(|name| !empty(name))
        {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            faults.invalid(&paths, shown, detail);
        }
        return;
    }
    if empty("apiGroups") {
        let detail = "resource rules must supply at least one api group";
        faults.required(format!("{field}.apiGroups"), detail);
    }
    if empty("resources") {
        let detail = "resource rules must supply at least one resource";
        faults.required(format!("{field}.resources"), detail);
    }
}

/// The strategy of bindings of either kind.
pub struct RoleBindings;

impl Strategy for RoleBindings {
    fn default_fields(&self, object: &mut Object) {
        if let Some(role) = existing_map(&mut object.body, "roleRef") {
            default_text(role, "apiGroup", GROUP);
        }
        for subject in maps_in(&mut object.body, "subjects") {
            if matches!(read_text(subject, "kind"), "User" | "Group") {
                default_text(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let cluster_wide = object.types.kind == "ClusterRoleBinding";
        let nothing = Members::new();
        let role = read_map(&object.body, "roleRef").unwrap_or(&nothing);
        let group = read_text(role, "apiGroup");
        if group != GROUP {
            faults.unsupported("roleRef.apiGroup", group, &[GROUP]);
        }
        let kind = read_text(role, "kind");
        let kinds: &[&str] = if cluster_wide {
            &["ClusterRole"]
        } else {
            &["ClusterRole", "Role"]
        };
        if !kinds.contains(&kind) {
            faults.unsupported("roleRef.kind", kind, kinds);
        }
        named(role, "name", "roleRef", names::path_segment, faults);
        for (index, subject) in read_maps(&object.body, "subjects") {
            check_subject(subject, cluster_wide, &format!("subjects[{index}]"), faults);
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let (new, old) = (object.body.get("roleRef"), old.body.get("roleRef"));
        if new != old {
            let shown = new.cloned().unwrap_or_default();
            faults.invalid("roleRef", &shown, "cannot change roleRef");
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }
}

fn check_subject(subject: &Members, cluster_wide: bool, field: &str, faults: &mut Faults) {
    let (kind, group) = (read_text(subject, "kind"), read_text(subject, "apiGroup"));
    let name = read_text(subject, "name");
    if name.is_empty() {
        faults.required(format!("{field}.name"), "");
    }
    let wanted = match kind {
        "ServiceAccount" => {
            if !name.is_empty() {
                let found = names::dns1123_subdomain(name);
                faults.invalid_texts(format!("{field}.name"), name, &found);
            }
            if read_text(subject, "namespace").is_empty() && cluster_wide {
                faults.required(format!("{field}.namespace"), "");
            }
            ""
        }
        "User" | "Group" => GROUP,
        kind => {
            let known = ["Group", "ServiceAccount", "User"];
            return faults.unsupported(format!("{field}.kind"), kind, &known);
        }
    };
    if group != wanted {
        faults.unsupported(format!("{field}.apiGroup"), group, &[wanted]);
    }
}
