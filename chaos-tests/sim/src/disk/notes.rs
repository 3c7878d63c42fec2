//! The two places of a simulated disk at which a member notes how far its log was synced.
//!
//! A note is written without waiting for the disk. So a power cut leaves of each place what was synced, or any later note, or one that is
//! torn.

use super::Crash;
use raft_store::log::mark::{SLOT_BYTES, SLOTS};
use rand::RngExt;
use rand::rngs::StdRng;

type Slot = [u8; SLOT_BYTES];

/// The notes of one member.
#[derive(Clone)]
pub struct Notes([Place; SLOTS as usize]);

#[derive(Clone)]
struct Place {
    durable: Slot,
    /// Written since the last sync, in order.
    unsynced: Vec<Slot>,
}

impl Default for Notes {
    fn default() -> Self {
        Notes(std::array::from_fn(|_| Place {
            durable: [0; SLOT_BYTES],
            unsynced: Vec::new(),
        }))
    }
}

impl Notes {
    pub(super) fn read(&self, slot: u64) -> Slot {
        let place = &self.0[slot as usize];
        *place.unsynced.last().unwrap_or(&place.durable)
    }

    pub(super) fn write(&mut self, slot: u64, bytes: Slot) {
        self.0[slot as usize].unsynced.push(bytes);
    }

    pub(super) fn sync(&mut self) {
        for place in &mut self.0 {
            place.keep(|written| written.last().copied());
        }
    }

    pub(super) fn crash(&mut self, crash: Crash, rng: &mut StdRng) {
        match crash {
            Crash::Kill => self.sync(),
            Crash::PowerCut => {
                for place in &mut self.0 {
                    place.cut_power(rng);
                }
            }
        }
    }

    pub(super) fn damage(&mut self, rng: &mut StdRng) {
        let both = rng.random_bool(0.3);
        let one = rng.random_range(0..self.0.len());
        for (slot, place) in self.0.iter_mut().enumerate() {
            if both || slot == one {
                let bit = rng.random_range(0..SLOT_BYTES * 8);
                place.durable[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

impl Place {
    fn keep(&mut self, choose: impl FnOnce(&[Slot]) -> Option<Slot>) {
        let written = std::mem::take(&mut self.unsynced);
        self.durable = choose(&written).unwrap_or(self.durable);
    }

    fn cut_power(&mut self, rng: &mut StdRng) {
        let before = self.durable;
        self.keep(|written| {
            let kept = rng.random_range(0..=written.len());
            let kept = *written.get(kept.checked_sub(1)?)?;
            // The disk was at it when the power went.
            let torn_at = rng
                .random_bool(0.3)
                .then(|| rng.random_range(1..SLOT_BYTES));
            let mut bytes = kept;
            if let Some(at) = torn_at {
                bytes[at..].copy_from_slice(&before[at..]);
            }
            Some(bytes)
        });
    }
}
