//! A network in which every packet passes the harness: one network namespace a machine with one TUN device, and a switch in user
//! space between them that can cut, delay, lose, double and reorder the packets of each direction.
//!
//! Kernels without netem need it, and it counts what it did, so that a fault that hit nothing is not taken for one that did. It
//! carries addresses of its own network only (10.91.X.0/24, one X a network): clusters that carry pods use the bridge of
//! [`crate::cluster`]. Names carry the harness' process id; [`crate::cluster`] sweeps what a killed harness left behind. The
//! devices end with the harness.

mod link;
mod switch;

pub use link::{Counts, Quality, REORDER_HOLD};

use crate::cluster::{free_network, run_with_input, sweep};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use switch::{Place, Switch};

/// The harness' own place.
const HOST: Place = 254;
/// What TCP fills; measured to carry a few hundred megabytes a second.
const MTU: u16 = 9000;
/// A machine's device.
const DEVICE: &str = "tun0";

static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// The network of one testbed.
pub struct Network {
    number: u32,
    third: u8,
    machines: BTreeMap<String, Place>,
    switch: Arc<Switch>,
}

impl Network {
    /// A network with the harness on it. The seed fixes the fate of packets.
    pub fn create(seed: u64) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "network namespaces need root; run this as root"
        );
        sweep();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let network = Network {
            number,
            third: free_network(number)?,
            machines: BTreeMap::new(),
            switch: Switch::start(seed)?,
        };
        let name = format!("ct{}x{number}", std::process::id());
        let device = device(&name)?;
        configure(&["address", "add", &network.with_mask(HOST), "dev", &name])?;
        configure(&["link", "set", &name, "up"])?;
        network.switch.add(HOST, device)?;
        Ok(network)
    }

    /// A machine: a namespace with the address .`place`, a default route through the switch and a loopback.
    pub fn add(&mut self, name: &str, place: Place) -> Result<Ipv4Addr> {
        let namespace = self.namespace(name);
        configure(&["netns", "add", &namespace])?;
        self.machines.insert(name.to_owned(), place);
        let device = device_inside(&namespace)?;
        let inside = |args: &[&str]| configure(&[&["-n", namespace.as_str()], args].concat());
        inside(&["address", "add", &self.with_mask(place), "dev", DEVICE])?;
        inside(&["link", "set", "lo", "up"])?;
        inside(&["link", "set", DEVICE, "up"])?;
        inside(&["route", "add", "default", "dev", DEVICE])?;
        self.switch.add(place, device)?;
        Ok(self.address(place))
    }

    /// Takes a machine away.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let place = self.place(name)?;
        self.machines.remove(name);
        self.switch.remove(place);
        configure(&["netns", "delete", &self.namespace(name)])
    }

    /// The harness' own address.
    pub fn host(&self) -> Ipv4Addr {
        self.address(HOST)
    }

    /// The namespace of a machine.
    pub fn namespace(&self, name: &str) -> String {
        format!("chaos-{}-t{}-{name}", std::process::id(), self.number)
    }

    /// Changes one direction between two machines; [`Network::heal`] undoes it.
    pub fn set(&self, from: &str, to: &str, quality: Quality) -> Result<()> {
        self.switch.set(self.place(from)?, self.place(to)?, quality);
        Ok(())
    }

    /// Lets every packet of every direction pass at once.
    pub fn heal(&self) {
        let places: Vec<Place> = self.machines.values().copied().chain([HOST]).collect();
        for from in &places {
            for to in &places {
                self.switch.set(*from, *to, Quality::default());
            }
        }
    }

    /// What befell the packets between machines so far, all directions together.
    pub fn counts(&self) -> Counts {
        let places = || self.machines.values().copied();
        places()
            .flat_map(|from| places().map(move |to| (from, to)))
            .map(|(from, to)| self.switch.counts(from, to))
            .fold(Counts::default(), Counts::plus)
    }

    /// What befell the packets of one direction between machines so far.
    pub fn counts_of(&self, from: &str, to: &str) -> Result<Counts> {
        Ok(self.switch.counts(self.place(from)?, self.place(to)?))
    }

    fn place(&self, name: &str) -> Result<Place> {
        self.machines
            .get(name)
            .copied()
            .with_context(|| format!("there is no machine {name}"))
    }

    fn address(&self, place: Place) -> Ipv4Addr {
        Ipv4Addr::new(10, 91, self.third, place)
    }

    fn with_mask(&self, place: Place) -> String {
        format!("{}/24", self.address(place))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.switch.stop();
        for name in self.machines.keys() {
            let namespace = self.namespace(name);
            if let Err(error) = configure(&["netns", "delete", &namespace]) {
                eprintln!("warning: the network namespace {namespace} stays: {error:#}");
            }
        }
    }
}

fn configure(args: &[&str]) -> Result<()> {
    run_with_input("ip", args, None).map(drop)
}

fn device(name: &str) -> Result<tun::Device> {
    let mut options = tun::Configuration::default();
    options.tun_name(name).mtu(MTU);
    tun::create(&options).with_context(|| {
        format!("the TUN device {name} cannot be made; is /dev/net/tun there, and is this root?")
    })
}

/// Makes a machine's device in its namespace, from a thread that moves there and ends.
fn device_inside(namespace: &str) -> Result<tun::Device> {
    let path = format!("/run/netns/{namespace}");
    let handle = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    let made = std::thread::spawn(move || {
        nix::sched::setns(handle, nix::sched::CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter {path}"))?;
        device(DEVICE)
    });
    made.join().expect("making a device does not panic")
}
