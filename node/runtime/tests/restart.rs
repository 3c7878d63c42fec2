//! The agent goes, the containers stay: reopening after a drop and after SIGKILL, a lost shim, and what a crash leaves.

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use node_runtime::{ContainerState, Event, Images, ImagesConfig, Pods};
use support::*;

async fn reopen(node: &Node) -> Pods {
    let images = Images::open(ImagesConfig::new(node.dir.path().join("images"))).expect("opens");
    Pods::open(config(node.dir.path(), &node.name), images)
        .await
        .expect("opens")
}

fn state(pods: &Pods, id: &str) -> ContainerState {
    let pod = pods.get(POD).expect("the pod is found");
    pod.containers
        .into_iter()
        .find(|container| container.id == id)
        .expect("the container is found")
        .state
}

#[test]
fn a_new_agent_finds_running_and_ended_containers() {
    on_node(async |node| {
        let run = node
            .pods
            .start_container(
                POD,
                script(
                    &node,
                    "runs",
                    "while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 9",
                ),
            )
            .await
            .expect("starts");
        let (done, _) = support::run(&node, script(&node, "ended", "exit 3")).await;
        let late = node
            .pods
            .start_container(POD, script(&node, "late", "sleep 0.3; exit 6"))
            .await
            .expect("starts");
        let before = node.pods.get(POD).expect("is there");
        // The first agent is still connected, as a hanging one would be; the second must not be disturbed.
        let pods = reopen(&node).await;
        let after = pods.get(POD).expect("is there");
        assert_eq!(
            (after.spec.clone(), after.created_at),
            (before.spec, before.created_at)
        );
        assert_eq!(after.containers.len(), 3);
        assert!(matches!(state(&pods, &run), ContainerState::Running { pid, .. } if pid > 1));
        assert!(
            matches!(state(&pods, &done), ContainerState::Exited(exit) if exit.code == 3 && exit.finished_at >= exit.started_at)
        );
        let mut events = pods.subscribe();
        assert_eq!(pods.wait(POD, &late).await.expect("ends").code, 6);
        let captured = pods
            .exec_capture(
                POD,
                &run,
                &words(&["touch", "/tmp/go"]),
                Duration::from_secs(5),
                10,
            )
            .await
            .expect("executes");
        assert_eq!(captured.code, 0);
        assert_eq!(pods.wait(POD, &run).await.expect("ends").code, 9);
        loop {
            let Event::Exited {
                container, exit, ..
            } = events.recv().await.expect("an event");
            if container == run {
                assert_eq!(exit.code, 9);
                break;
            }
        }
        pods.remove_container(POD, &run).await.expect("removes");
    });
}

/// The example `agent_that_stays`, which Cargo builds with the tests.
fn agent_that_stays() -> std::path::PathBuf {
    let exe = std::env::current_exe().expect("the test knows itself");
    let profile = exe.ancestors().nth(2).expect("TARGET/PROFILE/deps/TEST");
    let agent = profile.join("examples/agent_that_stays");
    assert!(
        agent.exists(),
        "{} is missing: run `cargo build -p trireme-node-runtime --examples`",
        agent.display()
    );
    agent
}

#[test]
fn kill_9_of_the_agent_leaves_containers_running() {
    on_node(async |node| {
        let mut agent = Command::new(agent_that_stays())
            .arg(node.dir.path())
            .args([&node.name, POD, IMAGE])
            .arg(shim())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts the agent");
        let told = node.dir.path().join("started");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !told.exists() || log(&node, "a").len() < 3 {
            assert!(Instant::now() < deadline, "the agent starts no container");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let id = std::fs::read_to_string(told).expect("reads");
        agent.kill().expect("kills");
        agent.wait().expect("reaps");
        let lines = log(&node, "a").len();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(
            log(&node, "a").len() > lines,
            "the container goes on and is logged"
        );
        let pods = reopen(&node).await;
        assert!(matches!(state(&pods, &id), ContainerState::Running { .. }));
        assert_eq!(
            pods.stop(POD, &id, Duration::from_secs(5))
                .await
                .expect("stops")
                .code,
            11
        );
    });
}

#[test]
fn a_killed_shim_ends_its_containers_with_a_reason_and_the_pod_can_be_removed() {
    on_node(async |node| {
        let (done, _) = run(&node, script(&node, "ended", "exit 3")).await;
        let id = node
            .pods
            .start_container(POD, script(&node, "a", "echo up; sleep 4323"))
            .await
            .expect("starts");
        let ContainerState::Running { pid, .. } = state(&node.pods, &id) else {
            panic!("runs")
        };
        let shim =
            std::fs::read_to_string(node.dir.path().join("run/pods").join(POD).join("shim.pid"))
                .expect("reads");
        assert!(
            Command::new("kill")
                .args(["-9", shim.trim()])
                .status()
                .expect("kills")
                .success()
        );
        let exit = wait(&node, &id).await;
        assert_eq!((exit.code, exit.reason), (137, "ContainerStatusUnknown"));
        for _ in 0..100 {
            if !std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists(),
            "the container's process is killed"
        );
        assert!(
            matches!(state(&node.pods, &done), ContainerState::Exited(exit) if exit.code == 3),
            "what was told stays"
        );
        let error = node
            .pods
            .start_container(POD, script(&node, "b", "true"))
            .await
            .expect_err("no shim");
        assert!(
            error
                .to_string()
                .contains("remove the pod and create it again"),
            "{error}"
        );
        node.pods.remove(POD).await.expect("removes");
        node.pods.remove(POD).await.expect("again is fine");
        assert!(node.pods.list().is_empty());
    });
}

#[test]
fn an_exit_code_survives_agent_and_shim() {
    on_node(async |node| {
        let (id, _) = run(&node, script(&node, "a", "exit 21")).await;
        let shim =
            std::fs::read_to_string(node.dir.path().join("run/pods").join(POD).join("shim.pid"))
                .expect("reads");
        assert!(
            Command::new("kill")
                .args(["-9", shim.trim()])
                .status()
                .expect("kills")
                .success()
        );
        let pods = reopen(&node).await;
        assert!(
            matches!(state(&pods, &id), ContainerState::Exited(exit) if exit.code == 21 && exit.reason == "Error")
        );
    });
}

#[test]
fn what_a_crash_left_half_made_is_cleared() {
    on_node(async |node| {
        let root = node.dir.path().join("run/pods");
        std::fs::create_dir_all(root.join("half-made/c/x/rootfs")).expect("makes");
        std::fs::create_dir_all(root.join(POD).join("c/half")).expect("makes");
        let pods = reopen(&node).await;
        assert_eq!(pods.list().len(), 1);
        assert!(!root.join("half-made").exists() && !root.join(POD).join("c/half").exists());
    });
}
