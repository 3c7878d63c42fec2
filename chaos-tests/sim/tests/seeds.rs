//! Seeds are clean, and one seed gives one trace.

use sim::Outcome;
use std::path::Path;
use std::process::Command;

fn simulate(seed: u64, trace: &Path) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_trireme-sim"))
        .arg(seed.to_string())
        .arg(trace)
        .env_remove(sim::PLANT_VARIABLE)
        .output()
        .expect("the simulation starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("the simulation tells what it came to")
}

#[test]
fn one_seed_twice_gives_one_trace_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for seed in [1, 4] {
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let outcome = simulate(seed, &first);
        simulate(seed, &second);
        let first = std::fs::read(&first).expect("the trace was written");
        let second = std::fs::read(&second).expect("the trace was written");
        assert!(
            !first.is_empty() && first == second,
            "seed {seed} gave two traces"
        );
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}

#[test]
fn two_seeds_give_two_traces_and_break_the_world_in_many_ways() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = simulate(2, &dir.path().join("trace"));
    let second = simulate(3, &dir.path().join("trace"));
    assert_ne!(first.mark, second.mark);
    let kinds = first.faults.keys().chain(second.faults.keys());
    let kinds: std::collections::BTreeSet<&String> = kinds.collect();
    assert!(kinds.len() >= 8, "{kinds:?}");
    assert!(first.answered > 0 && second.answered > 0);
    assert_eq!((first.violation, second.violation), (None, None));
}
