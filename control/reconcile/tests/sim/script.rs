//! Scripts: a command with its input, `----`, and the output that is expected. `UPDATE_EXPECT=1` writes the output that was
//! seen into the file.

use super::{World, key_of, phase, resource_of};
use objects::{Object, ObjectKey};
use reconcile::{Action, Propagation, view::resources};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Runs a script and compares every output.
pub fn check(path: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut world = World::new();
    let seen: Vec<String> = text
        .split("\n\n")
        .map(|block| run_block(&mut world, block))
        .collect();
    let seen = format!("{}\n", seen.join("\n\n").trim_end());
    expect_test::expect_file![path].assert_eq(&seen);
}

/// The block as it should be: comments and the command as they are, then what was seen.
fn run_block(world: &mut World, block: &str) -> String {
    let head = block.split("----").next().unwrap_or("").trim_end();
    let lines: Vec<&str> = head.lines().filter(|line| !line.starts_with('#')).collect();
    let Some((command, input)) = lines
        .split_first()
        .filter(|(command, _)| !command.is_empty())
    else {
        return block.trim_end().to_owned();
    };
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = run_command(world, &words, &input.join("\n"));
    format!("{head}\n----\n{}", output.trim_end())
        .trim_end()
        .to_owned()
}

fn run_command(world: &mut World, words: &[&str], input: &str) -> String {
    match words {
        ["apply"] => apply(world, input),
        ["delete", kind, name] => delete(world, &key(kind, name), None),
        ["delete", kind, name, "foreground"] => {
            delete(world, &key(kind, name), Some(Propagation::Foreground))
        }
        ["delete", kind, name, "orphan"] => {
            delete(world, &key(kind, name), Some(Propagation::Orphan))
        }
        ["garbage"] => garbage(world),
        ["refused", name, why @ ..] => {
            world.failures.insert((*name).to_owned(), why.join(" "));
            String::new()
        }
        // Every ready pod uses so much CPU, one does, or nobody knows.
        ["usage", "unknown", why @ ..] => {
            world.usage = Err(why.join(" "));
            String::new()
        }
        ["usage", "each", cpu] => {
            world.usage = Ok(Default::default());
            for pod in world.active_pods() {
                if world.is_ready(&pod) {
                    world.use_cpu(&pod.name, cpu);
                }
            }
            String::new()
        }
        ["usage", pod, cpu] => {
            world.use_cpu(pod, cpu);
            String::new()
        }
        ["accepted", name] => {
            world.failures.remove(*name);
            String::new()
        }
        ["renew", node] => {
            world.leases_seen.insert((*node).to_owned(), world.now);
            format!("{node} was heard at {}", world.now)
        }
        ["new-leader"] => {
            world.term_since = world.now;
            format!("its term begins at {}", world.now)
        }
        ["all"] => world
            .objects
            .keys()
            .fold(String::new(), |lines, key| format!("{lines}{key}\n")),
        ["reconcile", controller, name] => reconcile(world, controller, name),
        ["ready", count] => {
            world.make_ready(count.parse().expect("a count"));
            pods(world)
        }
        ["pod", name, phase] => {
            world.set_pod(
                &key("Pod", name),
                phase.trim_start_matches("un"),
                *phase == "Ready",
            );
            pods(world)
        }
        ["tick", duration] => {
            world.tick(parse_duration(duration));
            world.now.to_string()
        }
        ["pods"] => pods(world),
        ["sets"] => sets(world),
        ["work"] => {
            for _ in 0..10 {
                world.run("replicaset", &resources::replicasets());
            }
            sets(world)
        }
        // Controller and pods in turn, until nothing is planned: each plan, and what there is then.
        ["settle", controller, name] => settle(world, controller, name),
        ["finish", name, phase] => {
            world.finish_pod(&key("Pod", name), phase);
            pods(world)
        }
        ["rollout", name] => rollout(world, name),
        ["get", kind, name, pointer] => {
            let object = &world.objects[&key(kind, name)];
            let value = object.to_value();
            value
                .pointer(pointer.trim_end_matches('/'))
                .unwrap_or(&Value::Null)
                .to_string()
        }
        other => panic!("unknown command {other:?}"),
    }
}

fn parse_duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().expect("a number of s, m or h");
    Duration::from_secs(match unit {
        "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        other => panic!("unknown unit {other}"),
    })
}

fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, name),
    }
}

fn key(kind: &str, name: &str) -> ObjectKey {
    let (namespace, name) = split(name);
    ObjectKey::new(resource_of(kind), namespace, name)
}

