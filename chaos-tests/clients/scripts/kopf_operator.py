"""A small operator with kopf: for each ConfigMap with the label operator=kopf it keeps another, NAME-made, with the data in capitals;
and the same for each Gadget, a custom resource, whose status tells it and whose finalizer waits until the map is gone."""

import kopf
from kubernetes import client, config


@kopf.on.startup()
def start(settings: kopf.OperatorSettings, **_):
    config.load_kube_config()
    settings.posting.enabled = False
    # How soon it looks again after a lost connection.
    settings.networking.error_backoffs = [0.2, 0.5, 1, 1, 2, 2, 5, 5, 5]
    settings.watching.server_timeout = 30


@kopf.on.create("configmaps", labels={"operator": "kopf"}, retries=30, backoff=1)
@kopf.on.update("configmaps", labels={"operator": "kopf"}, retries=30, backoff=1)
@kopf.on.resume("configmaps", labels={"operator": "kopf"}, retries=30, backoff=1)
def keep(name, namespace, body, **_):
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": body["metadata"]["uid"]}
    write(namespace, {
        "metadata": {"name": f"{name}-made", "ownerReferences": [owner]},
        "data": {key: value.upper() for key, value in body.get("data", {}).items()},
    })


@kopf.on.create("example.com", "v1", "gadgets", retries=30, backoff=1)
@kopf.on.update("example.com", "v1", "gadgets", field="spec", retries=30, backoff=1)
@kopf.on.resume("example.com", "v1", "gadgets", retries=30, backoff=1)
def make(name, namespace, spec, patch, **_):
    made = spec["word"].upper()
    write(namespace, {"metadata": {"name": f"{name}-made"}, "data": {"word": made}})
    patch.status["made"] = made


@kopf.on.delete("example.com", "v1", "gadgets", retries=30, backoff=1)
def tidy(name, namespace, **_):
    try:
        client.CoreV1Api().delete_namespaced_config_map(f"{name}-made", namespace)
    except client.ApiException as refused:
        if refused.status != 404:
            raise


def write(namespace, wanted):
    core = client.CoreV1Api()
    try:
        core.create_namespaced_config_map(namespace, wanted)
    except client.ApiException as refused:
        if refused.status != 409:
            raise
        core.patch_namespaced_config_map(wanted["metadata"]["name"], namespace, wanted)
