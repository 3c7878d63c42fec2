//! What belongs to nodes and can be asked without one; events.

use super::{check, story};
use crate::context::{Asked, Context, ensure, items, refused, shown};
use crate::lifecycle::Story;
use crate::run::Check;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    story!(
        "[sig-node] PodTemplates should run the lifecycle of PodTemplates [Conformance]",
        Story::of("v1", "podtemplates", "PodTemplate", template())
    ),
    check!(
        "[sig-node] PodTemplates should delete a collection of pod templates [Conformance]",
        templates
    ),
    check!(
        "[sig-node] PodTemplates should replace a pod template [Conformance]",
        replace_template
    ),
    check!(
        "[sig-node] Lease lease API should be available [Conformance]",
        lease
    ),
    story!(
        "[sig-node] RuntimeClass should support RuntimeClasses API operations [Conformance]",
        Story::of(
            "node.k8s.io/v1",
            "runtimeclasses",
            "RuntimeClass",
            json!({"handler": "fake"})
        )
        .cluster_wide()
    ),
    check!(
        "[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [NodeConformance] [Conformance]",
        no_class
    ),
    check!(
        "[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead [NodeConformance] [Conformance]",
        overhead
    ),
    check!(
        "[sig-node] Pods should delete a collection of pods [Conformance]",
        pods
    ),
    check!(
        "[sig-node] Pods should patch a pod status [Conformance]",
        pod_status
    ),
    check!(
        "[sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu [Conformance]",
        quality
    ),
    check!(
        "[sig-node] Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update [Conformance]",
        generation
    ),
    check!(
        "[sig-node] Ephemeral Containers should update the ephemeral containers in an existing pod [Conformance]",
        ephemeral
    ),
    check!(
        "[sig-node] Sysctls [LinuxOnly] [NodeConformance] should reject invalid sysctls [MinimumKubeletVersion:1.21] [Conformance]",
        sysctls
    ),
    story!(
        "[sig-instrumentation] Events should manage the lifecycle of an event [Conformance]",
        Story::of("v1", "events", "Event", core_event())
    ),
    check!(
        "[sig-instrumentation] Events should delete a collection of events [Conformance]",
        events
    ),
    story!(
        "[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed [Conformance]",
        Story::of("events.k8s.io/v1", "events", "Event", new_event())
    ),
    check!(
        "[sig-instrumentation] Events API should delete a collection of events [Conformance]",
        both_groups
    ),
];

fn template() -> Value {
    json!({"template": {"spec": {"containers": [{"name": "nginx", "image": "nginx"}]}}})
}

async fn templates(context: &Context) -> Asked<()> {
    let path = context.of("v1", "podtemplates").await?;
    for own in ["one", "two", "three"] {
        let mut object = template();
        object["kind"] = json!("PodTemplate");
        object["apiVersion"] = json!("v1");
        object["metadata"] = json!({"name": own, "labels": {"podtemplate-set": "true"}});
        context.create(&path, &object).await?;
    }
    let selected = format!("{path}?labelSelector=podtemplate-set%3Dtrue");
    ensure!(
        context.items(&selected).await?.len() == 3,
        "three are wanted"
    );
    context.delete(&selected).await?;
    ensure!(context.items(&selected).await?.is_empty(), "none is wanted");
    Ok(())
}

async fn replace_template(context: &Context) -> Asked<()> {
    let path = context.of("v1", "podtemplates").await?;
    let mut object = template();
    object["kind"] = json!("PodTemplate");
    object["apiVersion"] = json!("v1");
    object["metadata"]["name"] = json!("one");
    let mut made = context.create(&path, &object).await?;
    made["template"]["spec"]["containers"][0]["image"] = json!("httpd");
    let replaced = context.replace(&format!("{path}/one"), &made).await?;
    ensure!(
        replaced["template"]["spec"]["containers"][0]["image"] == "httpd",
        "{}",
        shown(&replaced)
    );
    Ok(())
}

