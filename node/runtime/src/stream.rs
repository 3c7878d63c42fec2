//! Streams to and from a process in a container: what `exec` and `attach` give.
//! Bounded: a process whose output nobody reads waits; input that the process does not read waits too.

use std::path::Path;

use bytes::Bytes;
use prost::Message;
use rpc::shim::{
    Done, Request, StreamInput, StreamOutput, TerminalSize, request, stream_input, stream_output,
};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::shim::{self, FrameReader};

const CHUNKS_MAX: usize = 16;
/// Standard input is cut into pieces of this size.
const INPUT_BYTES_MAX: usize = 32 * 1024;

/// What a process wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To its standard output, or its terminal.
    Stdout(Bytes),
    /// To its standard error.
    Stderr(Bytes),
}

/// A process that was started by exec, or a container that is attached to.
/// Dropping it ends the connection: an exec'd process is then killed, a container is left alone.
#[derive(Debug)]
pub struct Process {
    /// Standard input and terminal size.
    pub input: Input,
    output: mpsc::Receiver<Frame>,
    exit: Option<Result<i32, String>>,
}

#[derive(Debug)]
enum Frame {
    Output(Output),
    End(Result<i32, String>),
}

/// The way to a process's standard input and terminal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Input {
    sender: mpsc::Sender<stream_input::Body>,
}

impl Input {
    /// Writes to standard input; waits while the process does not read. An error means that the process is gone.
    pub async fn write(&self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(INPUT_BYTES_MAX));
            self.send(stream_input::Body::Stdin(piece)).await?;
        }
        Ok(())
    }

    /// Ends standard input.
    pub async fn close(&self) -> Result<()> {
        self.send(stream_input::Body::StdinEnd(Done {})).await
    }

    /// Sets the terminal's size; nothing happens without a terminal.
    pub async fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.send(stream_input::Body::Resize(terminal_size((width, height))))
            .await
    }

    async fn send(&self, body: stream_input::Body) -> Result<()> {
        self.sender
            .send(body)
            .await
            .map_err(|_| Error::Exec("the process has ended".into()))
    }
}

impl Process {
    /// The next piece of output; None when the process ended and all was read.
    pub async fn next(&mut self) -> Option<Output> {
        match self.output.recv().await {
            Some(Frame::Output(output)) => Some(output),
            Some(Frame::End(exit)) => {
                self.exit = Some(exit);
                None
            }
            None => None,
        }
    }

    /// Reads and drops the rest of the output, and returns the exit code: 128 + signal for a process that a signal ended.
    pub async fn wait(&mut self) -> Result<i32> {
        while self.exit.is_none() {
            if self.next().await.is_none() && self.exit.is_none() {
                self.exit = Some(Err("the shim has closed the connection".into()));
            }
        }
        match self.exit.clone() {
            Some(Ok(code)) => Ok(code),
            Some(Err(message)) => Err(Error::Exec(message)),
            None => Err(Error::Exec("the process was not waited for".into())),
        }
    }
}

pub(crate) fn terminal_size((width, height): (u16, u16)) -> TerminalSize {
    TerminalSize {
        width: width.into(),
        height: height.into(),
    }
}

/// Opens a stream with its first request and waits until the process runs.
pub(crate) async fn open(folder: &Path, body: request::Body) -> Result<Process> {
    let failed =
        |error: std::io::Error| Error::Exec(format!("the pod's shim cannot be reached: {error}"));
    let (reader, mut writer) = shim::connect(folder).await.map_err(failed)?.into_split();
    writer
        .write_all(
            &Request {
                id: 0,
                body: Some(body),
            }
            .encode_length_delimited_to_vec(),
        )
        .await
        .map_err(failed)?;
    let mut reader = FrameReader::new(reader);
    match reader
        .next::<StreamOutput>()
        .await
        .map_err(failed)?
        .and_then(|frame| frame.body)
    {
        Some(stream_output::Body::Started(_)) => {}
        Some(stream_output::Body::Error(failure)) => {
            return Err(Error::Exec(clarify(&failure.message)));
        }
        _ => return Err(Error::Exec("the shim has closed the connection".into())),
    }
    let (input, inputs) = mpsc::channel(CHUNKS_MAX);
    let (outputs, output) = mpsc::channel(CHUNKS_MAX);
    let input_task = tokio::spawn(send_input(writer, inputs));
    tokio::spawn(async move {
        receive_output(reader, outputs).await;
        input_task.abort();
    });
    Ok(Process {
        input: Input { sender: input },
        output,
        exit: None,
    })
}

async fn send_input(mut writer: OwnedWriteHalf, mut inputs: mpsc::Receiver<stream_input::Body>) {
    while let Some(body) = inputs.recv().await {
        if writer
            .write_all(&StreamInput { body: Some(body) }.encode_length_delimited_to_vec())
            .await
            .is_err()
        {
            return;
        }
    }
    // Nobody can write any more, but output may still be read: keep the writing half open until that ends too.
    std::future::pending::<()>().await;
}

async fn receive_output(mut reader: FrameReader, outputs: mpsc::Sender<Frame>) {
    loop {
        let frame = tokio::select! {
            frame = reader.next::<StreamOutput>() => frame,
            () = outputs.closed() => return,
        };
        let message = match frame {
            Ok(Some(StreamOutput { body: Some(body) })) => match body {
                stream_output::Body::Started(_) => continue,
                stream_output::Body::Stdout(data) => Frame::Output(Output::Stdout(data)),
                stream_output::Body::Stderr(data) => Frame::Output(Output::Stderr(data)),
                stream_output::Body::Exited(exited) => Frame::End(Ok(exited.exit_code)),
                stream_output::Body::Error(failure) => Frame::End(Err(failure.message)),
            },
            Ok(Some(StreamOutput { body: None })) => continue,
            Ok(None) => Frame::End(Err("the shim has closed the connection".into())),
            Err(error) => Frame::End(Err(error.to_string())),
        };
        let last = matches!(message, Frame::End(_));
        if outputs.send(message).await.is_err() || last {
            return;
        }
    }
}

/// libcontainer's words for what users meet, in the words that they know.
pub(crate) fn clarify(message: &str) -> String {
    if let Some((_, rest)) = message.split_once("executable '")
        && let Some((name, rest)) = rest.split_once('\'')
    {
        if rest.contains("not found in $PATH") {
            let reason = if name.contains('/') {
                "no such file or directory"
            } else {
                "executable file not found in $PATH"
            };
            let verb = if name.contains('/') { "stat " } else { "" };
            return format!(
                "exec: {name:?}: {verb}{}{reason}",
                if name.contains('/') {
                    format!("{name}: ")
                } else {
                    String::new()
                }
            );
        }
        if rest.contains("permission") {
            return format!("exec: {name:?}: permission denied");
        }
    }
    message.to_string()
}
