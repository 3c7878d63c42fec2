//! The corpus, replayed; each input also changed a little, by a seed, so that a build without libFuzzer still looks further than the day
//! on which the corpus was made.

use fuzz::TARGETS;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use std::time::{Duration, Instant};

/// Changed copies of each input.
const VARIANTS: u64 = 20;
/// No input may take so long; a debug build on a busy machine is slow.
const TIME_MAX: Duration = Duration::from_secs(5);
/// What a variant may gain: letters that mean something somewhere.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b" ",
    b"-1",
    b"9223372036854775808",
    b"1e999",
    b"null",
    b"\0",
    b"\xff",
    b"%2f",
    b"&a ",
    b"*a",
    b"..",
    b"\x7f",
];

#[test]
fn no_input_breaks_a_promise() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target.name);
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} has no inputs", target.name);
        for file in files {
            let input = std::fs::read(&file).expect("an input");
            eprintln!("{}", file.display()); // Shown when it fails.
            try_one(target, &input);
            for seed in 0..VARIANTS {
                let changed = variant(&input, seed);
                eprintln!("  changed by seed {seed}");
                try_one(target, &changed);
            }
        }
    }
}

fn try_one(target: &fuzz::Target, input: &[u8]) {
    let began = Instant::now();
    (target.run)(input);
    let took = began.elapsed();
    assert!(
        took < TIME_MAX,
        "{} took {took:?} for {} bytes",
        target.name,
        input.len()
    );
}

fn variant(input: &[u8], seed: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..4) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 => {
                let word = WORDS[random.random_range(0..WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            2 => bytes.truncate(at),
            _ => {
                let to = random.random_range(at..=bytes.len()).min(at + 16);
                bytes.drain(at..to);
            }
        }
    }
    bytes
}
