"""The Python client `kubernetes`: objects, patches, lists in pages, a watch, refusals, the dynamic client."""

import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException

config.load_kube_config()
core = client.CoreV1Api()
apps = client.AppsV1Api()
space = "python"

core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=space)))


def config_map(name, data=None):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"of": "python"}), data=data)


# A watch in a thread of its own sees all that follows.
seen = []
watching = watch.Watch()
start = core.list_namespaced_config_map(space, label_selector="of=python").metadata.resource_version


def follow():
    events = watching.stream(
        core.list_namespaced_config_map, space, label_selector="of=python", resource_version=start, timeout_seconds=60
    )
    for event in events:
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            watching.stop()


follower = threading.Thread(target=follow)
follower.start()

for number in range(5):
    core.create_namespaced_config_map(space, config_map(f"m{number}", {"a": str(number)}))
page = core.list_namespaced_config_map(space, label_selector="of=python", limit=2)
assert len(page.items) == 2, page
names = [it.metadata.name for it in page.items]
while page.metadata._continue:
    page = core.list_namespaced_config_map(space, label_selector="of=python", limit=2, _continue=page.metadata._continue)
    names += [it.metadata.name for it in page.items]
assert names == [f"m{number}" for number in range(5)], names

patched = core.patch_namespaced_config_map("m0", space, {"data": {"b": "1"}})
assert patched.data == {"a": "0", "b": "1"}, patched
patched = core.patch_namespaced_config_map("m0", space, [{"op": "remove", "path": "/data/a"}])
assert patched.data == {"b": "1"}, patched
patched.data["c"] = "2"
replaced = core.replace_namespaced_config_map("m0", space, patched)
assert replaced.data == {"b": "1", "c": "2"}, replaced

try:
    core.create_namespaced_config_map(space, config_map("m0"))
    raise SystemExit("a name that is taken was made again")
except ApiException as refused:
    assert refused.status == 409 and "AlreadyExists" in refused.body, refused

labels = {"app": "web"}
container = client.V1Container(name="c", image="none")
template = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
)
spec = client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels=labels), template=template)
apps.create_namespaced_deployment(space, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec))
for event in watch.Watch().stream(core.list_namespaced_pod, space, label_selector="app=web", timeout_seconds=60):
    if len(core.list_namespaced_pod(space, label_selector="app=web").items) == 2:
        break
scale = apps.patch_namespaced_deployment_scale("web", space, {"spec": {"replicas": 0}})
assert scale.spec.replicas == 0, scale
apps.delete_namespaced_deployment("web", space)

core.delete_namespaced_config_map("m4", space)
follower.join(60)
assert seen[:5] == [("ADDED", f"m{number}") for number in range(5)], seen
assert seen[-1] == ("DELETED", "m4"), seen

by_kind = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
assert len(by_kind.get(namespace=space, label_selector="of=python").items) == 4
applied = by_kind.server_side_apply(
    body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"x": "y"}},
    namespace=space, field_manager="python",
)
assert applied.data.x == "y", applied
core.delete_namespace(space)
print("all as expected")
