//! What this machine is: for the node's capacity and `nodeInfo`.

use std::fs;
use std::path::Path;

/// Facts of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the file system that holds the data directory.
    pub disk_bytes: u64,
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub os_image: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Anew at each boot.
    pub boot_id: String,
}

impl Machine {
    /// Looks. Blocks on small files.
    pub fn detect(data_dir: &Path) -> Self {
        let read = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let disk = rustix::fs::statvfs(data_dir)
            .map(|stat| stat.f_blocks * stat.f_frsize)
            .unwrap_or(0);
        Self {
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            memory_bytes: memory_bytes(&read("/proc/meminfo"), "MemTotal"),
            disk_bytes: disk,
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            os_image: os_image(&read("/etc/os-release")),
            architecture: architecture().to_owned(),
            machine_id: read("/etc/machine-id"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
        }
    }
}

fn memory_bytes(meminfo: &str, field: &str) -> i64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok())
        .unwrap_or(0)
        * 1024
}

fn os_image(os_release: &str) -> String {
    let name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_files() {
        let meminfo = "MemTotal:        8000 kB\nMemFree: 1 kB\n";
        assert_eq!(memory_bytes(meminfo, "MemTotal"), 8000 * 1024);
        assert_eq!(memory_bytes(meminfo, "SwapTotal"), 0);
        assert_eq!(
            os_image("ID=debian\nPRETTY_NAME=\"Debian 12\"\n"),
            "Debian 12"
        );
    }
}
