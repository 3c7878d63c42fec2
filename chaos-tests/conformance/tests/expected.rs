//! Three masters behave as Kubernetes does, but for what `expected-failures.txt` names.

use std::process::{Command, Stdio};

#[test]
fn all_is_as_expected() {
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/expected-failures.txt");
    let ended = Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(["--expected", list])
        .stdin(Stdio::null())
        .status()
        .expect("the program can be run");
    assert_eq!(
        ended.code(),
        Some(0),
        "the lines above say what is otherwise than {list} has it"
    );
}
