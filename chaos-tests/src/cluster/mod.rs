//! A cluster of real processes, each on a machine of its own as far as the network goes; to be broken at will.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let mut cluster = chaos::cluster::Cluster::start(chaos::cluster::Options::masters(3)?).await?;
//! let leader = cluster.wait_for_leader().await?.name;
//! cluster.kill(&leader).await?;
//! cluster.start_machine(&leader)?;
//! cluster.wait_until_whole().await?;
//! # Ok(()) }
//! ```
//!
//! Dropping it ends the processes and removes namespaces, bridge and data; the logs stay where the options say.

mod binaries;
mod net;
mod probe;
mod process;

pub use binaries::{Binaries, VARIABLE as BINARIES_VARIABLE};
pub use net::run_with_input;
pub(crate) use net::{free_network, is_gone, sweep};
pub use probe::{Leader, Probe};

use crate::machines::{self, Machines};
use anyhow::{Context, Result, bail};
use client::{Client, Config};
use net::Network;
use nix::sys::signal::Signal;
pub(crate) use process::Process;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(50);
const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// What to start.
pub struct Options {
    /// Where the programs are.
    pub binaries: Binaries,
    /// How many masters: m1, m2, ….
    pub masters: u8,
    /// Where logs stay; None keeps them with the data, which goes.
    pub logs: Option<PathBuf>,
}

