//! One a pod: holds its containers so that they outlive the agent.

fn main() {}
