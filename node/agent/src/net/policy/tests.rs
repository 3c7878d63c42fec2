//! Policies as users write them, and who may then talk to whom.

use super::*;
use network::policy::boxes;
use serde_json::json;

#[derive(Default)]
struct Cluster {
    policies: BTreeMap<Key, PolicyFacts>,
    namespaces: BTreeMap<Key, NamespaceFacts>,
    pods: BTreeMap<Key, PodFacts>,
}

impl Cluster {
    /// Namespaces `shop` and `ops` (team=ops); pods on this node (10.244.1.*) and on another.
    fn new() -> Self {
        let mut cluster = Cluster::default();
        for (name, labels) in [("shop", json!({})), ("ops", json!({"team": "ops"}))] {
            let object = json!({"metadata": {"name": name, "labels": labels}});
            let facts = namespace(&object).expect("a namespace");
            cluster.namespaces.insert(services::key(&object), facts);
        }
        cluster.pod("shop", "web", "10.244.1.2", 8080);
        cluster.pod("shop", "db", "10.244.1.3", 5432);
        cluster.pod("shop", "cron", "10.244.2.4", 8081);
        cluster.pod("ops", "db", "10.244.2.5", 5432);
        cluster
    }

    fn pod(&mut self, namespace: &str, app: &str, ip: &str, port: u16) {
        let object = json!({
            "metadata": {
                "name": app, "namespace": namespace, "uid": format!("{namespace}-{app}"), "labels": {"app": app},
            },
            "spec": {"containers": [{"ports": [{"name": "main", "containerPort": port}]}]},
            "status": {"podIPs": [{"ip": ip}]},
        });
        self.pods
            .insert(services::key(&object), pod(&object).expect("a pod"));
    }

    fn apply(&mut self, name: &str, spec: Value) -> &mut Self {
        let object = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        let facts = policy(&object).expect("a policy");
        self.policies.insert(services::key(&object), facts);
        self
    }

    /// What is allowed to or from this node's pods: `in 10.244.1.2: 10.244.1.3-10.244.1.3 tcp/80-80`.
    fn allowed(&self) -> Vec<String> {
        let here = |pod: &PodFacts| (pod.ips[0], Some(pod.clone()));
        let on_node = |pod: &&PodFacts| pod.ips[0].octets()[2] == 1;
        let local: Vec<_> = self.pods.values().filter(on_node).map(here).collect();
        let known = Known {
            policies: &self.policies,
            namespaces: &self.namespaces,
            pods: &self.pods,
            local: &local,
        };
        let mut lines = vec![];
        for isolation in isolations(&known) {
            let direction = match isolation.direction {
                Direction::Ingress => "in",
                Direction::Egress => "out",
            };
            let boxes = boxes(&isolation.allowed);
            let all = boxes
                .all
                .iter()
                .map(|range| format!("{}-{} all", range.first, range.last));
            let ports = boxes.ports.iter().map(|(range, ports)| {
                let PortRange {
                    protocol,
                    first,
                    last,
                } = ports;
                format!("{}-{} {protocol}/{first}-{last}", range.first, range.last)
            });
            let allowed: Vec<String> = all.chain(ports).collect();
            for pod in &isolation.pods {
                lines.push(format!("{direction} {pod}: {}", allowed.join(", ")));
            }
        }
        lines.sort();
        lines
    }
}

#[test]
fn without_a_policy_nobody_is_isolated() {
    assert!(Cluster::new().allowed().is_empty());
}

#[test]
fn default_deny_isolates_every_pod_of_the_namespace() {
    let mut cluster = Cluster::new();
    cluster.apply(
        "deny",
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    );
    assert_eq!(
        cluster.allowed(),
        [
            "in 10.244.1.2: ",
            "in 10.244.1.3: ",
            "out 10.244.1.2: ",
            "out 10.244.1.3: "
        ]
    );
    // Policies add up.
    cluster.apply(
        "open",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]}),
    );
    assert_eq!(
        cluster.allowed()[0],
        "in 10.244.1.2: 0.0.0.0-255.255.255.255 all"
    );
    assert_eq!(cluster.allowed()[1], "in 10.244.1.3: ");
}

