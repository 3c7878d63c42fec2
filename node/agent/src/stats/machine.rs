//! What the machine uses, from the kernel's files.

use std::fs;
use std::path::Path;

use node_runtime::{Interface, interfaces};

/// The kernel counts processor time for user space in hundredths of a second, whatever its own clock.
const NS_PER_TICK: u64 = 10_000_000;

/// The machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Seconds since 1970 at which it was booted.
    pub booted_at_s: u64,
    /// Nanoseconds of all processors that were not idle since then.
    pub cpu_ns: u64,
    /// Memory.
    pub memory: Memory,
    /// The file system of pods, logs and images.
    pub disk: FileSystem,
    /// Its interfaces, but the loopback.
    pub interfaces: Vec<Interface>,
    /// Processes and threads.
    pub processes: u64,
    /// How many the kernel allows.
    pub processes_max: u64,
}

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What is not free.
    pub used: u64,
    /// What is not free and cannot be dropped easily: without files that nobody has read lately.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
}

impl Memory {
    /// What can be given out: `memory.available` of the kubelet's signals.
    pub fn available(&self) -> u64 {
        self.total.saturating_sub(self.working_set)
    }

    fn parse(meminfo: &str) -> Self {
        let bytes = |field: &str| {
            let lines = meminfo.lines();
            let mut found = lines.filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let number = found.next().and_then(|rest| rest.split_whitespace().next());
            number
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024
        };
        let total = bytes("MemTotal");
        let used = total.saturating_sub(bytes("MemFree"));
        Memory {
            total,
            used,
            working_set: used.saturating_sub(bytes("Inactive(file)")),
            rss: bytes("AnonPages"),
        }
    }
}

/// A file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes.
    pub capacity: u64,
    /// Bytes that may be written.
    pub available: u64,
    /// Bytes that are written.
    pub used: u64,
    /// Files that there may be.
    pub inodes: u64,
    /// Files that may still be made.
    pub inodes_free: u64,
}

impl FileSystem {
    /// The one that holds `path`; nothing where it cannot be asked.
    pub fn of(path: &Path) -> Self {
        rustix::fs::statvfs(path)
            .map(|stat| FileSystem {
                capacity: stat.f_blocks * stat.f_frsize,
                available: stat.f_bavail * stat.f_frsize,
                used: (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
                inodes: stat.f_files,
                inodes_free: stat.f_favail,
            })
            .unwrap_or_default()
    }
}

impl Machine {
    /// Looks. Blocks on small files.
    pub fn measure(data_dir: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let stat = read("/proc/stat");
        let (cpu_ns, booted_at_s) = times(&stat);
        let processes = read("/proc/loadavg")
            .split_whitespace()
            .nth(3)
            .and_then(|field| field.split('/').nth(1)?.parse().ok());
        Self {
            booted_at_s,
            cpu_ns,
            memory: Memory::parse(&read("/proc/meminfo")),
            disk: FileSystem::of(data_dir),
            interfaces: i32::try_from(std::process::id())
                .map(interfaces)
                .unwrap_or_default(),
            processes: processes.unwrap_or(0),
            processes_max: read("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(0),
        }
    }
}

/// Busy nanoseconds of all processors, and the second of the boot.
fn times(stat: &str) -> (u64, u64) {
    let line = |name: &str| {
        let mut lines = stat.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    };
    let ticks: Vec<u64> = line("cpu")
        .unwrap_or_default()
        .split_whitespace()
        .map_while(|tick| tick.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in the first two already, and what is
    // stolen was not used.
    let busy: u64 = [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|index| ticks.get(*index))
        .sum();
    let booted = line("btime").and_then(|text| text.trim().parse().ok());
    (busy * NS_PER_TICK, booted.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        let stat = "cpu  100 10 50 1000 5 2 3 7 0 0\ncpu0 1 1 1\nbtime 1767225600\n";
        assert_eq!(times(stat), (1_650_000_000, 1_767_225_600));
        assert_eq!(times(""), (0, 0));
        let memory = Memory::parse(
            "MemTotal: 1000 kB\nMemFree: 300 kB\nInactive(file): 200 kB\nAnonPages: 150 kB\n",
        );
        assert_eq!(
            (memory.working_set, memory.available(), memory.rss),
            (500 * 1024, 500 * 1024, 150 * 1024)
        );
    }
}
