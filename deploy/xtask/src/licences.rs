//! `cargo xtask licences`: fails when a crate that we link has a licence that we did not agree to, or comes from elsewhere
//! than the registry.

use anyhow::{Result, bail};
use cargo_metadata::{MetadataCommand, Package};

/// Licences that may be linked into programs that are passed on under Apache-2.0.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that were looked at one by one.
const EXCEPTIONS: [(&str, &str); 3] = [
    (
        "pathrs",
        "MPL-2.0 asks only that changes to its own files be published; we make none; libcontainer needs it",
    ),
    (
        "rust-criu",
        "its file LICENSE is Apache-2.0, its manifest names none; libcontainer needs it",
    ),
    (
        "tun",
        "WTFPL permits everything; only the chaos harness links it",
    ),
];

/// Checks every dependency of the workspace.
pub fn check() -> Result<()> {
    let metadata = MetadataCommand::new().exec()?;
    let foreign: Vec<&Package> = metadata
        .packages
        .iter()
        .filter(|package| !metadata.workspace_members.contains(&package.id))
        .collect();
    let mut faults = Vec::new();
    for package in &foreign {
        let licence = package.license.as_deref().unwrap_or("");
        let excepted = EXCEPTIONS
            .iter()
            .any(|(name, _)| *name == package.name.as_str());
        if !is_allowed(licence) && !excepted {
            faults.push(format!(
                "{} {}: licence {licence:?}",
                package.name, package.version
            ));
        }
        if package
            .source
            .as_ref()
            .is_none_or(|source| !source.repr.starts_with("registry+"))
        {
            faults.push(format!(
                "{} {}: not from the registry",
                package.name, package.version
            ));
        }
    }
    if !faults.is_empty() {
        bail!(
            "{}\nreplace these crates, or add their licence to deploy/xtask/src/licences.rs if it may be linked",
            faults.join("\n")
        );
    }
    println!(
        "{} crates, all under licences that may be linked",
        foreign.len()
    );
    Ok(())
}

/// Whether some choice that an SPDX expression offers is allowed. Of `AND`, every part must be.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    expression.split(" OR ").any(|choice| {
        choice
            .split(" AND ")
            .all(|licence| ALLOWED.contains(&licence.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allowed_choice_is_enough_but_every_part_counts() {
        assert!(is_allowed("MIT/Apache-2.0") && is_allowed("MPL-2.0 OR MIT"));
        assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!is_allowed("GPL-3.0") && !is_allowed("MIT AND GPL-2.0") && !is_allowed(""));
    }
}
