//! `ctl snapshot`: save asks a master, list and schedule too; status, verify, restore and keygen are done by the `control` program of
//! this machine, which also stores what is saved in a bucket.

use super::{control, schedule};
use crate::cli::{Output, OutputArg, Seal, Snapshot};
use crate::context::Context;
use crate::output;
use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine;
use client::{Deadline, Payload, encode_segment};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use indicatif::{ProgressBar, ProgressStyle};
use objects::snapshots::{SavedSnapshot, SnapshotList};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

const SAVE_DEADLINE: Deadline = Deadline(Duration::from_secs(60));

/// Whether the command needs no cluster.
pub fn is_local(command: &Snapshot) -> bool {
    !matches!(
        command,
        Snapshot::Save { .. } | Snapshot::List(_) | Snapshot::Schedule(_)
    )
}

/// What a master does.
pub async fn run(context: &Context, command: Snapshot) -> Result<()> {
    match command {
        Snapshot::Save { file, seal, output } => save(context, &file, &seal, output.output).await,
        Snapshot::List(output) => list(context, &output).await,
        Snapshot::Schedule(command) => schedule::run(context, command).await,
        _ => bail!("this needs no cluster"),
    }
}

async fn save(context: &Context, to: &str, seal: &Seal, output: Output) -> Result<()> {
    let (query, headers) = match (&seal.passphrase_file, &seal.key_file) {
        (Some(file), _) => {
            let passphrase = read_passphrase(file)?;
            let encoded = base64::engine::general_purpose::STANDARD.encode(passphrase);
            ("", vec![("x-trireme-passphrase", encoded)])
        }
        (None, Some(file)) => ("", vec![("x-trireme-snapshot-key", read_public_key(file)?)]),
        (None, None) => ("?keys=none", Vec::new()),
    };
    let path = format!("/cluster/v1/snapshot{query}");
    let body = context
        .client
        .open_with(Method::GET, &path, Payload::Empty, &headers, SAVE_DEADLINE)
        .await?;
    let bytes = match to.starts_with("s3://") {
        true => into_bucket(body, to).await?,
        false => into_file(body, Path::new(to)).await?,
    };
    match output {
        Output::Json => output::json(&json!({"file": to, "bytes": bytes})),
        _ => {
            println!("saved {to} ({bytes} bytes)");
            Ok(())
        }
    }
}

/// Beside the target and renamed at the end: what bears the name is always whole.
async fn into_file(body: Incoming, file: &Path) -> Result<u64> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let (beside, mut into) = tempfile_in(folder)?;
    let received = receive(body, &mut into).await.and_then(|bytes| {
        into.sync_all()?;
        verify(&beside)?;
        std::fs::rename(&beside, file)
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(bytes)
    });
    received.inspect_err(|_| drop(std::fs::remove_file(&beside)))
}

/// Through the `control` program; an upload that breaks off leaves no object.
async fn into_bucket(body: Incoming, url: &str) -> Result<u64> {
    let mut upload = control::command("snapshot-put")?
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot run the program `control`")?;
    let mut input = upload.stdin.take().expect("it is piped");
    let received = receive(body, &mut input).await;
    if received.is_err() {
        // Before its input ends: it must not take what it has for the whole.
        upload.kill().context("the upload could not be ended")?;
    }
    drop(input);
    let ended = upload.wait().context("the upload did not end")?;
    let bytes = received?;
    ensure!(ended.success(), "the upload failed; nothing was kept");
    verify(Path::new(url)).inspect_err(|_| eprintln!("{url} is not to be relied on"))?;
    Ok(bytes)
}

/// Takes the archive in; tells its size.
async fn receive(mut body: Incoming, into: &mut impl Write) -> Result<u64> {
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
        "{spinner} {bytes} saved, {bytes_per_sec}",
    )?);
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the snapshot broke off; nothing was kept")?;
        if let Ok(data) = frame.into_data() {
            into.write_all(&data)
                .context("the snapshot cannot be written")?;
            bytes += data.len() as u64;
            bar.set_position(bytes);
        }
    }
    bar.finish_and_clear();
    Ok(bytes)
}

