//! The kernel switches that the pods' network needs, all of them in the network namespace of the calling thread.
//!
//! | switch | why |
//! |---|---|
//! | `net.ipv4.ip_forward = 1` | the node routes for its pods |
//! | `net.bridge.bridge-nf-call-iptables = 0`, where it exists | else bridged frames meet NAT before they are routed, and a service's endpoint beside its client is not reached |
//! | `rp_filter = 2` on our links | a reply may come by another link than the kernel would choose |
//! | `send_redirects = 0` on our bridge | pods talk through the gateway on purpose |
//! | in a pod: `ip_unprivileged_port_start = 0`, `ping_group_range` | as containerd does it: a non-root container may listen on 80 and ping |

use std::fs;
use std::io;
use std::path::PathBuf;

/// A switch could not be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {} to {value}: {source}; is /proc/sys writable here?", path.display())]
pub struct Error {
    path: PathBuf,
    value: String,
    source: io::Error,
}

/// Sets `net/...` to `value`, unless it is that already.
pub fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = PathBuf::from("/proc/sys").join(name);
    let present = fs::read_to_string(&path).unwrap_or_default();
    if present.trim() == value {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| Error {
        path,
        value: value.into(),
        source,
    })
}

/// As [`set`], where the kernel has the switch.
pub fn set_if_present(name: &str, value: &str) -> Result<(), Error> {
    match set(name, value) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The switches of the node itself.
pub fn prepare_host() -> Result<(), Error> {
    set("net/ipv4/ip_forward", "1")?;
    set_if_present("net/bridge/bridge-nf-call-iptables", "0")
}

/// The switches of the bridge.
pub fn prepare_bridge(link: &str) -> Result<(), Error> {
    set(&format!("net/ipv4/conf/{link}/send_redirects"), "0")?;
    loosen_reverse_path(link)
}

/// Accepts packets on `link` whose answer would leave by another one.
pub fn loosen_reverse_path(link: &str) -> Result<(), Error> {
    set(&format!("net/ipv4/conf/{link}/rp_filter"), "2")
}

/// The switches inside a pod's namespace.
pub fn prepare_pod() -> Result<(), Error> {
    set_if_present("net/ipv4/ip_unprivileged_port_start", "0")?;
    set_if_present("net/ipv4/ping_group_range", "0\t2147483647")?;
    set("net/ipv4/conf/all/accept_redirects", "0")?;
    set("net/ipv4/conf/default/accept_redirects", "0")
}
