//! `chaos`: breaks real clusters and judges what clients saw.

fn main() {}
