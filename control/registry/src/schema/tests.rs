//! The module's tests as stories: each file under testdata/schema holds cases with the answers they must give.

use super::*;
use crate::FieldValidation;
use expect_test::expect_file;
use objects::GroupVersion;
use serde_json::Value;

#[test]
fn patches_merge_as_types_say() {
    check("merge", |kind, lines| {
        let r#type = Schemas::builtin().kind(kind).expect("a known kind");
        let [original, patch] = [0, 1].map(|at| parse(lines[at]));
        match strategic_merge(Schemas::builtin(), r#type, original, patch) {
            Ok(value) => value.to_string(),
            Err(error) => format!(
                "{} {}",
                error.code(),
                error.to_string().trim_end().replace('\n', " ")
            ),
        }
    });
}

#[test]
fn bodies_are_brought_into_form() {
    check("conform", |kind, lines| {
        let (mut value, duplicates) = crate::decode_json(lines[0].as_bytes()).expect("is JSON");
        match accept(kind, &mut value, &duplicates, FieldValidation::Warn) {
            Ok(warnings) if warnings.is_empty() => value.to_string(),
            Ok(warnings) => format!("{value}\nWarning: {}", warnings.join("\nWarning: ")),
            Err(status) => format!("{} {}", status.code, status.message),
        }
    });
}

/// Runs every case of a file: `# story`, `apiVersion kind`, lines of input, `=>` and the answer. UPDATE_EXPECT=1 rewrites.
fn check(name: &str, run: impl Fn(&GroupVersionKind, &[&str]) -> String) {
    let path = format!("{}/testdata/schema/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the file of stories");
    let cases = text.trim_end().split("\n\n").map(|case| {
        let head: Vec<&str> = case
            .lines()
            .take_while(|line| !line.starts_with("=>"))
            .collect();
        let input: Vec<&str> = head
            .iter()
            .copied()
            .filter(|line| !line.starts_with('#'))
            .collect();
        let (api_version, kind) = input[0].split_once(' ').expect("apiVersion and kind");
        let version = GroupVersion::parse(api_version).expect("an apiVersion");
        let kind = GroupVersionKind::new(&version.group, &version.version, kind);
        format!("{}\n=> {}\n", head.join("\n"), run(&kind, &input[1..]))
    });
    let got: Vec<String> = cases.collect();
    expect_file![path].assert_eq(&got.join("\n"));
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).expect("the story's JSON")
}
