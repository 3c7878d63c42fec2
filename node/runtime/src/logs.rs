//! Reads a container's log, rotated files and all, as `kubectl logs` wants it.
//! The format is the CRI's (see the shim's `logfile`): `<time> stdout|stderr F|P <content>`; pieces (P) are joined.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::image::blocking;

/// How often a followed log is looked at.
const POLL_PAUSE: Duration = Duration::from_millis(100);
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for a slow reader; the log itself waits on disk.
const CHUNKS_MAX: usize = 4;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Goes on until the container ends.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail_lines: Option<usize>,
    /// Only lines from this time on.
    pub since: Option<jiff::Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Ends after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Reads the log at `path`. With `follow`, ends when `ended` does and all is read; `ended` is the container's end. A log
/// that does not exist is empty.
pub fn read(
    path: impl Into<PathBuf>,
    options: LogOptions,
    ended: impl Future<Output = ()> + Send + 'static,
) -> BoxStream<'static, Result<Bytes>> {
    let path = path.into();
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(async move {
        let gone = sender.clone();
        tokio::select! {
            result = send(&path, &options, ended, &sender) => if let Err(error) = result {
                // A reader that went away needs no error.
                let _ = sender.send(Err(error)).await;
            },
            () = gone.closed() => {}
        }
    });
    futures::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|item| (item, receiver))
    })
    .boxed()
}

async fn send(
    path: &Path,
    options: &LogOptions,
    ended: impl Future<Output = ()>,
    sender: &mpsc::Sender<Result<Bytes>>,
) -> Result<()> {
    let mut decoder = Decoder::new(options);
    let mut files = start(path, options.tail_lines).await?;
    let mut ended = std::pin::pin!(ended);
    let mut over = !options.follow;
    let mut last = None;
    loop {
        while let Some(mut file) = files.pop_front() {
            if !copy(&mut file, &mut decoder, sender).await? {
                return Ok(());
            }
            last = Some(file);
        }
        if over {
            return Ok(());
        }
        tokio::select! {
            // One more round after the end: what was written before it must be read.
            () = &mut ended => over = true,
            () = tokio::time::sleep(POLL_PAUSE) => {}
        }
        files = next(path, last.take()).await?;
    }
}

struct LogFile {
    file: tokio::fs::File,
    path: PathBuf,
    inode: u64,
}

/// Reads a file to its present end. False when no more is wanted.
async fn copy(
    file: &mut LogFile,
    decoder: &mut Decoder,
    sender: &mpsc::Sender<Result<Bytes>>,
) -> Result<bool> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = file
            .file
            .read(&mut buffer)
            .await
            .map_err(Error::io("read", &file.path))?;
        if length == 0 {
            return Ok(true);
        }
        let decoded = decoder.feed(&buffer[..length]);
        if !decoded.is_empty() && sender.send(Ok(decoded)).await.is_err() || decoder.is_done() {
            return Ok(false);
        }
    }
}

/// The files to begin with, oldest first, the first at the place where the tail begins.
async fn start(path: &Path, tail_lines: Option<usize>) -> Result<VecDeque<LogFile>> {
    let log = path.to_path_buf();
    blocking(move || {
        let mut files = snapshot(&log)?;
        let Some(mut wanted) = tail_lines else {
            return Ok(files);
        };
        for index in (0..files.len()).rev() {
            let opened = &mut files[index];
            let lines =
                seek_tail(&mut opened.file, wanted).map_err(Error::io("read", &opened.path))?;
            if lines >= wanted {
                return Ok(files.split_off(index));
            }
            wanted -= lines;
        }
        Ok(files)
    })
    .await
    .map(into_async)
}

