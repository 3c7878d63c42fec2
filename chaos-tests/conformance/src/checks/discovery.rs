//! What the API says that it serves.

use super::check;
use crate::context::{Asked, Context, ensure, shown, text};
use crate::run::Check;
use serde_json::Value;

pub const CHECKS: &[Check] = &[
    check!(
        "[sig-api-machinery] Discovery should accurately determine present and missing resources",
        present_and_missing
    ),
    check!(
        "[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup [Conformance]",
        preferred
    ),
    check!(
        "[sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup [Conformance]",
        locate
    ),
    check!(
        "[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers [Conformance]",
        raw_aggregated
    ),
    check!(
        "[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface [Conformance]",
        aggregated
    ),
    check!(
        "[sig-api-machinery] server version should find the server version [Conformance]",
        server_version
    ),
    check!(
        "[sig-api-machinery] health handlers should contain necessary checks",
        health
    ),
    check!(
        "[sig-api-machinery] OpenAPIV3 should round trip OpenAPI V3 for all built-in group versions",
        open_api_v3
    ),
    check!(
        "[sig-api-machinery] own: OpenAPI v2 of built-in kinds",
        open_api_v2
    ),
];

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// Groups that every cluster has.
const GROUPS: &[(&str, &str)] = &[
    ("apps/v1", "deployments"),
    ("batch/v1", "cronjobs"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
    ("policy/v1", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "ingresses"),
    ("rbac.authorization.k8s.io/v1", "clusterroles"),
    ("storage.k8s.io/v1", "storageclasses"),
    (
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
    ),
    ("apiextensions.k8s.io/v1", "customresourcedefinitions"),
    ("apiregistration.k8s.io/v1", "apiservices"),
    ("scheduling.k8s.io/v1", "priorityclasses"),
    ("coordination.k8s.io/v1", "leases"),
    ("node.k8s.io/v1", "runtimeclasses"),
    ("discovery.k8s.io/v1", "endpointslices"),
    ("flowcontrol.apiserver.k8s.io/v1", "flowschemas"),
    ("certificates.k8s.io/v1", "certificatesigningrequests"),
    ("events.k8s.io/v1", "events"),
    ("authentication.k8s.io/v1", "tokenreviews"),
    ("authorization.k8s.io/v1", "subjectaccessreviews"),
];

async fn present_and_missing(context: &Context) -> Asked<()> {
    for (group_version, plural) in [
        ("v1", "pods"),
        ("v1", "namespaces"),
        ("apps/v1", "deployments"),
    ] {
        ensure!(
            context.serves(group_version, plural).await?,
            "{plural} are missing"
        );
    }
    for (group_version, plural) in [("v1", "not-there"), ("not-there.k8s.io/v1", "pods")] {
        ensure!(
            !context.serves(group_version, plural).await?,
            "{group_version} {plural} are served"
        );
    }
    Ok(())
}

async fn preferred(context: &Context) -> Asked<()> {
    let groups = context.get("/apis").await?;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    ensure!(!groups.is_empty(), "there are no groups");
    for group in &groups {
        let own = context
            .get(&format!("/apis/{}", text(group, "/name")))
            .await?;
        let preferred = text(&own, "/preferredVersion/groupVersion");
        let versions = own["versions"].as_array().cloned().unwrap_or_default();
        ensure!(
            !preferred.is_empty() && versions.iter().any(|it| it["groupVersion"] == preferred),
            "the preferred version is none of the group's: {}",
            shown(&own)
        );
    }
    Ok(())
}

async fn locate(context: &Context) -> Asked<()> {
    let groups = context.get("/apis").await?;
    let mut missing = Vec::new();
    for (group_version, plural) in GROUPS {
        let versions = groups["groups"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|it| it["versions"].as_array().into_iter().flatten());
        let told = versions
            .clone()
            .any(|it| it["groupVersion"] == *group_version);
        if !told || !context.serves(group_version, plural).await? {
            missing.push(format!("{plural}.{group_version}"));
        }
    }
    ensure!(missing.is_empty(), "missing are {}", missing.join(", "));
    Ok(())
}

fn resource<'a>(list: &'a Value, group: &str, version: &str, plural: &str) -> Option<&'a Value> {
    let groups = list["items"].as_array().into_iter().flatten();
    let of = groups.filter(|it| text(it, "/metadata/name") == group);
    let versions = of.flat_map(|it| it["versions"].as_array().into_iter().flatten());
    let mut resources = versions
        .filter(|it| it["version"] == version)
        .flat_map(|it| it["resources"].as_array().into_iter().flatten());
    resources.find(|it| it["resource"] == plural)
}

