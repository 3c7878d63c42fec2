//! `ctl exec`: a command in a container, with its exit code as ours.

use super::logs::{container_of, pod_path};
use crate::cli::Exec;
use crate::context::Context;
use anyhow::{Result, bail, ensure};
use client::{ExecInput, ExecOutput, ExecReceiver, ExecSender, encode_segment};
use objects::Status;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::convert::Infallible;
use std::future::pending;
use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::process::ExitCode;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

const CHUNK: usize = 16 << 10;

pub async fn run(context: &Context, args: Exec) -> Result<ExitCode> {
    let pod = context.pod(&args.target).await?;
    let terminal = args.tty && std::io::stdin().is_terminal();
    ensure!(
        !args.tty || args.stdin,
        "-t needs -i: a terminal without standard input answers nothing"
    );
    let path = format!(
        "{}/exec?{}",
        pod_path(context, &pod).await?,
        query(&args, &container_of(&pod, args.container.as_deref()))
    );
    let (sender, receiver) = context.client.exec(&path).await?;
    let raw = if terminal {
        Some(RawTerminal::enter()?)
    } else {
        None
    };
    let outcome = converse(sender, receiver, args.stdin, terminal).await;
    drop(raw);
    match outcome? {
        Some(status) => exit_code(&status),
        None => bail!(
            "the connection to the node ended before the command did; whether it goes on is unknown"
        ),
    }
}

fn query(args: &Exec, container: &str) -> String {
    let mut query = vec![
        format!("container={}", encode_segment(container)),
        "stdout=true".to_owned(),
    ];
    query.push(if args.tty {
        "tty=true".to_owned()
    } else {
        "stderr=true".to_owned()
    });
    if args.stdin {
        query.push("stdin=true".to_owned());
    }
    query.extend(
        args.command
            .iter()
            .map(|word| format!("command={}", encode_segment(word))),
    );
    query.join("&")
}

/// Carries bytes both ways until the command ends. Its last word counts, also where it takes no more input.
async fn converse(
    sender: ExecSender,
    mut receiver: ExecReceiver,
    stdin: bool,
    terminal: bool,
) -> Result<Option<Status>> {
    let mut sending = pin!(send_all(sender, stdin, terminal));
    let mut send_failure = None;
    loop {
        tokio::select! {
            output = receiver.next() => match output? {
                Some(ExecOutput::Stdout(data)) => write(&mut std::io::stdout().lock(), &data)?,
                Some(ExecOutput::Stderr(data)) => write(&mut std::io::stderr().lock(), &data)?,
                Some(ExecOutput::Done(status)) => return Ok(Some(*status)),
                None => return send_failure.map_or(Ok(None), Err),
            },
            Err(error) = &mut sending, if send_failure.is_none() => send_failure = Some(error),
        }
    }
}

/// Sends what is typed and each new size of the terminal, until it is dropped.
async fn send_all(mut sender: ExecSender, stdin: bool, terminal: bool) -> Result<Infallible> {
    let mut typed = stdin.then(read_stdin);
    let mut resized = signal(SignalKind::window_change())?;
    if terminal {
        sender.send(size()?).await?;
    }
    loop {
        tokio::select! {
            data = next_typed(&mut typed), if typed.is_some() => match data {
                Some(data) => sender.send(ExecInput::Stdin(data.into())).await?,
                None => {
                    typed = None;
                    sender.send(ExecInput::StdinClosed).await?;
                }
            },
            _ = resized.recv(), if terminal => sender.send(size()?).await?,
            else => pending::<()>().await,
        }
    }
}

async fn next_typed(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    typed.as_mut()?.recv().await
}

fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        let mut buffer = vec![0; CHUNK];
        while let Ok(read) = stdin.read(&mut buffer).await {
            if read == 0 || sender.send(buffer[..read].to_vec()).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn write(out: &mut impl Write, data: &[u8]) -> Result<()> {
    out.write_all(data)?;
    out.flush()?;
    Ok(())
}

fn size() -> Result<ExecInput> {
    let size = tcgetwinsize(std::io::stdin())?;
    Ok(ExecInput::Resize {
        width: size.ws_col,
        height: size.ws_row,
    })
}

/// The command's exit code, out of the Status that a kubelet sends.
fn exit_code(status: &Status) -> Result<ExitCode> {
    if status.status == "Success" {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let code = causes
        .filter(|cause| cause.reason == "ExitCode")
        .find_map(|cause| cause.message.parse::<u8>().ok());
    match code {
        Some(code) => {
            eprintln!("command terminated with exit code {code}");
            Ok(ExitCode::from(code))
        }
        None => bail!("{}", status.message),
    }
}

/// The terminal without line editing and echo, until it is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0) {
            eprintln!("the terminal could not be reset ({error}); type `reset`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_without_exit_code_is_an_error() {
        assert!(exit_code(&Status::internal("no such container")).is_err());
    }
}
