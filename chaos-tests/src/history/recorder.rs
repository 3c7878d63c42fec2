//! Writes a history while it happens, and reads it back.

use super::{Event, Record};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// A history that grows. The clock is read under its lock, so that lines are in the order of time; a request's invocation is
/// recorded before it is sent and its answer after it came, so that an interval is never too short.
pub struct Recorder {
    began: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    file: Option<BufWriter<File>>,
    records: Vec<Record>,
    problem: Option<std::io::Error>,
}

impl Recorder {
    /// A history that is kept in memory and, where `path` is given, in a file too.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        let file = match path {
            None => None,
            Some(path) => {
                let file = File::create(path)
                    .with_context(|| format!("cannot write the history {}", path.display()))?;
                Some(BufWriter::new(file))
            }
        };
        Ok(Recorder {
            began: Instant::now(),
            inner: Mutex::new(Inner {
                file,
                records: Vec::new(),
                problem: None,
            }),
        })
    }

    /// Adds an event that happens now; returns the time given to it.
    pub fn add(&self, event: Event) -> u64 {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        let ns = self.began.elapsed().as_nanos() as u64;
        let record = Record { ns, event };
        if let Some(file) = &mut inner.file
            && let Err(error) = write_line(file, &record)
        {
            inner.problem.get_or_insert(error);
        }
        inner.records.push(record);
        ns
    }

    /// Nanoseconds since the history began.
    pub fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.inner
            .lock()
            .expect("no holder of this lock panics")
            .records
            .len()
    }

    /// Whether nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the file and hands out the records; an error where any line could not be written.
    pub fn finish(&self) -> Result<Vec<Record>> {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        if let Some(error) = inner.problem.take() {
            return Err(error).context("the history could not be written whole");
        }
        if let Some(mut file) = inner.file.take() {
            file.flush()
                .context("the history could not be written whole")?;
        }
        Ok(std::mem::take(&mut inner.records))
    }
}

fn write_line(file: &mut BufWriter<File>, record: &Record) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, record)?;
    file.write_all(b"\n")
}

/// Reads a history.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let file = File::open(path).with_context(|| {
        format!(
            "cannot read {}; is this the folder of a run?",
            path.display()
        )
    })?;
    let mut records = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        let record = serde_json::from_str(&line).with_context(|| {
            format!(
                "{}, line {}: this is no record of a history",
                path.display(),
                number + 1
            )
        })?;
        records.push(record);
    }
    Ok(records)
}
