//! The kubectls of this machine, for tests that hold the real client against our side of its protocols.
//!
//! Looked for as `kubectl.1.NN`, as the packages with many versions name them, in `TRIREME_KUBECTL_DIR`, where the Google
//! Cloud SDK puts them, and on PATH; where there is none of these, plain `kubectl` on PATH. Never fetches one.

use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER_VARIABLE: &str = "TRIREME_KUBECTL_DIR";
const CLOUD_SDK: &str = "/usr/lib/google-cloud-sdk/bin";
const MINORS: std::ops::RangeInclusive<u32> = 27..=40;

/// One kubectl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubectl {
    /// Where it is.
    pub program: PathBuf,
    /// Its version's second number: 33 of 1.33.
    pub minor: u32,
}

/// Every kubectl of the machine, one of each version, the oldest first.
///
/// # Panics
///
/// When there is none: a test that needs the real client must not pass without it.
pub fn all() -> Vec<Kubectl> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let chosen = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
    let folders = chosen.into_iter().chain([PathBuf::from(CLOUD_SDK)]);
    let folders: Vec<PathBuf> = folders.chain(on_path.clone()).collect();
    let numbered = numbered_in(&folders);
    if !numbered.is_empty() {
        return numbered;
    }
    let plain = find("kubectl", &on_path).unwrap_or_else(|| {
        panic!(
            "no kubectl is on PATH, and no kubectl.1.NN in {CLOUD_SDK} or in the folder that {FOLDER_VARIABLE} names; \
             install one to run this test"
        )
    });
    let minor = minor_of(&plain);
    vec![Kubectl {
        program: plain,
        minor,
    }]
}

fn numbered_in(folders: &[PathBuf]) -> Vec<Kubectl> {
    let numbered = |minor| {
        let program = find(&format!("kubectl.1.{minor}"), folders)?;
        Some(Kubectl { program, minor })
    };
    MINORS.filter_map(numbered).collect()
}

fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let mut places = folders.iter().map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}

fn minor_of(program: &Path) -> u32 {
    let answer = Command::new(program)
        .args(["version", "--client", "-o", "json"])
        .output()
        .unwrap_or_else(|error| panic!("{} cannot be run: {error}", program.display()));
    parse_minor(&answer.stdout).unwrap_or_else(|| {
        panic!(
            "{} does not tell its version: {}{}",
            program.display(),
            String::from_utf8_lossy(&answer.stdout),
            String::from_utf8_lossy(&answer.stderr)
        )
    })
}

/// The minor version in what `kubectl version --client -o json` prints; some builds write `33+`.
fn parse_minor(answer: &[u8]) -> Option<u32> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let minor = answer["clientVersion"]["minor"].as_str()?;
    minor.trim_end_matches('+').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names_and_answers() {
        let answer =
            br#"{"clientVersion": {"major": "1", "minor": "27+", "gitVersion": "v1.27.3-gke.1"}}"#;
        assert_eq!(parse_minor(answer), Some(27));
        assert_eq!(parse_minor(b"v1.27"), None);

        let folder = std::env::temp_dir().join(format!("kubectls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for name in ["kubectl.1.30", "kubectl.1.29", "kubectl", "kubectl.1.9"] {
            std::fs::write(folder.join(name), "").expect("a file");
        }
        let minors: Vec<u32> = numbered_in(std::slice::from_ref(&folder))
            .iter()
            .map(|kubectl| kubectl.minor)
            .collect();
        std::fs::remove_dir_all(&folder).expect("is removed");
        assert_eq!(minors, [29, 30]);
    }
}
