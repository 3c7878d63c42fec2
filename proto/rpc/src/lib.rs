//! The protobuf messages and gRPC bindings: raft transport and shim.
//! Generated from `proto/` at build time; holds no logic. The feature `grpc` (on by default) adds tonic's clients and
//! servers; the shim takes the messages alone.

/// What the agent and a pod's shim say to each other over the pod's Unix socket: length-delimited messages, no gRPC.
pub mod shim {
    #![expect(missing_docs, reason = "generated; documented in proto/shim.proto")]
    include!(concat!(env!("OUT_DIR"), "/trireme.shim.rs"));
}

/// What the members of the store say to each other; bindings need the feature `grpc`.
pub mod raft {
    #![expect(missing_docs, reason = "generated; documented in proto/raft.proto")]
    include!(concat!(env!("OUT_DIR"), "/trireme.raft.rs"));
}
