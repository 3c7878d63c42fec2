//! Hands out the pod addresses of one node, and keeps who has which over restarts.
//!
//! [`Pool`] is pure. [`Ledger`] is the pool with its file: every change is on the disk before it is told, by a new file
//! that replaces the old one, so that a crash neither leaks an address nor gives it twice. A freed address comes back last:
//! the search goes round from the address given last, since peers' caches may still know the old owner.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::config::PodUid;

/// Why no address was given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every address has an owner.
    #[error(
        "all {capacity} pod addresses of {cidr} are taken; run fewer pods here or give the node a wider pod CIDR"
    )]
    Exhausted {
        /// The range.
        cidr: Ipv4Net,
        /// How many addresses it has for pods.
        capacity: u32,
    },
    /// The ledger's file could not be read or written.
    #[error("cannot {action} the address ledger {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there and is not a ledger.
    #[error("the address ledger {} is damaged: {source}; remove it when no pod runs on this node", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
}

/// The addresses of one range and their owners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    cidr: Ipv4Net,
    /// The address given last; the search for a free one begins after it.
    last: Ipv4Addr,
    leases: BTreeMap<PodUid, Ipv4Addr>,
}

impl Pool {
    /// An empty pool. The network, gateway (first) and broadcast (last) addresses are never given.
    pub fn new(cidr: Ipv4Net) -> Self {
        let cidr = cidr.trunc();
        Self {
            cidr,
            last: Ipv4Addr::from(u32::from(cidr.network()).wrapping_add(1)),
            leases: BTreeMap::new(),
        }
    }

    /// How many pods can have an address.
    pub fn capacity(&self) -> u32 {
        self.bounds()
            .1
            .saturating_sub(self.bounds().0)
            .saturating_add(1)
    }

    /// The address of `uid`, if it has one.
    pub fn get(&self, uid: &PodUid) -> Option<Ipv4Addr> {
        self.leases.get(uid).copied()
    }

    /// The owners, in order.
    pub fn owners(&self) -> impl Iterator<Item = (&PodUid, Ipv4Addr)> {
        self.leases.iter().map(|(uid, address)| (uid, *address))
    }

    /// The address of `uid`: the one that it has, or a free one.
    pub fn allocate(&mut self, uid: &PodUid) -> Result<Ipv4Addr, Error> {
        if let Some(address) = self.get(uid) {
            return Ok(address);
        }
        let taken: BTreeSet<u32> = self
            .leases
            .values()
            .map(|address| u32::from(*address))
            .collect();
        let (first, last) = self.bounds();
        let start = u32::from(self.last);
        let free = ((start + 1)..=last)
            .chain(first..=start.min(last))
            .find(|candidate| !taken.contains(candidate));
        let Some(free) = free else {
            return Err(Error::Exhausted {
                cidr: self.cidr,
                capacity: self.capacity(),
            });
        };
        self.last = Ipv4Addr::from(free);
        self.leases.insert(uid.clone(), self.last);
        Ok(self.last)
    }

    /// Takes the address of `uid` back; false if it had none.
    pub fn release(&mut self, uid: &PodUid) -> bool {
        self.leases.remove(uid).is_some()
    }

    /// The pool for another range: leases outside of it are dropped, since no route leads to them any more.
    pub fn moved_to(self, cidr: Ipv4Net) -> Self {
        let mut pool = Self::new(cidr);
        if self.cidr == pool.cidr {
            return self;
        }
        let (first, last) = pool.bounds();
        pool.leases = self
            .leases
            .into_iter()
            .filter(|(_, address)| (first..=last).contains(&u32::from(*address)))
            .collect();
        pool
    }

    fn bounds(&self) -> (u32, u32) {
        (
            u32::from(self.cidr.network()) + 2,
            u32::from(self.cidr.broadcast()) - 1,
        )
    }
}

/// A [`Pool`] and its file.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    pool: Pool,
}