async fn lease(context: &Context) -> Asked<()> {
    let spec = json!({"holderIdentity": "holder", "leaseDurationSeconds": 30, "acquireTime": "2030-01-01T00:00:00.000001Z", "renewTime": "2030-01-01T00:00:05.000001Z", "leaseTransitions": 0});
    Story::of(
        "coordination.k8s.io/v1",
        "leases",
        "Lease",
        json!({"spec": spec}),
    )
    .play(context)
    .await?;
    let path = context.of("coordination.k8s.io/v1", "leases").await?;
    let made = context.create(&path, &json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": "exact"}, "spec": spec})).await?;
    ensure!(
        made["spec"] == spec,
        "times have microseconds: {}",
        shown(&made)
    );
    Ok(())
}

fn pod(own: &str, resources: Value) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": own, "labels": {"type": "Testing"}},
        "spec": {"nodeSelector": {"no-such": "node"}, "containers": [{"name": "c", "image": "none", "resources": resources}]}})
}

async fn no_class(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    let mut object = pod("one", json!({}));
    object["spec"]["runtimeClassName"] = json!("no-such-class");
    let status = refused(
        "a class that is not there",
        context.client().post::<Value>(&pods, &object).await,
        403,
    )?;
    ensure!(
        status.message.contains("no-such-class"),
        "{}",
        status.message
    );
    Ok(())
}

async fn overhead(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    let own = context.unique("class");
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    let class = json!({"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": own}, "handler": "fake", "overhead": {"podFixed": {"cpu": "10m", "memory": "1Mi"}}});
    context.create(classes, &class).await?;
    context.clean_up(format!("{classes}/{own}"));
    let mut object = pod("one", json!({}));
    object["spec"]["runtimeClassName"] = json!(own);
    let made = context.create(&pods, &object).await?;
    ensure!(
        made["spec"]["overhead"] == json!({"cpu": "10m", "memory": "1Mi"}),
        "{}",
        shown(&made["spec"])
    );
    Ok(())
}

async fn pods(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    for own in ["test-pod-1", "test-pod-2", "test-pod-3"] {
        context.create(&pods, &pod(own, json!({}))).await?;
    }
    let selected = format!("{pods}?labelSelector=type%3DTesting");
    context.delete(&selected).await?;
    context
        .wait("the end of the pods", &selected, |it| items(it).is_empty())
        .await?;
    Ok(())
}

async fn pod_status(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    context.create(&pods, &pod("one", json!({}))).await?;
    let patched = context.strategic(&format!("{pods}/one/status"), &json!({"status": {"message": "Patched by e2e test", "reason": "E2E"}, "spec": {"priority": 9}})).await?;
    ensure!(
        patched["status"]["message"] == "Patched by e2e test" && patched["spec"]["priority"] != 9,
        "{}",
        shown(&patched)
    );
    Ok(())
}

