//! Properties of the controllers over a simulated cluster: from any state, executing plans reaches the spec and then plans
//! nothing; on the way a rollout keeps its bounds; a plan executed twice never doubles anything.

mod sim;

use objects::{Object, ObjectKey};
use proptest::prelude::*;
use reconcile::view::resources;
use reconcile::{Action, Plan, names};
use serde_json::{Value, json};
use sim::World;
use std::collections::BTreeSet;
use std::time::Duration;

/// A rollout's parameters.
#[derive(Clone, Debug)]
struct Rollout {
    replicas: i64,
    surge: Value,
    unavailable: Value,
    recreate: bool,
}

fn amount() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0i64..4).prop_map(|number| json!(number)),
        (0i64..101).prop_map(|percent| json!(format!("{percent}%"))),
    ]
}

fn rollouts() -> impl Strategy<Value = Rollout> {
    let recreate = proptest::bool::weighted(0.2);
    (0i64..9, amount(), amount(), recreate).prop_map(|(replicas, surge, unavailable, recreate)| {
        Rollout {
            replicas,
            surge,
            unavailable,
            recreate,
        }
    })
}

/// What happens between plans.
#[derive(Clone, Debug)]
enum Step {
    Deployment,
    Sets,
    Ready(usize),
    Unready(usize),
    Fail(usize),
    Delete(usize),
    Tick,
    Template(u8),
    Replicas(i64),
    Pause(bool),
}

fn calm_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Deployment),
        3 => Just(Step::Sets),
        2 => (1usize..4).prop_map(Step::Ready),
        1 => Just(Step::Tick),
    ];
    proptest::collection::vec(step, 1..120)
}

fn wild_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Deployment),
        4 => Just(Step::Sets),
        3 => (1usize..4).prop_map(Step::Ready),
        1 => (0usize..8).prop_map(Step::Unready),
        1 => (0usize..8).prop_map(Step::Fail),
        1 => (0usize..8).prop_map(Step::Delete),
        1 => Just(Step::Tick),
        1 => (0u8..4).prop_map(Step::Template),
        1 => (0i64..9).prop_map(Step::Replicas),
        1 => any::<bool>().prop_map(Step::Pause),
    ];
    proptest::collection::vec(step, 1..60)
}

fn key() -> ObjectKey {
    ObjectKey::new(resources::deployments(), Some("default"), "web")
}

fn template(version: u8) -> Value {
    json!({ "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": format!("i:{version}") }] } })
}

fn world(rollout: &Rollout) -> World {
    let strategy = if rollout.recreate {
        json!({ "type": "Recreate" })
    } else {
        json!({ "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": rollout.surge, "maxUnavailable": rollout.unavailable } })
    };
    let deployment = json!({
        "kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": { "replicas": rollout.replicas, "revisionHistoryLimit": 2, "strategy": strategy,
            "selector": { "matchLabels": { "app": "web" } }, "template": template(0) },
    });
    let mut world = World::new();
    world
        .create(Object::from_value(deployment).expect("an object"))
        .expect("the first");
    world
}

fn resolve(value: &Value, replicas: i64, up: bool) -> i64 {
    match value {
        Value::Number(number) => number.as_i64().expect("whole"),
        Value::String(percent) => {
            let percent: i64 = percent.trim_end_matches('%').parse().expect("a percentage");
            if up {
                (percent * replicas + 99) / 100
            } else {
                percent * replicas / 100
            }
        }
        other => panic!("{other}"),
    }
}

fn deploy(world: &mut World) -> Plan {
    let plan = world.reconcile("deployment", Some("default"), "web");
    world.execute(&plan).expect("nobody writes in between");
    plan
}

