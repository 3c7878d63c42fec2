//! Admission policies over the wire: those that change objects, through the real kubectl, and what those that judge leave in the audit
//! log.

use crate::kubectl::Kubectl;
use crate::pki::Pki;
use crate::rig::{Rig, Setup, assert_code};
use http::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn policies_change_what_kubectl_creates() {
    let rig = Rig::start().await;
    for (index, version) in kubectls::all().iter().enumerate() {
        let kubectl = Kubectl::new(&version.program, &rig, "default");
        let applied = kubectl.ok("apply -f mutating.yaml").await;
        assert!(
            applied.contains("mutatingadmissionpolicy.admissionregistration.k8s.io/owned"),
            "{applied}"
        );
        let shown = kubectl.ok("get mutatingadmissionpolicies").await;
        assert!(
            shown.contains("owned") && shown.contains("MUTATIONS"),
            "{shown}"
        );
        // Each master follows the policies by a watch.
        let mut labels = String::new();
        for attempt in 0..50 {
            let name = format!("c{index}-{attempt}");
            kubectl
                .ok(&format!("create configmap {name} --from-literal=a=b"))
                .await;
            labels = kubectl
                .ok(&format!(
                    "get configmap {name} -o jsonpath={{.metadata.labels}}"
                ))
                .await;
            if !labels.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(
            labels,
            r#"{"owner":"trireme-admin","seen":"trireme-admin"}"#
        );
        kubectl.ok("delete -f mutating.yaml").await;
    }
}

#[tokio::test]
async fn what_policies_note_reaches_the_audit_log() {
    let (lines, mut noted) = tokio::sync::mpsc::channel(1000);
    let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Metadata, resources: [{group: '', resources: [configmaps, pods]}]}]}";
    let setup = Setup {
        audit: Some(api::Audit::new(policy, lines).expect("a policy")),
        ..Setup::default()
    };
    let rig = Rig::set_up(Pki::new(), setup).await;
    let client = rig.admin();
    let judging = json!({"kind": "ValidatingAdmissionPolicy", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "small"},
    "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "true"}, {"expression": "object.data.size() < 2", "message": "too many"}],
        "auditAnnotations": [{"key": "keys", "valueExpression": "string(object.data.size()) + ' keys'"}],
    }});
    let bound = json!({"kind": "ValidatingAdmissionPolicyBinding", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "small"},
        "spec": {"policyName": "small", "validationActions": ["Audit"]}});
    for (resource, object) in [
        ("validatingadmissionpolicies", judging),
        ("validatingadmissionpolicybindings", bound),
    ] {
        let made = client
            .post(&format!("{GROUP}/{resource}"), &object.to_string())
            .await;
        assert_code(&made, StatusCode::CREATED);
    }
    let mut annotations = Value::Null;
    for attempt in 0..50 {
        let name = format!("c{attempt}");
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": "1", "b": "2"}});
        assert_code(
            &client.post(CONFIGMAPS, &object.to_string()).await,
            StatusCode::CREATED,
        );
        let event = noted.try_recv().expect("an event");
        annotations = serde_json::from_slice::<Value>(&event).expect("JSON")["annotations"].take();
        if !annotations.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(annotations["small/keys"], "2 keys");
    let failures = annotations["validation.policy.admission.k8s.io/validation_failure"].as_str();
    let failures: Value = serde_json::from_str(failures.expect("a note")).expect("JSON");
    assert_eq!(
        failures,
        json!([{"message": "too many", "policy": "small", "binding": "small", "expressionIndex": 1, "validationActions": ["Audit"]}])
    );

    // What a denial rests on is noted, too; and pod security.
    let denies = json!({"spec": {"validationActions": ["Deny", "Audit"]}});
    let merge = "application/merge-patch+json";
    let path = format!("{GROUP}/validatingadmissionpolicybindings/small");
    assert_code(
        &client.patch(&path, merge, &denies.to_string()).await,
        StatusCode::OK,
    );
    let mut refused = client.get("/api").await;
    for attempt in 0..50 {
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": format!("d{attempt}")}, "data": {"a": "1", "b": "2"}});
        refused = client.post(CONFIGMAPS, &object.to_string()).await;
        let event = noted.try_recv().expect("an event");
        annotations = serde_json::from_slice::<Value>(&event).expect("JSON")["annotations"].take();
        if refused.code != 201 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_code(&refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(annotations["small/keys"], "2 keys");
    let levels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged", "pod-security.kubernetes.io/audit": "restricted"}}});
    assert_code(
        &client
            .patch("/api/v1/namespaces/default", merge, &levels.to_string())
            .await,
        StatusCode::OK,
    );
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]}});
    client
        .post("/api/v1/namespaces/default/pods", &pod.to_string())
        .await;
    let event = noted.try_recv().expect("an event");
    let event = serde_json::from_slice::<Value>(&event).expect("JSON");
    let violations = event["annotations"]["pod-security.kubernetes.io/audit-violations"].as_str();
    let violations = violations.unwrap_or_else(|| panic!("no note in {event}"));
    assert!(violations.contains("privileged"), "{violations}");
    assert_eq!(
        event["annotations"]["pod-security.kubernetes.io/enforce-policy"],
        "privileged:latest"
    );
}
