//! How often TCP had to send something again, from `TCP_INFO`.

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::AsRawFd,
};

/// Segments this end of a connection has sent again since it was opened.
///
/// # Errors
/// When it is no TCP socket.
#[expect(unsafe_code, reason = "nix does not know TCP_INFO")]
pub(super) fn of(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`, which is that long.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all bytes were zero or come from the kernel, and any bytes make a tcp_info.
    Ok(unsafe { info.assume_init() }.tcpi_total_retrans.into())
}
