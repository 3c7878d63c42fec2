//! Plots as inline SVG: time runs to the right, faults are bands behind the data. Pure.

use crate::history::{Attempt, CONDITION, Outcome, Timeline};
use std::fmt::Write;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 10.0;
/// Points drawn of what went well; all that did not is drawn.
const POINTS_MAX: usize = 4000;
const RATE_STEP_NS: u64 = 250_000_000;

/// Maps time to the x axis.
struct Time {
    end_ns: f64,
}

impl Time {
    fn of(timeline: &Timeline) -> Self {
        Time {
            end_ns: timeline.end_ns.max(1) as f64,
        }
    }

    fn x(&self, ns: u64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (ns as f64 / self.end_ns)
    }
}

/// Colours of the kinds of fault: a hue by the name, so that a kind looks the same in every report.
pub fn fault_colour(kind: &str) -> String {
    let hue = kind.bytes().fold(7_u32, |sum, byte| {
        sum.wrapping_mul(131).wrapping_add(u32::from(byte))
    }) % 360;
    format!("hsl({hue} 65% 52%)")
}

fn open(height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">")
}

fn bands(svg: &mut String, timeline: &Timeline, time: &Time, height: f64) {
    for fault in &timeline.faults {
        if fault.skipped.is_some() {
            continue;
        }
        let (from, until) = (
            time.x(fault.from_ns),
            time.x(fault.until_ns.unwrap_or(timeline.end_ns)),
        );
        let _ = write!(
            svg,
            "<rect class=band x=\"{from:.1}\" y=0 width=\"{:.1}\" height=\"{height}\" fill=\"{}\"><title>fault {}: {} of {}</title></rect>",
            (until - from).max(2.0),
            fault_colour(&fault.kind),
            fault.number,
            super::escape(&fault.kind),
            super::escape(&fault.targets.join(", ")),
        );
    }
}

fn seconds_axis(svg: &mut String, timeline: &Timeline, time: &Time, y: f64) {
    let seconds = timeline.end_ns / 1_000_000_000;
    let step = (seconds / 12).max(1) as usize;
    for second in (0..=seconds).step_by(step) {
        let x = time.x(second * 1_000_000_000);
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=middle>{second} s</text>"
        );
    }
}

/// Latency of every request on a logarithmic axis, by how it ended.
pub fn latency(timeline: &Timeline) -> String {
    const HEIGHT: f64 = 280.0;
    let plot_height = HEIGHT - 20.0;
    let time = Time::of(timeline);
    let y = |ms: f64| {
        let place = (ms.clamp(0.1, 10_000.0).log10() + 1.0) / 5.0;
        plot_height * (1.0 - place)
    };
    let mut svg = open(HEIGHT);
    bands(&mut svg, timeline, &time, plot_height);
    for (ms, text) in [
        (0.1, "0.1 ms"),
        (1.0, "1 ms"),
        (10.0, "10 ms"),
        (100.0, "100 ms"),
        (1000.0, "1 s"),
        (10_000.0, "10 s"),
    ] {
        let at = y(ms);
        let _ = write!(
            svg,
            "<line class=grid x1={LEFT} x2={WIDTH} y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x={} y=\"{:.1}\" text-anchor=end>{text}</text>",
            LEFT - 4.0,
            (at + 4.0).max(10.0)
        );
    }
    let done = timeline
        .attempts
        .iter()
        .filter(|attempt| matches!(attempt.outcome, Outcome::Ok(_)))
        .count();
    let every = done.div_ceil(POINTS_MAX).max(1);
    let mut seen = 0;
    for attempt in &timeline.attempts {
        let ms = (attempt.ended_ns - attempt.invoked_ns) as f64 / 1e6;
        if matches!(attempt.outcome, Outcome::Ok(_)) {
            seen += 1;
            // What is slow is told whole, since it is what a reader looks for.
            if seen % every != 0 && ms < 100.0 {
                continue;
            }
        }
        point(&mut svg, attempt, time.x(attempt.invoked_ns), y(ms));
    }
    seconds_axis(&mut svg, timeline, &time, HEIGHT - 4.0);
    svg + "</svg>"
}

