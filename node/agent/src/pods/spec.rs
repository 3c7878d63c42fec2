//! From the API's pod to what the runtime is asked for. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddrV4};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    Container, PodSecurityContext, SeccompProfile, SecurityContext, VolumeMount,
};
use lifecycle::{ContainerView, Desired, env, resources};
use network::HostPort;
use network::resolv::{self, DnsPolicy, HostsBase, ResolvConf};
use node_runtime::{
    ContainerId, ContainerSpec, Limits, Mount, PidNamespace, PodSpec, Propagation, Qos, Seccomp,
    Security,
};

use crate::net::services::protocol;

/// The label that carries the back-off over restarts of the agent.
pub const LEVEL_LABEL: &str = "trireme/level";
/// The label that carries the image as the pod named it.
pub const IMAGE_LABEL: &str = "trireme/image";
/// The label that carries the resources that the container was given, as JSON.
pub const RESOURCES_LABEL: &str = "trireme/resources";
const HOST_NAME_LEN_MAX: usize = 63;

/// What a sandbox needs to know of the cluster and the node.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The domain of services' names.
    pub cluster_domain: String,
    /// Where pods ask for names.
    pub dns_address: Option<IpAddr>,
    /// The text of the node's `/etc/resolv.conf`.
    pub node_resolv: String,
    /// The text of the node's `/etc/hosts`.
    pub node_hosts: String,
    /// Bytes of the node's memory.
    pub memory_bytes: i64,
}

/// The pod's sandbox; `netns` and `ip` are none on the host's network.
pub fn sandbox(
    desired: &Desired,
    netns: Option<PathBuf>,
    ip: Option<IpAddr>,
    around: &Surroundings,
) -> PodSpec {
    let spec = desired.spec();
    let sysctls = spec
        .security_context
        .as_ref()
        .and_then(|context| context.sysctls.as_ref());
    PodSpec {
        uid: desired.uid.clone(),
        namespace: desired.namespace.clone(),
        name: desired.name.clone(),
        hostname: (!desired.host_network()).then(|| hostname(desired)),
        netns,
        host_ipc: spec.host_ipc.unwrap_or(false),
        share_pid: desired.shares_pids(),
        qos: qos(desired),
        limits: limits(resources::pod_limits(spec)),
        resolv_conf: Some(resolv_conf(desired, around)),
        hosts: Some(hosts(desired, ip, around)),
        sysctls: sysctls
            .into_iter()
            .flatten()
            .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
            .collect(),
        labels: BTreeMap::new(),
    }
}

fn hostname(desired: &Desired) -> String {
    let name = desired
        .spec()
        .hostname
        .clone()
        .unwrap_or_else(|| desired.name.clone());
    name.chars()
        .take(HOST_NAME_LEN_MAX)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

fn qos(desired: &Desired) -> Qos {
    match resources::qos_class(desired.spec()) {
        resources::QosClass::Guaranteed => Qos::Guaranteed,
        resources::QosClass::Burstable => Qos::Burstable,
        resources::QosClass::BestEffort => Qos::BestEffort,
    }
}

/// As the runtime takes them.
pub fn limits(limits: resources::Limits) -> Limits {
    Limits {
        cpu_shares: Some(limits.cpu_shares),
        cpu_quota_us: limits.cpu_quota_us,
        memory_bytes_max: limits.memory_bytes_max,
        ..Limits::default()
    }
}

fn resolv_conf(desired: &Desired, around: &Surroundings) -> String {
    let spec = desired.spec();
    let policy = match (spec.dns_policy.as_deref(), around.dns_address) {
        (Some("None"), _) => DnsPolicy::None,
        (Some("Default"), _) | (_, None) => DnsPolicy::Default,
        (Some("ClusterFirstWithHostNet"), _) => DnsPolicy::ClusterFirst,
        _ if desired.host_network() => DnsPolicy::Default,
        _ => DnsPolicy::ClusterFirst,
    };
    let own = spec.dns_config.clone().unwrap_or_default();
    let option = |option: k8s_openapi::api::core::v1::PodDNSConfigOption| match (
        option.name,
        option.value,
    ) {
        (Some(name), Some(value)) => Some(format!("{name}:{value}")),
        (name, _) => name,
    };
    let own = ResolvConf {
        nameservers: own.nameservers.unwrap_or_default(),
        searches: own.searches.unwrap_or_default(),
        options: own
            .options
            .unwrap_or_default()
            .into_iter()
            .filter_map(option)
            .collect(),
    };
    let server = around.dns_address.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    resolv::resolv_conf(
        policy,
        &desired.namespace,
        &around.cluster_domain,
        server,
        &ResolvConf::parse(&around.node_resolv),
        &own,
    )
}

fn hosts(desired: &Desired, ip: Option<IpAddr>, around: &Surroundings) -> String {
    let spec = desired.spec();
    let aliases: Vec<(String, Vec<String>)> = spec
        .host_aliases
        .iter()
        .flatten()
        .map(|alias| {
            (
                alias.ip.clone(),
                alias.hostnames.clone().unwrap_or_default(),
            )
        })
        .collect();
    let ips: Vec<IpAddr> = ip.into_iter().collect();
    let hostname = hostname(desired);
    let domain = spec.subdomain.as_ref().map(|subdomain| {
        format!(
            "{subdomain}.{}.svc.{}",
            desired.namespace, around.cluster_domain
        )
    });
    let base = if desired.host_network() {
        HostsBase::Host {
            text: &around.node_hosts,
        }
    } else {
        HostsBase::Pod {
            ips: &ips,
            hostname: &hostname,
            domain: domain.as_deref(),
        }
    };
    resolv::hosts_file(&base, &aliases)
}

/// What one start of a container needs beside the pod.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// How many of this name went before.
    pub attempt: u32,
    /// How far the back-off is.
    pub level: u32,
    /// The environment, resolved.
    pub env: Vec<(String, String)>,
    /// Volumes and files.
    pub mounts: Vec<Mount>,
    /// Where it logs.
    pub log_path: PathBuf,
    /// Bytes of the node's memory.
    pub memory_bytes: i64,
    /// The container whose processes it sees.
    pub target: Option<ContainerId>,
}

