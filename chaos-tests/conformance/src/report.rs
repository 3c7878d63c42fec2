//! What a report looks like, and how it is held against what is expected.

use crate::run::{Outcome, Report, Result};
use std::collections::{BTreeMap, BTreeSet};

/// The behaviours that are known not to pass: a line each, the test's name; `#` begins a comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected(BTreeSet<String>);

/// Where results and expectation differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// They should pass and did not.
    pub broken: Vec<String>,
    /// They are expected to fail, and passed: they are to be taken off the list.
    pub mended: Vec<String>,
    /// They are expected to fail, and there is no such check.
    pub unknown: Vec<String>,
}

impl Expected {
    /// Reads the lines.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim);
        let names = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Expected(names.map(str::to_owned).collect())
    }

    /// Where a report differs; `all` are the names of every check, run or not.
    pub fn differences(&self, report: &Report, all: &[&str]) -> Differences {
        let passed = |result: &&Result| result.outcome == Outcome::Passed;
        let name = |result: &Result| result.name.to_owned();
        let (mended, failed): (Vec<&Result>, Vec<&Result>) =
            report.results.iter().partition(passed);
        let listed = |result: &&&Result| self.0.contains(result.name);
        Differences {
            broken: failed
                .iter()
                .filter(|it| !listed(it))
                .map(|it| name(it))
                .collect(),
            mended: mended.iter().filter(listed).map(|it| name(it)).collect(),
            unknown: self
                .0
                .iter()
                .filter(|name| !all.contains(&name.as_str()))
                .cloned()
                .collect(),
        }
    }
}

impl Differences {
    /// Whether all is as expected.
    pub fn is_empty(&self) -> bool {
        *self == Differences::default()
    }

    /// Lines that say what to do.
    pub fn lines(&self) -> Vec<String> {
        let told = |names: &[String], what: &str| {
            names
                .iter()
                .map(|name| format!("{what}: {name}"))
                .collect::<Vec<_>>()
        };
        [
            told(&self.broken, "does not pass any more"),
            told(&self.mended, "passes, take it off the list"),
            told(&self.unknown, "is on the list, but there is no such check"),
        ]
        .concat()
    }
}

/// The table by area, and below it each behaviour that did not pass, with the reason.
pub fn table(report: &Report) -> String {
    let mut areas: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let mut total = [0; 3];
    for result in &report.results {
        let column = match result.outcome {
            Outcome::Passed => 0,
            Outcome::Failed => 1,
            Outcome::NotSupported => 2,
        };
        areas.entry(result.area).or_default()[column] += 1;
        total[column] += 1;
    }
    let line = |area: &str, counts: &[usize; 3]| {
        format!(
            "{area:<18} {:>6} {:>6} {:>13}\n",
            counts[0], counts[1], counts[2]
        )
    };
    let mut text = format!(
        "{}\n{:<18} {:>6} {:>6} {:>13}\n",
        report.server, "area", "passed", "failed", "not supported"
    );
    for (area, counts) in &areas {
        text.push_str(&line(area, counts));
    }
    text.push_str(&line("all", &total));
    for (outcome, title) in [
        (Outcome::Failed, "failed"),
        (Outcome::NotSupported, "not supported"),
    ] {
        let of = report.results.iter().filter(|it| it.outcome == outcome);
        for (index, result) in of.enumerate() {
            if index == 0 {
                text.push_str(&format!("\n{title}\n"));
            }
            text.push_str(&format!("  {}\n      {}\n", result.name, result.why));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let result = |name: &'static str, area, outcome, why: &str| Result {
            name,
            area,
            outcome,
            why: why.to_owned(),
            milliseconds: 1,
        };
        Report {
            server: "v1.35.0".to_owned(),
            results: vec![
                result("[sig-a] one", "a", Outcome::Passed, ""),
                result("[sig-a] two", "a", Outcome::Failed, "it is otherwise"),
                result(
                    "[sig-b] three",
                    "b",
                    Outcome::NotSupported,
                    "it is not served",
                ),
            ],
        }
    }

    #[test]
    fn the_table_counts_by_area_and_tells_why() {
        let wanted = "v1.35.0\n\
            area               passed failed not supported\n\
            a                       1      1             0\n\
            b                       0      0             1\n\
            all                     1      1             1\n\
            \nfailed\n  [sig-a] two\n      it is otherwise\n\
            \nnot supported\n  [sig-b] three\n      it is not served\n";
        assert_eq!(table(&report()), wanted);
    }

    #[test]
    fn the_list_must_be_exact_in_both_directions() {
        let all = ["[sig-a] one", "[sig-a] two", "[sig-b] three"];
        let exact = Expected::parse("# known\n[sig-a] two\n\n[sig-b] three\n");
        assert!(exact.differences(&report(), &all).is_empty());
        let wrong = Expected::parse("[sig-a] one\n[sig-a] two\n[sig-c] four\n");
        let differences = wrong.differences(&report(), &all);
        assert_eq!(differences.broken, ["[sig-b] three"]);
        assert_eq!(differences.mended, ["[sig-a] one"]);
        assert_eq!(differences.unknown, ["[sig-c] four"]);
    }
}
