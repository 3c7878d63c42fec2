//! Real containers: how they start, run, are confined, and end.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use node_runtime::logs::LogOptions;
use node_runtime::{ContainerSpec, ContainerState, Limits, LogLimits, PodSpec, Seccomp, Security};
use support::*;

#[test]
fn runs_logs_both_streams_and_tells_the_exit_code() {
    on_node(async |node| {
        let (id, exit) = run(
            &node,
            script(
                &node,
                "a",
                "echo out; echo err >&2; printf no-newline; exit 7",
            ),
        )
        .await;
        assert_eq!((exit.code, exit.signal, exit.reason), (7, 0, "Error"));
        let mut lines = log(&node, "a");
        lines.sort();
        assert_eq!(
            lines,
            ["stderr F err", "stdout F no-newline", "stdout F out"]
        );
        let (_, exit) = run(&node, script(&node, "b", "true")).await;
        assert_eq!((exit.code, exit.reason), (0, "Completed"));
        node.pods.remove_container(POD, &id).await.expect("removes");
        node.pods
            .remove_container(POD, &id)
            .await
            .expect("again is fine");
        assert_eq!(node.pods.get(POD).expect("is there").containers.len(), 1);
        node.pods
            .create(PodSpec {
                uid: POD.into(),
                ..PodSpec::default()
            })
            .await
            .expect("again is fine");
    });
}

#[test]
fn image_pod_and_container_decide_what_runs() {
    on_node(async |node| {
        let spec = ContainerSpec {
            command: words(&["/bin/sh"]),
            args: words(&[
                "-c",
                "echo $FROM_IMAGE-$OWN-$HOME; pwd; hostname; id -u; id -g; id -G",
            ]),
            env: vec![("OWN".into(), "own".into())],
            working_dir: Some("/tmp".into()),
            security: Security {
                run_as_user: Some(1234),
                supplemental_groups: vec![77],
                ..Security::default()
            },
            ..script(&node, "a", "")
        };
        let (_, exit) = run(&node, spec).await;
        assert_eq!(exit.code, 0);
        let lines: Vec<String> = log(&node, "a")
            .iter()
            .map(|line| line.replace("stdout F ", ""))
            .collect();
        assert_eq!(lines[1..3], ["/tmp", "box"]);
        assert!(lines[0].starts_with("yes-own-"), "{lines:?}");
        assert_eq!(lines[lines.len() - 3..], ["1234", "0", "0 77"]);
    });
}

#[test]
fn memory_limit_is_told_as_oom() {
    on_node(async |node| {
        let limits = Limits {
            memory_bytes_max: Some(16 << 20),
            ..Limits::default()
        };
        let own = ContainerSpec {
            limits,
            command: words(&["tail"]),
            args: words(&["/dev/zero"]),
            ..script(&node, "a", "")
        };
        let (_, exit) = run(&node, own).await;
        assert_eq!(
            (exit.code, exit.oom_killed, exit.reason),
            (137, true, "OOMKilled")
        );
        let child = ContainerSpec {
            limits,
            ..script(&node, "b", "tail /dev/zero; exit $?")
        };
        let (_, exit) = run(&node, child).await;
        assert_eq!((exit.code, exit.oom_killed), (137, true), "a child's");
        let (_, exit) = run(&node, script(&node, "c", "kill -9 $$; exit 137")).await;
        assert!(!exit.oom_killed, "{exit:?}");
    });
}

