//! Stories of pods. A file begins with the pod in YAML; then each `> command` is followed by what it brought about.
//! `UPDATE_EXPECT=1` writes the files anew.

mod support;

use std::fmt::Write as _;
use std::time::Duration;

use lifecycle::{Amount, Ended, ProbeKind, Room};
use serde_json::json;
use support::World;

fn check(name: &str) {
    let path = format!("{}/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the story is there");
    let (pod, story) = text
        .split_once("\n---\n")
        .expect("a story has a pod, a line of dashes, and commands");
    let mut world = World::new(serde_saphyr::from_str(pod).expect("the pod is YAML"));
    let mut told = format!("{pod}\n---\n");
    for command in story.lines().filter_map(|line| line.strip_prefix("> ")) {
        writeln!(told, "> {command}").expect("a string takes it");
        play(&mut world, command);
        let (done, wake_at) = world.settle();
        for action in done {
            writeln!(told, "{action}").expect("a string takes it");
        }
        if world.deleted {
            told.push_str("gone\n\n");
            continue;
        }
        told.push_str(&world.summary());
        if let Some(wake_at) = wake_at {
            writeln!(told, "  look again in {:?}", wake_at.since(world.now))
                .expect("a string takes it");
        }
        told.push('\n');
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, told).expect("the story can be written");
        return;
    }
    assert_eq!(
        told, text,
        "{name} went another way; UPDATE_EXPECT=1 takes it over"
    );
}

fn play(world: &mut World, command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let rest = |from: usize| words[from..].join(" ");
    match words.as_slice() {
        ["begin" | "look"] => {}
        ["tick", time] => world.now = world.now.plus(duration(time)),
        ["exit", name, code] => world.exit(name, code.parse().expect("an exit code")),
        ["probe", name, kind, "fails"] => {
            world.failing_probes.insert(((*name).into(), probe(kind)));
        }
        ["probe", name, kind, "succeeds"] => {
            world.failing_probes.remove(&((*name).into(), probe(kind)));
        }
        ["pull", name, "fails", ..] => {
            world.failing_pulls.insert((*name).into(), rest(3));
        }
        ["pull", "works"] => world.failing_pulls.clear(),
        ["config", name, "lacks", ..] => {
            world.broken_config.insert((*name).into(), rest(3));
        }
        ["config", "is", "complete"] => world.broken_config.clear(),
        ["volumes", "lack", ..] => world.broken_volumes = Some(rest(2)),
        ["volumes", "are", "complete"] => world.broken_volumes = None,
        ["stubborn", name] => {
            world.stubborn.insert((*name).into());
        }
        ["debug", name, target] => {
            let ephemeral =
                json!({"name": name, "image": "busybox:1", "targetContainerName": target});
            let all = &mut world.pod["spec"]["ephemeralContainers"];
            match all.as_array_mut() {
                Some(all) => all.push(ephemeral),
                None => *all = json!([ephemeral]),
            }
        }
        ["resize", index, resource, amount] => {
            let index: usize = index.parse().expect("which container");
            let resources = &mut world.pod["spec"]["containers"][index]["resources"];
            resources["limits"][*resource] = (*amount).into();
            resources["requests"][*resource] = (*amount).into();
        }
        ["room", cpu_milli, "used", used_milli] => {
            let amount = |text: &str| Amount {
                cpu_milli: text.parse().expect("thousandths"),
                memory_bytes: 1 << 30,
            };
            world.observed.room = Some(Room {
                allocatable: amount(cpu_milli),
                used: Amount {
                    memory_bytes: 0,
                    ..amount(used_milli)
                },
            });
        }
        ["node", "evicts", ..] => {
            world.observed.ended = Some(Ended {
                reason: "Evicted",
                message: rest(2),
                grace_s: 0,
            });
        }
        ["agent", "restarts"] => world.forget_agent(),
        ["machine", "restarts"] => {
            world.lose_sandbox();
            world.forget_agent();
        }
        ["delete", time] => world.delete(i64::try_from(duration(time).as_secs()).expect("a grace")),
        ["image", name] => world.pod["spec"]["containers"][0]["image"] = (*name).into(),
        _ => panic!("no such command: {command}"),
    }
}

fn duration(text: &str) -> Duration {
    Duration::from_secs(
        text.strip_suffix('s')
            .and_then(|text| text.parse().ok())
            .expect("a time like 10s"),
    )
}

fn probe(word: &str) -> ProbeKind {
    match word {
        "startup" => ProbeKind::Startup,
        "liveness" => ProbeKind::Liveness,
        "readiness" => ProbeKind::Readiness,
        _ => panic!("no such probe: {word}"),
    }
}

macro_rules! stories {
    ($($name:ident),* $(,)?) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

stories![
    runs,
    crash_loop,
    completes,
    fails,
    init_containers,
    init_fails,
    sidecar,
    image_missing,
    config_missing,
    volumes_missing,
    readiness,
    liveness,
    startup,
    deleted,
    deleted_stubborn,
    deadline,
    machine_restarts,
    agent_restarts,
    evicted,
    new_image,
    ephemeral,
    resize,
    node_short,
];
