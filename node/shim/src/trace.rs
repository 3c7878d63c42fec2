//! Keeps what libcontainer logs as errors, since the errors that it returns leave out their causes.
//! The container's process runs this code too, until its execve: hence a file and not memory.

use std::fmt::Debug;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// File in the folder of the runtime's state.
pub const FILE: &str = "errors.log";

/// Collects into `folder`, from now to the end of the process.
pub fn collect(folder: &Path) -> Result<()> {
    let file = File::create(folder.join(FILE)).context("cannot create the error log")?;
    tracing::subscriber::set_global_default(Errors { file }).context("errors are collected already")
}

/// The first error: the others are its echoes.
pub fn first(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(FILE)).ok()?;
    text.lines().next().map(str::to_string)
}

struct Errors {
    file: File,
}

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        line.0 = line.0.replace('\n', " ") + "\n";
        // Losing it costs only clarity.
        let _ = (&self.file).write_all(line.0.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let separator = if self.0.is_empty() { "" } else { " " };
        if field.name() == "message" {
            self.0 = format!("{value:?}{separator}{}", self.0);
        } else {
            self.0 += &format!("{separator}{}={value:?}", field.name());
        }
    }
}
