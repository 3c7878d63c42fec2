// @kubernetes/client-node: objects, patches, a list and watch by informer, refusals, objects of any kind.

import { createRequire } from "node:module";
import assert from "node:assert/strict";

const require = createRequire(`${process.env.NODE_FOLDER}/package.json`);
const k8s = require("@kubernetes/client-node");

const config = new k8s.KubeConfig();
config.loadFromFile(process.env.KUBECONFIG);
const core = config.makeApiClient(k8s.CoreV1Api);
const namespace = "javascript";
const configMap = (name, data) => ({ metadata: { name, labels: { of: "javascript" } }, data });

await core.createNamespace({ body: { metadata: { name: namespace } } });

const seen = [];
const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: "of=javascript" });
const path = `/api/v1/namespaces/${namespace}/configmaps`;
const informer = k8s.makeInformer(config, path, list, "of=javascript");
for (const verb of ["add", "update", "delete"]) {
  informer.on(verb, (object) => seen.push(`${verb} ${object.metadata.name}`));
}
informer.on("error", () => setTimeout(() => informer.start(), 500));
await informer.start();

for (const name of ["one", "two"]) {
  const made = await core.createNamespacedConfigMap({ namespace, body: configMap(name, { a: "1" }) });
  assert.equal(made.metadata.name, name);
}
const patched = await core.patchNamespacedConfigMap({
  name: "one", namespace, body: [{ op: "replace", path: "/data/a", value: "2" }],
});
assert.deepEqual(patched.data, { a: "2" });
const merged = await core.patchNamespacedConfigMap(
  { name: "one", namespace, body: { data: { b: "3" } } },
  k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.MergePatch),
);
assert.deepEqual(merged.data, { a: "2", b: "3" });
await assert.rejects(core.createNamespacedConfigMap({ namespace, body: configMap("one") }), (error) => error.code === 409);
await core.deleteNamespacedConfigMap({ name: "two", namespace });

const wanted = ["add one", "add two", "update one", "delete two"];
for (let tries = 0; tries < 100 && !wanted.every((it) => seen.includes(it)); tries += 1) {
  await new Promise((resolve) => setTimeout(resolve, 100));
}
assert.ok(wanted.every((it) => seen.includes(it)), `the informer saw ${seen}`);
await informer.stop();

const any = k8s.KubernetesObjectApi.makeApiClient(config);
const spec = { replicas: 0, selector: { matchLabels: { a: "b" } }, template: { metadata: { labels: { a: "b" } }, spec: { containers: [{ name: "c", image: "none" }] } } };
const made = await any.create({ apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "web", namespace }, spec });
assert.equal(made.spec.strategy.type, "RollingUpdate");
// The controller writes too: without a version the patch is one of the newest object.
delete made.metadata.resourceVersion;
delete made.metadata.managedFields;
made.spec.replicas = 1;
assert.equal((await any.patch(made)).spec.replicas, 1);
await any.delete({ apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "web", namespace } });
await core.deleteNamespace({ name: namespace });
console.log("all as expected");
process.exit(0);
