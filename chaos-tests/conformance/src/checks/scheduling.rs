//! Limits and priorities.

use super::{check, story};
use crate::context::{Asked, Context, ensure, refused, shown};
use crate::lifecycle::Story;
use crate::run::Check;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied. [Conformance]",
        limits
    ),
    story!(
        "[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection [Conformance]",
        Story::of(
            "v1",
            "limitranges",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}})
        )
    ),
    story!(
        "[sig-scheduling] SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods [Conformance]",
        Story::of(
            "scheduling.k8s.io/v1",
            "priorityclasses",
            "PriorityClass",
            json!({"value": 1000, "description": "of a check"})
        )
        .cluster_wide()
    ),
    check!(
        "[sig-scheduling] own: pods get the priority of their class, and nobody else's",
        priority
    ),
    check!(
        "[sig-scheduling] own: a pod that no node fits is told why: PodScheduled False, Unschedulable",
        unschedulable
    ),
];

fn pod(own: &str, resources: Value) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": own},
        "spec": {"nodeSelector": {"no-such": "node"}, "containers": [{"name": "c", "image": "none", "resources": resources}]}})
}

async fn limits(context: &Context) -> Asked<()> {
    let (ranges, pods) = (
        context.of("v1", "limitranges").await?,
        context.of("v1", "pods").await?,
    );
    let range = json!({"kind": "LimitRange", "apiVersion": "v1", "metadata": {"name": "range"}, "spec": {"limits": [{"type": "Container",
        "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"},
        "default": {"cpu": "500m", "memory": "500Mi"}, "defaultRequest": {"cpu": "100m", "memory": "200Mi"}}]}});
    context.create(&ranges, &range).await?;
    let made = context.create(&pods, &pod("defaults", json!({}))).await?;
    let resources = &made["spec"]["containers"][0]["resources"];
    ensure!(
        *resources
            == json!({"limits": {"cpu": "500m", "memory": "500Mi"}, "requests": {"cpu": "100m", "memory": "200Mi"}}),
        "{}",
        shown(resources)
    );
    let made = context
        .create(&pods, &pod("partly", json!({"requests": {"cpu": "300m"}})))
        .await?;
    let requests = &made["spec"]["containers"][0]["resources"]["requests"];
    ensure!(
        *requests == json!({"cpu": "300m", "memory": "200Mi"}),
        "{}",
        shown(requests)
    );
    for (why, resources) in [
        (
            "too little",
            json!({"requests": {"cpu": "10m", "memory": "50Mi"}}),
        ),
        ("too much", json!({"limits": {"cpu": "600m"}})),
    ] {
        let asked = context
            .client()
            .post::<Value>(&pods, &pod("refused", resources))
            .await;
        refused(why, asked, 403)?;
    }
    Ok(())
}

async fn priority(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    let own = context.unique("class");
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": own}, "value": 7});
    context.create(classes, &class).await?;
    context.clean_up(format!("{classes}/{own}"));
    let mut object = pod("one", json!({}));
    object["spec"]["priorityClassName"] = json!(own);
    let made = context.create(&pods, &object).await?;
    ensure!(made["spec"]["priority"] == 7, "{}", shown(&made["spec"]));
    object["metadata"]["name"] = json!("two");
    object["spec"]["priorityClassName"] = json!("no-such-class");
    refused(
        "a class that is not there",
        context.client().post::<Value>(&pods, &object).await,
        403,
    )?;
    for (name, value) in [
        ("system-cluster-critical", 2_000_000_000),
        ("system-node-critical", 2_000_001_000),
    ] {
        let class = context.get(&format!("{classes}/{name}")).await?;
        ensure!(class["value"] == value, "{}", shown(&class));
    }
    Ok(())
}

async fn unschedulable(context: &Context) -> Asked<()> {
    let pods = context.of("v1", "pods").await?;
    context.create(&pods, &pod("one", json!({}))).await?;
    context
        .wait("the condition PodScheduled", &format!("{pods}/one"), |it| {
            let conditions = it["status"]["conditions"].as_array().into_iter().flatten();
            conditions.clone().any(|it| {
                it["type"] == "PodScheduled"
                    && it["status"] == "False"
                    && it["reason"] == "Unschedulable"
            })
        })
        .await?;
    Ok(())
}
