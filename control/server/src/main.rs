//! A master: configuration, wiring, clock, shutdown.

fn main() {}
