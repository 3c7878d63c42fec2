//! Small bodies that would become large, or take long: refused by a limit, with the code of the client's fault, soon.

use api::input;
use std::time::{Duration, Instant};

const TIME_MAX: Duration = Duration::from_secs(10);
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// Refused with 400, or taken: never the process's end, and never long.
#[track_caller]
fn is_refused(content_type: &str, body: &str) {
    let began = Instant::now();
    let refused = input::body(content_type, body.as_bytes(), "ConfigMap");
    let status = refused
        .err()
        .unwrap_or_else(|| panic!("{} bytes were taken", body.len()));
    assert_eq!(status.code, 400, "{}", status.message);
    assert!(began.elapsed() < TIME_MAX, "{:?}", began.elapsed());
    assert!(
        status.message.len() < 2000,
        "the answer repeats the bomb: {} bytes",
        status.message.len()
    );
}

#[test]
fn aliases_that_multiply() {
    let mut body = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..=9 {
        let below = format!("*a{}", level - 1);
        body.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            [below.as_str(); 10].join(", ")
        ));
    }
    is_refused(YAML, &body);
    // The same through merge keys.
    let mut body = String::from("a0: &a0 {k0: x, k1: x}\n");
    for level in 1..=40 {
        body.push_str(&format!(
            "a{level}: &a{level} {{b: *a{0}, c: *a{0}}}\n",
            level - 1
        ));
    }
    is_refused(YAML, &body);
}

#[test]
fn deep_nesting() {
    for depth in [200, 100_000, 1_000_000] {
        is_refused(JSON, &"[".repeat(depth));
        is_refused(
            JSON,
            &format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)),
        );
        is_refused(YAML, &"[".repeat(depth));
        is_refused(YAML, &"{a: ".repeat(depth));
    }
    let steps: String = (0..2000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    is_refused(YAML, &steps);
    is_refused(YAML, &"- ".repeat(100_000));
    let patch = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    assert_eq!(
        input::patch(patch.as_bytes(), false)
            .err()
            .map(|status| status.code),
        Some(400)
    );
    assert_eq!(
        input::patch(patch.as_bytes(), true)
            .err()
            .map(|status| status.code),
        Some(400)
    );
}

#[test]
fn numbers_that_are_none() {
    is_refused(JSON, "{\"a\":1e400}");
    is_refused(JSON, &format!("{{\"a\":1e{}}}", "9".repeat(100_000)));
    // A number of many digits is one, if an inexact one; it must only not take long.
    let began = Instant::now();
    let _ = input::body(
        JSON,
        format!("{{\"a\":{}}}", "9".repeat(1_000_000)).as_bytes(),
        "ConfigMap",
    );
    let _ = input::body(
        YAML,
        format!("a: {}", "9".repeat(1_000_000)).as_bytes(),
        "ConfigMap",
    );
    assert!(began.elapsed() < TIME_MAX, "{:?}", began.elapsed());
}
