//! The environment, command and arguments of a container.
//!
//! Rules: Kubernetes' documentation of `env`, `envFrom`, `valueFrom` and of `$(NAME)`: a reference to an unknown name stays
//! as it is written, `$$(NAME)` is the escape. ConfigMaps and Secrets are given, never fetched.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Secret};
use objects::Quantity;

use crate::desired::Desired;
use crate::observed::Observed;
use crate::resources;

/// What a container's environment may refer to. What was asked for and does not exist is absent.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// By name, of the pod's namespace.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// By name, of the pod's namespace.
    pub secrets: BTreeMap<String, Secret>,
    /// Variables for the cluster's services, beneath all others.
    pub services: Vec<(String, String)>,
    /// The node's name.
    pub node_name: String,
    /// What a container without a limit may use: milli-CPUs and bytes.
    pub node_capacity: (i64, i64),
}

/// Why a container's environment cannot be made; the message of `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A ConfigMap or Secret does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field that pods do not have.
    #[error(
        "field path {0:?} is not supported; use metadata.name, metadata.labels['KEY'], spec.nodeName, status.podIP and the like"
    )]
    Field(String),
    /// A resource that containers do not have.
    #[error(
        "resource {0:?} of a container is not supported; use limits.cpu, requests.memory and the like"
    )]
    Resource(String),
}

/// ConfigMaps and Secrets that the environment of `container` needs.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (vec![], vec![]);
    for from in container.env_from.iter().flatten() {
        config_maps.extend(
            from.config_map_ref
                .as_ref()
                .map(|reference| reference.name.clone()),
        );
        secrets.extend(
            from.secret_ref
                .as_ref()
                .map(|reference| reference.name.clone()),
        );
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value_from.as_ref())
    {
        config_maps.extend(
            source
                .config_map_key_ref
                .as_ref()
                .map(|reference| reference.name.clone()),
        );
        secrets.extend(
            source
                .secret_key_ref
                .as_ref()
                .map(|reference| reference.name.clone()),
        );
    }
    (config_maps, secrets)
}

