//! Volumes in real containers: sharing, secrets in memory, updates, read-only mounts, sub-paths.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use node_runtime::volumes::{self, HostPathKind, Source, Volume, VolumeFile};
use node_runtime::{ContainerSpec, Mount, Propagation, Security};
use support::*;

fn volume(name: &str, source: Source) -> Volume {
    Volume {
        name: name.into(),
        source,
        fs_group: None,
    }
}

fn files(memory: bool, given: &[(&str, &str, u32)]) -> Source {
    let file = |content: &str, mode| VolumeFile {
        content: content.into(),
        mode,
    };
    Source::Files {
        memory,
        files: given
            .iter()
            .map(|(path, content, mode)| (path.to_string(), file(content, *mode)))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn mount(host: &Path, inside: &str, read_only: bool) -> Mount {
    Mount {
        host_path: host.into(),
        container_path: inside.into(),
        read_only,
        ..Mount::default()
    }
}

#[test]
fn containers_share_what_volumes_hold() {
    on_node(async |node| {
        let folder = node.pods.volumes_folder(POD);
        let make = async |volume| {
            volumes::materialise(&folder, volume)
                .await
                .expect("makes the volume")
        };
        let disk = make(volume(
            "disk",
            Source::EmptyDir {
                memory: false,
                size_bytes_max: None,
            },
        ))
        .await;
        let memory = make(volume(
            "memory",
            Source::EmptyDir {
                memory: true,
                size_bytes_max: Some(1 << 20),
            },
        ))
        .await;
        let secret = make(volume(
            "secret",
            files(true, &[("key", "hidden", 0o400), ("dir/more", "m", 0o644)]),
        ))
        .await;
        let host = make(volume(
            "host",
            Source::HostPath {
                path: node.dir.path().join("host"),
                kind: HostPathKind::DirectoryOrCreate,
            },
        ))
        .await;
        let group = make(Volume {
            fs_group: Some(77),
            ..volume(
                "group",
                Source::EmptyDir {
                    memory: false,
                    size_bytes_max: None,
                },
            )
        })
        .await;
        let mounts = vec![
            mount(&disk, "/disk", false),
            mount(&memory, "/memory", false),
            mount(&secret, "/etc/secret", true),
            mount(&host, "/host", false),
            mount(&group, "/group", false),
        ];
        let write = "echo a > /disk/a; echo b > /host/b; df /memory | tail -1 | grep -c 1024; touch /etc/secret/x 2>&1; stat -c '%a %g' /group; touch /group/f; stat -c %g /group/f; cat /etc/secret/key; dd if=/dev/zero of=/memory/z bs=1M count=2 2>&1 | grep -c 'No space'";
        let (_, exit) = run(
            &node,
            ContainerSpec {
                mounts: mounts.clone(),
                ..script(&node, "a", write)
            },
        )
        .await;
        let lines: Vec<String> = log(&node, "a")
            .iter()
            .map(|line| line.replace("stdout F ", ""))
            .collect();
        assert_eq!(exit.code, 0, "{lines:?}");
        assert_eq!(
            lines,
            [
                "1",
                "touch: /etc/secret/x: Read-only file system",
                "2777 77",
                "77",
                "hidden1"
            ]
        );
        let (_, exit) = run(
            &node,
            ContainerSpec {
                mounts: mounts.clone(),
                ..script(&node, "b", "cat /disk/a /host/b /etc/secret/dir/more")
            },
        )
        .await;
        assert_eq!(
            (exit.code, log(&node, "b")),
            (0, words(&["stdout F a", "stdout F b", "stdout F m"]))
        );
        assert!(volumes::disk_usage(&disk).await.expect("measures").bytes >= 4096);

        let id = node
            .pods
            .start_container(
                POD,
                ContainerSpec {
                    mounts,
                    ..script(&node, "c", "sleep 60")
                },
            )
            .await
            .expect("starts");
        make(volume("secret", files(true, &[("key", "changed", 0o400)]))).await;
        assert_eq!(
            exec(&node, &id, "cat /etc/secret/key; ls /etc/secret").await,
            (0, "changedkey\n".into()),
            "an update is seen, whole"
        );
        volumes::teardown(&folder, "memory")
            .await
            .expect("tears down");
        volumes::teardown(&folder, "memory")
            .await
            .expect("again is fine");
    });
}

#[test]
fn a_sub_path_cannot_lead_out_of_its_volume() {
    on_node(async |node| {
        let folder = node.pods.volumes_folder(POD);
        let disk = volumes::materialise(
            &folder,
            volume(
                "disk",
                Source::EmptyDir {
                    memory: false,
                    size_bytes_max: None,
                },
            ),
        )
        .await
        .expect("makes");
        std::fs::create_dir(disk.join("real")).expect("makes");
        std::fs::write(disk.join("real/file"), "content").expect("writes");
        symlink("real", disk.join("inside")).expect("links");
        symlink("/etc", disk.join("outside")).expect("links");
        symlink("../../..", disk.join("above")).expect("links");
        for (path, good) in [
            ("real", true),
            ("inside/file", true),
            ("new/deep", true),
            ("outside", false),
            ("outside/passwd", false),
            ("above/x", false),
            ("../x", false),
            ("/etc", false),
        ] {
            let result = volumes::sub_path(&folder, &disk, path).await;
            assert_eq!(result.is_ok(), good, "{path}: {result:?}");
        }
        let file = volumes::sub_path(&folder, &disk, "inside/file")
            .await
            .expect("again is fine");
        let (_, exit) = run(
            &node,
            ContainerSpec {
                mounts: vec![mount(&file, "/f", true)],
                ..script(&node, "a", "cat /f")
            },
        )
        .await;
        assert_eq!(
            (exit.code, log(&node, "a")),
            (0, words(&["stdout F content"]))
        );
    });
}

#[test]
fn files_sockets_and_devices_can_be_mounted_over_what_is_there() {
    on_node(async |node| {
        let message = node.dir.path().join("message");
        std::fs::write(&message, "").expect("writes");
        let mounts = vec![
            mount(&message, "/dev/termination-log", false),
            mount(Path::new("/dev/zero"), "/dev/mine", true),
        ];
        let (_, exit) = run(
            &node,
            ContainerSpec {
                mounts,
                ..script(
                    &node,
                    "a",
                    "echo done > /dev/termination-log; head -c 3 /dev/mine | wc -c",
                )
            },
        )
        .await;
        assert_eq!((exit.code, log(&node, "a")), (0, words(&["stdout F 3"])));
        assert_eq!(std::fs::read_to_string(&message).expect("reads"), "done\n");
    });
}

#[test]
fn mounts_propagate_as_asked() {
    on_node(async |node| {
        let shared = node.dir.path().join("shared");
        std::fs::create_dir_all(shared.join("in")).expect("makes");
        let run_mount = |arguments: &[&str]| {
            let path = shared.to_str().expect("text");
            let all: Vec<&str> = arguments
                .iter()
                .map(|word| if *word == "." { path } else { word })
                .collect();
            assert!(
                std::process::Command::new("mount")
                    .args(all)
                    .status()
                    .expect("runs mount")
                    .success()
            );
        };
        run_mount(&["--bind", ".", "."]);
        run_mount(&["--make-shared", "."]);
        let both = Mount {
            propagation: Propagation::Bidirectional,
            ..mount(&shared, "/shared", false)
        };
        let security = Security {
            privileged: true,
            ..Security::default()
        };
        let id = node.pods.start_container(POD, ContainerSpec { mounts: vec![both], security, ..script(&node, "a", "mount -t tmpfs t /shared/in && touch /shared/in/seen; echo ready; sleep 60") }).await.expect("starts");
        while log(&node, "a").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let seen = shared.join("in/seen").exists();
        node.pods.remove_container(POD, &id).await.expect("removes");
        for point in [shared.join("in"), shared.clone()] {
            let _ = std::process::Command::new("umount")
                .arg("-l")
                .arg(point)
                .stderr(std::process::Stdio::null())
                .status();
        }
        assert!(seen, "the node sees the container's mount");
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("reads");
        assert!(
            !mounts.contains(&id),
            "nothing of the container stays mounted:\n{mounts}"
        );
    });
}
