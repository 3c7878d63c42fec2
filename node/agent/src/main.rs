//! A node: watch, one worker a pod, heartbeat, the kubelet's HTTP API.

fn main() {}
