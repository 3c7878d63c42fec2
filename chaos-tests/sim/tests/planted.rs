//! Each planted bug is found within a few seeds and named by the right invariant; the same seeds are clean without it.
#![cfg(feature = "planted-bugs")]

use sim::Outcome;
use std::process::Command;

/// Within so many seeds a bug is found.
const SEEDS: u64 = 10;

fn simulate(seed: u64, bug: Option<&str>) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trireme-sim"));
    command.arg(seed.to_string());
    match bug {
        Some(bug) => command.env(sim::PLANT_VARIABLE, bug),
        None => command.env_remove(sim::PLANT_VARIABLE),
    };
    let output = command.output().expect("the simulation starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("the simulation tells what it came to")
}

/// Plants a bug until a seed finds it; that seed must be clean without it.
fn is_found(bug: &str, by: &[&str]) {
    for seed in 1..=SEEDS {
        if let Some(violation) = simulate(seed, Some(bug)).violation {
            assert!(
                by.contains(&violation.invariant.as_str()),
                "{bug} was found by {} in seed {seed}: {}",
                violation.invariant,
                violation.what
            );
            println!(
                "{bug}: seed {seed}, {}: {}",
                violation.invariant, violation.what
            );
            assert_eq!(
                simulate(seed, None).violation,
                None,
                "without {bug}, seed {seed}"
            );
            return;
        }
    }
    panic!("{bug} was not found in {SEEDS} seeds");
}

#[test]
fn reads_without_read_index_are_stale() {
    is_found("read-index-off", &["linearizable_reads"]);
}

#[test]
fn a_log_without_fsync_is_on_no_disk() {
    is_found("fsync-off", &["committed_on_a_quorum", "vote_monotone"]);
}

#[test]
fn a_vote_that_is_not_synced_is_forgotten() {
    is_found("vote-not-synced", &["vote_monotone"]);
}

#[test]
fn an_early_answer_is_not_committed() {
    is_found("ack-before-commit", &["acknowledged_writes_stay"]);
}

#[test]
fn an_entry_applied_twice_makes_another_state() {
    is_found("double-apply:20", &["same_index_same_state"]);
}

#[test]
fn a_skipped_event_is_missed() {
    is_found("watch-skips:50", &["watch_complete", "progress_is_true"]);
}

#[test]
fn a_repeated_event_is_seen() {
    is_found("watch-repeats", &["watch_unique"]);
}

#[test]
fn early_progress_is_untrue() {
    is_found("progress-early", &["progress_is_true"]);
}

#[test]
fn a_split_transaction_is_not_atomic() {
    is_found("txn-split", &["watch_atomic"]);
}

#[test]
fn a_lower_revision_is_seen() {
    is_found("revision-lower", &["revision_monotone"]);
}

#[test]
fn a_lease_by_the_wall_clock_ends_early() {
    is_found("lease-wall-clock", &["lease_never_early"]);
}

#[test]
fn a_damaged_entry_is_no_torn_tail() {
    // What is cut off with it was committed; where that was not so, the member still started with a damaged entry.
    is_found(
        "torn-committed",
        &["nothing_committed_is_lost", "damage_is_refused"],
    );
}

#[test]
fn every_bug_has_its_test() {
    let tests = include_str!("planted.rs");
    for bug in mvcc::planted::Bug::ALL {
        assert!(
            tests.contains(&format!("\"{}", bug.name())),
            "{}",
            bug.name()
        );
    }
}