#[test]
fn limits_are_set_read_and_changed_in_place() {
    on_node(async |node| {
        let limits = Limits {
            cpu_shares: Some(512),
            cpu_quota_us: Some(20_000),
            memory_bytes_max: Some(64 << 20),
            pids_max: Some(8),
            ..Limits::default()
        };
        let spec = ContainerSpec {
            limits,
            ..script(
                &node,
                "a",
                "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 60 & done; wait",
            )
        };
        let id = node
            .pods
            .start_container(
                POD,
                ContainerSpec {
                    command: words(&["sleep", "60"]),
                    ..spec.clone()
                },
            )
            .await
            .expect("starts");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let measured = node.pods.measure().await.expect("reads");
        let stats = measured[0].containers[&id];
        assert!(measured[0].usage.cpu_ns >= stats.cpu_ns, "{measured:?}");
        assert!(
            stats.pids == 1 && stats.memory_bytes > 0 && stats.cpu_ns > 0,
            "{stats:?}"
        );
        let group = format!("{}/besteffort/pod{POD}/{id}", node.name);
        if let Ok(quota) =
            std::fs::read_to_string(format!("/sys/fs/cgroup/cpu/{group}/cpu.cfs_quota_us"))
        {
            assert_eq!(quota.trim(), "20000");
        }
        let bigger = Limits {
            memory_bytes_max: Some(128 << 20),
            ..Limits::default()
        };
        node.pods
            .resize(POD, &id, bigger, Limits::default(), [].into())
            .await
            .expect("resizes");
        if let Ok(bytes) = std::fs::read_to_string(format!(
            "/sys/fs/cgroup/memory/{group}/memory.limit_in_bytes"
        )) {
            assert_eq!(bytes.trim(), (128 << 20).to_string());
        }
        let (_, exit) = run(
            &node,
            ContainerSpec {
                name: "b".into(),
                log_path: Some(log_path(&node, "b")),
                ..spec
            },
        )
        .await;
        assert_ne!(exit.code, 0);
        assert!(
            log(&node, "b").join(" ").contains("can't fork"),
            "{:?}",
            log(&node, "b")
        );
    });
}

#[test]
fn stop_asks_first_and_then_kills() {
    on_node(async |node| {
        let kind = node
            .pods
            .start_container(
                POD,
                script(
                    &node,
                    "a",
                    "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 0.05; done",
                ),
            )
            .await
            .expect("starts");
        let deaf = node
            .pods
            .start_container(
                POD,
                script(
                    &node,
                    "b",
                    "trap '' TERM; echo up; while true; do sleep 0.05; done",
                ),
            )
            .await
            .expect("starts");
        while log(&node, "a").is_empty() || log(&node, "b").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let exit = node
            .pods
            .stop(POD, &kind, Duration::from_secs(10))
            .await
            .expect("stops");
        assert_eq!(
            (exit.code, log(&node, "a").last().map(String::as_str)),
            (3, Some("stdout F bye"))
        );
        let begun = Instant::now();
        let exit = node
            .pods
            .stop(POD, &deaf, Duration::from_millis(300))
            .await
            .expect("stops");
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, 9, false));
        assert!(begun.elapsed() >= Duration::from_millis(300));
        node.pods
            .stop(POD, &deaf, Duration::ZERO)
            .await
            .expect("again is fine");
    });
}

