//! Properties of the workload controllers over a simulated cluster: whatever happened before, once nobody disturbs them they
//! reach the spec and then rest; and a job counts each of its pods once.

mod sim;

use objects::{Object, ObjectKey};
use proptest::prelude::*;
use reconcile::view::resources;
use serde_json::{Value, json};
use sim::World;
use std::collections::BTreeSet;
use std::time::Duration;

/// What happens to a workload.
#[derive(Clone, Debug)]
enum Step {
    Reconcile,
    Ready(usize),
    Unready(usize),
    End(usize, bool),
    Delete(usize),
    Tick,
    Template(u8),
    Replicas(u8),
    Node(u8, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Reconcile),
        3 => (1usize..4).prop_map(Step::Ready),
        1 => (0usize..6).prop_map(Step::Unready),
        2 => (0usize..6, any::<bool>()).prop_map(|(pod, good)| Step::End(pod, good)),
        1 => (0usize..6).prop_map(Step::Delete),
        2 => Just(Step::Tick),
        1 => (0u8..3).prop_map(Step::Template),
        1 => (0u8..5).prop_map(Step::Replicas),
        1 => (0u8..4, any::<bool>()).prop_map(|(node, there)| Step::Node(node, there)),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A cluster with one workload.
struct Case {
    world: World,
    controller: &'static str,
    key: ObjectKey,
}

impl Case {
    fn new(controller: &'static str, object: Value) -> Self {
        let object = Object::from_value(object).expect("an object");
        let key = sim::key_of(&object);
        let mut world = World::new();
        world.create(object).expect("the first");
        Case {
            world,
            controller,
            key,
        }
    }

    fn reconcile(&mut self) -> bool {
        let plan = self
            .world
            .reconcile(self.controller, Some("default"), &self.key.name);
        self.world.execute(&plan).expect("nobody writes in between");
        plan.is_nothing()
    }

    fn pod(&self, at: usize) -> Option<ObjectKey> {
        self.world.active_pods().get(at).cloned()
    }

    fn change(&mut self, spec: Value) {
        let patch = json!({ "spec": spec });
        self.world.merge(&self.key, &patch).expect("it is there");
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Reconcile => drop(self.reconcile()),
            Step::Ready(count) => self.world.make_ready(*count),
            Step::Unready(at) => {
                if let Some(pod) = self.pod(*at) {
                    self.world.set_pod(&pod, "Running", false);
                }
            }
            Step::End(at, good) => {
                if let Some(pod) = self.pod(*at) {
                    let phase = if *good { "Succeeded" } else { "Failed" };
                    self.world.finish_pod(&pod, phase);
                }
            }
            Step::Delete(at) => {
                if let Some(pod) = self.pod(*at) {
                    self.world.delete(&pod, false, None);
                }
            }
            Step::Tick => self.world.tick(Duration::from_secs(1)),
            Step::Template(version) => self.change(json!({ "template": template(*version) })),
            Step::Replicas(replicas) => self.change(json!({ "replicas": replicas })),
            Step::Node(at, there) => self.node(*at, *there),
        }
    }

    fn node(&mut self, at: u8, there: bool) {
        let name = format!("n{at}");
        let key = ObjectKey::new(resources::nodes(), None, &name);
        match (there, self.world.objects.contains_key(&key)) {
            (true, false) => {
                let node =
                    json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": name } });
                let node = Object::from_value(node).expect("an object");
                self.world.create(node).expect("a new one");
            }
            (false, true) => self.world.delete(&key, true, None),
            _ => {}
        }
    }

    /// Pods become ready and time passes until nothing is planned.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        let mut quiet = 0;
        for _ in 0..200 {
            let is_quiet = self.reconcile();
            self.world.tick(Duration::from_secs(1));
            self.world.make_ready(usize::MAX);
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet == 2 {
                return Ok(());
            }
        }
        Err(TestCaseError::fail("does not come to rest"))
    }

    fn spec(&self) -> Value {
        self.world.objects[&self.key].body["spec"].clone()
    }

    fn status(&self) -> Value {
        let body = &self.world.objects[&self.key].body;
        body.get("status").cloned().unwrap_or_default()
    }

    fn pods(&self) -> Vec<&Object> {
        let pods = self.world.active_pods();
        pods.iter().map(|pod| &self.world.objects[pod]).collect()
    }
}

fn template(version: u8) -> Value {
    json!({ "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": format!("i:{version}") }] } })
}

fn image(object: &Value) -> &Value {
    &object["containers"][0]["image"]
}

fn stateful_set(parallel: bool) -> Case {
    let policy = if parallel { "Parallel" } else { "OrderedReady" };
    Case::new(
        "statefulset",
        json!({
            "kind": "StatefulSet", "apiVersion": "apps/v1",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "replicas": 3, "serviceName": "web", "podManagementPolicy": policy,
                "selector": { "matchLabels": { "app": "web" } }, "template": template(0) },
        }),
    )
}

fn daemon_set(surge: u8) -> Case {
    let rolling = json!({ "maxSurge": surge, "maxUnavailable": 1 - surge.min(1) });
    let mut case = Case::new(
        "daemonset",
        json!({
            "kind": "DaemonSet", "apiVersion": "apps/v1",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling },
                "selector": { "matchLabels": { "app": "web" } }, "template": template(0) },
        }),
    );
    (0..3).for_each(|node| case.node(node, true));
    case
}

