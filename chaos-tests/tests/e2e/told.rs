//! Commands, run to their end, with all that they told; and waiting for what is to come.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No command of a story takes longer; one that does is ended and fails.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// What a command told.
pub struct Told {
    what: String,
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Told {
    /// Runs a command to its end, with `input` as its standard input.
    pub fn of(mut command: Command, input: &[u8]) -> Told {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
        let mut stdin = child.stdin.take().expect("is piped");
        let input = input.to_vec();
        // A command that ends without reading all of it is not at fault.
        std::thread::spawn(move || stdin.write_all(&input));
        let out = reader(child.stdout.take().expect("is piped"));
        let err = reader(child.stderr.take().expect("is piped"));
        let code = end_of(&mut child, &what);
        let text = |reader: std::thread::JoinHandle<Vec<u8>>| {
            let bytes = reader.join().expect("reading does not panic");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Told {
            what,
            code,
            out: text(out),
            err: text(err),
        }
    }

    /// What it printed, when it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// What it complained of, when it failed with this exit code.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.err
    }

    /// The one line with which it failed, which must hold all of `words`.
    #[track_caller]
    pub fn one_line(self, words: &[&str]) {
        assert!(
            self.code.is_some_and(|code| code != 0),
            "it should have failed: {self:?}"
        );
        let lines: Vec<&str> = self.err.lines().filter(|line| !is_log(line)).collect();
        assert_eq!(lines.len(), 1, "one clear line is wanted: {self:?}");
        assert_words(lines[0], words);
    }
}

impl Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Told {
            what,
            code,
            out,
            err,
        } = self;
        write!(f, "{what}\nended with {code:?}\nout: {out}\nerr: {err}")
    }
}

/// Whether a line is of a program's log, which begins with the time.
fn is_log(line: &str) -> bool {
    line.starts_with("20")
        && line.contains("T")
        && [" INFO ", " WARN "]
            .iter()
            .any(|level| line.contains(level))
}

fn reader(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn end_of(child: &mut Child, what: &str) -> Option<i32> {
    let until = Instant::now() + COMMAND_DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status.code();
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("{what} did not end within {COMMAND_DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asserts that a text holds all of the words.
#[track_caller]
pub fn assert_words(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

/// Waits until the question has an answer; fails with the question's last refusal when that takes longer.
#[track_caller]
pub fn until<T>(what: &str, seconds: u64, mut question: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match question() {
            Ok(answer) => return answer,
            Err(refusal) if Instant::now() > end => {
                panic!("{what} did not come within {seconds} s: {refusal}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Prints how long a part of a story took, for whoever wants the story faster.
pub fn timed<T>(part: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    println!("{part}: {:.1} s", begun.elapsed().as_secs_f64());
    result
}
