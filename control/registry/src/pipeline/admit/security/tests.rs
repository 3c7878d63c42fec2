use super::*;
use serde_json::{Value, json};

/// What both levels say of a pod with this spec.
fn judged(level: Level, minor: Option<u32>, spec: Value) -> String {
    let annotations = BTreeMap::new();
    let spec = spec.as_object().expect("a map").clone();
    let pod = PodView {
        annotations: &annotations,
        spec: &spec,
    };
    told(&Rules { level, minor }.judge(&pod))
}

fn baseline(spec: Value) -> String {
    judged(Level::Baseline, None, spec)
}

#[test]
fn baseline_refuses_what_takes_the_node_over() {
    let with = |context: Value| json!({"containers": [{"name": "a", "securityContext": context}]});
    for (spec, expected) in [
        (json!({"containers": [{"name": "a"}]}), ""),
        (
            with(json!({"privileged": true})),
            r#"privileged (container "a" must not set securityContext.privileged=true)"#,
        ),
        (
            json!({"hostNetwork": true, "hostPID": true, "containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 8}]}, {"name": "b", "ports": [{"hostPort": 8}]}]}),
            r#"host namespaces (hostNetwork=true, hostPID=true), hostPort (containers "a", "b" use hostPorts 8, 80)"#,
        ),
        (with(json!({"capabilities": {"add": ["CHOWN"]}})), ""),
        (
            with(json!({"capabilities": {"add": ["NET_ADMIN", "SYS_TIME"]}})),
            r#"non-default capabilities (container "a" must not include "NET_ADMIN", "SYS_TIME" in securityContext.capabilities.add)"#,
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}]}),
            r#"hostPath volumes (volume "v")"#,
        ),
        (
            with(json!({"procMount": "Unmasked"})),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}, "containers": [{"name": "a", "securityContext": {"seLinuxOptions": {"role": "r"}}}]}),
            r#"seLinuxOptions (pod and container "a" set forbidden securityContext.seLinuxOptions: type "x"; user may not be set; role may not be set)"#,
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced"}, {"name": "kernel.msgmax"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            with(json!({"windowsOptions": {"hostProcess": true}})),
            r#"hostProcess (container "a" must not set securityContext.windowsOptions.hostProcess=true)"#,
        ),
        (
            with(json!({"appArmorProfile": {"type": "Unconfined"}})),
            r#"forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")"#,
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "b"}}}}]}),
            r#"probe or lifecycle host (container "a" uses probe or lifecycle hosts "10.0.0.1", "b")"#,
        ),
    ] {
        assert_eq!(baseline(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn restricted_wants_what_hardened_pods_have() {
    let plain = json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]});
    assert_eq!(
        judged(Level::Restricted, None, plain),
        r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]), restricted volume types (volume "v" uses restricted volume type "hostPath"), runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
    );
    let hardened = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
        "volumes": [{"name": "v", "secret": {}}],
    });
    assert_eq!(judged(Level::Restricted, None, hardened.clone()), "");
    let mut bad = hardened;
    bad["securityContext"]["runAsNonRoot"] = json!(false);
    bad["securityContext"]["runAsUser"] = json!(0);
    bad["containers"][0]["securityContext"]["seccompProfile"] = json!({"type": "Unconfined"});
    bad["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["CHOWN"]);
    assert_eq!(
        judged(Level::Restricted, None, bad),
        r#"unrestricted capabilities (container "a" must not include "CHOWN" in securityContext.capabilities.add), runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0), seccompProfile (container "a" must not set securityContext.seccompProfile.type to "Unconfined")"#
    );
}

#[test]
fn versions_keep_the_rules_of_their_time() {
    let probe = json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "b"}}}]});
    assert_eq!(judged(Level::Baseline, Some(33), probe.clone()), "");
    assert_ne!(judged(Level::Baseline, Some(34), probe), "");
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
    assert_ne!(judged(Level::Baseline, Some(31), sysctl.clone()), "");
    assert_eq!(judged(Level::Baseline, Some(32), sysctl), "");
    for (text, version) in [
        ("latest", Some(None)),
        ("v1.35", Some(Some(35))),
        ("v1.035", None),
        ("1.35", None),
        ("v1.x", None),
    ] {
        assert_eq!(parse_version(text), version, "{text}");
    }
}