impl Options {
    /// Masters of the programs found by [`Binaries::find`].
    pub fn masters(masters: u8) -> Result<Self> {
        Ok(Options {
            binaries: Binaries::find()?,
            masters,
            logs: None,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Master,
    Node,
}

struct Machine {
    role: Role,
    address: Ipv4Addr,
    process: Option<Process>,
}

impl machines::Machine for Machine {
    fn process(&mut self) -> &mut Option<Process> {
        &mut self.process
    }

    fn running(&self) -> Option<&Process> {
        self.process.as_ref()
    }
}

/// The cluster.
pub struct Cluster {
    // Fields drop in this order: processes, then their network, then their data.
    machines: Machines<Machine>,
    network: Network,
    binaries: Binaries,
    config: Config,
    data: tempfile::TempDir,
}

impl Cluster {
    /// Starts masters and waits until all of them vote.
    pub async fn start(options: Options) -> Result<Self> {
        let data = tempfile::Builder::new()
            .prefix("chaos-")
            .tempdir()
            .context("no temporary folder can be made")?;
        let logs = options.logs.unwrap_or_else(|| data.path().join("logs"));
        let mut cluster = Cluster {
            machines: Machines::new(logs)?,
            network: Network::create()?,
            binaries: options.binaries,
            config: Config::default(),
            data,
        };
        for number in 1..=options.masters {
            let name = format!("m{number}");
            let address = cluster.network.add(&name, 10 + number)?;
            let machine = Machine {
                role: Role::Master,
                address,
                process: None,
            };
            cluster.machines.insert(name, machine);
        }
        cluster.start_machine("m1")?;
        cluster.wait_for_credentials().await?;
        for number in 2..=options.masters {
            cluster.start_machine(&format!("m{number}"))?;
        }
        cluster.wait_until_whole().await?;
        cluster.wait_for_kubeconfig().await?;
        Ok(cluster)
    }

    /// Adds a node: n1, n2, …; it is ready when its Node object says so.
    pub fn add_node(&mut self, name: &str) -> Result<()> {
        let nodes = self.names(Role::Node).len() as u8;
        let address = self.network.add(name, 100 + nodes)?;
        let machine = Machine {
            role: Role::Node,
            address,
            process: None,
        };
        self.machines.insert(name.to_owned(), machine);
        self.start_machine(name)
    }

    /// Adds a machine for another master: m4, m5, …; it joins the others when it is started.
    pub fn add_master(&mut self, name: &str) -> Result<()> {
        let number: u8 = name
            .trim_start_matches('m')
            .parse()
            .with_context(|| format!("{name:?} is no master's name, as m4 is one"))?;
        let address = self.network.add(name, 10 + number)?;
        let machine = Machine {
            role: Role::Master,
            address,
            process: None,
        };
        self.machines.insert(name.to_owned(), machine);
        Ok(())
    }

    /// Starts the process of a machine, which must not run. A master with an empty data directory joins the others.
    pub fn start_machine(&mut self, name: &str) -> Result<()> {
        let args = self.arguments(name)?;
        let machine = self.machines.of(name)?;
        if machine.process.is_some() {
            bail!("{name} runs already");
        }
        let program = self.binaries.path(match machine.role {
            Role::Master => "control",
            Role::Node => "node",
        });
        let log = self.log(name);
        let process = Process::start(name, &self.network.namespace(name), &program, &args, &log)?;
        self.machines.of_mut(name)?.process = Some(process);
        Ok(())
    }

    fn arguments(&self, name: &str) -> Result<Vec<String>> {
        let machine = self.machines.of(name)?;
        let data_dir = self.data_dir(name);
        let mut args = vec!["run".to_owned()];
        let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
        add("--data-dir", data_dir.display().to_string());
        add("--name", name.to_owned());
        add("--address", machine.address.to_string());
        let is_new =
            std::fs::read_dir(&data_dir).map_or(true, |mut entries| entries.next().is_none());
        let others = || {
            let urls = self.urls();
            let own = format!("https://{}:6443", machine.address);
            let others: Vec<String> = urls.into_iter().filter(|url| *url != own).collect();
            others.join(",")
        };
        match machine.role {
            Role::Node => {
                add("--server", self.urls().join(","));
                add("--token-file", self.token_file().display().to_string());
            }
            Role::Master if is_new && self.config.servers.is_empty() => {
                args.push("--init".to_owned());
            }
            Role::Master if is_new => {
                add("--join", others());
                add("--token-file", self.token_file().display().to_string());
            }
            Role::Master => {}
        }
        Ok(args)
    }

    async fn wait_for_credentials(&mut self) -> Result<()> {
        let token = self.data_dir("m1").join("join-token");
        let until = Instant::now() + START_DEADLINE;
        while std::fs::metadata(&token).map_or(0, |file| file.len()) == 0 {
            self.fail_where_ended()?;
            if Instant::now() > until {
                bail!(
                    "m1 wrote no join token within {START_DEADLINE:?}; see {}",
                    self.log("m1").display()
                );
            }
            tokio::time::sleep(POLL).await;
        }
        std::fs::copy(&token, self.token_file()).context("cannot copy the join token")?;
        std::fs::copy(
            self.data_dir("m1").join("admin.kubeconfig"),
            self.kubeconfig(),
        )
        .context("cannot copy the kubeconfig")?;
        self.config = Config::load(Some(&self.kubeconfig()), None)?;
        self.config.servers = self.urls();
        Ok(())
    }

    /// Takes the administrator's kubeconfig again when it names every master, so that clients can do without the first one.
    async fn wait_for_kubeconfig(&self) -> Result<()> {
        let path = self.data_dir("m1").join("admin.kubeconfig");
        let until = Instant::now() + START_DEADLINE;
        while Config::load(Some(&path), None)?.servers.len() < self.masters().len() {
            if Instant::now() > until {
                bail!("{} does not name every master", path.display());
            }
            tokio::time::sleep(POLL).await;
        }
        std::fs::copy(&path, self.kubeconfig()).context("cannot copy the kubeconfig")?;
        Ok(())
    }

    /// Waits until a leader is known, every master votes and every one is reached.
    pub async fn wait_until_whole(&mut self) -> Result<()> {
        let probe = self.probe()?;
        let masters = self.masters().len();
        let until = Instant::now() + START_DEADLINE;
        loop {
            let status = probe.status().await;
            let whole = status.as_ref().is_some_and(|status| {
                let voting = |known: &&objects::cluster::MemberStatus| {
                    known.member.voter && known.healthy && known.applied_index.is_some()
                };
                status.leader.is_some()
                    && status.members.iter().filter(voting).count() == masters
                    && status.members.len() == masters
            });
            if whole {
                return Ok(());
            }
            self.fail_where_ended()?;
            if Instant::now() > until {
                bail!(
                    "the {masters} masters did not all vote within {START_DEADLINE:?}; the last answer was {status:?}; logs: {}",
                    self.machines.logs().display()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a leader is known.
    pub async fn wait_for_leader(&self) -> Result<Leader> {
        let probe = self.probe()?;
        let until = Instant::now() + START_DEADLINE;
        loop {
            if let Some(leader) = probe.leader().await {
                return Ok(leader);
            }
            if Instant::now() > until {
                bail!("no leader is known after {START_DEADLINE:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// SIGKILL.
    pub async fn kill(&mut self, name: &str) -> Result<()> {
        self.machines.take(name)?.kill().await
    }

    /// SIGTERM, and waits for an orderly end.
    pub async fn stop(&mut self, name: &str) -> Result<()> {
        self.machines.take(name)?.stop(STOP_DEADLINE).await
    }

    /// SIGSTOP.
    pub fn pause(&self, name: &str) -> Result<()> {
        self.machines.running(name)?.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub fn resume(&self, name: &str) -> Result<()> {
        self.machines.running(name)?.signal(Signal::SIGCONT)
    }

    /// Cuts the masters named off from the other masters. Everybody keeps their clients.
    pub fn cut(&self, side: &[&str]) -> Result<()> {
        let masters = self.masters();
        let others: Vec<&str> = masters
            .iter()
            .map(String::as_str)
            .filter(|name| !side.contains(name))
            .collect();
        self.network.cut(side, &others)
    }

    /// Ends every cut.
    pub fn heal(&self) -> Result<()> {
        self.network.heal()
    }

    /// Destroys the data directory of a machine that does not run.
    pub fn destroy_data(&mut self, name: &str) -> Result<()> {
        if self.machines.of(name)?.process.is_some() {
            bail!("{name} runs; stop it before its data goes");
        }
        let data_dir = self.data_dir(name);
        std::fs::remove_dir_all(&data_dir)
            .with_context(|| format!("cannot remove {}", data_dir.display()))
    }

    /// The masters' names.
    pub fn masters(&self) -> Vec<String> {
        self.names(Role::Master)
    }

    fn names(&self, role: Role) -> Vec<String> {
        let of_role = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.role == role);
        of_role.map(|(name, _)| name.clone()).collect()
    }

    /// The process id of a machine's process.
    pub fn pid(&self, name: &str) -> Result<u32> {
        self.machines.pid(name)
    }

    /// Whether a machine's process was started and did not end.
    pub fn is_running(&mut self, name: &str) -> bool {
        self.machines.is_running(name)
    }

    /// How a machine's process ended by itself, if it did; then it can be started again.
    pub fn take_ended(&mut self, name: &str) -> Option<std::process::ExitStatus> {
        let machine = self.machines.of_mut(name).ok()?;
        let status = machine.process.as_mut()?.ended()?;
        machine.process = None;
        Some(status)
    }

    /// The address of a machine.
    pub fn address(&self, name: &str) -> Result<Ipv4Addr> {
        Ok(self.machines.of(name)?.address)
    }

    /// The network namespace of a machine.
    pub fn namespace(&self, name: &str) -> String {
        self.network.namespace(name)
    }

    /// The API's URLs.
    pub fn urls(&self) -> Vec<String> {
        let masters = self
            .machines
            .values()
            .filter(|machine| machine.role == Role::Master);
        masters
            .map(|machine| format!("https://{}:6443", machine.address))
            .collect()
    }

    /// A client that knows all masters and may do everything.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.config)?)
    }

    /// A client that knows one master only.
    pub fn client_of(&self, name: &str) -> Result<Client> {
        let servers = vec![format!("https://{}:6443", self.address(name)?)];
        Ok(Client::new(&Config {
            servers,
            ..self.config.clone()
        })?)
    }

    /// A client for each master.
    pub fn probe(&self) -> Result<Probe> {
        let clients = self.masters().into_iter().map(|name| {
            let client = self.client_of(&name)?;
            Ok((name, client))
        });
        Ok(Probe::new(clients.collect::<Result<_>>()?))
    }

    /// An administrator's kubeconfig with all that clients need.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.path().join("kubeconfig")
    }

    /// A file with the join token.
    pub fn token_file(&self) -> PathBuf {
        self.data.path().join("token")
    }

    /// Where a machine's data lies.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// A machine's log.
    pub fn log(&self, name: &str) -> PathBuf {
        self.machines.log(name)
    }

    /// The programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// An error that names a process that ended by itself, with the end of its log.
    pub fn fail_where_ended(&mut self) -> Result<()> {
        self.machines.fail_where_ended()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for name in self.names(Role::Node) {
            // Pods outlive their agent by design; this ends them and gives back what they had of the machine.
            if let Ok(machine) = self.machines.of_mut(&name) {
                machine.process = None;
            }
            let net = format!("--net=/run/netns/{}", self.network.namespace(&name));
            let node = self.binaries.path("node").display().to_string();
            let data_dir = self.data_dir(&name).display().to_string();
            let args = [net.as_str(), &node, "cleanup", "--data-dir", &data_dir];
            if let Err(error) = run_with_input("nsenter", &args, None) {
                eprintln!("warning: pods of {name} may be left: {error:#}");
            }
        }
    }
}
