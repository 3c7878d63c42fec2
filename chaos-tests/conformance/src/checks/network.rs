//! Services, their endpoints, and what leads to them.

use super::{check, story};
use crate::context::{Asked, Context, ensure, items, name, shown, text};
use crate::lifecycle::Story;
use crate::run::Check;
use client::WatchKind::{Added, Deleted, Modified};
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!("[sig-network] Services should provide secure master service [Conformance]", master_service),
    check!("[sig-network] Services should find a service from listing all namespaces [Conformance]", find_service),
    check!("[sig-network] Services should test the lifecycle of an Endpoint [Conformance]", endpoint),
    check!("[sig-network] Services should complete a service status lifecycle [Conformance]", service_status),
    check!("[sig-network] Services should delete a collection of services [Conformance]", services),
    check!("[sig-network] Services should be able to change the type from ExternalName to ClusterIP [Conformance]", to_cluster_ip),
    check!("[sig-network] Services should be able to change the type from ClusterIP to ExternalName [Conformance]", to_external_name),
    check!("[sig-network] Services should be able to change the type from ExternalName to NodePort [Conformance]", to_node_port),
    check!("[sig-network] Services should be able to change the type from NodePort to ExternalName [Conformance]", from_node_port),
    check!("[sig-network] EndpointSlice should have Endpoints and EndpointSlices pointing to API Server [Conformance]", api_server_slices),
    check!("[sig-network] EndpointSlice should create and delete Endpoints and EndpointSlices for a Service with a selector specified [Conformance]", made_for_services),
    story!("[sig-network] EndpointSlice should support creating EndpointSlice API operations [Conformance]",
        Story::of("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.9.8.7"]}], "ports": [{"port": 80}]}))),
    check!("[sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete [Conformance]", mirrored),
    story!("[sig-network] Ingress API should support creating Ingress API operations [Conformance]",
        Story::of("networking.k8s.io/v1", "ingresses", "Ingress", json!({"spec": {"defaultBackend": {"service": {"name": "none", "port": {"number": 80}}}}}))
        .with_status(json!({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}))),
    story!("[sig-network] IngressClass API should support creating IngressClass API operations [Conformance]",
        Story::of("networking.k8s.io/v1", "ingressclasses", "IngressClass", json!({"spec": {"controller": "example.com/controller"}})).cluster_wide()),
    story!("[sig-network] Netpol API should support creating NetworkPolicy API operations",
        Story::of("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"]}}))),
    story!("[sig-network] Service CIDRs and IPAddresses should support ServiceCIDRs API operations [Conformance]",
        Story::of("networking.k8s.io/v1", "servicecidrs", "ServiceCIDR", json!({"spec": {"cidrs": ["10.250.0.0/24"]}})).cluster_wide().one_by_one()),
    check!("[sig-network] own: the addresses of services are IPAddress objects", addresses),
    check!("[sig-network] own: services get addresses and node ports that no other has", own_addresses),
];

