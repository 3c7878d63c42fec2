//! `ctl snapshot`: save asks a master; status and restore are done by the `control` program of this machine, which alone knows
//! the archive's format and a master's data directory.

use crate::cli::{Output, Snapshot};
use crate::context::Context;
use crate::output;
use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine;
use client::{Deadline, Payload, encode_segment};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const SAVE_DEADLINE: Deadline = Deadline(Duration::from_secs(60));

/// Whether the command needs no cluster.
pub fn is_local(command: &Snapshot) -> bool {
    !matches!(command, Snapshot::Save { .. })
}

/// Saves.
pub async fn run(context: &Context, command: Snapshot) -> Result<()> {
    let Snapshot::Save {
        file,
        passphrase_file,
        output,
        ..
    } = command
    else {
        return Ok(());
    };
    let path = match passphrase_file {
        None => "/cluster/v1/snapshot?keys=none".to_owned(),
        Some(_) => "/cluster/v1/snapshot".to_owned(),
    };
    let passphrase = passphrase_file
        .as_deref()
        .map(read_passphrase)
        .transpose()?;
    let header = passphrase.map(|text| base64::engine::general_purpose::STANDARD.encode(text));
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let headers: Vec<(&'static str, String)> = header
        .map(|value| ("x-trireme-passphrase", value))
        .into_iter()
        .collect();
    let body = context
        .client
        .open_with(Method::GET, &path, Payload::Empty, &headers, SAVE_DEADLINE)
        .await?;
    // Beside the target and renamed at the end: what bears the name is always whole.
    let (beside, mut into) = tempfile_in(folder)?;
    let kept = match receive(body, &beside, &mut into).await {
        Ok(bytes) => std::fs::rename(&beside, &file)
            .with_context(|| format!("cannot write {}", file.display()))
            .map(|()| bytes),
        broken => broken,
    };
    let bytes = kept.inspect_err(|_| drop(std::fs::remove_file(&beside)))?;
    match output.output {
        Output::Json => output::json(&json!({"file": file, "bytes": bytes})),
        _ => {
            println!("saved {} ({bytes} bytes)", file.display());
            Ok(())
        }
    }
}

/// Takes the archive in, whole and checked; tells its size.
async fn receive(mut body: Incoming, path: &Path, into: &mut File) -> Result<u64> {
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
        "{spinner} {bytes} saved, {bytes_per_sec}",
    )?);
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the snapshot broke off; nothing was kept")?;
        if let Ok(data) = frame.into_data() {
            into.write_all(&data)
                .with_context(|| format!("cannot write {}", path.display()))?;
            bytes += data.len() as u64;
            bar.set_position(bytes);
        }
    }
    bar.finish_and_clear();
    into.sync_all()?;
    verify(path)?;
    Ok(bytes)
}

/// Looks at an archive, or restores one.
pub async fn run_local(command: &Snapshot) -> Result<ExitCode> {
    let mut control = Command::new(control_program()?);
    match command {
        Snapshot::Save { .. } => bail!("saving needs a cluster"),
        Snapshot::Status { file, output } => {
            control.arg("snapshot-status").arg(file);
            if output.output == Output::Json {
                control.args(["-o", "json"]);
            }
        }
        Snapshot::Restore {
            file,
            data_dir,
            name,
            address,
            passphrase_file,
        } => {
            control
                .arg("restore")
                .arg(file)
                .arg("--data-dir")
                .arg(data_dir)
                .args(["--name", name, "--address", address]);
            control.arg("--passphrase-file").arg(passphrase_file);
        }
    }
    let status = control
        .status()
        .context("cannot run the program `control`")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Lets the `control` program of this machine, where there is one, check what was saved.
fn verify(archive: &Path) -> Result<()> {
    let Ok(program) = control_program() else {
        eprintln!(
            "what was saved is not verified, since the program `control` is not here; `ctl snapshot status` does it on a master"
        );
        return Ok(());
    };
    let checked = Command::new(program)
        .arg("snapshot-status")
        .arg(archive)
        .output()
        .context("cannot run `control`")?;
    ensure!(
        checked.status.success(),
        "what was saved does not verify, and was not kept: {}",
        String::from_utf8_lossy(&checked.stderr).trim()
    );
    Ok(())
}

fn read_passphrase(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the passphrase file {}", file.display()))?;
    let passphrase = text.trim_end_matches(['\n', '\r']).to_owned();
    ensure!(
        !passphrase.is_empty(),
        "the passphrase file {} is empty",
        file.display()
    );
    Ok(passphrase)
}

fn tempfile_in(folder: &Path) -> Result<(PathBuf, File)> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(format!(
        ".trireme-snapshot-{}",
        encode_segment(&std::process::id().to_string())
    ));
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    Ok((path, file))
}

/// `control` beside this program, or on PATH.
fn control_program() -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("control");
    if beside.exists() {
        return Ok(beside);
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&on_path)
        .map(|folder| folder.join("control"))
        .find(|path| path.exists());
    found.context("the program `control` is neither beside ctl nor on PATH; run this on a master")
}
