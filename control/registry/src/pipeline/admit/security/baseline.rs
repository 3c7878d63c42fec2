//! The checks of the level `baseline`: nothing by which a pod is known to take the node over. In the order in which Kubernetes
//! tells them. Rules: its Pod Security Standards.

use super::view::{
    PodView, Violation, containers, context_of, flag, plural, quoted, text_at, unique,
};
use crate::strategy::edit::{
    Members, read_flag, read_map, read_maps, read_number, read_text, read_texts,
};

/// All checks, each with the minor version of Kubernetes from which on it is made.
pub const CHECKS: [(u32, super::Check); 12] = [
    (0, apparmor),
    (0, capabilities),
    (0, host_namespaces),
    (0, host_paths),
    (0, host_ports),
    (34, probe_hosts),
    (0, privileged),
    (0, proc_mount),
    (0, selinux),
    (19, seccomp),
    (0, sysctls),
    (0, host_process),
];

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kernel parameters of the pod alone, each with the minor version from which on it may be set.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const SELINUX_TYPES: [&str; 4] = ["", "container_init_t", "container_kvm_t", "container_t"];
const SELINUX_ENGINE: (&str, u32) = ("container_engine_t", 31);
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

fn apparmor(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let unconfined = |context: &Members| {
        let kind = text_at(context, ["appArmorProfile", "type"]);
        kind.is_some_and(|kind| !matches!(kind, "RuntimeDefault" | "Localhost"))
    };
    let mut found: Vec<String> = Vec::new();
    if let Some(setters) = pod.setters(unconfined) {
        found.push(format!(
            "{setters} must not set AppArmor profile type to \"Unconfined\""
        ));
    }
    for (key, profile) in pod.annotations {
        let allowed =
            profile.is_empty() || profile == "runtime/default" || profile.starts_with("localhost/");
        if key.starts_with(APPARMOR_ANNOTATION) && !allowed {
            found.push(format!("{key}={profile:?}"));
        }
    }
    let reason = plural("forbidden AppArmor profile", found.len());
    (!found.is_empty()).then(|| Violation::new(reason, found.join(", ")))
}

fn capabilities(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    added_capabilities(pod, &CAPABILITIES)
        .map(|detail| Violation::new("non-default capabilities", detail))
}

/// Which containers add capabilities beyond these.
pub fn added_capabilities(pod: &PodView<'_>, allowed: &[&str]) -> Option<String> {
    let mut added = Vec::new();
    let names = pod.containers().filter_map(|container| {
        let context = context_of(container)?;
        let capabilities = read_map(context, "capabilities")?;
        let before = added.len();
        added.extend(read_texts(capabilities, "add").filter(|name| !allowed.contains(name)));
        (added.len() > before).then(|| read_text(container, "name"))
    });
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return None;
    }
    Some(format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers(&names),
        quoted(&unique(added))
    ))
}

fn host_namespaces(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|name| read_flag(pod.spec, name))
        .map(|name| format!("{name}=true"))
        .collect();
    (!shared.is_empty()).then(|| Violation::new("host namespaces", shared.join(", ")))
}

fn host_paths(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let names: Vec<&str> = read_maps(pod.spec, "volumes")
        .filter(|(_, volume)| volume.get("hostPath").is_some_and(|path| !path.is_null()))
        .map(|(_, volume)| read_text(volume, "name"))
        .collect();
    (!names.is_empty()).then(|| {
        let detail = format!("{} {}", plural("volume", names.len()), quoted(&names));
        Violation::new("hostPath volumes", detail)
    })
}

fn host_ports(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let mut taken = Vec::new();
    let names = pod.containers().filter_map(|container| {
        let before = taken.len();
        taken.extend(
            read_maps(container, "ports")
                .filter_map(|(_, port)| read_number(port, "hostPort"))
                .filter(|port| *port != 0),
        );
        (taken.len() > before).then(|| read_text(container, "name"))
    });
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return None;
    }
    taken.sort_unstable();
    taken.dedup();
    let ports: Vec<String> = taken.iter().map(i64::to_string).collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        if names.len() == 1 { "uses" } else { "use" },
        plural("hostPort", ports.len()),
        ports.join(", ")
    );
    Some(Violation::new("hostPort", detail))
}

