use super::*;

fn image(entrypoint: &[&str], cmd: &[&str]) -> ImageConfig {
    ImageConfig {
        entrypoint: Some(words(entrypoint)),
        cmd: Some(words(cmd)),
        ..ImageConfig::default()
    }
}

fn words(given: &[&str]) -> Vec<String> {
    given.iter().map(|word| word.to_string()).collect()
}

#[test]
fn command_and_args_override_as_documented() {
    // The table of kubernetes.io, "Define a Command and Arguments for a Container".
    let image = image(&["/ep-1"], &["foo", "bar"]);
    for (command, args, expected) in [
        (&[][..], &[][..], &["/ep-1", "foo", "bar"][..]),
        (&["/ep-2"], &[], &["/ep-2"]),
        (&[], &["zoo", "boo"], &["/ep-1", "zoo", "boo"]),
        (&["/ep-2"], &["zoo", "boo"], &["/ep-2", "zoo", "boo"]),
    ] {
        assert_eq!(
            command_line(&image, &words(command), &words(args)),
            words(expected)
        );
    }
}

#[test]
fn environment_of_the_container_wins_and_path_is_always_there() {
    let image = ImageConfig {
        env: Some(words(&["A=1", "B=2"])),
        ..ImageConfig::default()
    };
    let own = [
        ("B".to_string(), "x=y".to_string()),
        ("C".to_string(), String::new()),
    ];
    assert_eq!(
        environment(&image, &own),
        ["A=1", "B=x=y", "C=", DEFAULT_PATH]
    );
}

#[test]
fn capabilities_are_dropped_then_added() {
    let names = |drop: &[&str], add: &[&str]| {
        let security = Security {
            capabilities_drop: words(drop),
            capabilities_add: words(add),
            ..Security::default()
        };
        capabilities(&security).map(|set| set.join(" "))
    };
    assert_eq!(
        names(&["ALL"], &["net_admin", "CAP_CHOWN"]).expect("known"),
        "CAP_CHOWN CAP_NET_ADMIN"
    );
    assert_eq!(names(&[], &[]).expect("known").split(' ').count(), 14);
    assert_eq!(
        names(&["KILL"], &["ALL"])
            .expect("known")
            .split(' ')
            .count(),
        41
    );
    assert!(
        names(&[], &["FLY"])
            .expect_err("unknown")
            .to_string()
            .contains("unknown capability")
    );
}

fn around<'a>(
    image: &'a ImageConfig,
    sysctls: &'a BTreeMap<String, String>,
    cgroup_v2: bool,
) -> Surroundings<'a> {
    Surroundings {
        image,
        user: User {
            uid: 7,
            gid: 8,
            groups: vec![8, 9],
        },
        rootfs: Path::new("/c/rootfs"),
        cgroup_path: "/trireme/burstable/podx/c",
        cgroup_v2,
        namespaces: vec![("pid", None), ("network", Some("/var/run/netns/x".into()))],
        pod_mounts: vec![Mount {
            host_path: "/p/hosts".into(),
            container_path: "/etc/hosts".into(),
            ..Mount::default()
        }],
        sysctls,
        host_devices: vec![],
        machine: Machine {
            capabilities: !(1 << 24),
            nofile_max: 20_000,
            oom_score_adj_min: 0,
        },
    }
}

#[test]
fn a_spec_avoids_the_traps() {
    let (image, sysctls) = (image(&["/run"], &[]), BTreeMap::new());
    let limits = Limits {
        memory_bytes_max: Some(1 << 20),
        cpu_quota_us: Some(50_000),
        ..Limits::default()
    };
    let container = ContainerSpec {
        limits,
        oom_score_adj: 1000,
        ..ContainerSpec::default()
    };
    let spec = runtime_spec(&container, &around(&image, &sysctls, false)).expect("valid");
    assert_eq!(spec["process"]["user"]["additionalGids"], json!([8, 9]));
    assert_eq!(spec["process"]["oomScoreAdj"], json!(1000));
    assert!(spec["process"].get("noNewPrivileges").is_none());
    assert_eq!(
        spec["linux"]["resources"]["devices"][0],
        json!({ "allow": false, "access": "rwm" })
    );
    assert_eq!(
        spec["linux"]["resources"]["cpu"],
        json!({ "quota": 50_000, "period": 100_000 })
    );
    assert!(!spec["mounts"].to_string().contains("/sys/fs/cgroup"));
    let spec = runtime_spec(&container, &around(&image, &sysctls, true)).expect("valid");
    assert!(spec["mounts"].to_string().contains("/sys/fs/cgroup"));
    assert_eq!(
        spec["linux"]["resources"]["unified"]["memory.oom.group"],
        "1"
    );
}

#[test]
fn what_the_machine_cannot_give_is_not_asked_for() {
    let (image, sysctls) = (image(&["/run"], &[]), BTreeMap::new());
    let security = Security {
        privileged: true,
        ..Security::default()
    };
    let container = ContainerSpec {
        security,
        oom_score_adj: -998,
        ..ContainerSpec::default()
    };
    let spec = runtime_spec(&container, &around(&image, &sysctls, false)).expect("valid");
    assert_eq!(
        spec["process"]["capabilities"]["bounding"]
            .as_array()
            .expect("a list")
            .len(),
        40
    );
    assert_eq!(
        spec["process"]["rlimits"][0],
        json!({ "type": "RLIMIT_NOFILE", "soft": 20_000, "hard": 20_000 })
    );
    assert_eq!(spec["process"]["oomScoreAdj"], json!(0));
}

#[test]
fn inner_mounts_come_after_outer_ones_and_own_ones_replace_the_pods() {
    let (image, sysctls) = (image(&["/run"], &[]), BTreeMap::new());
    let mount = |host: &str, inside: &str| Mount {
        host_path: host.into(),
        container_path: inside.into(),
        ..Mount::default()
    };
    let container = ContainerSpec {
        mounts: vec![
            mount("/v/b", "/data/inner"),
            mount("/v/h", "/etc/hosts"),
            mount("/v/a", "/data"),
        ],
        ..ContainerSpec::default()
    };
    let spec = runtime_spec(&container, &around(&image, &sysctls, false)).expect("valid");
    let sources: Vec<&str> = spec["mounts"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|mount| mount["type"] == "bind")
        .filter_map(|mount| mount["source"].as_str())
        .collect();
    assert_eq!(sources, ["/v/a", "/v/b", "/v/h"]);
}

#[test]
fn nothing_to_run_is_told() {
    let (image, sysctls) = (ImageConfig::default(), BTreeMap::new());
    let error = runtime_spec(&ContainerSpec::default(), &around(&image, &sysctls, false))
        .expect_err("nothing to run");
    assert!(error.to_string().contains("no command specified"));
    assert_eq!(error.reason(), "CreateContainerConfigError");
}
