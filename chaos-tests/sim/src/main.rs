//! `trireme-sim SEED [TRACE]`: one simulation, as `chaos sim` runs many.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(seed) = args.next().and_then(|seed| seed.parse().ok()) else {
        eprintln!("usage: trireme-sim SEED [TRACE]; chaos sim runs many seeds");
        return ExitCode::from(2);
    };
    match sim::batch::run_here(seed, args.next().as_deref().map(Path::new)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::from(2)
        }
    }
}