async fn quality(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    let equal = json!({"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "100m", "memory": "100Mi"}});
    for (own, resources, class) in [
        ("guaranteed", equal, "Guaranteed"),
        ("burstable", json!({"requests": {"cpu": "1m"}}), "Burstable"),
        ("best-effort", json!({}), "BestEffort"),
    ] {
        let made = context.create(&pods, &pod(own, resources)).await?;
        ensure!(
            made["status"]["qosClass"] == class,
            "{class} is wanted: {}",
            shown(&made["status"])
        );
    }
    Ok(())
}

async fn generation(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    let made = context.create(&pods, &pod("one", json!({}))).await?;
    ensure!(
        made["metadata"]["generation"] == 1,
        "{}",
        shown(&made["metadata"])
    );
    let path = format!("{pods}/one");
    let patched = context
        .merge(&path, &json!({"spec": {"activeDeadlineSeconds": 5000}}))
        .await?;
    ensure!(
        patched["metadata"]["generation"] == 2,
        "{}",
        shown(&patched["metadata"])
    );
    let patched = context
        .merge(&path, &json!({"metadata": {"labels": {"more": "labels"}}}))
        .await?;
    ensure!(
        patched["metadata"]["generation"] == 2,
        "{}",
        shown(&patched["metadata"])
    );
    Ok(())
}

async fn ephemeral(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    context.create(&pods, &pod("one", json!({}))).await?;
    let below = format!("{pods}/one/ephemeralcontainers");
    let patch = json!({"spec": {"ephemeralContainers": [{"name": "debugger", "image": "none"}]}});
    let patched = context.strategic(&below, &patch).await?;
    ensure!(
        patched["spec"]["ephemeralContainers"][0]["name"] == "debugger"
            && patched["spec"]["ephemeralContainers"][0]["terminationMessagePath"].is_string(),
        "{}",
        shown(&patched["spec"])
    );
    let asked = context
        .client()
        .patch::<Value>(
            &format!("{pods}/one"),
            client::PatchKind::Strategic,
            &json!({"spec": {"ephemeralContainers": [{"name": "more", "image": "none"}]}}),
        )
        .await;
    refused("an ephemeral container by the pod itself", asked, 422)?;
    Ok(())
}

async fn sysctls(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    let mut object = pod("one", json!({}));
    object["spec"]["securityContext"] = json!({"sysctls": [{"name": "foo-", "value": "bar"}, {"name": "kernel.shmmax", "value": "1"}, {"name": "safe-and-unsafe", "value": "1"}, {"name": "bar..", "value": "42"}]});
    let status = refused(
        "names that are none",
        context.client().post::<Value>(&pods, &object).await,
        422,
    )?;
    ensure!(
        status.message.contains("foo-")
            && status.message.contains("bar..")
            && !status.message.contains("kernel.shmmax"),
        "{}",
        status.message
    );
    Ok(())
}

fn core_event() -> Value {
    json!({"message": "This is a test event", "reason": "Test", "type": "Normal", "count": 1, "source": {"component": "check"},
        "firstTimestamp": "2030-01-01T00:00:00Z", "lastTimestamp": "2030-01-01T00:00:00Z",
        "involvedObject": {"kind": "Pod", "name": "none", "namespace": "NAMESPACE"}})
}

fn new_event() -> Value {
    json!({"eventTime": "2030-01-01T00:00:00.000001Z", "reportingController": "check", "reportingInstance": "check-1", "action": "Do", "reason": "Test", "type": "Normal",
        "note": "This is a test event", "regarding": {"kind": "Pod", "name": "none", "namespace": "NAMESPACE"}})
}

/// The object that an event is about must be of the event's namespace.
async fn make_events(context: &Context, names: &[&str]) -> Asked<String> {
    let namespace = context.namespace().await?;
    let path = context.of("v1", "events").await?;
    for own in names {
        let mut object = core_event();
        object["kind"] = json!("Event");
        object["apiVersion"] = json!("v1");
        object["metadata"] = json!({"name": own, "labels": {"testevent-set": "true"}});
        object["involvedObject"]["namespace"] = json!(namespace);
        context.create(&path, &object).await?;
    }
    Ok(path)
}

async fn events(context: &Context) -> Asked<()> {
    let path = make_events(context, &["test-event-1", "test-event-2", "test-event-3"]).await?;
    let selected = format!("{path}?labelSelector=testevent-set%3Dtrue");
    ensure!(
        context.items(&selected).await?.len() == 3,
        "three are wanted"
    );
    context.delete(&selected).await?;
    ensure!(context.items(&selected).await?.is_empty(), "none is wanted");
    Ok(())
}

/// One object under two groups.
async fn both_groups(context: &Context) -> Asked<()> {
    make_events(context, &["one", "two"]).await?;
    let path = context.of("events.k8s.io/v1", "events").await?;
    let selected = format!("{path}?labelSelector=testevent-set%3Dtrue");
    let found = context.items(&selected).await?;
    ensure!(
        found.len() == 2
            && found[0]["note"] == "This is a test event"
            && found[0]["regarding"]["kind"] == "Pod",
        "{found:?}"
    );
    context.delete(&selected).await?;
    let core = format!(
        "{}?labelSelector=testevent-set%3Dtrue",
        context.of("v1", "events").await?
    );
    ensure!(
        context.items(&core).await?.is_empty(),
        "what was deleted under one group is there under the other"
    );
    Ok(())
}