/// The environment of `container`, in the order in which it is written.
pub fn environment(
    container: &Container,
    desired: &Desired,
    observed: &Observed,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut variables: Vec<(String, String)> = sources.services.clone();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (key, value) in bulk(from, sources)? {
            set(&mut variables, format!("{prefix}{key}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => referenced(source, container, desired, observed, sources)?,
            None => Some(expand(
                variable.value.as_deref().unwrap_or_default(),
                &variables,
            )),
        };
        if let Some(value) = value {
            set(&mut variables, variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// `text` with `$(NAME)` replaced by the variable's value.
pub fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inside| inside.split_once(')'))
        {
            match variables.iter().find(|(known, _)| known == name) {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

fn set(variables: &mut Vec<(String, String)>, name: String, value: String) {
    match variables.iter_mut().find(|(known, _)| *known == name) {
        Some(variable) => variable.1 = value,
        None => variables.push((name, value)),
    }
}

fn bulk(
    from: &k8s_openapi::api::core::v1::EnvFromSource,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvError> {
    if let Some(reference) = &from.config_map_ref {
        return match sources.config_maps.get(&reference.name) {
            Some(found) => Ok(found
                .data
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()),
            None if reference.optional == Some(true) => Ok(vec![]),
            None => Err(EnvError::NotFound {
                kind: "configmap",
                name: reference.name.clone(),
            }),
        };
    }
    let Some(reference) = &from.secret_ref else {
        return Ok(vec![]);
    };
    match sources.secrets.get(&reference.name) {
        Some(found) => Ok(found
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), text(&value.0)))
            .collect()),
        None if reference.optional == Some(true) => Ok(vec![]),
        None => Err(EnvError::NotFound {
            kind: "secret",
            name: reference.name.clone(),
        }),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// None for an optional reference to what does not exist.
fn referenced(
    source: &EnvVarSource,
    container: &Container,
    desired: &Desired,
    observed: &Observed,
    sources: &Sources,
) -> Result<Option<String>, EnvError> {
    if let Some(key) = &source.config_map_key_ref {
        let found = sources.config_maps.get(&key.name);
        let value = found.map(|found| {
            found
                .data
                .as_ref()
                .and_then(|data| data.get(&key.key))
                .cloned()
        });
        return keyed(
            ("configmap", "ConfigMap"),
            desired,
            &key.name,
            &key.key,
            key.optional,
            value,
        );
    }
    if let Some(key) = &source.secret_key_ref {
        let found = sources.secrets.get(&key.name);
        let value = found.map(|found| {
            found
                .data
                .as_ref()
                .and_then(|data| data.get(&key.key))
                .map(|value| text(&value.0))
        });
        return keyed(
            ("secret", "Secret"),
            desired,
            &key.name,
            &key.key,
            key.optional,
            value,
        );
    }
    if let Some(field) = &source.field_ref {
        return field_value(&field.field_path, desired, observed, &sources.node_name).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        let of = resource
            .container_name
            .as_deref()
            .and_then(|name| desired.container(name))
            .map_or(container, |view| view.spec);
        let divisor = resource
            .divisor
            .as_ref()
            .and_then(|divisor| Quantity::parse(&divisor.0).ok());
        return resource_value(&resource.resource, of, divisor, sources.node_capacity).map(Some);
    }
    Ok(Some(String::new()))
}

fn keyed(
    kinds: (&'static str, &'static str),
    desired: &Desired,
    name: &str,
    key: &str,
    optional: Option<bool>,
    value: Option<Option<String>>,
) -> Result<Option<String>, EnvError> {
    match value {
        Some(Some(value)) => Ok(Some(value)),
        _ if optional == Some(true) => Ok(None),
        None => Err(EnvError::NotFound {
            kind: kinds.0,
            name: name.to_owned(),
        }),
        Some(None) => Err(EnvError::NoKey {
            kind: kinds.1,
            namespace: desired.namespace.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
        }),
    }
}

/// What a `fieldRef` of environment and downward API volumes gives.
pub fn field_value(
    path: &str,
    desired: &Desired,
    observed: &Observed,
    node_name: &str,
) -> Result<String, EnvError> {
    let metadata = desired.metadata();
    let pod_ip = || observed.pod_ip.clone().unwrap_or_default();
    Ok(match path {
        "metadata.name" => desired.name.clone(),
        "metadata.namespace" => desired.namespace.clone(),
        "metadata.uid" => desired.uid.clone(),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => node_name.to_owned(),
        "spec.serviceAccountName" => desired
            .spec()
            .service_account_name
            .clone()
            .unwrap_or_else(|| "default".into()),
        "status.hostIP" | "status.hostIPs" => observed.host_ip.clone(),
        "status.podIP" | "status.podIPs" => pod_ip(),
        _ => {
            let of = |map: Option<&BTreeMap<String, String>>, prefix: &str| -> Option<String> {
                let key = path
                    .strip_prefix(prefix)?
                    .strip_prefix("['")?
                    .strip_suffix("']")?;
                Some(
                    map.and_then(|map| map.get(key))
                        .cloned()
                        .unwrap_or_default(),
                )
            };
            let labelled = of(metadata.labels.as_ref(), "metadata.labels");
            let value =
                labelled.or_else(|| of(metadata.annotations.as_ref(), "metadata.annotations"));
            value.ok_or_else(|| EnvError::Field(path.to_owned()))?
        }
    })
}

/// `key="value"` lines, as the downward API writes maps.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

/// What a `resourceFieldRef` gives: `limits.cpu` in units of its divisor, rounded up; without a limit what the node has.
pub fn resource_value(
    name: &str,
    container: &Container,
    divisor: Option<Quantity>,
    node: (i64, i64),
) -> Result<String, EnvError> {
    let requirements = container.resources.clone().unwrap_or_default();
    let (side, resource) = name
        .split_once('.')
        .ok_or_else(|| EnvError::Resource(name.to_owned()))?;
    let is_limit = side == "limits";
    let own = resources::value(
        if is_limit {
            &requirements.limits
        } else {
            &requirements.requests
        },
        resource,
    );
    let fallback = |capacity: i64| if is_limit { capacity } else { 0 };
    let divisor = divisor.filter(|divisor| !divisor.is_zero());
    let (value, divisor) = match (side, resource) {
        ("limits" | "requests", "cpu") => (
            own.map_or(fallback(node.0), Quantity::milli),
            divisor.map_or(1000, Quantity::milli),
        ),
        ("limits" | "requests", "memory") => (
            own.map_or(fallback(node.1), Quantity::units),
            divisor.map_or(1, Quantity::units),
        ),
        ("limits" | "requests", "ephemeral-storage") => (
            own.map_or(0, Quantity::units),
            divisor.map_or(1, Quantity::units),
        ),
        _ => return Err(EnvError::Resource(name.to_owned())),
    };
    let divisor = divisor.max(1);
    Ok((value / divisor + i64::from(value % divisor > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn references_expand_as_documented() {
        let known = variables(&[("A", "1"), ("B", "$(A)")]);
        let cases = [
            ("$(A)-$(B)", "1-$(A)"),
            ("$(NO)", "$(NO)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }

    #[test]
    fn all_sources_in_order() {
        let pod = json!({
            "metadata": { "uid": "u", "name": "web-0", "namespace": "shop", "labels": { "app": "web" } },
            "spec": { "containers": [{
                "name": "web", "image": "i",
                "resources": { "limits": { "cpu": "1500m", "memory": "64Mi" } },
                "envFrom": [{ "configMapRef": { "name": "settings" }, "prefix": "S_" }, { "secretRef": { "name": "none", "optional": true } }],
                "env": [
                    { "name": "HOST", "value": "$(S_host):80" },
                    { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "password" } } },
                    { "name": "LABEL", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                    { "name": "CPUS", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
                    { "name": "MIB", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
                    { "name": "ABSENT", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "x", "optional": true } } },
                ],
            }] },
        });
        let desired = Desired::parse(pod).expect("a pod");
        let mut sources = Sources::default();
        let settings =
            serde_json::from_value(json!({ "data": { "host": "db" } })).expect("a ConfigMap");
        sources.config_maps.insert("settings".into(), settings);
        let container = &desired.spec().containers[0];
        let missing = environment(container, &desired, &Observed::default(), &sources);
        assert_eq!(
            missing.map_err(|error| error.to_string()),
            Err("secret \"keys\" not found".to_owned())
        );
        let keys = serde_json::from_value(json!({ "data": { "password": "aHVudGVyMg==" } }))
            .expect("a Secret");
        sources.secrets.insert("keys".into(), keys);
        let made =
            environment(container, &desired, &Observed::default(), &sources).expect("resolves");
        let expected = [
            ("S_host", "db"),
            ("HOST", "db:80"),
            ("PASSWORD", "hunter2"),
            ("LABEL", "web"),
            ("CPUS", "2"),
            ("MIB", "64"),
        ];
        assert_eq!(made, variables(&expected));
        assert_eq!(
            references(container),
            (
                vec!["settings".into(), "settings".into()],
                vec!["none".into(), "keys".into()]
            )
        );
    }
}
