//! The report of a run: one page that needs nothing else, most important first. Pure.

mod plot;

use crate::check::Findings;
use crate::check::anomaly::{Anomaly, Class};
use crate::history::Timeline;
use crate::results::{Results, RunConfig, Verdict};
use std::collections::BTreeSet;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");
/// Anomalies told whole.
const ANOMALIES_TOLD: usize = 20;

/// The page.
pub fn html(config: &RunConfig, results: &Results, timeline: &Timeline) -> String {
    let mut page = String::new();
    let verdict = results.verdict;
    let _ = write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>chaos: {text}</title><style>{STYLE}</style><main>\
         <header class=\"verdict {class}\"><h1>{text}</h1><p>{summary}</p></header>",
        text = verdict.text(),
        class = match verdict {
            Verdict::Ok => "good",
            Verdict::Violated => "bad",
            Verdict::Unknown | Verdict::CoverageMissing => "unsure",
        },
        summary = escape(&summary(config, results)),
    );
    for reason in results.reasons.iter().take(ANOMALIES_TOLD) {
        let _ = write!(page, "<p class=reason>{}</p>", escape(reason));
    }
    let _ = write!(
        page,
        "<p>Again: <code>{}</code><br>Judge this history again: <code>chaos check DIR</code>. The seed fixes requests and faults, \
         not how they interleave.</p>",
        escape(&config.command)
    );
    anomalies(&mut page, results);
    coverage(&mut page, results);
    plots(&mut page, timeline);
    gaps(&mut page, results);
    figures(&mut page, config, results);
    page + "</main></html>\n"
}

fn summary(config: &RunConfig, results: &Results) -> String {
    let findings = &results.findings;
    let installed: usize = results.coverage.values().sum();
    let plant = config
        .plant
        .as_ref()
        .map(|plant| format!(" Planted on purpose: {plant}."));
    format!(
        "{} operations and events, {} members, {installed} faults in {} s. Checked in {} ms.{}",
        findings.ops,
        config.members,
        config.seconds,
        findings.millis,
        plant.unwrap_or_default()
    )
}

fn anomalies(page: &mut String, results: &Results) {
    let findings = &results.findings;
    let found = findings.anomalies().count();
    let _ = write!(page, "<h2 id=anomalies>Anomalies: {found}</h2>");
    if found == 0 {
        page.push_str("<p>None: nothing that clients saw contradicts what the store promises.</p>");
    }
    let mut known: BTreeSet<Class> = BTreeSet::new();
    for (checker, anomaly) in findings.anomalies().take(ANOMALIES_TOLD) {
        // The first of a kind is what a reader wants; the others are a click away.
        tell(page, checker, anomaly, results, known.insert(anomaly.class));
    }
    if found > ANOMALIES_TOLD {
        let _ = write!(
            page,
            "<p>… and {} more in results.json.</p>",
            found - ANOMALIES_TOLD
        );
    }
    checkers(page, findings);
}

fn checkers(page: &mut String, findings: &Findings) {
    page.push_str(
        "<h2>Checkers</h2><table><tr><th>checker<th>subjects<th>operations<th>anomalies<th>given up<th>took</tr>",
    );
    for check in &findings.checks {
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{} ms</tr>",
            escape(&check.checker),
            check.subjects,
            check.ops,
            check.anomalies.len(),
            check.unknown.len(),
            check.millis
        );
    }
    page.push_str("</table>");
    for (checker, (subject, why)) in findings.unknown() {
        let _ = write!(
            page,
            "<p class=reason>{} gave up on {}: {}</p>",
            escape(checker),
            escape(subject),
            escape(why)
        );
    }
}

fn tell(page: &mut String, checker: &str, anomaly: &Anomaly, results: &Results, is_open: bool) {
    let offending = &anomaly.offending;
    let is_active = |fault: &&crate::history::FaultSpan| {
        fault.skipped.is_none()
            && fault.from_ns <= offending.until_ns.unwrap_or(u64::MAX)
            && fault
                .until_ns
                .is_none_or(|until| until + 1_000_000_000 >= offending.from_ns)
    };
    let active: Vec<String> = results
        .faults
        .iter()
        .filter(is_active)
        .map(|fault| {
            format!(
                "{} of {} (fault {})",
                fault.kind,
                fault.targets.join(", "),
                fault.number
            )
        })
        .collect();
    let active = if active.is_empty() {
        "none".to_owned()
    } else {
        active.join("; ")
    };
    let _ = write!(
        page,
        "<details{} class=anomaly><summary><b>{}</b> of {} <small>found by: {checker}</small></summary><p>{}</p>\
         <p>Fault in force: {}</p><ol>",
        if is_open { " open" } else { "" },
        anomaly.class,
        escape(&anomaly.key),
        escape(&anomaly.why),
        escape(&active)
    );
    for op in &anomaly.against {
        let _ = write!(page, "<li>{}</li>", escape(&op.to_string()));
    }
    let _ = write!(
        page,
        "<li class=offending>{}</li>",
        escape(&offending.to_string())
    );
    for op in &anomaly.concurrent {
        let _ = write!(
            page,
            "<li class=meanwhile>meanwhile: {}</li>",
            escape(&op.to_string())
        );
    }
    page.push_str("</ol></details>");
}