/// What a container is remembered by.
pub fn labels(view: &ContainerView<'_>, level: u32) -> BTreeMap<String, String> {
    let resources = serde_json::to_string(&resources::Applied::of(view.spec)).unwrap_or_default();
    [
        (LEVEL_LABEL.to_owned(), level.to_string()),
        (IMAGE_LABEL.to_owned(), view.image().to_owned()),
        (RESOURCES_LABEL.to_owned(), resources),
    ]
    .into()
}

/// A container to be started.
pub fn container(
    view: &ContainerView<'_>,
    desired: &Desired,
    start: Start,
) -> Result<ContainerSpec, String> {
    let spec = view.spec;
    let expand = |words: &Option<Vec<String>>| {
        words
            .iter()
            .flatten()
            .map(|word| env::expand(word, &start.env))
            .collect::<Vec<String>>()
    };
    Ok(ContainerSpec {
        name: spec.name.clone(),
        attempt: start.attempt,
        image: view.image().to_owned(),
        command: expand(&spec.command),
        args: expand(&spec.args),
        working_dir: spec.working_dir.clone(),
        tty: spec.tty.unwrap_or(false),
        stdin: spec.stdin.unwrap_or(false),
        stdin_once: spec.stdin_once.unwrap_or(false),
        security: security(
            desired.spec().security_context.as_ref(),
            spec.security_context.as_ref(),
        )?,
        limits: limits(resources::container_limits(spec)),
        oom_score_adj: resources::oom_score_adj(desired.spec(), spec, start.memory_bytes),
        pid_namespace: match start.target {
            _ if desired.spec().host_pid.unwrap_or(false) => PidNamespace::Host,
            Some(target) if !desired.shares_pids() => PidNamespace::Container(target),
            _ => PidNamespace::Own,
        },
        log_path: Some(start.log_path),
        labels: labels(view, start.level),
        env: start.env,
        mounts: start.mounts,
        ..ContainerSpec::default()
    })
}

