//! A container's log in the CRI's format, rotated by size.
//! Each line is `<RFC 3339 time with nanoseconds> stdout|stderr F|P <content>`; P marks a piece of a line that goes on.
//! A write that fails loses log, never stalls or ends the container. Format: kubernetes/design-proposals, kubelet-cri-logging.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A longer line is cut into pieces, as containerd does by default.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Which of a process's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 1, and everything that a terminal shows.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The open log of one container.
pub struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    files_max: usize,
    rotations: u64,
    stdout_rest: Vec<u8>,
    stderr_rest: Vec<u8>,
}

impl LogFile {
    /// Opens `path` to append; `bytes_max` zero means no rotation.
    pub fn open(path: PathBuf, bytes_max: u64, files_max: u32) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = append(&path)?;
        let bytes = file.metadata()?.len();
        let files_max = usize::try_from(files_max).unwrap_or(1).max(1);
        Ok(Self {
            path,
            file,
            bytes,
            bytes_max,
            files_max,
            rotations: 0,
            stdout_rest: vec![],
            stderr_rest: vec![],
        })
    }

    /// Adds what the container wrote. A line without its end is kept for the next call.
    pub fn write(&mut self, stream: Stream, data: &[u8], now_ns: i64) {
        let rest = match stream {
            Stream::Stdout => &mut self.stdout_rest,
            Stream::Stderr => &mut self.stderr_rest,
        };
        let mut records = vec![];
        let time = format_time(now_ns);
        split_lines(rest, data, |line, whole| {
            push_record(&mut records, &time, stream, line, whole)
        });
        self.append(&records, now_ns);
    }

    /// Writes out what had no line end, at the end of the container.
    pub fn finish(&mut self, now_ns: i64) {
        let time = format_time(now_ns);
        let mut records = vec![];
        for (stream, rest) in [
            (Stream::Stdout, std::mem::take(&mut self.stdout_rest)),
            (Stream::Stderr, std::mem::take(&mut self.stderr_rest)),
        ] {
            if !rest.is_empty() {
                push_record(&mut records, &time, stream, &rest, true);
            }
        }
        self.append(&records, now_ns);
    }

    /// Writes whole records, and rotates between them when the file is full.
    fn append(&mut self, mut records: &[u8], now_ns: i64) {
        while !records.is_empty() {
            let (now, later) = records.split_at(self.fitting(records));
            if self.file.write_all(now).is_err() {
                return;
            }
            self.bytes += now.len() as u64;
            records = later;
            if self.bytes_max > 0 && self.bytes >= self.bytes_max {
                self.rotations += 1;
                // A rotation that fails leaves the log growing; the next write tries again.
                let _ = self.rotate(now_ns);
            }
        }
    }

    /// Bytes of the records that go into this file: up to the end of the one that fills it.
    fn fitting(&self, records: &[u8]) -> usize {
        let room = usize::try_from(self.bytes_max.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        if self.bytes_max == 0 || records.len() <= room {
            return records.len();
        }
        let end = records[room..].iter().position(|byte| *byte == b'\n');
        end.map_or(records.len(), |end| room + end + 1)
    }

    fn rotate(&mut self, now_ns: i64) -> io::Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_os_string();
        // Several rotations of one moment differ by their number. Sorts by time, since nanoseconds of this era have nineteen digits.
        name.push(format!(".{now_ns:019}-{:06}", self.rotations));
        fs::rename(&self.path, self.path.with_file_name(name))?;
        self.file = append(&self.path)?;
        self.bytes = 0;
        let mut rotated = rotated_files(&self.path)?;
        rotated.sort();
        let surplus = (rotated.len() + 1).saturating_sub(self.files_max);
        for path in rotated.into_iter().take(surplus) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = format!(
        "{}.",
        path.file_name().unwrap_or_default().to_string_lossy()
    );
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mut found = vec![];
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn push_record(records: &mut Vec<u8>, time: &str, stream: Stream, line: &[u8], whole: bool) {
    records.extend_from_slice(time.as_bytes());
    records.push(b' ');
    records.extend_from_slice(stream.name().as_bytes());
    records.extend_from_slice(if whole { b" F " } else { b" P " });
    records.extend_from_slice(line);
    records.push(b'\n');
}

fn format_time(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(
        |_| "1970-01-01T00:00:00.000000000Z".into(),
        |time| format!("{time:.9}"),
    )
}

/// Cuts `rest` + `data` into lines: `emit(line, true)` for a line that ended, `emit(piece, false)` for each piece of
/// LINE_BYTES_MAX of a longer one. What is left goes to `rest`.
fn split_lines(rest: &mut Vec<u8>, data: &[u8], mut emit: impl FnMut(&[u8], bool)) {
    for chunk in data.split_inclusive(|byte| *byte == b'\n') {
        let (line, ended) = match chunk.split_last() {
            Some((b'\n', line)) => (line, true),
            _ => (chunk, false),
        };
        rest.extend_from_slice(line);
        let mut start = 0;
        while rest.len() - start > LINE_BYTES_MAX {
            emit(&rest[start..start + LINE_BYTES_MAX], false);
            start += LINE_BYTES_MAX;
        }
        if ended {
            emit(&rest[start..], true);
            rest.clear();
        } else {
            rest.drain(..start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_pieces_and_the_rest() {
        let mut rest = vec![];
        let mut seen: Vec<(usize, bool)> = vec![];
        split_lines(&mut rest, b"one\n\ntwo", |line, whole| {
            seen.push((line.len(), whole))
        });
        assert_eq!(
            (seen.as_slice(), rest.as_slice()),
            ([(3, true), (0, true)].as_slice(), b"two".as_slice())
        );
        seen.clear();
        split_lines(&mut rest, &[b'x'; LINE_BYTES_MAX], |line, whole| {
            seen.push((line.len(), whole))
        });
        assert_eq!(
            (seen.as_slice(), rest.len()),
            ([(LINE_BYTES_MAX, false)].as_slice(), 3)
        );
        seen.clear();
        split_lines(&mut rest, b"\n", |line, whole| {
            seen.push((line.len(), whole))
        });
        assert_eq!((seen.as_slice(), rest.len()), ([(3, true)].as_slice(), 0));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_however_it_is_cut(text in "[a-c\n]{0,200}", cuts in proptest::collection::vec(1usize..20, 0..30)) {
            let (mut rest, mut seen) = (vec![], vec![]);
            let mut left = text.as_bytes();
            for cut in cuts {
                let (now, later) = left.split_at(cut.min(left.len()));
                split_lines(&mut rest, now, |line, whole| { seen.extend_from_slice(line); if whole { seen.push(b'\n') } });
                left = later;
            }
            split_lines(&mut rest, left, |line, whole| { seen.extend_from_slice(line); if whole { seen.push(b'\n') } });
            seen.extend_from_slice(&rest);
            prop_assert_eq!(seen, text.into_bytes());
        }
    }

    #[test]
    fn rotation_keeps_the_newest() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("0.log");
        let mut log = LogFile::open(path.clone(), 100, 3).expect("opens");
        for index in 0..10 {
            log.write(
                Stream::Stdout,
                format!("{index:090}\n").as_bytes(),
                1_700_000_000_000_000_000 + index,
            );
        }
        log.write(
            Stream::Stdout,
            "tiny\n".repeat(50).as_bytes(),
            1_700_000_000_500_000_000,
        );
        log.write(
            Stream::Stdout,
            format!("{:090}\n", 9).as_bytes(),
            1_700_000_000_600_000_000,
        );
        log.write(Stream::Stderr, b"unfinished", 1_700_000_001_000_000_000);
        log.finish(1_700_000_001_000_000_000);
        assert_eq!(
            fs::read_to_string(&path).expect("reads"),
            "2023-11-14T22:13:21.000000000Z stderr F unfinished\n"
        );
        let mut rotated = rotated_files(&path).expect("lists");
        assert!(
            rotated
                .iter()
                .all(|path| fs::metadata(path).expect("is there").len() < 250)
        );
        rotated.sort();
        assert_eq!(rotated.len(), 2);
        let newest = fs::read_to_string(rotated.last().expect("one")).expect("reads");
        assert!(
            newest.ends_with("9\n") && newest.contains(" stdout F 000"),
            "{newest}"
        );
    }
}