fn take(world: &mut World, step: &Step) {
    let at = |world: &World, index: usize| world.active_pods().get(index).cloned();
    match step {
        Step::Deployment => {
            deploy(world);
        }
        Step::Sets => {
            world.run("replicaset", &resources::replicasets());
        }
        Step::Ready(count) => world.make_ready(*count),
        Step::Unready(index) => {
            if let Some(pod) = at(world, *index) {
                world.set_pod(&pod, "Running", false);
            }
        }
        Step::Fail(index) => {
            if let Some(pod) = at(world, *index) {
                world.set_pod(&pod, "Failed", false);
            }
        }
        Step::Delete(index) => {
            if let Some(pod) = at(world, *index) {
                world.delete(&pod, false, None);
            }
        }
        Step::Tick => world.tick(Duration::from_secs(1)),
        Step::Template(version) => {
            let patch = json!({ "spec": { "template": template(*version) } });
            world.merge(&key(), &patch).expect("it is there");
        }
        Step::Replicas(replicas) => {
            let patch = json!({ "spec": { "replicas": replicas } });
            world.merge(&key(), &patch).expect("it is there");
        }
        Step::Pause(paused) => {
            let patch = json!({ "spec": { "paused": paused } });
            world.merge(&key(), &patch).expect("it is there");
        }
    }
}

/// Lets everybody work until nobody plans anything.
fn settle(world: &mut World) -> Result<(), TestCaseError> {
    let mut quiet = 0; // Rounds in a row; after the first, time has passed and pods have become ready.
    for _ in 0..300 {
        let plan = deploy(world);
        let others = world.run("replicaset", &resources::replicasets());
        world.tick(Duration::from_secs(1));
        world.make_ready(usize::MAX);
        let is_quiet = plan.is_nothing() && others.is_empty();
        quiet = if is_quiet { quiet + 1 } else { 0 };
        if quiet == 2 {
            return Ok(());
        }
    }
    Err(TestCaseError::fail("does not come to rest"))
}

fn image(object: &Object) -> Option<String> {
    let spec = object.body.get("spec")?;
    let image = spec
        .pointer("/containers/0/image")
        .or_else(|| spec.pointer("/template/spec/containers/0/image"));
    Some(image?.as_str()?.to_owned())
}

fn is_as_specified(world: &World) -> Result<(), TestCaseError> {
    let deployment = &world.objects[&key()];
    let spec = &deployment.body["spec"];
    let status = deployment.body.get("status").cloned().unwrap_or_default();
    let replicas = spec["replicas"].as_i64().expect("a count");
    let pods: Vec<&Object> = world
        .active_pods()
        .iter()
        .map(|pod| &world.objects[pod])
        .collect();
    prop_assert_eq!(pods.len() as i64, replicas);
    let wanted = image(deployment);
    prop_assert!(pods.iter().all(|pod| image(pod) == wanted));
    for field in ["replicas", "updatedReplicas", "availableReplicas"] {
        prop_assert_eq!(status[field].as_i64().unwrap_or(0), replicas, "{}", field);
    }
    prop_assert_eq!(
        status["observedGeneration"].as_i64(),
        Some(deployment.metadata.generation)
    );
    let progressing = status["conditions"].as_array().and_then(|all| {
        all.iter()
            .find(|condition| condition["type"] == "Progressing")
            .cloned()
    });
    prop_assert_eq!(
        &progressing.expect("is told")["reason"],
        "NewReplicaSetAvailable"
    );
    let old_sets = world.all(&resources::replicasets()).len().saturating_sub(1);
    prop_assert!(old_sets <= 2, "history holds {}", old_sets);
    Ok(())
}