fn delete(world: &mut World, key: &ObjectKey, propagation: Option<Propagation>) -> String {
    world.delete(key, false, propagation);
    format!("deleted {key}")
}

/// One round of the garbage collector over all objects.
fn garbage(world: &mut World) -> String {
    let mut lines = String::new();
    let keys: Vec<ObjectKey> = world.objects.keys().cloned().collect();
    for key in keys {
        if !world.objects.contains_key(&key) {
            continue;
        }
        let plan = world.garbage(&key);
        if !plan.is_nothing() {
            write!(lines, "{key}:\n{plan}").expect("a text");
            if let Err(error) = world.execute(&plan) {
                writeln!(lines, "failed: {error}").expect("a text");
            }
        }
    }
    if lines.is_empty() {
        "nothing".to_owned()
    } else {
        lines
    }
}

/// Creates the objects of a YAML text, or merges them into those that are there.
fn apply(world: &mut World, input: &str) -> String {
    let mut output = String::new();
    for document in input.split("---") {
        let value: Value = serde_saphyr::from_str(document).expect("YAML");
        let object = Object::from_value(value.clone()).expect("an object");
        let key = key_of(&object);
        if world.objects.contains_key(&key) {
            world.merge(&key, &value).expect("it is there");
            writeln!(output, "changed {key}").expect("a text");
        } else {
            world.create(object).expect("it is not there");
            writeln!(output, "created {key}").expect("a text");
        }
    }
    output
}

fn reconcile(world: &mut World, controller: &str, name: &str) -> String {
    let (namespace, name) = split(name);
    let plan = world.reconcile(controller, namespace, name);
    match world.execute(&plan) {
        Ok(()) => plan.to_string(),
        Err(error) => format!("{plan}failed: {error}"),
    }
}

fn settle(world: &mut World, controller: &str, name: &str) -> String {
    let (namespace, short) = split(name);
    let mut lines = String::new();
    for _ in 0..60 {
        let plan = world.reconcile(controller, namespace, short);
        let told = |action: &&Action| !matches!(action, Action::Event { .. });
        for action in plan.actions.iter().filter(told) {
            writeln!(lines, "{action}").expect("a text");
        }
        world.execute(&plan).expect("nobody else writes");
        let before = world
            .active_pods()
            .iter()
            .filter(|pod| !world.is_ready(pod))
            .count();
        world.tick(Duration::from_secs(1));
        world.make_ready(usize::MAX);
        if plan.is_nothing() && before == 0 {
            return format!("{lines}{}", pods(world));
        }
    }
    format!("{lines}does not come to rest")
}

fn pods(world: &World) -> String {
    let mut lines = String::new();
    for pod in world.all(&resources::pods()) {
        let ready = if world.is_ready(&key_of(pod)) {
            "ready"
        } else {
            "not ready"
        };
        let deleting = if pod.metadata.is_deleting() {
            ", being deleted"
        } else {
            ""
        };
        let phase = phase(pod);
        writeln!(lines, "{} {phase}, {ready}{deleting}", pod.metadata.name).expect("a text");
    }
    lines
}

fn sets(world: &World) -> String {
    let mut lines = String::new();
    for set in world.all(&resources::replicasets()) {
        let count = |pointer: &str| {
            let value = set.to_value();
            value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
        };
        let revision = set
            .metadata
            .annotations
            .get("deployment.kubernetes.io/revision");
        writeln!(
            lines,
            "{} wants {}, has {}, available {}, revision {}",
            set.metadata.name,
            count("/spec/replicas"),
            count("/status/replicas"),
            count("/status/availableReplicas"),
            revision.map_or("none", String::as_str),
        )
        .expect("a text");
    }
    lines
}

/// Lets both controllers work, pods become ready and time pass until nothing is planned; tells each step of the deployment.
fn rollout(world: &mut World, name: &str) -> String {
    let (namespace, name) = split(name);
    let mut lines = String::new();
    for _ in 0..100 {
        let plan = world.reconcile("deployment", namespace, name);
        for action in &plan.actions {
            if !matches!(action, Action::Patch { .. }) {
                writeln!(lines, "{action}").expect("a text");
            }
        }
        world.execute(&plan).expect("nobody else writes");
        let others = world.run("replicaset", &resources::replicasets());
        world.tick(Duration::from_secs(1));
        if plan.is_nothing() && others.is_empty() {
            return format!("{lines}{}", sets(world));
        }
        world.make_ready(usize::MAX);
    }
    format!("{lines}does not come to rest")
}
