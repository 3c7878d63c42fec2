//! `node run`: the parts, put together. Order matters: what can fail for good fails first, and pods run as soon as the
//! network is there, whether or not the API answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use client::{Client, Config, Identity};
use network::resolv::ResolvConf;
use network::{DnsConfig, Network};
use node_runtime::{Images, ImagesConfig, Pods, PodsConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::Run;
use crate::context::Context;
use crate::data_dir::{Credentials, DataDir, Settings};
use crate::events::Recorder;
use crate::machine::Machine;
use crate::net::{feed, host_ports::HostPorts, policies::Policies};
use crate::node_object::About;
use crate::pods::known::{Known, ProbeCounts};
use crate::pods::{manager, spec::Surroundings, tokens::Tokens};
use crate::{heartbeat, join, kubelet, register, renew, stats, tls};

const RETRY_AFTER: Duration = Duration::from_secs(3);
const DNS_PORT: u16 = 53;
const CGROUP_ROOT_LEN_MAX: usize = 100;

/// Runs until SIGTERM or SIGINT; pods run on.
pub async fn run(args: Run) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("running pods needs root: start `node run` as root");
    }
    let name = name(&args)?;
    let cgroup_root = args
        .cgroup_root
        .clone()
        .unwrap_or_else(|| cgroup_root(&name));
    let data = DataDir::open(&args.data_dir)?;
    let _lock = data.lock()?;
    let listener = kubelet::bind(args.kubelet_port).await?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let work = async {
        let (settings, credentials) = join::membership(&data, &args, &name, &cgroup_root).await?;
        serve(&args, data.clone(), settings, credentials, listener).await
    };
    tokio::select! {
        result = work => result,
        _ = terminated.recv() => stopped(),
        _ = interrupted.recv() => stopped(),
    }
}

fn stopped() -> anyhow::Result<()> {
    tracing::info!("stopped; the pods run on");
    Ok(())
}

fn name(args: &Run) -> anyhow::Result<String> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .to_lowercase(),
    };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.is_empty() || name.len() > 253 || !name.chars().all(fits) {
        bail!(
            "{name:?} is no node name: give one of lower-case letters, digits, '-' and '.' with --name"
        );
    }
    Ok(name)
}

/// Several agents of one machine need different ones; a cgroup's name here has no dots.
fn cgroup_root(name: &str) -> String {
    format!("trireme-{}", name.replace('.', "-"))
        .chars()
        .take(CGROUP_ROOT_LEN_MAX)
        .collect()
}

fn client(settings: &Settings, credentials: &Credentials) -> anyhow::Result<Client> {
    let identity = Identity {
        certificate_pem: credentials.certificate_pem.clone(),
        key_pem: credentials.key_pem.clone(),
    };
    let config = Config {
        servers: settings.masters.clone(),
        ca_pem: credentials.ca_pem.clone(),
        identity: Some(identity),
        ..Config::default()
    };
    Client::new(&config)
        .context("cannot set up the client of the API; the saved certificates may be damaged")
}

async fn serve(
    args: &Run,
    data: DataDir,
    mut settings: Settings,
    credentials: Credentials,
    listener: tokio::net::TcpListener,
) -> anyhow::Result<()> {
    let client = client(&settings, &credentials)?;
    let machine = Machine::detect(&args.data_dir);
    let about = about(args, &settings.name, machine.clone())?;
    let pods = open_pods(args, &data, &settings).await?;
    let (not_ready, readiness) = watch::channel(Some(
        "container runtime network not ready: no pod network has been assigned to this node yet"
            .to_owned(),
    ));
    tokio::spawn(register::keep(
        client.clone(),
        about,
        args.data_dir.clone(),
        readiness,
    ));
    tokio::spawn(heartbeat::renew(client.clone(), settings.name.clone()));
    tokio::spawn(heartbeat::follow_masters(client.clone(), data.clone()));
    let serving = Arc::new(tls::Serving::new(&credentials)?);
    tokio::spawn(renew::keep(
        client.clone(),
        data.clone(),
        settings.name.clone(),
        args.address.to_string(),
        serving.clone(),
        args.renew_certificate,
    ));
    if settings.pod_cidr.is_none() {
        settings.pod_cidr = Some(feed::own_pod_cidr(&client, &settings.name).await);
        // The list of masters may have been saved meanwhile.
        let saved = data.settings()?.unwrap_or_else(|| settings.clone());
        data.save_settings(&Settings {
            pod_cidr: settings.pod_cidr.clone(),
            ..saved
        })?;
    }
    let network = Arc::new(open_network(&data, &settings).await?);
    let context = Arc::new(context(
        args, &data, &settings, &machine, client, pods, network,
    )?);
    tokio::spawn(feed::follow_nodes(
        context.client.clone(),
        context.network.clone(),
    ));
    tokio::spawn(feed::follow_services(
        context.client.clone(),
        context.network.clone(),
    ));
    tokio::spawn(context.host_ports.clone().sync(context.network.clone()));
    tokio::spawn(stats::keep(context.clone(), args.data_dir.clone()));
    tokio::spawn(kubelet::serve(
        listener,
        tls::server(&credentials, serving)?,
        context.clone(),
    ));
    not_ready.send_replace(None);
    tracing::info!(node = %context.node, "ready");
    manager::run(context).await;
    Ok(())
}

