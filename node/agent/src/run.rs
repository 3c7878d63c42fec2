//! `node run`: the parts, put together. Order matters: what can fail for good fails first, and pods run as soon as the
//! network is there, whether or not the API answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use client::{Client, Config, Identity};
use lifecycle::eviction::{Config as EvictionConfig, Signal, Threshold};
use network::resolv::ResolvConf;
use network::{DnsConfig, Network};
use node_runtime::{Images, ImagesConfig, Pods, PodsConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::Run;
use crate::context::Context;
use crate::data_dir::{Credentials, DataDir, Settings};
use crate::events::Recorder;
use crate::images::{Collector, Limits};
use crate::machine::Machine;
use crate::net::{feed, host_ports::HostPorts, policies::Policies};
use crate::node_object::{About, Amounts};
use crate::pods::known::{Known, ProbeCounts};
use crate::pods::{manager, spec::Surroundings, tokens::Tokens};
use crate::shutdown::{self, Periods};
use crate::{eviction, heartbeat, join, kubelet, register, renew, stats, tls};

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
    let mut power = signal(SignalKind::from_raw(SIGPWR)).context("cannot listen to SIGPWR")?;
    let (shuts_down, shutting) = watch::channel(false);
    let (serving, mut served) = watch::channel(None);
    let work = async {
        let (settings, credentials) = join::membership(&data, &args, &name, &cgroup_root).await?;
        let node = Serve {
            args: &args,
            data: data.clone(),
            shuts_down: shutting,
            serving,
        };
        serve(node, settings, credentials, listener).await
    };
    let end = async {
        let machine_too = tokio::select! {
            _ = terminated.recv() => shutdown::system_is_stopping().await,
            _ = interrupted.recv() => false,
            _ = power.recv() => true,
        };
        let periods = Periods {
            total: args.shutdown_grace_period,
            critical: args.shutdown_grace_period_critical_pods,
        };
        let context = served.borrow_and_update().clone();
        match context.filter(|_| machine_too && !periods.total.is_zero()) {
            Some(context) => {
                tracing::info!(?periods, "the machine goes down; ending the pods");
                shuts_down.send_replace(true);
                shutdown::end_pods(&context, periods).await;
                Ok(())
            }
            None => stopped(),
        }
    };
    // The work goes on while the pods end.
    tokio::select! {
        result = work => result,
        result = end => result,
    }
}

/// What serving needs beside the node's membership.
struct Serve<'a> {
    args: &'a Run,
    data: DataDir,
    shuts_down: watch::Receiver<bool>,
    /// Told once all is up.
    serving: watch::Sender<Option<Arc<Context>>>,
}

/// Tells of the machine's power failing, or of its being switched off.
const SIGPWR: i32 = 30;

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
    node: Serve<'_>,
    mut settings: Settings,
    credentials: Credentials,
    listener: tokio::net::TcpListener,
) -> anyhow::Result<()> {
    let (args, data) = (node.args, node.data.clone());
    let client = client(&settings, &credentials)?;
    let machine = Machine::detect(&args.data_dir);
    let thresholds = eviction_config(args)?;
    let about = about(args, &settings.name, machine.clone(), &thresholds)?;
    let allocatable = about.allocatable;
    let pods = open_pods(args, &data, &settings).await?;
    let (not_ready, readiness) = watch::channel(Some(
        "container runtime network not ready: no pod network has been assigned to this node yet"
            .to_owned(),
    ));
    let (pressures, pressed) = watch::channel(BTreeSet::new());
    tokio::spawn(register::keep(
        client.clone(),
        about,
        pods.images().clone(),
        readiness,
        pressed.clone(),
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
    let context = Context {
        pressures: pressed,
        shuts_down: node.shuts_down,
        allocatable: lifecycle::Amount {
            cpu_milli: allocatable.cpu_milli,
            memory_bytes: allocatable.memory_bytes,
        },
        ..context(args, &data, &settings, &machine, client, pods, network)?
    };
    let context = Arc::new(context);
    let collector = Arc::new(Collector::new(image_limits(args)?, args.data_dir.clone()));
    tokio::spawn(collector.clone().keep(context.clone()));
    tokio::spawn(eviction::keep(
        context.clone(),
        thresholds,
        args.data_dir.clone(),
        collector,
        pressures,
    ));
    node.serving.send_replace(Some(context.clone()));
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

/// When pods are evicted, by the flags.
fn eviction_config(args: &Run) -> anyhow::Result<EvictionConfig> {
    let mut thresholds = Threshold::hard(&args.eviction_hard).context("--eviction-hard")?;
    let soft = Threshold::soft(&args.eviction_soft, &args.eviction_soft_grace_period);
    thresholds.extend(soft.context("--eviction-soft and --eviction-soft-grace-period")?);
    Ok(EvictionConfig {
        thresholds,
        pressure_transition_period: args.eviction_pressure_transition_period,
        max_pod_grace_s: args.eviction_max_pod_grace_period,
    })
}

fn image_limits(args: &Run) -> anyhow::Result<Limits> {
    let (high_percent, low_percent) = (args.image_gc_high_threshold, args.image_gc_low_threshold);
    if low_percent > high_percent {
        bail!(
            "--image-gc-low-threshold {low_percent} is above --image-gc-high-threshold {high_percent}"
        );
    }
    Ok(Limits {
        high_percent,
        low_percent,
        age_min: args.minimum_image_ttl_duration,
    })
}

/// What a machine has for pods: without what is reserved, and without what must be left.
fn allocatable(args: &Run, machine: &Machine, config: &EvictionConfig) -> Amounts {
    let all = Amounts::of(machine);
    let left = |signal: Signal, capacity: i64| {
        let hard = config.thresholds.iter().filter(|it| it.grace.is_none());
        let of_signal = hard.filter(|it| it.signal == signal);
        let capacity = u64::try_from(capacity).unwrap_or(0);
        let left = of_signal.map(|it| it.value.of(capacity)).max();
        i64::try_from(left.unwrap_or(0)).unwrap_or(i64::MAX)
    };
    let left = Amounts {
        cpu_milli: 0,
        memory_bytes: left(Signal::MemoryAvailable, all.memory_bytes),
        disk_bytes: left(Signal::NodefsAvailable, all.disk_bytes),
    };
    all.without(args.system_reserved)
        .without(args.kube_reserved)
        .without(left)
}

fn about(
    args: &Run,
    name: &str,
    machine: Machine,
    config: &EvictionConfig,
) -> anyhow::Result<About> {
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
        allocatable: allocatable(args, &machine, config),
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
        pressures: watch::channel(BTreeSet::new()).1,
        shuts_down: watch::channel(false).1,
        allocatable: lifecycle::Amount::default(),
        boot_id: machine.boot_id.clone(),
        api_service: Some(Ipv4Addr::from(u32::from(service_cidr.network()) + 1)),
    })
}
