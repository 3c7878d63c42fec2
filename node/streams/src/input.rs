//! What a stranger's bytes say, as a function of the bytes alone: for fuzzing and for tests.

/// What a client says over SPDY, when its bytes come in these pieces: the opened streams and the data of each, then why it ended.
pub fn spdy(pieces: &[&[u8]]) -> Vec<String> {
    crate::spdy::told(pieces)
}