fn probe_hosts(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let mut hosts = Vec::new();
    let names = pod.containers().filter_map(|container| {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"];
        let probes = probes.iter().filter_map(|name| read_map(container, name));
        let hooks = read_map(container, "lifecycle").into_iter();
        let hooks = hooks.flat_map(|hooks| {
            let names = ["postStart", "preStop"];
            names.into_iter().filter_map(|name| read_map(hooks, name))
        });
        let before = hosts.len();
        for asks in probes.chain(hooks) {
            let given = ["httpGet", "tcpSocket"];
            let given = given
                .iter()
                .filter_map(|kind| text_at(asks, [kind, "host"]));
            hosts.extend(given.filter(|host| !host.is_empty()));
        }
        (hosts.len() > before).then(|| read_text(container, "name"))
    });
    let names = unique(names.collect());
    if names.is_empty() {
        return None;
    }
    let hosts = unique(hosts);
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        if names.len() == 1 { "uses" } else { "use" },
        plural("probe or lifecycle host", hosts.len()),
        quoted(&hosts)
    );
    Some(Violation::new("probe or lifecycle host", detail))
}

fn privileged(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let names = pod.names(|container| {
        context_of(container).is_some_and(|context| read_flag(context, "privileged"))
    });
    (!names.is_empty()).then(|| {
        let detail = format!(
            "{} must not set securityContext.privileged=true",
            containers(&names)
        );
        Violation::new("privileged", detail)
    })
}

fn proc_mount(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let kind = |container| {
        let kind = context_of(container).map_or("", |context| read_text(context, "procMount"));
        (!matches!(kind, "" | "Default")).then_some(kind)
    };
    let names = pod.names(|container| kind(container).is_some());
    if names.is_empty() {
        return None;
    }
    let kinds = unique(pod.containers().filter_map(kind).collect());
    let detail = format!(
        "{} must not set securityContext.procMount to {}",
        containers(&names),
        quoted(&kinds)
    );
    Some(Violation::new("procMount", detail))
}

fn selinux(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    let (mut types, mut user, mut role) = (Vec::new(), false, false);
    let setters = pod.setters(|context| {
        let Some(options) = read_map(context, "seLinuxOptions") else {
            return false;
        };
        let kind = read_text(options, "type");
        let engine = kind == SELINUX_ENGINE.0 && minor >= SELINUX_ENGINE.1;
        let bad_type = !SELINUX_TYPES.contains(&kind) && !engine;
        let (sets_user, sets_role) = (
            !read_text(options, "user").is_empty(),
            !read_text(options, "role").is_empty(),
        );
        if bad_type {
            types.push(kind);
        }
        user |= sets_user;
        role |= sets_role;
        bad_type || sets_user || sets_role
    })?;
    let mut told = Vec::new();
    let types = unique(types);
    if !types.is_empty() {
        told.push(format!(
            "{} {}",
            plural("type", types.len()),
            quoted(&types)
        ));
    }
    if user {
        told.push("user may not be set".to_owned());
    }
    if role {
        told.push("role may not be set".to_owned());
    }
    let detail = format!(
        "{setters} set forbidden securityContext.seLinuxOptions: {}",
        told.join("; ")
    );
    Some(Violation::new("seLinuxOptions", detail))
}

fn seccomp(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let unconfined =
        |context: &Members| text_at(context, ["seccompProfile", "type"]) == Some("Unconfined");
    let setters = pod.setters(unconfined)?;
    let detail =
        format!("{setters} must not set securityContext.seccompProfile.type to \"Unconfined\"");
    Some(Violation::new("seccompProfile", detail))
}

fn sysctls(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    let allowed = |name: &str| {
        SYSCTLS
            .iter()
            .any(|(known, since)| *known == name && minor >= *since)
    };
    let context = pod.context()?;
    let names: Vec<&str> = read_maps(context, "sysctls")
        .map(|(_, sysctl)| read_text(sysctl, "name"))
        .filter(|name| !allowed(name))
        .collect();
    (!names.is_empty()).then(|| Violation::new("forbidden sysctls", names.join(", ")))
}

fn host_process(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let setters = pod.setters(|context| {
        read_map(context, "windowsOptions")
            .is_some_and(|options| flag(options, "hostProcess") == Some(true))
    })?;
    let detail = format!("{setters} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation::new("hostProcess", detail))
}
