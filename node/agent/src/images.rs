//! Gives up images that nobody uses when the disk fills, those first that were not used for longest.
//! Rule: the kubelet's image garbage collection.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use node_runtime::Image;
use objects::Timestamp;

use crate::clock;
use crate::context::Context;
use crate::stats::FileSystem;

const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Uses are noticed so often.
const NOTICE_EVERY: Duration = Duration::from_secs(30);

/// When images go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Hundredths of the disk from which on images go.
    pub high_percent: u8,
    /// Hundredths of the disk at which enough are gone.
    pub low_percent: u8,
    /// Younger images stay.
    pub age_min: Duration,
}

/// What is known of the images' use.
pub struct Collector {
    limits: Limits,
    data_dir: PathBuf,
    /// When each image, by its id, was first seen and last used.
    uses: Mutex<BTreeMap<String, Use>>,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    seen_at: Timestamp,
    used_at: Timestamp,
}

impl Collector {
    /// For the disk of a data directory.
    pub fn new(limits: Limits, data_dir: PathBuf) -> Self {
        Self {
            limits,
            data_dir,
            uses: Mutex::default(),
        }
    }

    /// Looks now and then, for ever.
    pub async fn keep(self: Arc<Self>, context: Arc<Context>) {
        let mut looked_at = clock::now();
        loop {
            self.notice(&context, clock::now());
            if clock::now().since(looked_at) >= LOOK_EVERY {
                looked_at = clock::now();
                let disk = FileSystem::of(&self.data_dir);
                let wanted = excess(&disk, &self.limits);
                if wanted > 0 {
                    let freed = self.collect(&context, wanted).await;
                    tracing::info!(wanted, freed, "gave up images, since the disk fills");
                }
            }
            tokio::time::sleep(NOTICE_EVERY).await;
        }
    }

    /// Gives up all that nobody uses, whatever its age was to be; tells how many bytes.
    pub async fn collect_all(&self, context: &Context) -> u64 {
        self.notice(context, clock::now());
        self.collect(context, u64::MAX).await
    }

    /// Notes which images are there and which of them are in use; tells the latter's ids with all images.
    fn notice(&self, context: &Context, now: Timestamp) -> (Vec<Image>, BTreeSet<String>) {
        let images = context.pods.images().list().unwrap_or_default();
        let used: BTreeSet<String> = context
            .pods
            .list()
            .iter()
            .flat_map(|pod| &pod.containers)
            .map(|container| container.image_id.clone())
            .collect();
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in &images {
            let known = uses.entry(image.id.clone()).or_insert(Use {
                seen_at: now,
                used_at: now,
            });
            if used.contains(&image.id) {
                known.used_at = now;
            }
        }
        (images, used)
    }

    async fn collect(&self, context: &Context, wanted: u64) -> u64 {
        let now = clock::now();
        let (images, used) = self.notice(context, now);
        let uses = self
            .uses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut freed = 0;
        for id in unused(&uses, &used, now, self.limits.age_min) {
            if freed >= wanted {
                break;
            }
            let of_id = || images.iter().filter(|image| image.id == id);
            for image in of_id() {
                let reference = image.reference.to_string();
                match context.pods.images().remove(&reference).await {
                    Ok(()) => {
                        tracing::info!(image = %reference, "removed the image, which nobody uses")
                    }
                    Err(error) => {
                        tracing::warn!(image = %reference, %error, "cannot remove the image")
                    }
                }
            }
            freed += of_id().next().map_or(0, |image| image.bytes);
        }
        freed
    }
}

/// Bytes that must go for the low mark, once the disk is above the high one.
fn excess(disk: &FileSystem, limits: &Limits) -> u64 {
    let used = disk.capacity.saturating_sub(disk.available);
    let mark = |percent: u8| disk.capacity / 100 * u64::from(percent);
    match disk.capacity > 0 && used >= mark(limits.high_percent) {
        true => used.saturating_sub(mark(limits.low_percent)),
        false => 0,
    }
}

/// Ids of images that may go, those first that were not used for longest.
fn unused(
    uses: &BTreeMap<String, Use>,
    used: &BTreeSet<String>,
    now: Timestamp,
    age_min: Duration,
) -> Vec<String> {
    let mut free: Vec<(&String, &Use)> = uses
        .iter()
        .filter(|(id, it)| !used.contains(*id) && now.since(it.seen_at) >= age_min)
        .collect();
    free.sort_by_key(|(_, it)| (it.used_at, it.seen_at));
    free.into_iter().map(|(id, _)| id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_above_the_low_mark_goes() {
        let limits = Limits {
            high_percent: 85,
            low_percent: 80,
            age_min: Duration::ZERO,
        };
        let disk = |available| FileSystem {
            capacity: 1000,
            available,
            ..FileSystem::default()
        };
        assert_eq!(
            [excess(&disk(160), &limits), excess(&disk(150), &limits)],
            [0, 50]
        );
        assert_eq!(excess(&FileSystem::default(), &limits), 0);
    }

    #[test]
    fn those_go_first_that_were_not_used_for_longest() {
        let at = Timestamp::from_unix;
        let of = |seen, used| Use {
            seen_at: at(seen),
            used_at: at(used),
        };
        let uses = [
            ("old", of(0, 50)),
            ("older", of(0, 10)),
            ("busy", of(0, 100)),
            ("young", of(95, 95)),
        ];
        let uses = uses.map(|(id, it)| (id.to_owned(), it)).into();
        let used = ["busy".to_owned()].into();
        assert_eq!(
            unused(&uses, &used, at(100), Duration::from_secs(20)),
            ["older", "old"]
        );
    }
}
