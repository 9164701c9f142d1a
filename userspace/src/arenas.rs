//! How the C library shares memory out among threads.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "a call into the C library"))]

/// Makes all threads share one arena, if the C library is glibc. Objects are read by one thread and dropped by another: with an
/// arena for each, every thread keeps room for what others hold. To be called before other threads begin.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
