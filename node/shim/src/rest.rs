//! Gives back the memory of code that ran once: the dynamic linker, the start, reading and writing messages.
//!
//! A shim lives as long as its pod and waits nearly always, and what it waits with is one loop. Text that it touched before
//! is clean and lies in the page cache: the kernel maps it again at the next touch, without reading the disk. So a while
//! after rare work the process lets go of all of it. It never lets go of a mapping that was written to, such as relocated
//! data, whose file does not hold what the memory does: see `madvise(2)`, `MADV_DONTNEED`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::time::{Duration, Instant};

use nix::libc;

/// How long after rare work, so that one burst of it costs one rest.
const REST_AFTER: Duration = Duration::from_secs(1);

/// When to rest next.
#[derive(Debug, Default)]
pub struct Rest {
    due: Option<Instant>,
}

impl Rest {
    /// Rare work was done: rest soon. More of it does not move a rest that is due.
    pub fn after_work(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + REST_AFTER);
    }

    /// When the next rest is due.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Rests if it is due.
    pub fn rest_if_due(&mut self) {
        if self.due.is_some_and(|due| Instant::now() >= due) {
            self.due = None;
            release();
        }
    }
}

/// Lets go of all clean text. Where the kernel does not tell which that is, nothing is let go of.
fn release() {
    let Ok(file) = File::open("/proc/self/smaps") else {
        return;
    };
    for range in clean_text(BufReader::new(file)) {
        // SAFETY: the kernel has just told that the range is a private mapping of a file, not writable and without a page
        // of its own. This process has one thread, so nobody has changed that since. Such pages hold what the file holds,
        // and the next touch maps them again.
        unsafe {
            libc::madvise(
                range.start as *mut libc::c_void,
                range.len(),
                libc::MADV_DONTNEED,
            )
        };
        // A refusal, as of a locked mapping, leaves the pages where they are.
    }
    // SAFETY: the allocator gives back free pages; no live allocation moves.
    unsafe { libc::malloc_trim(0) };
}

/// The mappings of `/proc/PID/smaps` that are private, of a file, not writable, present and without one page that differs
/// from the file, in memory or swapped out. A text that is cut off ends with the last mapping that was told whole.
fn clean_text(smaps: impl BufRead) -> Vec<Range<usize>> {
    let mut found = vec![];
    let mut current = Mapping::default();
    for line in smaps.lines().map_while(Result::ok) {
        match line.split_once(':') {
            Some((key, value))
                if key
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || letter == '_') =>
            {
                current.tell(key, value);
                if key == "VmFlags" {
                    found.extend(std::mem::take(&mut current).clean());
                }
            }
            _ => current = Mapping::begin(&line).unwrap_or_default(),
        }
    }
    found
}

/// One mapping, as far as it was told.
#[derive(Default)]
struct Mapping {
    /// None for one that is not text of a file.
    range: Option<Range<usize>>,
    present: bool,
    /// Kilobytes in memory that differ from the file.
    anonymous: Option<u64>,
    /// Kilobytes swapped out, which differ too.
    swapped: Option<u64>,
}

impl Mapping {
    /// From a line such as `55c3fd272000-55c3fd47f000 r-xp 00000000 fe:00 803112    /bin/x`.
    fn begin(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let range = address(start)?..address(end)?;
        let is_text = matches!(words.next()?, "r--p" | "r-xp");
        let inode: u64 = words.nth(2)?.parse().ok()?;
        Some(Self {
            range: (is_text && inode != 0).then_some(range),
            ..Self::default()
        })
    }

    fn tell(&mut self, key: &str, value: &str) {
        let kilobytes = || value.trim().trim_end_matches(" kB").parse().ok();
        match key {
            "Rss" => self.present = kilobytes().is_some_and(|size: u64| size > 0),
            "Anonymous" => self.anonymous = kilobytes(),
            "Swap" => self.swapped = kilobytes(),
            _ => {}
        }
    }

    fn clean(self) -> Option<Range<usize>> {
        let is_clean = self.anonymous == Some(0) && self.swapped == Some(0);
        self.range.filter(|_| self.present && is_clean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "1000-3000 r-xp 0020c000 fe:00 803112     /run/bin/a b: c/shim\n";
    const CLEAN: &str =
        "Rss:      8 kB\nAnonymous:     0 kB\nSwap:   0 kB\nVmFlags: rd ex mr mw me\n";

    fn found(smaps: &str) -> Vec<(usize, usize)> {
        let ranges = clean_text(smaps.as_bytes()).into_iter();
        ranges.map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn takes_only_what_the_file_holds() {
        let clean = format!("{HEAD}{CLEAN}");
        assert_eq!(found(&clean), [(0x1000, 0x3000)]);
        assert_eq!(found(&clean.replace("r-xp", "r--p")), [(0x1000, 0x3000)]);
        for (from, to, why) in [
            ("r-xp", "rw-p", "writable"),
            ("r-xp", "r-xs", "shared"),
            ("803112", "0", "of no file"),
            ("Rss:      8", "Rss:      0", "not present"),
            ("Anonymous:     0", "Anonymous:     4", "written to"),
            ("Swap:   0", "Swap:   4", "written to and swapped out"),
            ("Anonymous:     0 kB\n", "", "without the figure"),
            ("Swap:   0 kB\n", "", "without the figure"),
        ] {
            let other = clean.replace(from, to);
            assert_ne!(other, clean);
            assert_eq!(found(&other), [], "{why}");
        }
    }

    #[test]
    fn figures_never_reach_the_next_mapping() {
        let (clean, dirty) = (
            format!("{HEAD}{CLEAN}"),
            HEAD.replace("1000-3000", "4000-5000"),
        );
        assert_eq!(
            found(&format!("{clean}{dirty}{clean}")),
            [(0x1000, 0x3000), (0x1000, 0x3000)]
        );
        assert_eq!(
            found(&format!("{clean}{dirty}Rss: 4 kB\n")),
            [(0x1000, 0x3000)]
        );
        assert_eq!(found("no such text\n"), []);
    }

    #[test]
    fn runs_on_after_a_release() {
        release();
        assert_eq!(format!("{:?}", Rest::default()), "Rest { due: None }");
    }

    #[test]
    fn later_work_does_not_move_a_rest() {
        let mut rest = Rest::default();
        rest.after_work();
        let due = rest.due().expect("is due");
        rest.after_work();
        assert_eq!(rest.due(), Some(due));
        rest.rest_if_due();
        assert_eq!(rest.due(), Some(due), "not before its time");
    }
}
