//! Python's and Node's packages in pinned versions, installed once into the cache folder.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const CACHE_VARIABLE: &str = "TRIREME_CACHE";
const CACHE: &str = "/var/cache/trireme";
const PYTHON: &[&str] = &["kubernetes==37.0.2", "kopf==1.45.2", "kr8s==0.20.15"];
const NODE: &[&str] = &["@kubernetes/client-node@1.4.0"];

/// A Python with the packages.
///
/// # Errors
///
/// When there is no `python3` with `venv`, or the packages cannot be had.
pub fn python() -> Result<PathBuf> {
    let folder = folder("python")?;
    let program = folder.join("bin/python");
    once(&folder, PYTHON, || {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&program)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(PYTHON))
    })?;
    Ok(program)
}

/// A folder whose `node_modules` holds the packages.
///
/// # Errors
///
/// When there is no `npm`, or the packages cannot be had.
pub fn node() -> Result<PathBuf> {
    let folder = folder("node")?;
    once(&folder, NODE, || {
        run(Command::new("npm")
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--no-package-lock",
                "--prefix",
            ])
            .arg(&folder)
            .args(NODE))
    })?;
    Ok(folder)
}

fn folder(name: &str) -> Result<PathBuf> {
    let cache =
        std::env::var_os(CACHE_VARIABLE).map_or_else(|| PathBuf::from(CACHE), PathBuf::from);
    let folder = cache.join("clients").join(name);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Installs where the folder does not say that just these packages are in it.
fn once(folder: &Path, packages: &[&str], install: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder.join("INSTALLED");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    install()?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let ended = command
        .output()
        .with_context(|| format!("cannot run {command:?}; deploy/test installs what tests need"))?;
    ensure!(
        ended.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(())
}
