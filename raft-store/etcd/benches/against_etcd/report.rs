//! What the figures say, beside their goals.

use serde::Serialize;

/// One line of the comparison.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub figure: &'static str,
    pub what: String,
    /// What is measured, in `unit`.
    pub trireme: f64,
    pub etcd: Option<f64>,
    pub unit: &'static str,
    /// What the goal is about: the ratio of ours to etcd's, or ours where the goal is a figure of its own.
    pub measured: f64,
    pub goal: Goal,
    pub reached: Option<bool>,
    pub detail: String,
}

/// What is to be reached.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Only told.
    None,
}

impl Goal {
    fn is_reached(self, measured: f64) -> Option<bool> {
        match self {
            Goal::AtLeast(goal) => Some(measured >= goal),
            Goal::AtMost(goal) => Some(measured <= goal),
            Goal::None => None,
        }
    }
}

impl Row {
    /// A figure whose goal is a ratio.
    pub fn ratio(
        figure: &'static str,
        what: impl Into<String>,
        (trireme, etcd, unit): (f64, f64, &'static str),
        ratio: f64,
        goal: Goal,
    ) -> Row {
        Row {
            figure,
            what: what.into(),
            trireme,
            etcd: Some(etcd),
            unit,
            measured: ratio,
            goal,
            reached: goal.is_reached(ratio),
            detail: String::new(),
        }
    }

    /// A figure with a goal of its own.
    pub fn alone(
        figure: &'static str,
        what: impl Into<String>,
        (trireme, etcd, unit): (f64, Option<f64>, &'static str),
        goal: Goal,
    ) -> Row {
        Row {
            figure,
            what: what.into(),
            trireme,
            etcd,
            unit,
            measured: trireme,
            goal,
            reached: goal.is_reached(trireme),
            detail: String::new(),
        }
    }

    /// With what else was seen.
    pub fn with(mut self, detail: String) -> Row {
        self.detail = detail;
        self
    }
}

/// The rows as a table.
pub fn print(rows: &[Row], etcd_version: &str) {
    println!(
        "{:<58}{:>11}{:>12}{:>7}{:>8}",
        "three processes a side on loopback without TLS, all synced",
        "trireme",
        format!(" etcd {etcd_version}"),
        "ratio",
        "goal"
    );
    for row in rows {
        let goal = match row.goal {
            Goal::AtLeast(goal) => format!(">={goal}"),
            Goal::AtMost(goal) => format!("<={goal}"),
            Goal::None => String::new(),
        };
        let verdict = match row.reached {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        let etcd = row.etcd.map(short).unwrap_or_default();
        let ratio = row.etcd.map(|_| short(row.measured)).unwrap_or_default();
        let what = format!("{}, {}", row.what, row.unit);
        println!(
            "{what:<58}{:>11}{etcd:>11}{ratio:>8}{goal:>8}  {verdict}",
            short(row.trireme)
        );
        if !row.detail.is_empty() {
            println!("    {}", row.detail);
        }
    }
}

/// As many digits as mean something.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that so large a part of the values does not exceed.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if part == 0.5 && count % 2 == 0 => {
            f64::midpoint(values[count / 2 - 1], values[count / 2])
        }
        count => values[(((count - 1) as f64) * part).ceil() as usize],
    }
}
