//! What needs unsafe code: the `bpf(2)` questions aya does not ask (which interface a pinned link is on, and many values of
//! a map at once), and watching a descriptor.
#![expect(unsafe_code, reason = "a raw system call and a union it fills in")]

use aya::maps::{MapData, RingBuf};
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type};
use std::{
    ffi::CString,
    fs, io, mem,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};
use tokio::io::unix::AsyncFd;

/// The kernel runs no more programs than this by tcx at one place (`BPF_MPROG_MAX`).
const TCX_MOST: usize = 64;

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
    let fd = open(path)?;
    // SAFETY: every field of both is plain data, for which zero bytes are a value.
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

/// Opens what is pinned at `path`.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: every field of the union is plain data, for which zero bytes are a value.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The kernel's hash of the code that the link pinned at `path` runs, as 16 hexadecimal digits. Whoever has the link open is
/// told it; to ask for the program itself takes CAP_SYS_ADMIN.
///
/// # Errors
///
/// As [`pinned_link`]; `InvalidData` when `/proc` does not tell.
pub fn pinned_link_tag(path: &Path) -> io::Result<String> {
    let link = open(path)?;
    let said = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
    let tag = said.lines().find_map(|line| line.strip_prefix("prog_tag:"));
    tag.map(|tag| tag.trim().to_owned()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "/proc tells no tag of the program of a link",
        )
    })
}

/// Ids of the programs that run by tcx on what enters an interface, or with `egress` on what leaves it, in order. Needs no more
/// than CAP_NET_ADMIN.
///
/// # Errors
///
/// The system call's error: `InvalidInput` when the kernel has no tcx.
pub fn tcx_programs(ifindex: u32, egress: bool) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; TCX_MOST];
    // SAFETY: every field of the union is plain data, for which zero bytes are a value.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = if egress {
        bpf_attach_type::BPF_TCX_EGRESS
    } else {
        bpf_attach_type::BPF_TCX_INGRESS
    } as u32;
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.count = ids.len() as u32;
    match bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) {
        Ok(_) => {
            // SAFETY: the kernel wrote the member that was filled in above.
            let count = unsafe { attr.query.__bindgen_anon_2.count } as usize;
            Ok(ids[..count.min(ids.len())].to_vec())
        }
        // Nothing has been attached there yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Reads the values of a map with four-byte keys, those that follow the key `after`, or from the first on: as many as
/// `keys` has room for, or as there are. `values` holds, for each key, what a single look-up would give.
///
/// # Errors
///
/// The system call's error; `InvalidInput` when `values` is no multiple of `keys`.
pub fn lookup_batch(
    map: BorrowedFd<'_>,
    after: Option<u32>,
    keys: &mut [u32],
    values: &mut [u64],
) -> io::Result<usize> {
    if keys.is_empty() || !values.len().is_multiple_of(keys.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut last = 0_u32;
    // SAFETY: every field of the union is plain data, for which zero bytes are a value.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.batch.in_batch = after.as_ref().map_or(0, |after| std::ptr::from_ref(after) as u64);
    attr.batch.out_batch = (&raw mut last) as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    attr.batch.map_fd = map.as_raw_fd() as u32;
    let read = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
    // SAFETY: the kernel wrote the member that was filled in above.
    let count = unsafe { attr.batch.count } as usize;
    match read {
        Ok(_) => Ok(count),
        // The map's end: what there was is read.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(count),
        Err(error) => Err(error),
    }
}

/// A ring buffer that tells when it has records.
///
/// # Errors
///
/// When the runtime cannot watch it.
pub fn watch(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns its descriptor, and never replaces or closes it before it is dropped.
    Ok(unsafe { AsyncFd::register(ring) }?)
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
