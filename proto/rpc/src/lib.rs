//! The protobuf messages and gRPC bindings: raft transport and shim.
