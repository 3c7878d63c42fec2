//! structured-merge-diff's own published cases, read from the Go sources of Debian's package and run against
//! [`registry::apply`]. Nothing of them is copied here.

mod go;
mod scope;
mod types;
mod walks;
mod writes;

use std::path::PathBuf;

const PACKAGE: &str = "golang-k8s-sigs-structured-merge-diff-dev";
const SOURCES: &str = "/usr/share/gocode/src/sigs.k8s.io/structured-merge-diff";

/// A case and what came of it.
struct Case {
    name: String,
    outcome: Outcome,
}

/// What came of a case.
enum Outcome {
    Passed,
    Failed(String),
    /// It could not be read, or asks for what is no part of a server.
    Unread(String),
}

impl Outcome {
    /// How a check says that it could not be run.
    const UNREAD: &'static str = "unread: ";

    fn of(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Outcome::Passed,
            Err(why) => match why.strip_prefix(Self::UNREAD) {
                Some(why) => Outcome::Unread(why.to_owned()),
                None => Outcome::Failed(why),
            },
        }
    }
}

impl Case {
    fn of(name: String, result: Result<(), String>) -> Self {
        Case {
            name,
            outcome: Outcome::of(result),
        }
    }
}

/// The sources: of Debian's package, or where `STRUCTURED_MERGE_DIFF` says, for other versions.
fn sources() -> PathBuf {
    let given = std::env::var_os("STRUCTURED_MERGE_DIFF").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| PathBuf::from(SOURCES));
    assert!(
        folder.join("merge").is_dir(),
        "{} is absent: apt-get install {PACKAGE}",
        folder.display()
    );
    folder
}

/// The tables of a folder's tests, file by file; what a file does not declare is looked for in the others of its package.
fn cases(folder: &str, read: fn(&str, &go::File) -> Vec<Case>) -> Vec<Case> {
    let folder = sources().join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the package's folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with("_test.go"))
        .collect();
    files.sort();
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (
                name.into_owned(),
                std::fs::read_to_string(path).expect("a file"),
            )
        })
        .collect();
    let mut package = go::File::default();
    for (_, text) in &texts {
        let file = go::read(text);
        package.values.extend(file.values);
    }
    let of_file = |(name, text): &(String, String)| {
        let own = go::read(text);
        let mut seen = go::File {
            values: package.values.clone(),
            functions: own.functions,
        };
        // A table is run once, by the file that declares it.
        seen.values
            .retain(|name, _| own.values.contains_key(name) || !name.ends_with("Cases"));
        read(name, &seen)
    };
    texts.iter().flat_map(of_file).collect()
}

/// Cases of the oldest package in use that later versions answer otherwise, as Kubernetes does now: the order of merged sets,
/// and elements that leave out a part of their key.
const SUPERSEDED: [&str; 3] = [
    "default_keys_test.go TestDefaultKeysFlatErrors  apply_missing_undefaulted_defaulted_key",
    "set_test.go TestUpdateSet  apply_update_apply_no_overlap",
    "set_test.go TestUpdateSet  apply_update_apply_no_overlap_and_different_version",
];

/// Why cases are not run: extracting is what clients do, unions were never used, and two tests bring Go code of their own.
const NOT_OURS: [&str; 5] = [
    "only the extracted value is given",
    "ExtractApply, which is the client's part",
    "unions, which no API type has",
    "no converter: Literal(\"reliantFieldsConverter\"",
    "no parser overrideStructTypeParser",
];

/// How many cases must be read at least, so that a change of the sources' form is seen.
const CASES_MIN: usize = 590;

#[test]
fn published_cases_pass() {
    let mut all = cases("typed", walks::cases);
    all.extend(cases("merge", writes::cases));
    let (mut wrong, mut not_run, mut superseded) = (Vec::new(), Vec::new(), 0);
    for Case { name, outcome } in &all {
        match outcome {
            Outcome::Passed => {}
            Outcome::Failed(_) if SUPERSEDED.contains(&name.as_str()) => superseded += 1,
            Outcome::Failed(why) => wrong.push(format!("{name}: {why}")),
            Outcome::Unread(why) if NOT_OURS.iter().any(|known| why.starts_with(known)) => {
                not_run.push(format!("{name}: {why}"));
            }
            Outcome::Unread(why) => wrong.push(format!("cannot be read: {name}: {why}")),
        }
    }
    let passed = all.len() - wrong.len() - not_run.len() - superseded;
    println!(
        "{} cases: {passed} passed, {superseded} superseded, {} not run:\n{}",
        all.len(),
        not_run.len(),
        not_run.join("\n")
    );
    assert!(
        wrong.is_empty(),
        "{} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(passed >= CASES_MIN, "only {passed} cases were read");
}