fn point(svg: &mut String, attempt: &Attempt, x: f64, y: f64) {
    let class = match (&attempt.outcome, attempt.request.is_write()) {
        // A condition that does not hold is an answer like any other.
        (Outcome::Fail(failure), _) if failure.class == CONDITION => "write",
        (Outcome::Ok(_), false) => "read",
        (Outcome::Ok(_), true) => "write",
        (Outcome::Fail(_), _) => "fail",
        (Outcome::Info(_), _) => "info",
    };
    let _ = match &attempt.outcome {
        Outcome::Ok(_) => write!(
            svg,
            "<circle class={class} cx=\"{x:.1}\" cy=\"{y:.1}\" r=1.5 />"
        ),
        Outcome::Fail(failure) | Outcome::Info(failure) => write!(
            svg,
            "<circle class={class} cx=\"{x:.1}\" cy=\"{y:.1}\" r=2.5><title>{}</title></circle>",
            super::escape(&failure.text)
        ),
    };
}

/// Requests a second by how they ended.
pub fn rate(timeline: &Timeline) -> String {
    const HEIGHT: f64 = 180.0;
    let plot_height = HEIGHT - 20.0;
    let time = Time::of(timeline);
    let steps = (timeline.end_ns / RATE_STEP_NS + 1) as usize;
    let mut series = [vec![0_u32; steps], vec![0; steps], vec![0; steps]];
    for attempt in &timeline.attempts {
        let which = match &attempt.outcome {
            Outcome::Fail(failure) if failure.class == CONDITION => 0,
            Outcome::Ok(_) => 0,
            Outcome::Fail(_) => 1,
            Outcome::Info(_) => 2,
        };
        series[which][(attempt.ended_ns / RATE_STEP_NS) as usize] += 1;
    }
    let highest = series.iter().flatten().copied().max().unwrap_or(0).max(1);
    let y = |count: u32| (plot_height - 8.0) * (1.0 - f64::from(count) / f64::from(highest)) + 6.0;
    let mut svg = open(HEIGHT);
    bands(&mut svg, timeline, &time, plot_height);
    let per_second = u64::from(highest) * 1_000_000_000 / RATE_STEP_NS;
    let _ = write!(
        svg,
        "<text x={} y=12 text-anchor=end>{per_second}/s</text><text x={} y=\"{}\" text-anchor=end>0</text>",
        LEFT - 4.0,
        LEFT - 4.0,
        plot_height
    );
    for (counts, class) in series.iter().zip(["ok", "fail", "info"]) {
        let points: Vec<String> = counts
            .iter()
            .enumerate()
            .map(|(at, count)| {
                format!(
                    "{:.1},{:.1}",
                    time.x((at as u64 * RATE_STEP_NS).min(timeline.end_ns)),
                    y(*count)
                )
            })
            .collect();
        let _ = write!(
            svg,
            "<polyline class=\"line {class}\" points=\"{}\"/>",
            points.join(" ")
        );
    }
    seconds_axis(&mut svg, timeline, &time, HEIGHT - 4.0);
    svg + "</svg>"
}

/// Who led when.
pub fn leaders(timeline: &Timeline) -> String {
    const HEIGHT: f64 = 46.0;
    const COLOURS: [&str; 5] = ["#3b7dd8", "#2a9d6f", "#c9802b", "#a14fa8", "#6b7a8f"];
    let time = Time::of(timeline);
    let mut svg = open(HEIGHT);
    let _ = write!(
        svg,
        "<text x={} y=18 text-anchor=end>leader</text>",
        LEFT - 4.0
    );
    let mut names: Vec<&String> = timeline
        .leaders
        .iter()
        .filter_map(|(_, name, _)| name.as_ref())
        .collect();
    names.sort();
    names.dedup();
    for (at, (from_ns, name, term)) in timeline.leaders.iter().enumerate() {
        let until_ns = timeline
            .leaders
            .get(at + 1)
            .map_or(timeline.end_ns, |(ns, ..)| *ns);
        let (from, until) = (time.x(*from_ns), time.x(until_ns));
        let place = name
            .as_ref()
            .and_then(|name| names.iter().position(|known| *known == name));
        let colour = place.map_or("#d9d9d9", |place| COLOURS[place % COLOURS.len()]);
        let text = name.as_deref().unwrap_or("nobody");
        let _ = write!(
            svg,
            "<rect x=\"{from:.1}\" y=4 width=\"{:.1}\" height=20 fill=\"{colour}\"><title>{text}, term {term}, from {:.2} s</title></rect>",
            (until - from).max(0.5),
            *from_ns as f64 / 1e9
        );
        if until - from > 50.0 {
            let _ = write!(
                svg,
                "<text class=on x=\"{:.1}\" y=18 text-anchor=middle>{text} term {term}</text>",
                f64::midpoint(from, until)
            );
        }
    }
    seconds_axis(&mut svg, timeline, &time, HEIGHT - 4.0);
    svg + "</svg>"
}
