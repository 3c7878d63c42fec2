//! Becomes the pod's shim: detached from the agent, subreaper, with the IPC and UTS namespaces that the pod's containers
//! join. The starter waits for one line; while it lives it is the parent and reaps, after that init is.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::pod::Pod;

/// Name of the socket in the pod's folder.
pub const SOCKET: &str = "shim.sock";

/// What `shim pod` was asked for.
pub struct Options {
    dir: PathBuf,
    hostname: Option<String>,
    host_ipc: bool,
    host_uts: bool,
    share_pid: bool,
}

/// Parses the arguments after `pod`.
pub fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        dir: PathBuf::new(),
        hostname: None,
        host_ipc: false,
        host_uts: false,
        share_pid: false,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .cloned()
                .with_context(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--dir" => options.dir = value()?.into(),
            "--hostname" => options.hostname = Some(value()?),
            "--host-ipc" => options.host_ipc = true,
            "--host-uts" => options.host_uts = true,
            "--share-pid" => options.share_pid = true,
            other => bail!("unknown argument {other}; {}", crate::USAGE),
        }
    }
    if !options.dir.is_absolute() {
        bail!("--dir must be given and absolute");
    }
    Ok(options)
}

/// What the shim says on its standard output when its socket answers.
const READY: &[u8] = b"ready\n";

/// Detaches and serves until told to shut down. Says `ready` when the socket answers, and nothing on its standard output
/// after that.
pub fn run(options: Options) -> Result<()> {
    std::env::set_current_dir(&options.dir)
        .with_context(|| format!("cannot enter {}", options.dir.display()))?;
    let mut pod = become_shim(&options)?;
    let mut stdout = std::io::stdout();
    stdout
        .write_all(READY)
        .and_then(|()| stdout.flush())
        .context("cannot report")?;
    // The agent's end of it goes with the agent.
    nix::unistd::dup2_stdout(std::io::stderr()).context("cannot let go of standard output")?;
    pod.serve()
}

fn become_shim(options: &Options) -> Result<Pod> {
    nix::unistd::setsid().context("cannot start a session")?;
    nix::sys::prctl::set_child_subreaper(true).context("cannot become subreaper")?;
    nix::sys::prctl::set_name(c"trireme-shim").context("cannot set the name")?;
    // The kernel should prefer to kill a container; each container gets its own value. In a sandbox without
    // CAP_SYS_RESOURCE this is refused, and the shim goes on with what it has.
    let _ = fs::write("/proc/self/oom_score_adj", "-998");
    let mut namespaces = CloneFlags::empty();
    namespaces.set(CloneFlags::CLONE_NEWIPC, !options.host_ipc);
    namespaces.set(CloneFlags::CLONE_NEWUTS, !options.host_uts);
    nix::sched::unshare(namespaces)
        .context("cannot unshare the IPC and UTS namespaces (root is needed)")?;
    if let (false, Some(hostname)) = (options.host_uts, &options.hostname) {
        nix::unistd::sethostname(hostname)
            .with_context(|| format!("cannot set the host name {hostname}"))?;
    }
    if options.share_pid {
        crate::pause::start().context("cannot start the shared PID namespace")?;
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    for ignored in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(ignored);
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)
        .context("cannot block signals")?;
    let _ = fs::remove_file(SOCKET);
    let listener =
        UnixListener::bind(SOCKET).with_context(|| format!("cannot listen on {SOCKET}"))?;
    fs::write("shim.pid", std::process::id().to_string()).context("cannot write shim.pid")?;
    Pod::new(listener, signals)
}
