//! Which pods run where and what they name: what a node's rights follow from, and what tokens are bound to.
//! Rule: the graph of Kubernetes' Node authoriser.

use objects::{Object, ObjectKey, Uid};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What marks a pod that a node made of its own files. It grants nothing: the node wrote it.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// What is known of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Its identity.
    pub uid: Uid,
    /// The node to which it is bound; empty for none.
    pub node: String,
    /// Its service account.
    pub service_account: String,
    /// The secrets, config maps and claims that it names.
    names: BTreeSet<(&'static str, String)>,
    mirror: bool,
}

/// The objects by which rights are decided, beside roles.
#[derive(Default)]
pub struct Graph {
    pods: BTreeMap<(String, String), PodFacts>,
    /// The pods of a node, by namespace and name.
    by_node: BTreeMap<String, BTreeSet<(String, String)>>,
    accounts: BTreeMap<(String, String), Uid>,
    /// The volume of a claim.
    claims: BTreeMap<(String, String), String>,
}

impl Graph {
    /// Takes in an object, or that it is gone.
    pub fn set(&mut self, key: &ObjectKey, object: Option<&Object>) {
        let Some(namespace) = key.namespace.clone() else {
            return;
        };
        let place = (namespace, key.name.clone());
        match key.resource.resource.as_str() {
            "pods" => self.set_pod(place, object.map(facts_of)),
            "serviceaccounts" => match object {
                Some(object) => drop(self.accounts.insert(place, object.metadata.uid.clone())),
                None => drop(self.accounts.remove(&place)),
            },
            "persistentvolumeclaims" => match object {
                Some(object) => {
                    let spec = object.body.get("spec").unwrap_or(&Value::Null);
                    drop(
                        self.claims
                            .insert(place, text(spec, "volumeName").to_owned()),
                    );
                }
                None => drop(self.claims.remove(&place)),
            },
            _ => {}
        }
    }

    fn set_pod(&mut self, place: (String, String), facts: Option<PodFacts>) {
        if let Some(old) = self.pods.remove(&place)
            && let Some(pods) = self.by_node.get_mut(&old.node)
        {
            pods.remove(&place);
            if pods.is_empty() {
                self.by_node.remove(&old.node);
            }
        }
        let Some(facts) = facts else {
            return;
        };
        if !facts.node.is_empty() {
            let pods = self.by_node.entry(facts.node.clone()).or_default();
            pods.insert(place.clone());
        }
        self.pods.insert(place, facts);
    }

    /// What is known of a pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&PodFacts> {
        self.pods.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The identity of a service account.
    pub fn account(&self, namespace: &str, name: &str) -> Option<&Uid> {
        self.accounts.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether a pod of the node names the object; `kind` is `secrets`, `configmaps` or `persistentvolumeclaims`.
    pub fn names(&self, node: &str, kind: &str, namespace: &str, name: &str) -> bool {
        self.pods_of(node).any(|((home, _), facts)| {
            home == namespace
                && !facts.mirror
                && facts
                    .names
                    .iter()
                    .any(|(of, known)| *of == kind && known == name)
        })
    }

    /// Whether a pod of the node runs under the account.
    pub fn runs_as(&self, node: &str, namespace: &str, account: &str) -> bool {
        self.pods_of(node).any(|((home, _), facts)| {
            home == namespace && !facts.mirror && facts.service_account == account
        })
    }

    /// Whether a claim that a pod of the node names holds the volume.
    pub fn mounts(&self, node: &str, volume: &str) -> bool {
        self.pods_of(node).any(|((home, _), facts)| {
            !facts.mirror
                && facts.names.iter().any(|(kind, claim)| {
                    *kind == "persistentvolumeclaims"
                        && self
                            .claims
                            .get(&(home.clone(), claim.clone()))
                            .is_some_and(|known| known == volume)
                })
        })
    }

    fn pods_of(&self, node: &str) -> impl Iterator<Item = (&(String, String), &PodFacts)> {
        let places = self.by_node.get(node).into_iter().flatten();
        places.filter_map(|place| self.pods.get_key_value(place))
    }
}

/// What a pod names. Mirror pods may name nothing, which admission sees to.
pub fn facts_of(pod: &Object) -> PodFacts {
    let spec = pod.body.get("spec").unwrap_or(&Value::Null);
    let mut names = BTreeSet::new();
    for reference in list(spec, "imagePullSecrets") {
        add(&mut names, "secrets", text(reference, "name"));
    }
    for volume in list(spec, "volumes") {
        volume_names(volume, &pod.metadata.name, &mut names);
    }
    for part in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(spec, part) {
            container_names(container, &mut names);
        }
    }
    let account = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    };
    PodFacts {
        uid: pod.metadata.uid.clone(),
        node: text(spec, "nodeName").to_owned(),
        service_account: account.to_owned(),
        names,
        mirror: pod.metadata.annotations.contains_key(MIRROR_ANNOTATION),
    }
}

/// Whether the pod names a secret, a config map, a claim, or a service account.
pub fn names_anything(pod: &Object) -> bool {
    let facts = facts_of(pod);
    !facts.names.is_empty() || !facts.service_account.is_empty()
}

type Names = BTreeSet<(&'static str, String)>;

fn volume_names(volume: &Value, pod: &str, names: &mut Names) {
    let at = |source: &str, member: &str| {
        volume
            .get(source)
            .map_or("", |source| text(source, member))
            .to_owned()
    };
    add(names, "secrets", &at("secret", "secretName"));
    add(names, "configmaps", &at("configMap", "name"));
    add(
        names,
        "persistentvolumeclaims",
        &at("persistentVolumeClaim", "claimName"),
    );
    if volume.get("ephemeral").is_some() {
        let claim = format!("{pod}-{}", text(volume, "name"));
        add(names, "persistentvolumeclaims", &claim);
    }
    add(names, "secrets", &at("azureFile", "secretName"));
    let references = [
        "/csi/nodePublishSecretRef/name",
        "/cephfs/secretRef/name",
        "/rbd/secretRef/name",
        "/iscsi/secretRef/name",
        "/flexVolume/secretRef/name",
        "/scaleIO/secretRef/name",
        "/storageos/secretRef/name",
        "/cinder/secretRef/name",
    ];
    for reference in references {
        let name = volume.pointer(reference).and_then(Value::as_str);
        add(names, "secrets", name.unwrap_or_default());
    }
    let projected = volume.get("projected").unwrap_or(&Value::Null);
    for source in list(projected, "sources") {
        for (member, kind) in [("secret", "secrets"), ("configMap", "configmaps")] {
            let name = source.get(member).map_or("", |named| text(named, "name"));
            add(names, kind, name);
        }
    }
}

fn container_names(container: &Value, names: &mut Names) {
    for variable in list(container, "env") {
        let from = variable.get("valueFrom").unwrap_or(&Value::Null);
        for (member, kind) in [
            ("secretKeyRef", "secrets"),
            ("configMapKeyRef", "configmaps"),
        ] {
            let name = from.get(member).map_or("", |named| text(named, "name"));
            add(names, kind, name);
        }
    }
    for from in list(container, "envFrom") {
        for (member, kind) in [("secretRef", "secrets"), ("configMapRef", "configmaps")] {
            let name = from.get(member).map_or("", |named| text(named, "name"));
            add(names, kind, name);
        }
    }
}

fn add(names: &mut Names, kind: &'static str, name: &str) {
    if !name.is_empty() {
        names.insert((kind, name.to_owned()));
    }
}

fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value
        .get(member)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value
        .get(member)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
