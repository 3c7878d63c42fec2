//! Runs commands in containers and attaches to them.

use std::time::Duration;

use bytes::Bytes;
use rpc::shim::{Attach, Exec, request};
use serde_json::Value;

use super::Pods;
use crate::error::{Error, Result};
use crate::image::blocking;
use crate::stream::{self, Output, Process, terminal_size};
use crate::types::ContainerState;
use crate::{files, spec};

/// To reach the shim and start the process.
const START_TIME_MAX: Duration = Duration::from_secs(70);

/// How a command is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// With a terminal; then all output is standard output.
    pub tty: bool,
    /// With a standard input; without, it is empty.
    pub stdin: bool,
    /// Added to the container's environment.
    pub env: Vec<(String, String)>,
    /// Width and height of the terminal at its start.
    pub size: Option<(u16, u16)>,
}

/// What a short command gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// 128 + signal for one that a signal ended.
    pub code: i32,
    /// Standard output, cut at the limit.
    pub stdout: Vec<u8>,
    /// Standard error, cut at the limit.
    pub stderr: Vec<u8>,
}

impl Pods {
    /// Starts a command in a running container, with the container's user, environment, limits and confinement.
    pub async fn exec(
        &self,
        uid: &str,
        container: &str,
        command: &[String],
        options: &ExecOptions,
    ) -> Result<Process> {
        let pod = self.pod(uid)?;
        if !matches!(pod.entry(container)?.state, ContainerState::Running { .. }) {
            return Err(Error::Exec(format!("container {container} is not running")));
        }
        if command.is_empty() {
            return Err(Error::Exec(
                "you must specify at least one command for the container".into(),
            ));
        }
        let (path, missing) = (
            pod.container_folder(container).join("config.json"),
            pod.shim_error("the container's configuration is gone"),
        );
        let config: Value = blocking(move || files::read_json(&path)?.ok_or(missing)).await?;
        let process = spec::exec_process(&config, command, options.tty, &options.env);
        let request = request::Body::Exec(Exec {
            container_id: container.into(),
            process: process.to_string().into(),
            tty: options.tty,
            stdin: options.stdin,
            size: options.size.map(terminal_size),
        });
        deadline(
            "the start of the command",
            START_TIME_MAX,
            stream::open(&pod.folder, request),
        )
        .await
    }

    /// Runs a command to its end within `time_max` and gives its output, at most `bytes_max` of each stream. At the deadline
    /// it is killed and an error told.
    pub async fn exec_capture(
        &self,
        uid: &str,
        container: &str,
        command: &[String],
        time_max: Duration,
        bytes_max: usize,
    ) -> Result<Captured> {
        let work = async {
            let mut process = self
                .exec(uid, container, command, &ExecOptions::default())
                .await?;
            let mut captured = Captured::default();
            let keep = |kept: &mut Vec<u8>, data: Bytes| {
                let room = bytes_max.saturating_sub(kept.len());
                kept.extend_from_slice(&data[..data.len().min(room)]);
            };
            while let Some(output) = process.next().await {
                match output {
                    Output::Stdout(data) => keep(&mut captured.stdout, data),
                    Output::Stderr(data) => keep(&mut captured.stderr, data),
                }
            }
            captured.code = process.wait().await?;
            Ok(captured)
        };
        deadline(&format!("command {command:?}"), time_max, work).await
    }

    /// Attaches to a running container's streams, from now on.
    pub async fn attach(
        &self,
        uid: &str,
        container: &str,
        size: Option<(u16, u16)>,
    ) -> Result<Process> {
        let pod = self.pod(uid)?;
        let entry = pod.entry(container)?;
        let request = request::Body::Attach(Attach {
            container_id: container.into(),
            stdin: entry.record.spec.stdin,
            size: size.map(terminal_size),
        });
        deadline(
            "the attachment",
            START_TIME_MAX,
            stream::open(&pod.folder, request),
        )
        .await
    }
}

async fn deadline<T>(
    what: &str,
    time_max: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(time_max, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Deadline {
            what: what.into(),
            after: time_max,
        }),
    }
}