async fn master_service(context: &Context) -> Asked<()> {
    let service = context
        .get("/api/v1/namespaces/default/services/kubernetes")
        .await?;
    let ports = service["spec"]["ports"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    ensure!(
        ports.len() == 1
            && ports[0]["name"] == "https"
            && ports[0]["port"] == 443
            && ports[0]["protocol"] == "TCP",
        "{}",
        shown(&service)
    );
    Ok(())
}

async fn find_service(context: &Context) -> Asked<()> {
    let all = context.items("/api/v1/services").await?;
    ensure!(
        all.iter()
            .any(|it| name(it) == "kubernetes" && it["metadata"]["namespace"] == "default"),
        "the service kubernetes is not among {}",
        all.len()
    );
    Ok(())
}

async fn endpoint(context: &Context) -> Asked<()> {
    let path = context.of("v1", "endpoints").await?;
    let selected = format!("{path}?labelSelector=test-endpoint-static%3Dtrue");
    let mut events = context.watch(&selected).await?;
    let object = json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "testservice", "labels": {"test-endpoint-static": "true"}},
        "subsets": [{"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80}]}]});
    let mut made = context.create(&path, &object).await?;
    events.expect(Added, "testservice").await?;
    made["metadata"]["labels"]["test-service"] = json!("updated");
    context
        .replace(&format!("{path}/testservice"), &made)
        .await?;
    events.expect(Modified, "testservice").await?;
    let patched = context.strategic(&format!("{path}/testservice"), &json!({"subsets": [{"addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "http-test", "port": 8080}]}]})).await?;
    ensure!(
        patched["subsets"][0]["addresses"][0]["ip"] == "10.0.0.25",
        "{}",
        shown(&patched)
    );
    events.expect(Modified, "testservice").await?;
    context.delete(&selected).await?;
    events.expect(Deleted, "testservice").await?;
    Ok(())
}

fn service(own: &str, spec: Value) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": own}, "spec": spec})
}

async fn service_status(context: &Context) -> Asked<()> {
    let services = context.of("v1", "services").await?;
    context
        .create(
            &services,
            &service(
                "one",
                json!({"type": "LoadBalancer", "ports": [{"port": 80}]}),
            ),
        )
        .await?;
    let below = format!("{services}/one/status");
    let patched = context.merge(&below, &json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}})).await?;
    ensure!(
        patched["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1"
            && patched["metadata"]["annotations"]["patchedstatus"] == "true",
        "{}",
        shown(&patched)
    );
    let mut read = context.get(&below).await?;
    read["status"]["conditions"] = json!([{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set by a check", "lastTransitionTime": "2030-01-01T00:00:00Z"}]);
    let updated = context.replace(&below, &read).await?;
    ensure!(
        updated["status"]["conditions"][0]["type"] == "StatusUpdate",
        "{}",
        shown(&updated)
    );
    Ok(())
}

async fn services(context: &Context) -> Asked<()> {
    Story::of(
        "v1",
        "services",
        "Service",
        json!({"spec": {"ports": [{"port": 80}]}}),
    )
    .play(context)
    .await
}

fn external() -> Value {
    json!({"type": "ExternalName", "externalName": "example.com"})
}

/// Makes a service and changes its spec by update.
async fn change(context: &Context, from: Value, to: Value) -> Asked<(Value, Value)> {
    let services = context.of("v1", "services").await?;
    let made = context.create(&services, &service("one", from)).await?;
    let mut object = made.clone();
    object["spec"] = to;
    let changed = context.replace(&format!("{services}/one"), &object).await?;
    Ok((made, changed))
}

async fn to_cluster_ip(context: &Context) -> Asked<()> {
    let (made, changed) = change(
        context,
        external(),
        json!({"type": "ClusterIP", "ports": [{"port": 80}]}),
    )
    .await?;
    ensure!(
        text(&made, "/spec/clusterIP").is_empty()
            && text(&changed, "/spec/clusterIP").contains('.'),
        "{}",
        shown(&changed)
    );
    Ok(())
}

async fn to_external_name(context: &Context) -> Asked<()> {
    let (made, changed) = change(context, json!({"ports": [{"port": 80}]}), external()).await?;
    ensure!(
        !text(&made, "/spec/clusterIP").is_empty()
            && text(&changed, "/spec/clusterIP").is_empty()
            && changed["spec"]["externalName"] == "example.com",
        "{}",
        shown(&changed)
    );
    Ok(())
}

async fn to_node_port(context: &Context) -> Asked<()> {
    let (_, changed) = change(
        context,
        external(),
        json!({"type": "NodePort", "ports": [{"port": 80}]}),
    )
    .await?;
    ensure!(
        changed["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .is_some_and(|it| (30000..=32767).contains(&it)),
        "{}",
        shown(&changed)
    );
    Ok(())
}

async fn from_node_port(context: &Context) -> Asked<()> {
    let (made, changed) = change(
        context,
        json!({"type": "NodePort", "ports": [{"port": 80}]}),
        external(),
    )
    .await?;
    ensure!(
        made["spec"]["ports"][0]["nodePort"].is_u64()
            && text(&changed, "/spec/clusterIP").is_empty(),
        "{}",
        shown(&changed)
    );
    Ok(())
}

async fn api_server_slices(context: &Context) -> Asked<()> {
    let endpoints = context
        .get("/api/v1/namespaces/default/endpoints/kubernetes")
        .await?;
    ensure!(
        endpoints["subsets"][0]["addresses"]
            .as_array()
            .is_some_and(|it| !it.is_empty()),
        "{}",
        shown(&endpoints)
    );
    let slices = context.items("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name%3Dkubernetes").await?;
    ensure!(
        slices
            .iter()
            .any(|it| it["endpoints"].as_array().is_some_and(|it| !it.is_empty())),
        "no slice of the API server"
    );
    Ok(())
}

async fn made_for_services(context: &Context) -> Asked<()> {
    let services = context.of("v1", "services").await?;
    context
        .create(
            &services,
            &service(
                "one",
                json!({"selector": {"no": "pods"}, "ports": [{"port": 80}]}),
            ),
        )
        .await?;
    let slices = format!(
        "{}?labelSelector=kubernetes.io/service-name%3Done",
        context.of("discovery.k8s.io/v1", "endpointslices").await?
    );
    let endpoints = format!("{}/one", context.of("v1", "endpoints").await?);
    let list = context
        .wait("a slice", &slices, |it| items(it).len() == 1)
        .await?;
    let slice = &items(&list)[0];
    ensure!(
        slice["metadata"]["ownerReferences"][0]["kind"] == "Service"
            && slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"].is_string(),
        "{}",
        shown(slice)
    );
    let question = async || Ok((!context.is_gone(&endpoints).await?).then_some(()));
    context
        .until("the Endpoints", crate::context::SOON, question)
        .await?;
    context.delete(&format!("{services}/one")).await?;
    context
        .wait("the slice's end", &slices, |it| items(it).is_empty())
        .await?;
    context.wait_gone(&endpoints).await
}

async fn mirrored(context: &Context) -> Asked<()> {
    let services = context.of("v1", "services").await?;
    context
        .create(
            &services,
            &service("one", json!({"ports": [{"name": "example", "port": 80}]})),
        )
        .await?;
    let endpoints = context.of("v1", "endpoints").await?;
    let object = json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "one"}, "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"name": "example", "port": 80}]}]});
    context.create(&endpoints, &object).await?;
    let slices = format!(
        "{}?labelSelector=kubernetes.io/service-name%3Done",
        context.of("discovery.k8s.io/v1", "endpointslices").await?
    );
    let with = |address: &'static str| {
        move |list: &Value| {
            items(list)
                .iter()
                .any(|it| it["endpoints"][0]["addresses"][0] == address)
        }
    };
    context.wait("a mirror", &slices, with("10.1.2.3")).await?;
    context.merge(&format!("{endpoints}/one"), &json!({"subsets": [{"addresses": [{"ip": "10.2.3.4"}], "ports": [{"name": "example", "port": 8080}]}]})).await?;
    context
        .wait("the mirror's change", &slices, with("10.2.3.4"))
        .await?;
    context.delete(&format!("{endpoints}/one")).await?;
    context
        .wait("the mirror's end", &slices, |it| items(it).is_empty())
        .await?;
    Ok(())
}

async fn addresses(context: &Context) -> Asked<()> {
    context.need("networking.k8s.io/v1", "ipaddresses").await?;
    let services = context.of("v1", "services").await?;
    let made = context
        .create(&services, &service("one", json!({"ports": [{"port": 80}]})))
        .await?;
    let path = format!(
        "/apis/networking.k8s.io/v1/ipaddresses/{}",
        text(&made, "/spec/clusterIP")
    );
    let question = async || Ok((!context.is_gone(&path).await?).then_some(()));
    context
        .until("the address as an object", crate::context::SOON, question)
        .await?;
    let address = context.get(&path).await?;
    ensure!(
        address["spec"]["parentRef"]["resource"] == "services"
            && address["spec"]["parentRef"]["name"] == "one",
        "{}",
        shown(&address)
    );
    context.delete(&format!("{services}/one")).await?;
    context.wait_gone(&path).await
}

async fn own_addresses(context: &Context) -> Asked<()> {
    let services = context.of("v1", "services").await?;
    let node_port = |own: &str| service(own, json!({"type": "NodePort", "ports": [{"port": 80}]}));
    let one = context.create(&services, &node_port("one")).await?;
    let two = context.create(&services, &node_port("two")).await?;
    ensure!(
        one["spec"]["clusterIP"] != two["spec"]["clusterIP"]
            && one["spec"]["ports"][0]["nodePort"] != two["spec"]["ports"][0]["nodePort"],
        "{} {}",
        shown(&one["spec"]),
        shown(&two["spec"])
    );
    for spec in [
        json!({"clusterIP": one["spec"]["clusterIP"], "ports": [{"port": 80}]}),
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": one["spec"]["ports"][0]["nodePort"]}]}),
    ] {
        let asked = context
            .client()
            .post::<Value>(&services, &service("three", spec))
            .await;
        crate::context::refused("what another has", asked, 422)?;
    }
    Ok(())
}
