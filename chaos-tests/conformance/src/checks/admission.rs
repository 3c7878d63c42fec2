//! Admission: webhooks' configurations and policies. Webhooks themselves are not called: a check cannot know an address of its own
//! that masters reach.

use super::{check, story};
use crate::context::{Asked, Context, SOON, ensure, refused, shown};
use crate::lifecycle::Story;
use crate::run::Check;
use client::Error;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should include webhook resources in discovery documents [Conformance]", discovered),
    story!("[sig-api-machinery] own: ValidatingWebhookConfiguration API operations",
        Story::of("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", webhooks("true")).cluster_wide()),
    story!("[sig-api-machinery] own: MutatingWebhookConfiguration API operations",
        Story::of("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", webhooks("true")).cluster_wide()),
    check!("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject validating webhook configurations with invalid match conditions [Conformance]", invalid_validating),
    check!("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject mutating webhook configurations with invalid match conditions [Conformance]", invalid_mutating),
    check!("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should unconditionally reject operations on fail closed webhook [Conformance]", fails_closed),
    check!("[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment [Conformance]", validates),
    check!("[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should allow expressions to refer variables. [Conformance]", variables),
    story!("[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations [Conformance]",
        Story::of("admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", policy("none", json!({}), "true")).cluster_wide()),
    story!("[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations [Conformance]",
        Story::of("admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding",
            json!({"spec": {"policyName": "no-such-policy", "validationActions": ["Deny"]}})).cluster_wide()),
    story!("[sig-api-machinery] API priority and fairness should support FlowSchema API operations [Conformance]",
        Story::of("flowcontrol.apiserver.k8s.io/v1", "flowschemas", "FlowSchema", json!({"spec": {"matchingPrecedence": 10000,
            "priorityLevelConfiguration": {"name": "no-such-level"}, "rules": [{"subjects": [{"kind": "User", "user": {"name": "nobody"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}})).cluster_wide()),
    story!("[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations [Conformance]",
        Story::of("flowcontrol.apiserver.k8s.io/v1", "prioritylevelconfigurations", "PriorityLevelConfiguration", json!({"spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}})).cluster_wide()),
    check!("[sig-api-machinery] own: API priority and fairness has its mandatory objects", mandatory),
    story!("[sig-api-machinery] own: APIService API operations",
        Story::of("apiregistration.k8s.io/v1", "apiservices", "APIService", json!({"metadata": {"name": "v1.NAME.example.com"},
            "spec": {"groupPriorityMinimum": 100, "versionPriority": 100, "version": "v1", "group": "OWN-GROUP",
            "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "no-such-service"}}})).cluster_wide().one_by_one()),
];

/// Webhooks that select nothing.
fn webhooks(condition: &str) -> Value {
    json!({"webhooks": [{
        "name": "check.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 3,
        "clientConfig": {"url": "https://127.0.0.1:9/none"},
        "namespaceSelector": {"matchLabels": {"no-such": "namespace"}},
        "matchConditions": [{"name": "one", "expression": condition}],
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
    }]})
}

async fn discovered(context: &Context) -> Asked<()> {
    for plural in [
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ] {
        context
            .need("admissionregistration.k8s.io/v1", plural)
            .await?;
    }
    Ok(())
}

async fn invalid(context: &Context, plural: &str, kind: &str) -> Asked<()> {
    let mut object = webhooks("this is no expression");
    object["apiVersion"] = json!("admissionregistration.k8s.io/v1");
    object["kind"] = json!(kind);
    object["metadata"]["name"] = json!(context.unique("invalid"));
    let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    context.clean_up(format!("{path}/{}", crate::context::name(&object)));
    let status = refused(
        "a match condition that does not compile",
        context.client().post::<Value>(&path, &object).await,
        422,
    )?;
    ensure!(
        status.message.contains("matchConditions"),
        "{}",
        status.message
    );
    Ok(())
}

async fn invalid_validating(context: &Context) -> Asked<()> {
    invalid(
        context,
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
    )
    .await
}

async fn invalid_mutating(context: &Context) -> Asked<()> {
    invalid(
        context,
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
    )
    .await
}

/// Labels the check's namespace, so that a webhook or a policy can select it alone.
async fn mark(context: &Context) -> Asked<String> {
    let namespace = context.namespace().await?;
    context
        .merge(
            &format!("/api/v1/namespaces/{namespace}"),
            &json!({"metadata": {"labels": {"conformance-mark": namespace}}}),
        )
        .await?;
    Ok(namespace)
}

async fn fails_closed(context: &Context) -> Asked<()> {
    let namespace = mark(context).await?;
    let own = context.unique("fail-closed");
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let mut object = webhooks("true");
    object["apiVersion"] = json!("admissionregistration.k8s.io/v1");
    object["kind"] = json!("ValidatingWebhookConfiguration");
    object["metadata"]["name"] = json!(own);
    object["webhooks"][0]["failurePolicy"] = json!("Fail");
    object["webhooks"][0]["namespaceSelector"] =
        json!({"matchLabels": {"conformance-mark": namespace}});
    context.create(path, &object).await?;
    context.clean_up(format!("{path}/{own}"));
    let maps = context.of("v1", "configmaps").await?;
    let question = async || {
        let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"generateName": "refused-"}});
        match context.client().post::<Value>(&maps, &map).await {
            Err(Error::Api(status)) if status.message.contains("failed calling webhook") => {
                Ok(Some(status.code))
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(None),
        }
    };
    let code = context
        .until(
            "a refusal, since the webhook does not answer",
            SOON,
            question,
        )
        .await?;
    ensure!(code == 500, "the refusal's code is {code}");
    Ok(())
}

/// A policy on the Deployments of a namespace.
fn policy(namespace: &str, variables: Value, expression: &str) -> Value {
    let mut object = json!({"spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"conformance-mark": namespace}},
            "resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}]},
        "validations": [{"expression": expression, "message": "too many replicas"}],
    }});
    if variables.is_array() {
        object["spec"]["variables"] = variables;
    }
    object
}

async fn refuses_by(context: &Context, variables: Value, expression: &str) -> Asked<()> {
    let namespace = mark(context).await?;
    let own = context.unique("policy");
    let root = "/apis/admissionregistration.k8s.io/v1";
    let mut object = policy(&namespace, variables, expression);
    object["apiVersion"] = json!("admissionregistration.k8s.io/v1");
    object["kind"] = json!("ValidatingAdmissionPolicy");
    object["metadata"]["name"] = json!(own);
    context
        .create(&format!("{root}/validatingadmissionpolicies"), &object)
        .await?;
    context.clean_up(format!("{root}/validatingadmissionpolicies/{own}"));
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": own},
        "spec": {"policyName": own, "validationActions": ["Deny"]}});
    context
        .create(
            &format!("{root}/validatingadmissionpolicybindings"),
            &binding,
        )
        .await?;
    context.clean_up(format!("{root}/validatingadmissionpolicybindings/{own}"));
    let deployments = context.of("apps/v1", "deployments").await?;
    let deployment = |replicas: u32| {
        json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"generateName": "made-"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"nodeSelector": {"no-such": "node"}, "containers": [{"name": "c", "image": "none"}]}}}})
    };
    let question = async || match context
        .client()
        .post::<Value>(&deployments, &deployment(2))
        .await
    {
        Err(Error::Api(status)) if status.message.contains("too many replicas") => {
            Ok(Some(status.code))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(None),
    };
    let code = context
        .until("a refusal by the policy", SOON, question)
        .await?;
    ensure!(code == 422, "the refusal's code is {code}");
    context.create(&deployments, &deployment(1)).await?;
    Ok(())
}

async fn validates(context: &Context) -> Asked<()> {
    refuses_by(context, json!(null), "object.spec.replicas <= 1").await
}

async fn variables(context: &Context) -> Asked<()> {
    let variables = json!([{"name": "replicas", "expression": "object.spec.replicas"}, {"name": "few", "expression": "variables.replicas <= 1"}]);
    refuses_by(context, variables, "variables.few").await
}

async fn mandatory(context: &Context) -> Asked<()> {
    for (plural, own) in [
        ("flowschemas", "exempt"),
        ("flowschemas", "catch-all"),
        ("prioritylevelconfigurations", "exempt"),
        ("prioritylevelconfigurations", "catch-all"),
    ] {
        let object = context
            .get(&format!(
                "/apis/flowcontrol.apiserver.k8s.io/v1/{plural}/{own}"
            ))
            .await?;
        ensure!(object["metadata"]["uid"].is_string(), "{}", shown(&object));
    }
    Ok(())
}
