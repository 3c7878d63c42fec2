//! `/metrics`: a member's numbers in Prometheus' text format.
//!
//! Names and types are etcd's where etcd has the same thing, so that dashboards and alerts made for it go on working; what only
//! this store has begins with `trireme_`. Numbers are taken at the moment of asking: nothing runs in between. What etcd counts
//! of Go, of its second API and of its proxy has no counterpart here and is left out.

mod calls;
pub mod family;
mod peers;
mod store;
mod telemetry;

pub use telemetry::{Telemetry, WatchStream};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, TextEncoder};
use raft_store::RaftStore;
use std::sync::Arc;

/// What the caller adds to a member's numbers.
type More = Arc<dyn Fn() -> Vec<MetricFamily> + Send + Sync>;

/// A member's numbers. Clones are of the same member.
#[derive(Clone)]
pub struct Numbers {
    pub(crate) store: RaftStore,
    pub(crate) telemetry: Arc<Telemetry>,
    more: More,
}

impl Numbers {
    /// The numbers of the store, of the services that [`serve`](crate::serve) serves with them, and of the process.
    pub fn new(store: RaftStore) -> Self {
        Numbers {
            store,
            telemetry: Arc::default(),
            more: Arc::new(Vec::new),
        }
    }

    /// With others beside them.
    pub fn with(self, more: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static) -> Self {
        let more = Arc::new(more);
        Numbers { more, ..self }
    }

    /// The whole text.
    pub async fn render(&self) -> prometheus::Result<String> {
        let figures = self.store.figures().await;
        let mut families = store::families(&self.store, &figures);
        families.extend(peers::families(&self.store, &figures));
        families.extend(calls::families(&self.telemetry));
        families.extend((self.more)());
        families.extend(process());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

/// The process, and two of its numbers again under etcd's own names.
fn process() -> Vec<MetricFamily> {
    let mut families = ProcessCollector::for_self().collect();
    let of_etcd = [
        (
            "process_open_fds",
            "os_fd_used",
            "File descriptors that are open.",
        ),
        (
            "process_max_fds",
            "os_fd_limit",
            "File descriptors that may be open.",
        ),
    ];
    for (name, name_in_etcd, help) in of_etcd {
        let found = families.iter().find(|family| family.name() == name);
        if let Some(sample) = found.and_then(|family| family.get_metric().first()) {
            let value = sample.get_gauge().get_value() as u64;
            families.push(family::gauge(name_in_etcd, help, value));
        }
    }
    families
}
