//! What this machine lets the harness do.

use crate::cluster::{Binaries, run_with_input};

/// One thing that is needed.
pub struct Capability {
    /// What.
    pub name: &'static str,
    /// What it is for.
    pub needed_for: &'static str,
    /// Why it is missing.
    pub problem: Option<String>,
}

/// Tries everything.
pub fn capabilities() -> Vec<Capability> {
    let of = |name, needed_for, result: anyhow::Result<()>| Capability {
        name,
        needed_for,
        problem: result.err().map(|error| format!("{error:#}")),
    };
    let runs = |program: &str, args: &[&str]| run_with_input(program, args, None).map(drop);
    let root = || {
        anyhow::ensure!(nix::unistd::geteuid().is_root(), "this is not root");
        Ok(())
    };
    // In a network namespace that ends with the command, so that nothing is left behind.
    let veth = "ip link add veth0 type veth peer name veth1 && ip link add bridge0 type bridge";
    let nft = "nft add table inet t && nft add chain inet t c '{ type filter hook input priority 0; }' && nft add rule inet t c ip saddr 10.0.0.1 drop";
    vec![
        of("root", "everything but check and selftest", root()),
        of("programs", "run, bench", Binaries::find().map(drop)),
        of(
            "setpriv",
            "ending masters with the harness",
            runs("setpriv", &["--version"]),
        ),
        of(
            "nsenter",
            "starting masters",
            runs("nsenter", &["--version"]),
        ),
        of(
            "network namespaces, veth, bridge",
            "run, bench",
            runs("unshare", &["--net", "sh", "-c", veth]),
        ),
        of(
            "nftables",
            "partition",
            runs("unshare", &["--net", "sh", "-c", nft]),
        ),
    ]
}