/// What the `control` program of this machine does.
pub async fn run_local(command: &Snapshot) -> Result<ExitCode> {
    let control = match command {
        Snapshot::Status { file, output } => {
            let mut control = control::command("snapshot-status")?;
            control.arg(file);
            control::print_as(&mut control, output.output);
            control
        }
        Snapshot::Verify {
            file,
            scratch_dir,
            passphrase_file,
            key_file,
            output,
        } => {
            let mut control = control::command("snapshot-verify")?;
            control.arg(file);
            option(&mut control, "--scratch-dir", scratch_dir.as_deref());
            option(
                &mut control,
                "--passphrase-file",
                passphrase_file.as_deref(),
            );
            option(&mut control, "--key-file", key_file.as_deref());
            control::print_as(&mut control, output.output);
            control
        }
        Snapshot::Restore {
            file,
            data_dir,
            name,
            address,
            passphrase_file,
            key_file,
        } => {
            let mut control = control::command("restore")?;
            control.arg(file).arg("--data-dir").arg(data_dir);
            control.args(["--name", name, "--address", address]);
            option(
                &mut control,
                "--passphrase-file",
                passphrase_file.as_deref(),
            );
            option(&mut control, "--key-file", key_file.as_deref());
            control
        }
        Snapshot::Keygen { file } => {
            let mut control = control::command("snapshot-keygen")?;
            control.arg(file);
            control
        }
        Snapshot::Save { .. } | Snapshot::List(_) | Snapshot::Schedule(_) => {
            bail!("this needs a cluster")
        }
    };
    control::run(control)
}

fn option(command: &mut Command, name: &str, value: Option<&Path>) {
    if let Some(value) = value {
        command.arg(name).arg(value);
    }
}

/// Lets the `control` program of this machine, where there is one, check what was saved.
fn verify(archive: &Path) -> Result<()> {
    let Ok(mut control) = control::command("snapshot-status") else {
        eprintln!(
            "what was saved is not verified, since the program `control` is not here; `ctl snapshot status` does it on a master"
        );
        return Ok(());
    };
    let checked = control
        .arg(archive)
        .output()
        .context("cannot run `control`")?;
    ensure!(
        checked.status.success(),
        "what was saved does not verify: {}",
        String::from_utf8_lossy(&checked.stderr).trim()
    );
    Ok(())
}

/// The passphrase in a file, without the end of its line.
pub fn read_passphrase(file: &Path) -> Result<String> {
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

/// The public key in a key file.
pub fn read_public_key(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the key file {}", file.display()))?;
    let key = text
        .lines()
        .find_map(|line| line.strip_prefix("public-key:"));
    key.map(|key| key.trim().to_owned()).with_context(|| {
        format!(
            "{} holds no public key, as `ctl snapshot keygen` writes it",
            file.display()
        )
    })
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

async fn list(context: &Context, output: &OutputArg) -> Result<()> {
    let list: SnapshotList = context.client.get("/cluster/v1/snapshots").await?;
    match output.output {
        Output::Json => output::json(&list),
        Output::Yaml => output::yaml(&list),
        _ => {
            let headers = [
                "Saved", "Schedule", "Revision", "Size", "Verified", "Keys", "On", "Where",
            ];
            let rows = list.snapshots.iter().map(row).collect();
            output::table(&headers.map(str::to_owned), rows);
            Ok(())
        }
    }
}

fn row(snapshot: &SavedSnapshot) -> Vec<String> {
    vec![
        snapshot.saved.to_string(),
        snapshot.schedule.clone(),
        snapshot.revision.to_string(),
        mebibytes(snapshot.bytes),
        if snapshot.verified { "yes" } else { "no" }.to_owned(),
        snapshot.keys.clone(),
        snapshot.on.clone().unwrap_or_default(),
        format!("{}/{}", snapshot.place, snapshot.name),
    ]
}

/// A size for people.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
