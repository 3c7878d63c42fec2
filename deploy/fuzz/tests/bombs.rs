//! Small bodies that would become large, or take long: refused by a limit, with the code of the client's fault, soon.

use api::input;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::time::{Duration, Instant};

const TIME_MAX: Duration = Duration::from_secs(10);
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// Refused with 400, or taken: never the process's end, and never long.
#[track_caller]
fn is_refused(content_type: &str, body: &str) {
    are_refused(content_type, body.as_bytes());
}

#[track_caller]
fn are_refused(content_type: &str, body: &[u8]) {
    let began = Instant::now();
    let refused = input::body(content_type, body, "ConfigMap");
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
fn what_is_compressed_is_not_unfolded() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&vec![b'['; 8 << 20]).expect("it is packed");
    let bomb = gzip.finish().expect("it is packed");
    assert!(bomb.len() < 20_000, "{}", bomb.len());
    for content_type in [JSON, YAML, "application/vnd.kubernetes.protobuf"] {
        are_refused(content_type, &bomb);
    }
}

#[test]
fn expressions_that_grow() {
    let nested = format!("{}1{}", "(".repeat(30_000), ")".repeat(30_000));
    let long = format!("'{}' == ''", "a".repeat(1 << 20));
    for text in [&nested, &"!".repeat(30_000), &"a.".repeat(15_000), &long] {
        let began = Instant::now();
        let refused = cel::compile(text, &cel::Environment::new());
        assert!(refused.is_err(), "{} bytes were taken", text.len());
        assert!(began.elapsed() < TIME_MAX, "{:?}", began.elapsed());
    }
    let doubled = format!(
        "'aaaaaaaaaa'{}.size() > 0",
        ".replace('a', 'aa')".repeat(40)
    );
    let walked = "lists.range(9999).all(a, lists.range(9999).all(b, a + b >= 0))";
    for text in [&doubled, walked] {
        let program = cel::compile(text, &cel::Environment::new()).expect("an expression");
        let began = Instant::now();
        let mut budget = cel::Budget::new(cel::REQUEST_UNITS_MAX);
        let answer = program.eval(&cel::Inputs::new(), &mut budget);
        assert_eq!(answer, Err(cel::Error::Cost), "{text}");
        assert!(began.elapsed() < TIME_MAX, "{:?}", began.elapsed());
    }
}

#[test]
fn tokens_that_are_large() {
    let part = URL_SAFE_NO_PAD.encode(format!("{{\"a\":{}1", "[".repeat(1 << 20)));
    for token in [
        format!("{part}.{part}.{part}"),
        ".".repeat(1 << 20),
        "A".repeat(1 << 20),
    ] {
        let began = Instant::now();
        assert!(input::claims(&token).is_err());
        assert!(input::token(&token, &serde_json::json!({"keys": []})).is_err());
        assert!(began.elapsed() < TIME_MAX, "{:?}", began.elapsed());
    }
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