/// What to read after `last`: the rest of it, and the files that came after it.
async fn next(path: &Path, last: Option<LogFile>) -> Result<VecDeque<LogFile>> {
    let log = path.to_path_buf();
    let inode = last.as_ref().map(|last| last.inode);
    let mut files = blocking(move || {
        let mut files = snapshot(&log)?;
        let position = files.iter().position(|file| Some(file.inode) == inode);
        // Rotated away altogether: what is there is newer.
        Ok(files.split_off(position.map_or(0, |position| position + 1)))
    })
    .await
    .map(into_async)?;
    if let Some(last) = last {
        files.push_front(last);
    }
    Ok(files)
}

struct Opened {
    file: fs::File,
    path: PathBuf,
    inode: u64,
}

fn into_async(files: Vec<Opened>) -> VecDeque<LogFile> {
    let into = |Opened { file, path, inode }| LogFile {
        file: tokio::fs::File::from_std(file),
        path,
        inode,
    };
    files.into_iter().map(into).collect()
}

/// Opens the log's files, oldest first, all of one moment: a rotation in between would hide a file under another name.
fn snapshot(path: &Path) -> Result<Vec<Opened>> {
    loop {
        let paths = files_of(path);
        let mut files = vec![];
        for path in &paths {
            match fs::File::open(path) {
                Ok(file) => {
                    let inode = file.metadata().map_err(Error::io("examine", path))?.ino();
                    files.push(Opened {
                        file,
                        path: path.clone(),
                        inode,
                    });
                }
                // Rotated away meanwhile: seen by the second look.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("open", path)(error)),
            }
        }
        // Each rotation makes a new name.
        if files.len() == paths.len() && files_of(path) == paths {
            return Ok(files);
        }
    }
}

/// The log's files, oldest first: the rotated ones, whose names sort by time, then the current one.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let prefix = format!(
        "{}.",
        path.file_name().unwrap_or_default().to_string_lossy()
    );
    let entries = path.parent().and_then(|parent| fs::read_dir(parent).ok());
    let names = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let is_rotated = |file: &PathBuf| {
        file.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    };
    let mut files: Vec<PathBuf> = names.filter(is_rotated).collect();
    files.sort();
    if path.exists() {
        files.push(path.to_path_buf());
    }
    files
}

/// Moves to the first of the last `wanted` lines of a file, and tells how many of them it holds.
fn seek_tail(file: &mut fs::File, wanted: usize) -> std::io::Result<usize> {
    let (mut starts, mut position, mut between) = (VecDeque::new(), 0u64, true);
    let mut record = vec![];
    let mut reader = BufReader::new(&mut *file);
    loop {
        record.clear();
        // A record that is being written ends without its line end; it is read later.
        if reader.read_until(b'\n', &mut record)? == 0 || !record.ends_with(b"\n") {
            break;
        }
        if between {
            starts.push_back(position);
            if starts.len() > wanted {
                starts.pop_front();
            }
        }
        between = parse(&record).is_none_or(|record| record.whole);
        position += record.len() as u64;
    }
    file.seek(SeekFrom::Start(starts.front().copied().unwrap_or(position)))?;
    Ok(starts.len())
}

struct Record<'a> {
    time: &'a str,
    whole: bool,
    content: &'a [u8],
}

/// None for a line that is no record.
fn parse(line: &[u8]) -> Option<Record<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let _stream = parts.next()?;
    let whole = parts.next()? == b"F";
    Some(Record {
        time,
        whole,
        content: parts.next()?,
    })
}

/// From the file's records to what the user sees.
struct Decoder {
    rest: BytesMut,
    /// The last record was a piece: no time before the next one.
    inside: bool,
    since: Option<jiff::Timestamp>,
    timestamps: bool,
    bytes_left: Option<u64>,
}

impl Decoder {
    fn new(options: &LogOptions) -> Self {
        let LogOptions {
            since,
            timestamps,
            limit_bytes,
            ..
        } = *options;
        Self {
            rest: BytesMut::new(),
            inside: false,
            since,
            timestamps,
            bytes_left: limit_bytes,
        }
    }

    fn is_done(&self) -> bool {
        self.bytes_left == Some(0)
    }