impl Ledger {
    /// Reads the ledger at `path`, or begins one. Blocks on the disk.
    pub fn open(path: PathBuf, cidr: Ipv4Net) -> Result<Self, Error> {
        let pool = match fs::read(&path) {
            Ok(bytes) => {
                let pool: Pool =
                    serde_json::from_slice(&bytes).map_err(|source| Error::Damaged {
                        path: path.clone(),
                        source,
                    })?;
                pool.moved_to(cidr)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Pool::new(cidr),
            Err(source) => {
                return Err(Error::File {
                    action: "read",
                    path,
                    source,
                });
            }
        };
        Ok(Self { path, pool })
    }

    /// What is leased now.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// As [`Pool::allocate`], and on the disk when it returns.
    pub fn allocate(&mut self, uid: &PodUid) -> Result<Ipv4Addr, Error> {
        if let Some(address) = self.pool.get(uid) {
            return Ok(address);
        }
        let mut pool = self.pool.clone();
        let address = pool.allocate(uid)?;
        self.commit(pool)?;
        Ok(address)
    }

    /// As [`Pool::release`], and on the disk when it returns.
    pub fn release(&mut self, uid: &PodUid) -> Result<bool, Error> {
        let mut pool = self.pool.clone();
        let had = pool.release(uid);
        if had {
            self.commit(pool)?;
        }
        Ok(had)
    }

    /// The owners that are not in `live`: their pods are gone while nobody looked.
    pub fn leaked(&self, live: &BTreeSet<PodUid>) -> Vec<PodUid> {
        self.pool
            .owners()
            .map(|(uid, _)| uid)
            .filter(|uid| !live.contains(*uid))
            .cloned()
            .collect()
    }

    fn commit(&mut self, pool: Pool) -> Result<(), Error> {
        let bytes = serde_json::to_vec(&pool).expect("a pool has only string keys, so it is JSON");
        replace_file(&self.path, &bytes).map_err(|source| Error::File {
            action: "write",
            path: self.path.clone(),
            source,
        })?;
        self.pool = pool;
        Ok(())
    }
}

/// Puts `bytes` in place of the file so that a crash leaves the old content or the new, never a part.
fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uid(n: u16) -> PodUid {
        PodUid::parse(format!("pod-{n}")).expect("letters and digits")
    }

    fn cidr(text: &str) -> Ipv4Net {
        text.parse().expect("a network")
    }

    #[test]
    fn reserved_addresses_are_never_given_and_a_full_pool_says_so() {
        let mut pool = Pool::new(cidr("10.244.1.0/29"));
        let given: Vec<String> = (0..5)
            .map(|n| pool.allocate(&uid(n)).expect("five are free").to_string())
            .collect();
        assert_eq!(
            given,
            [
                "10.244.1.2",
                "10.244.1.3",
                "10.244.1.4",
                "10.244.1.5",
                "10.244.1.6"
            ]
        );
        let error = pool.allocate(&uid(9)).expect_err("the pool is full");
        assert_eq!(
            error.to_string(),
            "all 5 pod addresses of 10.244.1.0/29 are taken; run fewer pods here or give the node a wider pod CIDR"
        );
    }

    #[test]
    fn a_freed_address_is_not_given_again_at_once() {
        let mut pool = Pool::new(cidr("10.244.1.0/24"));
        let first = pool.allocate(&uid(1)).expect("free");
        pool.release(&uid(1));
        assert_ne!(pool.allocate(&uid(2)).expect("free"), first);
    }

    #[test]
    fn leases_survive_a_restart_and_follow_the_range() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state/leases.json");
        let mut ledger = Ledger::open(path.clone(), cidr("10.244.1.0/24")).expect("a new ledger");
        let address = ledger.allocate(&uid(1)).expect("free");
        let mut ledger = Ledger::open(path.clone(), cidr("10.244.1.0/24")).expect("the ledger");
        assert_eq!(ledger.allocate(&uid(1)).expect("leased"), address);
        assert_eq!(ledger.leaked(&BTreeSet::from([uid(1)])), []);
        assert_eq!(ledger.leaked(&BTreeSet::new()), [uid(1)]);
        let ledger = Ledger::open(path.clone(), cidr("10.244.7.0/24")).expect("the ledger, moved");
        assert_eq!(ledger.pool().get(&uid(1)), None);
        fs::write(&path, b"{").expect("written");
        assert!(matches!(
            Ledger::open(path, cidr("10.244.1.0/24")),
            Err(Error::Damaged { .. })
        ));
    }

    proptest! {
        /// Whatever is asked in whatever order, no address has two owners, none is outside, and none is lost.
        #[test]
        fn no_address_is_given_twice(steps in prop::collection::vec((0..24_u16, any::<bool>()), 0..200)) {
            let range = cidr("10.244.1.0/28");
            let mut pool = Pool::new(range);
            for (n, take) in steps {
                if take {
                    let before = pool.get(&uid(n));
                    match pool.allocate(&uid(n)) {
                        Ok(address) => {
                            prop_assert!(before.is_none_or(|before| before == address));
                            prop_assert!(range.contains(&address));
                        }
                        Err(_) => prop_assert_eq!(pool.owners().count(), 13),
                    }
                } else {
                    pool.release(&uid(n));
                }
                let addresses: BTreeSet<Ipv4Addr> = pool.owners().map(|(_, address)| address).collect();
                prop_assert_eq!(addresses.len(), pool.owners().count());
            }
        }
    }
}
