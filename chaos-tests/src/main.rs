//! Faults on real clusters, histories and the checkers that judge them.

fn main() {}
