//! Finds out what the agent may give to containers: in a sandbox it may lack capabilities itself.

use std::fs;

use rustix::process::Resource;

use crate::spec::Machine;

const CAP_SYS_RESOURCE: u64 = 1 << 24;
/// The kernel's own bound (`fs.nr_open`) unless it is set otherwise.
const NR_OPEN: u64 = 1_048_576;

/// Looks at this process.
pub(crate) fn detect() -> Machine {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = permitted(&status);
    let number = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
    };
    let nr_open = number("/proc/sys/fs/nr_open")
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(NR_OPEN);
    if capabilities & CAP_SYS_RESOURCE != 0 {
        return Machine {
            capabilities,
            nofile_max: nr_open,
            oom_score_adj_min: -1000,
        };
    }
    let hard = rustix::process::getrlimit(Resource::Nofile)
        .maximum
        .unwrap_or(nr_open);
    let own = number("/proc/self/oom_score_adj")
        .and_then(|value| i32::try_from(value).ok())
        .unwrap_or(0);
    Machine {
        capabilities,
        nofile_max: hard,
        oom_score_adj_min: own,
    }
}

fn permitted(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::permitted;

    #[test]
    fn reads_the_permitted_set() {
        assert_eq!(
            permitted("Name:\tx\nCapPrm:\t000001fffeffffff\n"),
            0x1ff_feff_ffff
        );
    }
}
