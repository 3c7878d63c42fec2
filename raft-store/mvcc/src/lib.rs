//! The store's semantics, pure: commands, total apply, revisions, watch events, and the Store trait.