fn coverage(page: &mut String, results: &Results) {
    page.push_str(
        "<h2>Faults</h2><table><tr><th>fault<th>kind<th>members<th>from<th>for<th>outcome</tr>",
    );
    for fault in &results.faults {
        let lasted = fault.until_ns.map_or("not healed".to_owned(), |until| {
            format!("{:.2} s", (until - fault.from_ns) as f64 / 1e9)
        });
        let outcome = match (&fault.skipped, &fault.indeterminate) {
            (Some(reason), _) => format!("skipped: {reason}"),
            (None, Some(reason)) => format!("indeterminate: {reason}"),
            (None, None) if fault.until_ns.is_none() => "installed".to_owned(),
            (None, None) if fault.effect.is_empty() => "installed, healed".to_owned(),
            (None, None) => format!("installed, healed: {}", fault.effect),
        };
        let _ = write!(
            page,
            "<tr><td>{}<td><i style=\"background:{}\"></i>{}<td>{}<td>{:.2} s<td>{lasted}<td>{}</tr>",
            fault.number,
            plot::fault_colour(&fault.kind),
            escape(&fault.kind),
            escape(&fault.targets.join(", ")),
            fault.from_ns as f64 / 1e9,
            escape(&outcome)
        );
    }
    page.push_str("</table>");
    let asked: Vec<String> = results
        .coverage
        .iter()
        .map(|(kind, installed)| format!("{kind} {installed}×"))
        .collect();
    let _ = write!(
        page,
        "<p>Asked for and installed: {}.</p>",
        escape(&asked.join(", "))
    );
}

fn plots(page: &mut String, timeline: &Timeline) {
    let _ = write!(
        page,
        "<h2>Leaders</h2>{}<h2>Latency</h2><p class=legend><b class=read></b>read <b class=write></b>write \
         <b class=fail></b>surely not done <b class=info></b>outcome unknown; bands are faults, point at anything for its text</p>{}\
         <h2>Requests a second</h2>{}",
        plot::leaders(timeline),
        plot::latency(timeline),
        plot::rate(timeline)
    );
}

fn gaps(page: &mut String, results: &Results) {
    page.push_str("<h2>Without writes</h2><p>The longest time without an acknowledged write that touches each fault, at the clients.</p>");
    if let (Some(median), Some(max)) = (results.gap_median_ms, results.gap_max_ms) {
        let _ = write!(
            page,
            "<p>Median <b>{median:.0} ms</b>, longest <b>{max:.0} ms</b>.</p>"
        );
    }
    page.push_str("<table><tr><th>fault<th>kind<th>from<th>without writes</tr>");
    for gap in &results.gaps {
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{:.2} s<td>{:.0} ms</tr>",
            gap.fault,
            escape(&gap.kind),
            gap.from_ms / 1e3,
            gap.millis
        );
    }
    page.push_str("</table>");
}

fn figures(page: &mut String, config: &RunConfig, results: &Results) {
    let counts = results.counts;
    let [read_median, read_p99, read_max] = results.read_latency_ms;
    let [write_median, write_p99, write_max] = results.write_latency_ms;
    let errors: Vec<String> = results
        .errors
        .iter()
        .map(|(class, count)| format!("{class}: {count}"))
        .collect();
    let workloads: Vec<String> = config.workloads.iter().map(|kind| kind.name()).collect();
    let rows = [
        (
            "requests",
            format!(
                "{} ok, {} surely not done, {} of unknown outcome",
                counts.ok, counts.fail, counts.info
            ),
        ),
        (
            "errors",
            if errors.is_empty() {
                "none".to_owned()
            } else {
                errors.join(", ")
            },
        ),
        (
            "reads",
            format!(
                "median {read_median:.1} ms, 99 of 100 {read_p99:.1} ms, longest {read_max:.0} ms"
            ),
        ),
        (
            "writes",
            format!(
                "median {write_median:.1} ms, 99 of 100 {write_p99:.1} ms, longest {write_max:.0} ms"
            ),
        ),
        ("put to the test", config.target.clone()),
        ("workloads", workloads.join(", ")),
        ("seed", config.seed.to_string()),
        (
            "asked rate",
            format!(
                "{} a second; {} registers at a time",
                config.rate, config.lanes
            ),
        ),
        ("programs", config.version.clone()),
        ("machine", config.machine.clone()),
        ("began", config.started.clone()),
    ];
    page.push_str("<h2>Figures</h2><table>");
    for (name, text) in rows {
        let _ = write!(page, "<tr><th>{name}<td>{}</tr>", escape(&text));
    }
    page.push_str("</table>");
}

/// Text as it may stand in a page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::wgl::Limits;
    use crate::results;
    use crate::synth::register::{self, Plant, Shape};

    #[test]
    fn a_page_tells_the_verdict_and_needs_nothing_else() {
        let seed =
            (1..).find_map(|seed| register::history(seed, Shape::default(), Plant::StaleRead));
        let config = RunConfig {
            target: "synthetic".to_owned(),
            workloads: vec![],
            nemesis: vec![],
            combos: false,
            seconds: 1,
            seed: 1,
            members: 3,
            rate: 1,
            lanes: 1,
            plant: Some("<b>".to_owned()),
            command: "chaos run".to_owned(),
            started: String::new(),
            version: String::new(),
            machine: String::new(),
        };
        let records = seed.expect("some seed has a place");
        let (results, timeline) =
            results::judge(&config, &records, None, Limits::default()).expect("judges");
        assert_eq!(results.verdict, Verdict::Violated);
        let page = html(&config, &results, &timeline);
        assert!(page.contains("<h1>VIOLATED</h1>") && page.contains("stale read"));
        assert!(page.contains("&lt;b&gt;") && !page.contains("http"));
    }
}