fn security(
    pod: Option<&PodSecurityContext>,
    own: Option<&SecurityContext>,
) -> Result<Security, String> {
    let (pod, own) = (
        pod.cloned().unwrap_or_default(),
        own.cloned().unwrap_or_default(),
    );
    let id = |id: Option<i64>| {
        id.map(|id| {
            u32::try_from(id)
                .map_err(|_| format!("user or group {id} is not between 0 and 4294967295"))
        })
        .transpose()
    };
    let groups = pod
        .supplemental_groups
        .unwrap_or_default()
        .into_iter()
        .chain(pod.fs_group);
    let capabilities = own.capabilities.unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    Ok(Security {
        run_as_user: id(own.run_as_user.or(pod.run_as_user))?,
        run_as_group: id(own.run_as_group.or(pod.run_as_group))?,
        run_as_non_root: own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false),
        supplemental_groups: groups
            .filter_map(|group| u32::try_from(group).ok())
            .collect(),
        capabilities_add: capabilities.add.unwrap_or_default(),
        capabilities_drop: capabilities.drop.unwrap_or_default(),
        privileged,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        seccomp: seccomp(
            own.seccomp_profile
                .or(pod.seccomp_profile)
                .filter(|_| !privileged),
        )?,
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

fn seccomp(profile: Option<SeccompProfile>) -> Result<Seccomp, String> {
    match profile {
        None => Ok(Seccomp::Unconfined),
        Some(profile) => match profile.type_.as_str() {
            "Unconfined" => Ok(Seccomp::Unconfined),
            "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
            other => Err(format!(
                "seccomp profile type {other:?} is not supported by this node; use RuntimeDefault or Unconfined"
            )),
        },
    }
}

/// How a volume's mount point is seen from both sides.
pub fn propagation(mount: &VolumeMount) -> Propagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => Propagation::HostToContainer,
        Some("Bidirectional") => Propagation::Bidirectional,
        _ => Propagation::None,
    }
}

/// The node's ports that lead to the pod at `ip`.
pub fn host_ports(desired: &Desired, ip: std::net::Ipv4Addr) -> Vec<HostPort> {
    if desired.host_network() {
        return vec![];
    }
    let of = |container: &Container| {
        let ports = container.ports.clone().unwrap_or_default();
        ports.into_iter().filter_map(|port| {
            let host_port = u16::try_from(port.host_port?)
                .ok()
                .filter(|port| *port > 0)?;
            let target = SocketAddrV4::new(ip, u16::try_from(port.container_port).ok()?);
            let host_ip = port
                .host_ip
                .and_then(|ip| ip.parse::<std::net::Ipv4Addr>().ok())
                .filter(|ip| !ip.is_unspecified());
            Some(HostPort {
                host_ip,
                protocol: protocol(&port.protocol.into()),
                host_port,
                target,
            })
        })
    };
    desired
        .containers()
        .into_iter()
        .flat_map(|view| of(view.spec).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn desired() -> Desired {
        Desired::parse(json!({
            "metadata": { "uid": "u", "name": "db-0", "namespace": "shop" },
            "spec": {
                "subdomain": "db",
                "securityContext": { "runAsUser": 1000, "fsGroup": 2000 },
                "containers": [{
                    "name": "db", "image": "db:1", "command": ["run", "--name=$(NAME)"],
                    "ports": [{ "containerPort": 5432, "hostPort": 15432 }],
                    "securityContext": { "runAsUser": 70, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                }],
            },
        }))
        .expect("a pod")
    }

    #[test]
    fn a_container_overrides_its_pod() {
        let desired = desired();
        let start = Start {
            env: vec![("NAME".into(), "x".into())],
            ..Start::default()
        };
        let spec = container(&desired.containers()[0], &desired, start).expect("translates");
        assert_eq!(spec.command, ["run", "--name=x"]);
        assert_eq!(
            (
                spec.security.run_as_user,
                spec.security.supplemental_groups,
                spec.security.no_new_privileges
            ),
            (Some(70), vec![2000], true)
        );
        assert_eq!(spec.oom_score_adj, 1000);
    }

    #[test]
    fn a_sandbox_has_its_names() {
        let desired = desired();
        let around = Surroundings {
            cluster_domain: "cluster.local".into(),
            dns_address: Some(IpAddr::from([10, 96, 0, 10])),
            ..Surroundings::default()
        };
        let spec = sandbox(&desired, None, Some(IpAddr::from([10, 244, 1, 5])), &around);
        assert!(spec.hosts.is_some_and(|hosts| {
            hosts.contains("10.244.1.5\tdb-0.db.shop.svc.cluster.local\tdb-0")
        }));
        assert!(
            spec.resolv_conf
                .is_some_and(|conf| conf.contains("nameserver 10.96.0.10"))
        );
        let ports = host_ports(&desired, "10.244.1.5".parse().expect("an address"));
        assert_eq!(ports[0].target.to_string(), "10.244.1.5:5432");
    }
}