#[test]
fn containers_of_a_pod_share_what_kubernetes_says() {
    let netns = format!("trirt{}", std::process::id());
    let path = format!("/var/run/netns/{netns}");
    let ip = |arguments: &[&str]| {
        assert!(
            std::process::Command::new("ip")
                .args(arguments)
                .status()
                .expect("runs ip")
                .success()
        )
    };
    ip(&["netns", "add", &netns]);
    let spec = PodSpec {
        hostname: Some("shared".into()),
        netns: Some(path.into()),
        sysctls: BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".into(), "0".into())]),
        ..PodSpec::default()
    };
    let result = std::panic::catch_unwind(|| {
        on_node_with(spec, async |node| {
            let look = "for kind in net ipc uts; do readlink /proc/self/ns/$kind; done; ip link | grep -c UP; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
            let pid = "readlink /proc/self/ns/pid";
            let first = format!("{look}; {pid}; touch /dev/shm/seen; hostname; exec sleep 60");
            node.pods
                .start_container(POD, script(&node, "a", &first))
                .await
                .expect("starts");
            while log(&node, "a").len() < 7 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let second = format!("{look}; {pid}; ls /dev/shm; echo $$");
            let (_, exit) = run(&node, script(&node, "b", &second)).await;
            assert_eq!(exit.code, 0);
            let (a, b) = (log(&node, "a"), log(&node, "b"));
            assert_eq!(a[..5], b[..5], "net, ipc, uts");
            assert_ne!(a[5], b[5], "pid");
            assert_eq!(a[6..], ["stdout F shared"]);
            assert_eq!(b[6..], ["stdout F seen", "stdout F 1"]);
            let host = std::fs::read_link("/proc/self/ns/net").expect("reads");
            assert_ne!(a[0], format!("stdout F {}", host.display()));
        });
    });
    ip(&["netns", "del", &netns]);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn a_shared_pid_namespace_shows_the_other_container() {
    on_node_with(
        PodSpec {
            hostname: Some("box".into()),
            share_pid: true,
            ..PodSpec::default()
        },
        async |node| {
            let id = node
                .pods
                .start_container(POD, script(&node, "a", "exec sleep 4321"))
                .await
                .expect("starts");
            let (_, exit) = run(
                &node,
                script(&node, "b", "sleep 0.1; ps | grep -c 'sleep 432[1]'"),
            )
            .await;
            assert_eq!((exit.code, log(&node, "b")), (0, words(&["stdout F 1"])));
            assert!(matches!(
                node.pods.get(POD).expect("is there").containers[0].state,
                ContainerState::Running { .. }
            ));
            node.pods
                .stop(POD, &id, Duration::ZERO)
                .await
                .expect("stops");
        },
    );
}

#[test]
fn containers_are_confined() {
    on_node(async |node| {
        let look =
            "cat /proc/self/status | grep -E '^(CapEff|CapBnd|CapAmb|CapInh|NoNewPrivs|Seccomp):'";
        let confined = Security {
            seccomp: Seccomp::RuntimeDefault,
            no_new_privileges: true,
            read_only_root: true,
            capabilities_drop: words(&["ALL"]),
            capabilities_add: words(&["NET_BIND_SERVICE"]),
            ..Security::default()
        };
        let status = |nnp: &str, seccomp: &str, caps: &str| {
            words(&[
                "CapInh:\t0000000000000000",
                &format!("CapEff:\t{caps}"),
                &format!("CapBnd:\t{caps}"),
                "CapAmb:\t0000000000000000",
                &format!("NoNewPrivs:\t{nnp}"),
                &format!("Seccomp:\t{seccomp}"),
            ])
        };
        let id = node
            .pods
            .start_container(
                POD,
                ContainerSpec {
                    security: confined,
                    ..script(
                        &node,
                        "a",
                        &format!("{look}; touch /x; mount -t tmpfs t /tmp; sleep 60"),
                    )
                },
            )
            .await
            .expect("starts");
        let (code, text) = exec(&node, &id, look).await;
        assert_eq!(code, 0, "{text}");
        assert_eq!(
            text.lines().map(str::to_string).collect::<Vec<_>>(),
            status("1", "2", "0000000000000400"),
            "exec is confined alike"
        );
        let lines = log(&node, "a");
        assert!(
            lines
                .iter()
                .any(|line| line.contains("Read-only file system"))
                && lines.iter().any(|line| line.contains("mount")),
            "{lines:?}"
        );
        // Privileges may be gained here, so that the filter of an exec must be loaded another way.
        let gaining = Security {
            seccomp: Seccomp::RuntimeDefault,
            run_as_user: Some(1000),
            ..Security::default()
        };
        let id = node
            .pods
            .start_container(
                POD,
                ContainerSpec {
                    security: gaining,
                    ..script(&node, "b", "sleep 60")
                },
            )
            .await
            .expect("starts");
        let (_, text) = exec(&node, &id, look).await;
        assert!(
            text.contains("Seccomp:\t2")
                && text.contains("CapEff:\t0000000000000000")
                && text.contains("CapBnd:\t00000000a80425fb")
                && text.contains("NoNewPrivs:\t0"),
            "{text}"
        );
        let privileged = Security {
            privileged: true,
            ..Security::default()
        };
        let (_, exit) = run(
            &node,
            ContainerSpec {
                security: privileged,
                ..script(
                    &node,
                    "c",
                    "mount -t tmpfs t /tmp && echo mounted; ls /dev | wc -l",
                )
            },
        )
        .await;
        assert_eq!(
            (exit.code, log(&node, "c")[0].as_str()),
            (0, "stdout F mounted")
        );
        // Rust ignores SIGPIPE and the shim blocks signals; neither must reach a container, nor a process of an exec.
        // The C library's own two signals, 32 and 33, are ignored in all that it spawns.
        let signals =
            "grep -E '^Sig(Blk|Ign):' /proc/self/status | cut -f 2 | tr 8 0 | tr 1 0 | sort -u";
        assert_eq!(exec(&node, &id, signals).await.1, "0000000000000000\n");
        let (_, exit) = run(&node, script(&node, "e", signals)).await;
        assert_eq!(
            (exit.code, log(&node, "e")),
            (0, words(&["stdout F 0000000000000000"]))
        );
        // The machine's cgroups are not to be seen, and the masked paths are empty.
        let (_, exit) = run(&node, script(&node, "d", "ls /sys/fs/cgroup | wc -l; wc -c < /proc/keys; echo 1 > /proc/sys/kernel/sysrq || echo refused; echo x > /dev/null && echo null")).await;
        assert_eq!(exit.code, 0);
        let mut lines = log(&node, "d");
        lines.retain(|line| line.starts_with("stdout"));
        assert!(
            lines.contains(&"stdout F refused".into()) && lines.contains(&"stdout F null".into()),
            "{lines:?}"
        );
        assert_eq!(lines[0], "stdout F 0", "{lines:?}");
    });
}

#[test]
fn what_cannot_start_is_told_in_the_users_words() {
    on_node(async |node| {
        let attempt = async |spec: ContainerSpec| {
            let error = node
                .pods
                .start_container(POD, spec)
                .await
                .expect_err("cannot start");
            (error.reason(), error.to_string())
        };
        let base = script(&node, "a", "");
        let (reason, text) = attempt(ContainerSpec {
            command: words(&["nope"]),
            ..base.clone()
        })
        .await;
        assert_eq!(
            (reason, text.as_str()),
            (
                "RunContainerError",
                "failed to start container \"a\": exec: \"nope\": executable file not found in $PATH"
            )
        );
        let (_, text) = attempt(ContainerSpec {
            command: words(&["/no/pe"]),
            ..base.clone()
        })
        .await;
        assert!(
            text.ends_with("exec: \"/no/pe\": stat /no/pe: no such file or directory"),
            "{text}"
        );
        let (_, text) = attempt(ContainerSpec {
            command: words(&["/etc/passwd"]),
            ..base.clone()
        })
        .await;
        assert!(
            text.ends_with("exec: \"/etc/passwd\": permission denied"),
            "{text}"
        );
        let (reason, text) = attempt(ContainerSpec {
            image: "none".into(),
            ..base.clone()
        })
        .await;
        assert_eq!(
            (reason, text.as_str()),
            (
                "ErrImageNeverPull",
                "image \"none\" is not present; pull or import it first"
            )
        );
        let non_root = Security {
            run_as_non_root: true,
            ..Security::default()
        };
        let (reason, text) = attempt(ContainerSpec {
            security: non_root,
            ..base.clone()
        })
        .await;
        assert!(
            reason == "CreateContainerConfigError" && text.contains("image will run as root"),
            "{text}"
        );
        let mounts = vec![node_runtime::Mount {
            host_path: "/not/there".into(),
            container_path: "/x".into(),
            ..Default::default()
        }];
        let (reason, text) = attempt(ContainerSpec { mounts, ..base }).await;
        assert!(
            reason == "CreateContainerError" && text.contains("/not/there"),
            "{text}"
        );
        assert!(
            node.pods.get(POD).expect("is there").containers.is_empty(),
            "nothing is left"
        );
    });
}

#[test]
fn a_bad_interpreter_is_told_and_not_a_mute_exit_code() {
    on_node(async |node| {
        let host = node.dir.path().join("bad");
        std::fs::write(&host, "#!/no/interpreter\n").expect("writes");
        std::fs::set_permissions(&host, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("sets");
        let mounts = vec![node_runtime::Mount {
            host_path: host,
            container_path: "/bad".into(),
            read_only: true,
            ..Default::default()
        }];
        let spec = ContainerSpec {
            mounts,
            command: words(&["/bad"]),
            ..script(&node, "a", "")
        };
        let error = node
            .pods
            .start_container(POD, spec)
            .await
            .expect_err("cannot start");
        assert!(error.to_string().contains("ENOENT"), "{error}");
    });
}

#[test]
fn logs_are_rotated_and_read_whole() {
    on_node(async |node| {
        let log_limits = LogLimits {
            bytes_max: 20_000,
            files_max: 3,
        };
        let spec = ContainerSpec {
            log_limits,
            ..script(&node, "a", "seq 1 3000; sleep 0.3; seq 3001 3010")
        };
        let id = node.pods.start_container(POD, spec).await.expect("starts");
        let follow = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let followed = node.pods.logs(POD, &id, follow).expect("follows");
        let followed: Vec<bytes::Bytes> =
            tokio::time::timeout(Duration::from_secs(20), followed.try_collect())
                .await
                .expect("ends with the container")
                .expect("reads");
        let followed = String::from_utf8_lossy(&followed.concat()).into_owned();
        assert!(
            followed.ends_with("3008\n3009\n3010\n"),
            "{} {:?}",
            followed.len(),
            followed.lines().last()
        );
        let folder = log_path(&node, "a")
            .parent()
            .expect("a folder")
            .to_path_buf();
        let sizes: Vec<u64> = std::fs::read_dir(folder)
            .expect("lists")
            .map(|entry| entry.expect("an entry").metadata().expect("its size").len())
            .collect();
        assert!(
            sizes.len() <= 3 && sizes.iter().all(|size| *size < 70_000),
            "{sizes:?}"
        );
        let tail = LogOptions {
            tail_lines: Some(100),
            ..LogOptions::default()
        };
        let lines: Vec<bytes::Bytes> = node
            .pods
            .logs(POD, &id, tail)
            .expect("reads")
            .try_collect()
            .await
            .expect("reads");
        let expected: String = (2911..=3010).map(|number| format!("{number}\n")).collect();
        assert_eq!(
            String::from_utf8_lossy(&lines.concat()),
            expected,
            "over the rotated files"
        );
        node.pods.remove_container(POD, &id).await.expect("removes");
        assert!(
            log_path(&node, "a").exists(),
            "a log outlives its container"
        );
    });
}

#[test]
fn many_start_at_once() {
    on_node(async |node| {
        let starts = (0..12).map(async |number| {
            run(
                &node,
                script(&node, &format!("c{number}"), &format!("exit {number}")),
            )
            .await
            .1
            .code
        });
        let codes = futures::future::join_all(starts).await;
        assert_eq!(codes, (0..12).collect::<Vec<i32>>());
    });
}

#[test]
fn the_shims_binary_cannot_be_written() {
    on_node(async |node| {
        let pid =
            std::fs::read_to_string(node.dir.path().join("run/pods").join(POD).join("shim.pid"))
                .expect("reads");
        let binary = format!("/proc/{}/exe", pid.trim());
        let error = std::fs::OpenOptions::new()
            .write(true)
            .open(&binary)
            .expect_err("is sealed");
        assert!(matches!(error.raw_os_error(), Some(26 | 30)), "{error}");
        let path = std::fs::read_link(binary).expect("reads");
        let error = std::fs::write(path.with_file_name("other"), "").expect_err("is read-only");
        assert_eq!(error.raw_os_error(), Some(30));
    });
}