async fn raw_aggregated(context: &Context) -> Asked<()> {
    for path in ["/api", "/apis"] {
        let list = context.get_as(path, AGGREGATED).await?;
        ensure!(
            list["kind"] == "APIGroupDiscoveryList"
                && list["apiVersion"] == "apidiscovery.k8s.io/v2",
            "{path}: {}",
            shown(&list)
        );
        let plain = context.get_as(path, "application/json").await?;
        ensure!(
            plain["kind"] == "APIVersions" || plain["kind"] == "APIGroupList",
            "{path}: {}",
            shown(&plain)
        );
    }
    Ok(())
}

async fn aggregated(context: &Context) -> Asked<()> {
    let core = context.get_as("/api", AGGREGATED).await?;
    let groups = context.get_as("/apis", AGGREGATED).await?;
    let pods = resource(&core, "", "v1", "pods");
    ensure!(
        pods.is_some_and(|it| it["scope"] == "Namespaced"
            && it["responseKind"]["kind"] == "Pod"
            && it["verbs"].as_array().is_some_and(|it| it.len() >= 8)),
        "pods are told as {pods:?}"
    );
    let deployments = resource(&groups, "apps", "v1", "deployments");
    let scale = deployments.and_then(|it| {
        it["subresources"]
            .as_array()?
            .iter()
            .find(|it| it["subresource"] == "scale")
    });
    ensure!(
        scale.is_some_and(|it| it["responseKind"]["group"] == "autoscaling"),
        "deployments are told as {deployments:?}"
    );
    Ok(())
}

async fn server_version(context: &Context) -> Asked<()> {
    let version = context.get("/version").await?;
    ensure!(
        version["major"] == "1"
            && text(&version, "/minor")
                .trim_end_matches('+')
                .parse::<u32>()
                .is_ok()
            && text(&version, "/gitVersion").starts_with("v1."),
        "{}",
        shown(&version)
    );
    Ok(())
}

async fn health(context: &Context) -> Asked<()> {
    for path in ["/healthz", "/livez", "/readyz"] {
        ensure!(context.text(path).await? == "ok", "{path} is not ok");
        let verbose = context.text(&format!("{path}?verbose")).await?;
        ensure!(
            verbose.contains("[+]ping ok") && verbose.contains("check passed"),
            "{path}?verbose tells {verbose:?}"
        );
    }
    Ok(())
}

async fn open_api_v3(context: &Context) -> Asked<()> {
    let index = context.get("/openapi/v3").await?;
    let mut wrong = Vec::new();
    for (group_version, _) in GROUPS {
        let url = index["paths"][format!("apis/{group_version}")]["serverRelativeURL"].as_str();
        let Some(url) = url else {
            wrong.push((*group_version).to_owned());
            continue;
        };
        let document = context.get(url).await?;
        ensure!(
            text(&document, "/openapi").starts_with("3.0"),
            "{url} is {}",
            shown(&document)
        );
        ensure!(
            document["paths"]
                .as_object()
                .is_some_and(|it| !it.is_empty()),
            "{url} has no paths"
        );
    }
    ensure!(wrong.is_empty(), "no document of {}", wrong.join(", "));
    let apps = context.get("/openapi/v3/apis/apps/v1").await?;
    let spec = &apps["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"];
    ensure!(
        spec["properties"]["replicas"]["type"] == "integer",
        "replicas are told as {}",
        shown(spec)
    );
    Ok(())
}

async fn open_api_v2(context: &Context) -> Asked<()> {
    let document = context.get("/openapi/v2").await?;
    ensure!(document["swagger"] == "2.0", "{}", shown(&document));
    let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"];
    ensure!(
        pod["x-kubernetes-group-version-kind"][0]["kind"] == "Pod"
            && pod["properties"]["spec"].is_object(),
        "pods are told as {}",
        shown(pod)
    );
    Ok(())
}
