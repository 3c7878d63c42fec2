//! Where this thread's randomness comes from, for libraries that ask nobody.
//!
//! tokio draws, from the keys of the standard library's hash maps, which of several waiters wakes first and which branch of a `select!` is
//! looked at first. The standard library gets these keys by `getrandom`, once a thread. So a program with this crate in it has that
//! function from here: on a thread that simulates it gives what the seed says, on every other it asks the kernel, as libc's does.
//!
//! tokio also counts the runtimes of the process; so a simulation has a process of its own ([`crate::batch`]).
#![expect(
    unsafe_code,
    reason = "the C library's function is replaced, which Rust can only do with an unsafe attribute and raw memory"
)]

use nix::libc::{self, c_uint, c_void, size_t, ssize_t};
use std::cell::Cell;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread's randomness comes from `seed`.
pub fn seed_this_thread(seed: u64) {
    SEED.set(Some(seed));
}

/// The C library's `getrandom`.
///
/// # Safety
/// As there: `buffer` must be good for writing `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    match SEED.get() {
        None => {
            // SAFETY: the kernel writes at most `length` bytes to `buffer`, which the caller promised to be good for that.
            let written = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
            ssize_t::try_from(written).unwrap_or(-1)
        }
        Some(seed) => {
            // SAFETY: the caller promised that `buffer` is good for `length` bytes.
            let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
            SEED.set(Some(fill(bytes, seed)));
            ssize_t::try_from(length).unwrap_or(-1)
        }
    }
}

/// SplitMix64, whose every state gives another number; returns the next state.
fn fill(bytes: &mut [u8], mut state: u64) -> u64 {
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
    }
    state
}