fn available(world: &World) -> i64 {
    world
        .active_pods()
        .iter()
        .filter(|pod| world.is_ready(pod))
        .count() as i64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 5, failure_persistence: None, ..ProptestConfig::default() })]

    /// While only the controllers act and pods become ready, no more pods exist than the surge allows, and no fewer are
    /// available than may be missing.
    #[test]
    fn a_rollout_keeps_its_bounds(rollout in rollouts(), steps in calm_steps(), second in proptest::option::of(0usize..60)) {
        let mut world = world(&rollout);
        settle(&mut world)?;
        take(&mut world, &Step::Template(1));
        let surge = resolve(&rollout.surge, rollout.replicas, true);
        let missing = resolve(&rollout.unavailable, rollout.replicas, false);
        let missing = if surge == 0 && missing == 0 { 1 } else { missing };
        let (most, fewest) = if rollout.recreate { (rollout.replicas, 0) } else { (rollout.replicas + surge, rollout.replicas - missing) };
        for (at, step) in steps.iter().enumerate() {
            if Some(at) == second {
                take(&mut world, &Step::Template(2)); // Changed again in the middle.
            }
            take(&mut world, step);
            let total = world.active_pods().len() as i64;
            prop_assert!(total <= most, "{total} pods, allowed are {most}");
            prop_assert!(available(&world) >= fewest, "{} available, needed are {fewest}", available(&world));
            if rollout.recreate {
                let images: BTreeSet<_> = world.all(&resources::pods()).into_iter().map(image).collect();
                prop_assert!(images.len() <= 1, "old and new pods together");
            }
        }
        settle(&mut world)?;
        is_as_specified(&world)?;
    }

    /// Whatever happened before, once nobody disturbs them the controllers reach the spec and then rest.
    #[test]
    fn any_state_comes_to_rest_at_the_spec(rollout in rollouts(), steps in wild_steps()) {
        let mut world = world(&rollout);
        for step in &steps {
            take(&mut world, step);
        }
        take(&mut world, &Step::Pause(false));
        settle(&mut world)?;
        is_as_specified(&world)?;
    }

    /// A plan that is executed again, as after a lost answer, creates nothing a second time.
    #[test]
    fn a_plan_executed_twice_doubles_nothing(rollout in rollouts(), steps in wild_steps()) {
        let mut world = world(&rollout);
        for step in &steps {
            take(&mut world, step);
            for set in world.keys(&resources::replicasets()) {
                let plan = world.reconcile("replicaset", set.namespace.as_deref(), &set.name);
                let creates = plan.actions.iter().filter(|action| matches!(action, Action::Create(_))).count();
                let _first = world.execute(&plan);
                let after_once = world.all(&resources::pods()).len();
                let again = world.execute(&plan);
                prop_assert!(creates == 0 || again.is_err());
                prop_assert_eq!(world.all(&resources::pods()).len(), after_once);
            }
        }
    }

    /// Names of children are legal, and differ.
    #[test]
    fn child_names_are_legal(owner in "[a-z]([-a-z0-9.]{0,80}[a-z0-9])?", uid in "[0-9a-f]{8}", count in 1usize..40) {
        let pods: BTreeSet<String> = (0..count).map(|index| names::pod(&owner, &uid, index)).collect();
        prop_assert_eq!(pods.len(), count);
        for name in pods {
            prop_assert!(name.len() <= 63);
            prop_assert!(name.ends_with(|letter: char| letter.is_ascii_alphanumeric()));
            prop_assert!(!name.contains("-.") && !name.contains(".-") || owner.contains("-.") || owner.contains(".-"));
        }
    }

    /// Slices hold exactly the pods that have addresses, at most a hundred each, and rest when nothing changes.
    #[test]
    fn slices_hold_the_pods(rounds in proptest::collection::vec(proptest::collection::btree_set(0u32..260, 0..260), 1..5)) {
        let mut world = World::new();
        let service = json!({ "kind": "Service", "apiVersion": "v1", "metadata": { "name": "web", "namespace": "default" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] } });
        world.create(Object::from_value(service).expect("an object")).expect("the first");
        for wanted in &rounds {
            for pod in world.keys(&resources::pods()) {
                world.delete(&pod, false, None);
            }
            world.tick(Duration::from_secs(1));
            for at in wanted {
                let pod = json!({ "kind": "Pod", "apiVersion": "v1",
                    "metadata": { "name": format!("p{at}"), "namespace": "default", "uid": format!("u{at}"), "labels": { "app": "web" } },
                    "spec": { "containers": [] }, "status": { "phase": "Running", "podIP": format!("10.244.{}.{}", at / 200, at % 200 + 1) } });
                world.create(Object::from_value(pod).expect("an object")).expect("a new one");
            }
            let plan = world.reconcile("endpointslice", Some("default"), "web");
            world.execute(&plan).expect("nobody writes in between");
            let mut seen = BTreeSet::new();
            for slice in world.all(&resources::endpointslices()) {
                let endpoints = slice.body["endpoints"].as_array().expect("a list");
                prop_assert!(endpoints.len() <= 100);
                for endpoint in endpoints {
                    let name = endpoint["targetRef"]["name"].as_str().expect("a name").to_owned();
                    prop_assert!(seen.insert(name), "listed twice");
                }
            }
            let expected: BTreeSet<String> = wanted.iter().map(|at| format!("p{at}")).collect();
            prop_assert_eq!(seen, expected);
            prop_assert!(world.reconcile("endpointslice", Some("default"), "web").is_nothing());
        }
    }
}
