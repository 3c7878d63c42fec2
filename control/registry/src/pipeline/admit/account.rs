//! Every pod runs under a service account: what the pod leaves out is filled in, and its token, the cluster's CA and its
//! namespace are mounted. Rules and names: Kubernetes' ServiceAccount admission plugin. One thing differs: the account
//! `default` may come a moment after its namespace, so a pod does not wait for it; its token does.

use crate::pipeline::{Pipeline, store};
use crate::rbac::MIRROR_ANNOTATION;
use crate::{Target, strategy::field_text};
use mvcc::Consistency;
use objects::{GroupResource, Object, ObjectKey, Status};
use serde_json::{Map, Value, json};

const DEFAULT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const ROOT_CA: &str = "kube-root-ca.crt";
/// As Kubernetes asks: a little more than an hour, of which the agent uses four fifths.
const TOKEN_SECONDS: i64 = 3607;

/// Gives a new pod its account and what belongs to it; other objects are left aside.
pub async fn inject_account(
    pipeline: &Pipeline,
    target: &Target,
    object: &mut Object,
) -> Result<(), Status> {
    let row = &target.resource;
    let is_pod = row.group.is_empty() && row.resource == "pods";
    if !is_pod || object.metadata.annotations.contains_key(MIRROR_ANNOTATION) {
        return Ok(());
    }
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let Some(Value::Object(spec)) = object.body.get_mut("spec") else {
        return Ok(()); // Validation tells.
    };
    let named = spec.get("serviceAccountName").and_then(Value::as_str);
    let name = match named.unwrap_or_default() {
        "" => DEFAULT.to_owned(),
        name => name.to_owned(),
    };
    spec.insert("serviceAccountName".to_owned(), json!(name));
    spec.insert("serviceAccount".to_owned(), json!(name));
    let account = account(pipeline, &namespace, &name).await?;
    if account.is_none() && name != DEFAULT {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        let pod = &object.metadata.name;
        return Err(Status::forbidden(&target.group_resource(), pod, &why));
    }
    let account = account.unwrap_or(Value::Null);
    let says = |value: Option<&Value>| value.and_then(Value::as_bool);
    let mounts = says(spec.get("automountServiceAccountToken"))
        .or(says(account.get("automountServiceAccountToken")))
        .unwrap_or(true);
    if mounts {
        mount(spec, &pipeline.shell.name_suffix());
    }
    let has_secrets = spec
        .get("imagePullSecrets")
        .and_then(Value::as_array)
        .is_some_and(|secrets| !secrets.is_empty());
    if let Some(secrets) = account.get("imagePullSecrets")
        && !has_secrets
    {
        spec.insert("imagePullSecrets".to_owned(), secrets.clone());
    }
    Ok(())
}

/// The account's body; a no rests on a quorum's word.
async fn account(
    pipeline: &Pipeline,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Status> {
    let accounts = GroupResource::new("", "serviceaccounts");
    let key = ObjectKey::new(accounts, Some(namespace), name);
    for consistency in [Consistency::Stale, Consistency::Linearizable] {
        if let Some(stored) = store::read(pipeline, &key, consistency).await? {
            return Ok(Some(Value::Object(stored.object.body)));
        }
    }
    Ok(None)
}

/// Mounts the account's token into every container that mounts nothing there itself.
fn mount(spec: &mut Map<String, Value>, suffix: &str) {
    let known = known_volume(spec);
    let volume = known
        .clone()
        .unwrap_or_else(|| format!("{VOLUME_PREFIX}{suffix}"));
    let mut used = false;
    for part in ["initContainers", "containers"] {
        let containers = spec.get_mut(part).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Value::Object(container) = container else {
                continue;
            };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Value::Array(mounts) = mounts else {
                continue;
            };
            if mounts
                .iter()
                .any(|mount| field_text(mount, "mountPath") == MOUNT_PATH)
            {
                continue;
            }
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            used = true;
        }
    }
    if !used || known.is_some() {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if let Value::Array(volumes) = volumes {
        volumes.push(json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{
                "path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
            }]}},
        ]}}));
    }
}

/// The pod's volume of this kind, when it has one already: a pod that was copied.
fn known_volume(spec: &Map<String, Value>) -> Option<String> {
    let volumes = spec.get("volumes").and_then(Value::as_array);
    let mut named = volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| volume.get("name")?.as_str());
    named
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned)
}
