//! The switch: a thread a port reads packets from its TUN device, asks the link, and writes them to the port of the packet's
//! destination, at once or, by the clockwork's thread, later.
//!
//! It looks at nothing but the destination's address of IPv4 packets; anything else is dropped. What waits is bounded: where
//! [`LATE_MAX`] packets wait, a further one is lost, as in any router.

use super::link::{Counts, Link, Quality};
use anyhow::{Context, Result};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packets that may wait at any time.
const LATE_MAX: usize = 65_536;
/// How soon a reader notices that the switch stops.
const STOP_POLL: Duration = Duration::from_millis(100);
/// Larger than any packet of the devices' MTU.
const PACKET_MAX: usize = 65_536;

/// A machine's place at the switch: the last byte of its address.
pub type Place = u8;

/// All ports and the packets that wait.
pub struct Switch {
    began: Instant,
    seed: u64,
    ports: RwLock<BTreeMap<Place, Arc<Port>>>,
    late: Mutex<Late>,
    rung: Condvar,
    is_over: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Port {
    device: tun::Device,
    is_over: AtomicBool,
    /// The directions from here.
    links: Mutex<BTreeMap<Place, Link>>,
}

#[derive(Default)]
struct Late {
    packets: BinaryHeap<Reverse<Packet>>,
    next: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    due: Duration,
    /// Tells packets of one instant apart, in the order of their coming.
    number: u64,
    to: Place,
    bytes: Vec<u8>,
}

impl Switch {
    /// A switch without ports. The seed fixes the fate of packets.
    pub fn start(seed: u64) -> Result<Arc<Self>> {
        let switch = Arc::new(Switch {
            began: Instant::now(),
            seed,
            ports: RwLock::default(),
            late: Mutex::default(),
            rung: Condvar::new(),
            is_over: AtomicBool::new(false),
            threads: Mutex::default(),
        });
        let clockwork = switch.clone();
        switch.spawn("switch-late".to_owned(), move || clockwork.deliver_late())?;
        Ok(switch)
    }

    /// Adds a port for the device.
    pub fn add(self: &Arc<Self>, place: Place, device: tun::Device) -> Result<()> {
        let port = Arc::new(Port {
            device,
            is_over: AtomicBool::new(false),
            links: Mutex::default(),
        });
        let mut ports = self.ports.write().expect("no thread panics with the ports");
        ports.insert(place, port.clone());
        drop(ports);
        let switch = self.clone();
        self.spawn(format!("switch-{place}"), move || {
            switch.forward(place, &port)
        })
    }

    /// Removes a port; its device goes a moment later.
    pub fn remove(&self, place: Place) {
        let mut ports = self.ports.write().expect("no thread panics with the ports");
        if let Some(port) = ports.remove(&place) {
            port.is_over.store(true, Ordering::Release);
        }
    }

    /// Changes one direction.
    pub fn set(&self, from: Place, to: Place, quality: Quality) {
        if let Some(port) = self.port(from) {
            self.link(&mut port.links(), from, to).set(quality);
        }
    }

    /// What befell the packets of one direction so far.
    pub fn counts(&self, from: Place, to: Place) -> Counts {
        self.port(from).map_or(Counts::default(), |port| {
            port.links()
                .get(&to)
                .map_or(Counts::default(), Link::counts)
        })
    }

    /// Ends all threads; the devices go with them.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::Release);
        self.rung.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().expect("no thread panics here"));
        for thread in threads {
            let _ = thread.join();
        }
        let mut ports = self.ports.write().expect("no thread panics with the ports");
        ports.clear();
    }

    fn spawn(&self, name: String, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(work)
            .context("no thread can be started for the switch")?;
        let mut threads = self.threads.lock().expect("no thread panics here");
        threads.push(thread);
        Ok(())
    }

    fn port(&self, place: Place) -> Option<Arc<Port>> {
        let ports = self.ports.read().expect("no thread panics with the ports");
        ports.get(&place).cloned()
    }

    fn link<'a>(
        &self,
        links: &'a mut BTreeMap<Place, Link>,
        from: Place,
        to: Place,
    ) -> &'a mut Link {
        links.entry(to).or_insert_with(|| {
            Link::new(self.seed ^ (u64::from(from) << 8 | u64::from(to)).wrapping_mul(0x9e37_79b9))
        })
    }

    /// The work of a port's thread.
    fn forward(&self, from: Place, port: &Port) {
        let mut buffer = vec![0; PACKET_MAX];
        let is_over =
            || self.is_over.load(Ordering::Acquire) || port.is_over.load(Ordering::Acquire);
        while !is_over() {
            match port.device.recv_timeout(&mut buffer, STOP_POLL) {
                Ok(length) => self.pass(from, port, &buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
                // The device goes with its namespace, and a namespace that is removed takes a running cluster with it.
                Err(_) => return,
            }
        }
    }

    fn pass(&self, from: Place, port: &Port, packet: &[u8]) {
        let Some(to) = destination(packet) else {
            return;
        };
        let now = self.began.elapsed();
        let passage = self.link(&mut port.links(), from, to).pass(now);
        for due in [passage.arrives, passage.again].into_iter().flatten() {
            if due <= now {
                self.deliver(to, packet);
            } else {
                self.wait(due, to, packet);
            }
        }
    }

    /// A packet that the receiving device does not take is lost, as on any wire.
    fn deliver(&self, to: Place, packet: &[u8]) {
        if let Some(port) = self.port(to) {
            let _ = port.device.send(packet);
        }
    }

    fn wait(&self, due: Duration, to: Place, packet: &[u8]) {
        let mut late = self.late.lock().expect("no thread panics here");
        if late.packets.len() >= LATE_MAX {
            return;
        }
        let number = late.next;
        late.next += 1;
        late.packets.push(Reverse(Packet {
            due,
            number,
            to,
            bytes: packet.to_vec(),
        }));
        self.rung.notify_one();
    }

    /// The work of the thread that delivers what waited.
    fn deliver_late(&self) {
        let mut late = self.late.lock().expect("no thread panics here");
        while !self.is_over.load(Ordering::Acquire) {
            let now = self.began.elapsed();
            let next = late.packets.peek().map(|Reverse(packet)| packet.due);
            match next {
                Some(due) if due <= now => {
                    let packet = late.packets.pop();
                    drop(late);
                    if let Some(Reverse(packet)) = packet {
                        self.deliver(packet.to, &packet.bytes);
                    }
                    late = self.late.lock().expect("no thread panics here");
                }
                next => {
                    let pause = next.map_or(STOP_POLL, |due| due - now);
                    late = self
                        .rung
                        .wait_timeout(late, pause)
                        .expect("no thread panics here")
                        .0;
                }
            }
        }
    }
}

impl Port {
    fn links(&self) -> MutexGuard<'_, BTreeMap<Place, Link>> {
        self.links.lock().expect("no thread panics with the links")
    }
}

/// The last byte of the destination of an IPv4 packet (RFC 791: bytes 16 to 19).
fn destination(packet: &[u8]) -> Option<Place> {
    let is_ipv4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
    packet.get(19).copied().filter(|_| is_ipv4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_read_of_ipv4_alone() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 91, 3, 12]);
        assert_eq!(destination(&packet), Some(12));
        assert_eq!(destination(&packet[..19]), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
        assert_eq!(destination(&[]), None);
    }
}
