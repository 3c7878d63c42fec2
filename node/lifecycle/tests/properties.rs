//! Whatever happens to a pod: counts of restarts never fall, what must not run again does not, and at rest nothing is to be done.

mod support;

use std::time::Duration;

use lifecycle::{ContainerState, ProbeKind, step};
use proptest::prelude::*;
use serde_json::json;
use support::World;

#[derive(Clone, Debug)]
enum Happening {
    Exit(&'static str, i32),
    Tick(u64),
    Probe(ProbeKind, bool),
    AgentRestarts,
    MachineRestarts,
    Delete(i64),
    Stubborn,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (prop_oneof![Just("first"), Just("proxy"), Just("web"), Just("log")], prop_oneof![Just(0), Just(1)]).prop_map(|(name, code)| Happening::Exit(name, code)),
        4 => prop_oneof![Just(1), Just(5), Just(11), Just(301), Just(700)].prop_map(Happening::Tick),
        2 => (prop_oneof![Just(ProbeKind::Startup), Just(ProbeKind::Liveness), Just(ProbeKind::Readiness)], any::<bool>()).prop_map(|(kind, success)| Happening::Probe(kind, success)),
        1 => Just(Happening::AgentRestarts),
        1 => Just(Happening::MachineRestarts),
        1 => prop_oneof![Just(0), Just(30)].prop_map(Happening::Delete),
        1 => Just(Happening::Stubborn),
    ]
}

fn world(policy: &str, with_init: bool) -> World {
    let probe = json!({ "exec": { "command": ["ok"] }, "periodSeconds": 2, "failureThreshold": 2 });
    let mut spec = json!({
        "restartPolicy": policy,
        "containers": [
            { "name": "web", "image": "busybox:1", "startupProbe": probe, "livenessProbe": probe, "readinessProbe": probe },
            { "name": "log", "image": "busybox:1" },
        ],
    });
    if with_init {
        spec["initContainers"] = json!([{ "name": "first", "image": "busybox:1" }, { "name": "proxy", "image": "busybox:1", "restartPolicy": "Always" }]);
    }
    World::new(json!({ "metadata": { "name": "web" }, "spec": spec }))
}

fn play(world: &mut World, happening: &Happening) {
    match happening {
        Happening::Exit(name, code) => world.exit(name, *code),
        Happening::Tick(seconds) => world.now = world.now.plus(Duration::from_secs(*seconds)),
        Happening::Probe(kind, true) => {
            world.failing_probes.remove(&("web".to_owned(), *kind));
        }
        Happening::Probe(kind, false) => {
            world.failing_probes.insert(("web".to_owned(), *kind));
        }
        Happening::AgentRestarts => world.forget_agent(),
        Happening::MachineRestarts => {
            world.lose_sandbox();
            world.forget_agent();
        }
        Happening::Delete(grace_s) => world.delete(*grace_s),
        Happening::Stubborn => {
            world.stubborn.insert("web".to_owned());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_pod_keeps_its_promises(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        with_init in any::<bool>(),
        happenings in prop::collection::vec(happening(), 1..25),
    ) {
        let mut world = world(policy, with_init);
        let mut ended = None;
        for happening in &happenings {
            let before = world.restarts();
            play(&mut world, happening);
            world.settle();
            if world.deleted {
                prop_assert!(!world.observed.is_any_alive(), "deleted with something alive");
                return Ok(());
            }
            for (name, count) in world.restarts() {
                prop_assert!(before.get(&name).is_none_or(|before| *before <= count), "{name} had {before:?}, has {count}");
                prop_assert!(policy != "Never" || name == "proxy" || count == 0 || with_init, "{name} was restarted {count} times");
            }
            let phase = world.status().and_then(|status| status.phase);
            if let Some(ended) = &ended {
                prop_assert_eq!(&phase, ended, "an ended pod stays as it ended");
                let begun = world.observed.containers.iter().filter(|container| matches!(container.state, ContainerState::Running { .. }));
                prop_assert!(begun.filter(|container| container.stopping_until.is_none()).count() == 0, "something was started after the end");
            }
            if matches!(phase.as_deref(), Some("Succeeded" | "Failed")) {
                ended = Some(phase);
            }
            let again = step(&world.desired(), &world.observed, world.now);
            prop_assert!(again.actions.is_empty(), "at rest, and yet {:?}", again.actions);
        }
    }
}