    fn feed(&mut self, chunk: &[u8]) -> Bytes {
        self.rest.extend_from_slice(chunk);
        let mut output = BytesMut::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end + 1);
            if let Some(record) = parse(&line) {
                self.push(&record, &mut output);
            }
        }
        if let Some(left) = &mut self.bytes_left {
            output.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= output.len() as u64;
        }
        output.freeze()
    }

    fn push(&mut self, record: &Record, output: &mut BytesMut) {
        if let Some(since) = self.since {
            match record.time.parse::<jiff::Timestamp>() {
                Ok(time) if time < since => return,
                // Later records are later still.
                _ => self.since = None,
            }
        }
        if self.timestamps && !self.inside {
            output.extend_from_slice(record.time.as_bytes());
            output.extend_from_slice(b" ");
        }
        output.extend_from_slice(record.content);
        if record.whole {
            output.extend_from_slice(b"\n");
        }
        self.inside = !record.whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    const OLD: &str =
        "2026-01-01T00:00:01.000000000Z stdout F one\n2026-01-01T00:00:02.000000000Z stdout P tw\n";
    const NEW: &str = "2026-01-01T00:00:03.000000000Z stdout F o\n2026-01-01T00:00:04.000000000Z stderr F three\n";

    async fn check(options: LogOptions, expected: &str) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("0.log");
        fs::write(dir.path().join("0.log.0001"), OLD).expect("writes");
        fs::write(&path, NEW).expect("writes");
        let chunks: Vec<Bytes> = read(&path, options.clone(), std::future::ready(()))
            .try_collect()
            .await
            .expect("reads");
        assert_eq!(
            String::from_utf8_lossy(&chunks.concat()),
            expected,
            "{options:?}"
        );
    }

    #[tokio::test]
    async fn options_of_kubectl_logs() {
        let all = LogOptions::default();
        check(all.clone(), "one\ntwo\nthree\n").await;
        check(
            LogOptions {
                tail_lines: Some(1),
                ..all.clone()
            },
            "three\n",
        )
        .await;
        check(
            LogOptions {
                tail_lines: Some(0),
                ..all.clone()
            },
            "",
        )
        .await;
        check(
            LogOptions {
                tail_lines: Some(9),
                ..all.clone()
            },
            "one\ntwo\nthree\n",
        )
        .await;
        check(
            LogOptions {
                limit_bytes: Some(5),
                ..all.clone()
            },
            "one\nt",
        )
        .await;
        let since = Some("2026-01-01T00:00:04Z".parse().expect("a time"));
        check(
            LogOptions {
                since,
                timestamps: true,
                ..all.clone()
            },
            "2026-01-01T00:00:04.000000000Z three\n",
        )
        .await;
        check(
            LogOptions {
                timestamps: true,
                limit_bytes: Some(70),
                ..all
            },
            "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:02.000000000Z two\n",
        )
        .await;
    }

    #[tokio::test]
    async fn following_survives_rotation_and_ends_with_the_container() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("0.log");
        let record =
            |number: usize| format!("2026-01-01T00:00:00.{number:09}Z stdout F {number}\n");
        fs::write(&path, record(0)).expect("writes");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let stream = read(
            &path,
            LogOptions {
                follow: true,
                ..LogOptions::default()
            },
            async { drop(ended.await) },
        );
        let reader = tokio::spawn(stream.try_collect::<Vec<Bytes>>());
        for number in 1..8 {
            if number % 3 == 0 {
                fs::rename(&path, dir.path().join(format!("0.log.{number:04}"))).expect("rotates");
            }
            let mut file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .expect("opens");
            std::io::Write::write_all(&mut file, record(number).as_bytes()).expect("writes");
            tokio::time::sleep(Duration::from_millis(35)).await;
        }
        end.send(()).expect("is waited for");
        let chunks = reader.await.expect("ends").expect("reads").concat();
        assert_eq!(String::from_utf8_lossy(&chunks), "0\n1\n2\n3\n4\n5\n6\n7\n");
    }
}
