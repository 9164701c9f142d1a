//! The one `bpf(2)` question aya does not ask: which interface a pinned link is on.
#![expect(unsafe_code, reason = "a raw system call and a union it fills in")]

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type};
use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// What a pinned link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedLinkInfo {
    /// Interface index; 0 when the interface is gone.
    pub ifindex: u32,
    /// Id of the program it runs.
    pub program: u32,
}

/// Reads what the link pinned at `path` is attached to.
///
/// # Errors
///
/// The system call's error: `NotFound` when nothing is pinned there, `InvalidInput` when it is no XDP or tcx link.
pub fn pinned_link(path: &Path) -> io::Result<PinnedLinkInfo> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: every field of the union is plain data, for which zero bytes are a value.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };

    // SAFETY: as above.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.info.bpf_fd = fd.as_raw_fd() as u32;
    attr.info.info = (&raw mut info) as u64;
    attr.info.info_len = size_of::<bpf_link_info>() as u32;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;

    let ifindex = match info.type_ {
        // SAFETY: `type_` says which member the kernel filled in.
        kind if kind == bpf_link_type::BPF_LINK_TYPE_XDP as u32 => unsafe { info.__bindgen_anon_1.xdp.ifindex },
        // SAFETY: as above.
        kind if kind == bpf_link_type::BPF_LINK_TYPE_TCX as u32 => unsafe { info.__bindgen_anon_1.tcx.ifindex },
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    Ok(PinnedLinkInfo {
        ifindex,
        program: info.prog_id,
    })
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is live for the call and as long as it says; what it points to is kept alive by the callers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u64, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}
