//! The short manifest that beginners write, and the full object that it stands for.
//!
//! Only what is missing or in the wrong place is assumed, and every assumption is told; what is written fully passes unchanged.
//! The API itself stays strict: this is `ctl apply`'s courtesy.

use serde_json::{Map, Value, json};

/// Fields of a pod's spec that may stand directly in a workload's spec.
const POD_FIELDS: [&str; 16] = [
    "containers",
    "initContainers",
    "volumes",
    "nodeSelector",
    "tolerations",
    "affinity",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "serviceAccountName",
    "imagePullSecrets",
    "securityContext",
    "dnsPolicy",
    "hostname",
];

/// Kinds of apps/v1 that hold a pod template.
const WORKLOADS: [&str; 2] = ["Deployment", "ReplicaSet"];

/// The full object, and what was assumed; nothing when the object was full.
pub fn expand(mut object: Value) -> (Value, Vec<String>) {
    let mut assumed = Vec::new();
    let kind = object["kind"].as_str().unwrap_or("").to_owned();
    let workload = WORKLOADS.contains(&kind.as_str());
    if workload && object["apiVersion"] == "v1" {
        object["apiVersion"] = json!("apps/v1");
        assumed.push(format!("apiVersion apps/v1, where {kind} is served"));
    }
    if (workload || kind == "Pod") && object["metadata"].is_object() {
        name_and_labels(&mut object["metadata"], &mut assumed);
    }
    if workload && object["spec"].is_object() {
        template(&mut object, &mut assumed);
        selector(&mut object, &mut assumed);
    }
    let pod_spec = if workload {
        object.pointer_mut("/spec/template/spec")
    } else {
        object.get_mut("spec")
    };
    if let Some(spec) = pod_spec.filter(|_| workload || kind == "Pod") {
        containers(spec, &mut assumed);
    }
    (object, assumed)
}

/// `metadata.app` stands for the name and the label `app`.
fn name_and_labels(metadata: &mut Value, assumed: &mut Vec<String>) {
    let Some(Value::String(app)) = metadata
        .as_object_mut()
        .and_then(|metadata| metadata.remove("app"))
    else {
        return;
    };
    if metadata["name"].is_null() {
        metadata["name"] = json!(app);
        assumed.push(format!("metadata.name {app:?}, from metadata.app"));
    }
    if metadata["labels"]["app"].is_null() {
        metadata["labels"]["app"] = json!(app);
        assumed.push(format!("the label app={app}, from metadata.app"));
    }
}

/// Fields of a pod that stand directly in `spec` belong into `spec.template.spec`.
fn template(object: &mut Value, assumed: &mut Vec<String>) {
    let mut labels = object["metadata"]["labels"].clone();
    let Some(spec) = object["spec"].as_object_mut() else {
        return;
    };
    if spec.contains_key("template") {
        return;
    }
    let moved: Map<String, Value> = POD_FIELDS
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), spec.shift_remove(*field)?)))
        .collect();
    if moved.is_empty() {
        return;
    }
    let names = moved.keys().cloned().collect::<Vec<_>>().join(", ");
    if labels.is_null()
        && let Some(name) = object["metadata"]["name"].as_str()
    {
        labels = json!({ "app": name });
    }
    object["spec"]["template"] = json!({"metadata": {"labels": labels}, "spec": moved});
    assumed.push(format!(
        "spec.template around {names}, with the labels {labels}"
    ));
}

/// Without a selector, the template's labels select.
fn selector(object: &mut Value, assumed: &mut Vec<String>) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if object["spec"]["selector"].is_null()
        && labels.as_object().is_some_and(|labels| !labels.is_empty())
    {
        assumed.push(format!(
            "spec.selector.matchLabels {labels}, from the template's labels"
        ));
        object["spec"]["selector"] = json!({ "matchLabels": labels });
    }
}

fn containers(spec: &mut Value, assumed: &mut Vec<String>) {
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let name = container["name"].as_str().unwrap_or("?").to_owned();
            for variable in container
                .get_mut("env")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                let Some(text) = scalar_text(&variable["value"]) else {
                    continue;
                };
                assumed.push(format!(
                    "the text {text:?} for {} in container {name}",
                    variable["name"].as_str().unwrap_or("?")
                ));
                variable["value"] = json!(text);
            }
            for port in container
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if port.is_u64() {
                    assumed.push(format!("containerPort {port} in container {name}"));
                    *port = json!({ "containerPort": port });
                }
            }
        }
    }
}

/// What YAML read as a boolean or a number, as the text that was meant.
fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const SHORT: &str = "
apiVersion: v1
kind: Deployment
metadata:
  app: backend
spec:
  replicas: 3
  containers:
    - name: miapp-backend
      image: localhost:5000/backend
      env:
        - name: DEBUG
          value: true
";

    #[test]
    fn a_beginner_s_deployment_becomes_whole() {
        let (object, assumed) = expand(serde_saphyr::from_str(SHORT).expect("YAML"));
        expect![[r#"
            {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"backend","labels":{"app":"backend"}},"spec":{"replicas":3,"template":{"metadata":{"labels":{"app":"backend"}},"spec":{"containers":[{"name":"miapp-backend","image":"localhost:5000/backend","env":[{"name":"DEBUG","value":"true"}]}]}},"selector":{"matchLabels":{"app":"backend"}}}}
            apiVersion apps/v1, where Deployment is served
            metadata.name "backend", from metadata.app
            the label app=backend, from metadata.app
            spec.template around containers, with the labels {"app":"backend"}
            spec.selector.matchLabels {"app":"backend"}, from the template's labels
            the text "true" for DEBUG in container miapp-backend"#]]
        .assert_eq(&format!("{object}\n{}", assumed.join("\n")));
    }

    #[test]
    fn a_whole_object_passes_unchanged() {
        let (once, _) = expand(serde_saphyr::from_str(SHORT).expect("YAML"));
        assert_eq!(expand(once.clone()), (once, vec![]));
        let other = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"app": "x"}, "data": {"a": "b"}});
        assert_eq!(expand(other.clone()), (other, vec![]));
    }
}
