//! The store: openraft over RocksDB.