#[test]
fn peers_are_pods_of_the_own_namespace_of_others_and_blocks() {
    let mut cluster = Cluster::new();
    let tcp = json!([{"port": 80, "endPort": 90, "protocol": "TCP"}]);
    let web = json!({"matchLabels": {"app": "web"}});
    let ingress =
        |from: Value| json!({"podSelector": web, "ingress": [{"from": from, "ports": tcp}]});
    cluster.apply(
        "p",
        ingress(json!([{"podSelector": {"matchLabels": {"app": "db"}}}])),
    );
    assert_eq!(
        cluster.allowed(),
        ["in 10.244.1.2: 10.244.1.3-10.244.1.3 tcp/80-90"]
    );
    cluster.apply(
        "p",
        ingress(json!([{"namespaceSelector": {"matchLabels": {"team": "ops"}}}])),
    );
    assert_eq!(
        cluster.allowed(),
        ["in 10.244.1.2: 10.244.2.5-10.244.2.5 tcp/80-90"]
    );
    cluster.apply(
        "p",
        ingress(json!([{
            "namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]},
        }])),
    );
    assert_eq!(
        cluster.allowed(),
        ["in 10.244.1.2: 10.244.1.3-10.244.1.3 tcp/80-90, 10.244.2.5-10.244.2.5 tcp/80-90"]
    );
    cluster.apply(
        "p",
        ingress(json!([{"ipBlock": {"cidr": "10.0.0.0/30", "except": ["10.0.0.1/32"]}}])),
    );
    assert_eq!(
        cluster.allowed(),
        ["in 10.244.1.2: 10.0.0.0-10.0.0.0 tcp/80-90, 10.0.0.2-10.0.0.3 tcp/80-90"]
    );
}

#[test]
fn a_named_port_means_what_the_receiver_calls_so() {
    let mut cluster = Cluster::new();
    cluster.apply(
        "in",
        json!({"podSelector": {}, "ingress": [{"ports": [{"port": "main"}]}]}),
    );
    assert_eq!(
        cluster.allowed(),
        [
            "in 10.244.1.2: 0.0.0.0-255.255.255.255 tcp/8080-8080",
            "in 10.244.1.3: 0.0.0.0-255.255.255.255 tcp/5432-5432"
        ]
    );
    cluster.policies.clear();
    let to = json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}, {"podSelector": {"matchLabels": {"app": "cron"}}}]);
    cluster.apply(
        "out",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "egress": [{"to": to, "ports": [{"port": "main"}]}], "policyTypes": ["Egress"]}),
    );
    assert_eq!(
        cluster.allowed(),
        [
            "out 10.244.1.2: 10.244.1.3-10.244.1.3 tcp/5432-5432, 10.244.2.5-10.244.2.5 tcp/5432-5432, 10.244.2.4-10.244.2.4 tcp/8081-8081"
        ]
    );
}

#[test]
fn what_cannot_be_read_opens_nothing() {
    let mut cluster = Cluster::new();
    let broken = json!({"matchExpressions": [{"key": "app", "operator": "Like", "values": ["x"]}]});
    cluster.apply(
        "p",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": broken}]}]}),
    );
    assert_eq!(cluster.allowed(), ["in 10.244.1.2: "]);
    cluster.policies.clear();
    cluster.apply("p", json!({"podSelector": broken}));
    assert_eq!(cluster.allowed(), ["in 10.244.1.2: ", "in 10.244.1.3: "]);
}

#[test]
fn an_unknown_pod_of_this_node_is_closed_once_there_is_a_policy() {
    let mut cluster = Cluster::new();
    let local = [(Ipv4Addr::new(10, 244, 1, 9), None)];
    let count = |cluster: &Cluster| {
        let known = Known {
            policies: &cluster.policies,
            namespaces: &cluster.namespaces,
            pods: &cluster.pods,
            local: &local,
        };
        isolations(&known).len()
    };
    assert_eq!(count(&cluster), 0);
    cluster.apply("p", json!({"podSelector": {}}));
    assert_eq!(count(&cluster), 2);
}