fn job(completions: u8, parallelism: u8, indexed: bool) -> Case {
    let mode = if indexed { "Indexed" } else { "NonIndexed" };
    Case::new(
        "job",
        json!({
            "kind": "Job", "apiVersion": "batch/v1",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "completions": completions, "parallelism": parallelism, "completionMode": mode,
                "backoffLimit": 1000, "selector": { "matchLabels": { "app": "web" } }, "template": template(0) },
        }),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 5, failure_persistence: None, ..ProptestConfig::default() })]

    /// A stateful set ends with its numbered pods, each of the newest template.
    #[test]
    fn a_stateful_set_comes_to_rest(parallel: bool, steps in steps()) {
        let mut case = stateful_set(parallel);
        steps.iter().for_each(|step| case.take(step));
        case.settle()?;
        let spec = case.spec();
        let replicas = spec["replicas"].as_u64().expect("a count");
        let names: BTreeSet<String> = case.pods().iter().map(|pod| pod.metadata.name.clone()).collect();
        let expected: BTreeSet<String> = (0..replicas).map(|number| format!("web-{number}")).collect();
        prop_assert_eq!(names, expected);
        for pod in case.pods() {
            prop_assert_eq!(image(&pod.body["spec"]), image(&spec["template"]["spec"]));
        }
        let status = case.status();
        prop_assert_eq!(&status["currentRevision"], &status["updateRevision"]);
        prop_assert_eq!(status["availableReplicas"].as_u64(), Some(replicas));
        prop_assert_eq!(status["updatedReplicas"].as_u64().unwrap_or(0), replicas);
    }

    /// An ordered set never starts a pod before those with smaller numbers are ready.
    #[test]
    fn an_ordered_set_starts_one_after_the_other(steps in steps()) {
        let mut case = stateful_set(false);
        for step in &steps {
            let before: BTreeSet<ObjectKey> = case.world.keys(&resources::pods()).into_iter().collect();
            case.take(step);
            if !matches!(step, Step::Reconcile) {
                continue;
            }
            let new: Vec<ObjectKey> = case.world.keys(&resources::pods()).into_iter().filter(|pod| !before.contains(pod)).collect();
            prop_assert!(new.len() <= 1, "{new:?} at once");
            for pod in new {
                let number: u64 = pod.name["web-".len()..].parse().expect("a number");
                for smaller in 0..number {
                    let key = ObjectKey::new(resources::pods(), Some("default"), &format!("web-{smaller}"));
                    prop_assert!(case.world.objects.contains_key(&key) && case.world.is_ready(&key), "{pod} before {key}");
                }
            }
        }
    }

    /// A daemon set ends with one pod of the newest template for each node.
    #[test]
    fn a_daemon_set_comes_to_rest(surge in 0u8..2, steps in steps()) {
        let mut case = daemon_set(surge);
        steps.iter().for_each(|step| case.take(step));
        case.settle()?;
        let nodes = case.world.keys(&resources::nodes()).len();
        prop_assert_eq!(case.pods().len(), nodes);
        let spec = case.spec();
        for pod in case.pods() {
            prop_assert_eq!(image(&pod.body["spec"]), image(&spec["template"]["spec"]));
        }
        let status = case.status();
        for count in ["desiredNumberScheduled", "numberReady", "currentNumberScheduled"] {
            prop_assert_eq!(status[count].as_u64(), Some(nodes as u64), "{}", count);
        }
        prop_assert_eq!(status["updatedNumberScheduled"].as_u64().unwrap_or(0), nodes as u64);
    }

    /// A job whose pods succeed in the end is complete, with each success counted once, and leaves no pod held.
    #[test]
    fn a_job_counts_each_pod_once(completions in 1u8..5, parallelism in 1u8..4, indexed: bool, steps in steps()) {
        let mut case = job(completions, parallelism, indexed);
        for step in &steps {
            if !matches!(step, Step::Template(_) | Step::Replicas(_) | Step::Node(..)) {
                case.take(step);
            }
            let running = case.world.active_pods().len();
            prop_assert!(running <= usize::from(parallelism), "{running} pods run");
        }
        for _ in 0..400 {
            case.reconcile();
            while let Some(pod) = case.pod(0) {
                case.world.finish_pod(&pod, "Succeeded");
            }
            case.world.tick(Duration::from_secs(60));
        }
        prop_assert!(case.reconcile(), "rests");
        let status = case.status();
        let conditions = status["conditions"].as_array().expect("conditions");
        prop_assert!(conditions.iter().any(|condition| condition["type"] == "Complete"), "{status}");
        prop_assert_eq!(&status["uncountedTerminatedPods"], &json!({}));
        let pods = case.world.all(&resources::pods());
        prop_assert!(pods.iter().all(|pod| pod.metadata.finalizers.is_empty()));
        let succeeded = status["succeeded"].as_u64().unwrap_or(0);
        prop_assert!(succeeded >= u64::from(completions), "{succeeded} succeeded");
        if indexed {
            prop_assert_eq!(succeeded, u64::from(completions));
        } else {
            // Pods that are there and succeeded were counted; those that were deleted before may add to it.
            let there = pods.iter().filter(|pod| sim::phase(pod) == "Succeeded").count();
            prop_assert!(succeeded >= there as u64, "{succeeded} of {there}");
            prop_assert!(succeeded < u64::from(completions) + u64::from(parallelism), "{succeeded} succeeded");
        }
    }
}
