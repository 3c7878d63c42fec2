//! A container's record on disk, so that its exit code survives the shim: `status` in the container's folder.
//! Written by rename: a reader sees the old record or the new one.

use std::fs;
use std::io;
use std::path::Path;

use prost::Message;
use rpc::shim::Container;

/// Writes `container` to `bundle/status`.
pub fn write(bundle: &Path, container: &Container) -> io::Result<()> {
    let temporary = bundle.join("status.new");
    fs::write(&temporary, container.encode_to_vec())?;
    fs::rename(&temporary, bundle.join("status"))
}

/// The kernel's count of OOM kills in the file at `path`: a line `oom_kill N` of `memory.events` or
/// `memory.oom_control`. Zero if it cannot be read.
pub fn oom_kills(path: &str) -> u64 {
    fs::read_to_string(path).map_or(0, |text| parse_oom_kills(&text))
}

fn parse_oom_kills(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix("oom_kill "))
        .find_map(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_kills_of_both_cgroup_versions() {
        assert_eq!(
            parse_oom_kills("low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n"),
            1
        );
        assert_eq!(
            parse_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            3
        );
        assert_eq!(parse_oom_kills(""), 0);
    }

    #[test]
    fn a_status_is_read_back_as_written() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let container = Container {
            id: "a".into(),
            exit_code: 137,
            ..Default::default()
        };
        write(dir.path(), &container).expect("writes");
        let bytes = fs::read(dir.path().join("status")).expect("reads");
        assert_eq!(
            Container::decode(bytes.as_slice()).expect("decodes"),
            container
        );
    }
}