async fn open_pods(args: &Run, data: &DataDir, settings: &Settings) -> anyhow::Result<Pods> {
    let config = ImagesConfig {
        insecure_registries: args.insecure_registry.clone(),
        ..ImagesConfig::new(data.path("images"))
    };
    let images = Images::open(config).context("cannot open the images")?;
    let mut config = PodsConfig {
        cgroup_root: settings.cgroup_root.clone(),
        ..PodsConfig::new(data.path("run"))
    };
    if let Some(shim) = &args.shim {
        config.shim.clone_from(shim);
    }
    let shim = config.shim.clone();
    Pods::open(config, images)
        .await
        .with_context(|| format!("cannot open the pods with the shim {}", shim.display()))
}

/// The network as the cluster wants it; none before a pod network was assigned.
pub fn network_config(
    data: &DataDir,
    settings: &Settings,
) -> anyhow::Result<Option<network::Config>> {
    let Some(pod_cidr) = &settings.pod_cidr else {
        return Ok(None);
    };
    let damaged = |what: &'static str| {
        format!(
            "the saved {what} is damaged; remove settings.json in the data directory to join anew"
        )
    };
    let address: Ipv4Addr = settings
        .address
        .parse()
        .with_context(|| damaged("address"))?;
    let pod_cidr = pod_cidr.parse().with_context(|| damaged("pod network"))?;
    let mut config = network::Config::new(settings.name.clone(), address, pod_cidr);
    config.cluster_cidr = settings
        .cluster_cidr
        .parse()
        .with_context(|| damaged("network of all pods"))?;
    config.service_cidr = settings
        .service_cidr
        .parse()
        .with_context(|| damaged("network of services"))?;
    config.state_dir = data.path("network");
    config.netns_dir = data.path("netns");
    config.dns = Some(DnsConfig {
        domain: settings.cluster_domain.clone(),
        port: DNS_PORT,
        service_ip: settings.dns_address.parse().ok(),
        upstreams: upstreams(),
    });
    Ok(Some(config))
}

fn upstreams() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    ResolvConf::parse(&text)
        .servers()
        .into_iter()
        .map(|server| SocketAddr::new(server, DNS_PORT))
        .collect()
}

/// Tries until it works: a link may come later than the agent.
async fn open_network(data: &DataDir, settings: &Settings) -> anyhow::Result<Network> {
    let config = network_config(data, settings)?.context("no pod network has been assigned")?;
    for folder in [&config.state_dir, &config.netns_dir] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    loop {
        match Network::open(config.clone()).await {
            Ok(network) => return Ok(network),
            Err(error @ network::Error::Config(_)) => {
                return Err(error).context("the pods' network cannot be opened");
            }
            Err(error) => tracing::error!(%error, "cannot open the pods' network; trying again"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

fn about(args: &Run, name: &str, machine: Machine) -> anyhow::Result<About> {
    let label = |label: &String| -> anyhow::Result<(String, String)> {
        let (key, value) = label
            .split_once('=')
            .with_context(|| format!("--node-label {label:?} is not KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    Ok(About {
        name: name.to_owned(),
        address: args.address.to_string(),
        kubelet_port: args.kubelet_port,
        max_pods: args.max_pods,
        labels: args
            .labels
            .iter()
            .map(label)
            .collect::<anyhow::Result<_>>()?,
        machine,
    })
}

fn context(
    args: &Run,
    data: &DataDir,
    settings: &Settings,
    machine: &Machine,
    client: Client,
    pods: Pods,
    network: Arc<Network>,
) -> anyhow::Result<Context> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    for folder in ["logs", "messages"] {
        std::fs::create_dir_all(data.path(folder))
            .with_context(|| format!("cannot make {}", data.path(folder).display()))?;
    }
    // What an import left half received.
    let _ = std::fs::remove_dir_all(data.path("tmp"));
    let service_cidr = network.config().service_cidr;
    Ok(Context {
        node: settings.name.clone(),
        address: args.address,
        events: Recorder::start(client.clone(), settings.name.clone()),
        policies: Policies::start(client.clone(), network.clone()),
        client,
        pods,
        network,
        tokens: Tokens::default(),
        known: Known::default(),
        probe_counts: ProbeCounts::default(),
        stats: stats::Store::default(),
        host_ports: HostPorts::default(),
        logs: data.path("logs"),
        messages: data.path("messages"),
        around: Surroundings {
            cluster_domain: settings.cluster_domain.clone(),
            dns_address: settings.dns_address.parse::<IpAddr>().ok(),
            node_resolv: read("/etc/resolv.conf"),
            node_hosts: read("/etc/hosts"),
            memory_bytes: machine.memory_bytes,
        },
        cpu_milli: i64::from(machine.cpus) * 1000,
        boot_id: machine.boot_id.clone(),
        api_service: Some(Ipv4Addr::from(u32::from(service_cidr.network()) + 1)),
    })
}
