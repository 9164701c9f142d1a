//! Programs that are not Weir's: of two instructions, which let everything on, and may keep it from those behind them. And how many there are on a device, whosever they are.

use super::Namespace;
use anyhow::{Result, ensure};
use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

/// `exit`, as an eBPF instruction; before it stands what is to be in r0.
const EXIT: u64 = 0x0000_0000_0000_0095;
/// `r0 = 0`; the number is the upper half.
const RETURN: u64 = 0x0000_0000_0000_00b7;
const XDP_PASS: u32 = 2;
/// The next one is asked.
const TC_ACT_UNSPEC: u32 = u32::MAX;
/// For devices with frames larger than a page.
const HAS_FRAGMENTS: u32 = 1 << 5;
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const PROG_ATTACH: libc::c_int = 8;
const PROG_QUERY: libc::c_int = 16;
/// On with the packet, and no other is asked.
const TC_ACT_OK: u32 = 0;
const TYPE_CLASSIFIER: u32 = 3;
const TYPE_XDP: u32 = 6;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// Before all others.
const BEFORE: u32 = 1 << 3;

/// The head of the kernel's `union bpf_attr` for loading a program.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The same for attaching one.
#[repr(C)]
struct Attach {
    ifindex: u32,
    program: u32,
    place: u32,
    flags: u32,
    replaced: u32,
    neighbour: u32,
    revision: u64,
}

/// The same for asking which there are.
#[repr(C)]
struct Query {
    ifindex: u32,
    place: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    others: [u64; 4],
}

/// The same for pinning one.
#[repr(C)]
struct Pin {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Where of a list one is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Before all that are there.
    First,
    /// Behind them.
    Last,
}

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// One of XDP.
    ///
    /// # Errors
    /// When the name has more than 15 bytes, or the kernel refuses.
    pub fn xdp(name: &str) -> Result<Self> {
        load(TYPE_XDP, XDP_PASS, HAS_FRAGMENTS, name)
    }

    /// One of tc, which decides on nothing.
    ///
    /// # Errors
    /// As above.
    pub fn classifier(name: &str) -> Result<Self> {
        load(TYPE_CLASSIFIER, TC_ACT_UNSPEC, 0, name)
    }

    /// One of tc, behind which no other sees anything.
    ///
    /// # Errors
    /// As above.
    pub fn last_word(name: &str) -> Result<Self> {
        load(TYPE_CLASSIFIER, TC_ACT_OK, 0, name)
    }

    /// Runs this one of XDP in the driver of `device`.
    ///
    /// # Errors
    /// When bpftool fails.
    pub fn attach_xdp(&self, namespace: &Namespace, device: &str) -> Result<()> {
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let id = about.lines().find_map(|line| line.strip_prefix("prog_id:"));
        let id = id.unwrap_or_default().trim();
        namespace
            .output(&format!("bpftool net attach xdpdrv id {id} dev {device}"))
            .map(drop)
    }

    /// Runs this one of tc by tcx on what enters `device`, or with `egress` on what leaves it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_tcx(&self, namespace: &Namespace, device: &str, egress: bool, end: End) -> Result<()> {
        namespace.run(|| {
            let attributes = Attach {
                ifindex: nix::net::if_::if_nametoindex(device)?,
                program: self.0.as_raw_fd() as u32,
                place: if egress { TCX_EGRESS } else { TCX_INGRESS },
                flags: if end == End::First { BEFORE } else { 0 },
                replaced: 0,
                neighbour: 0,
                revision: 0,
            };
            bpf(PROG_ATTACH, attributes).map(drop)
        })
    }

    /// Pins it, for other programs to use.
    ///
    /// # Errors
    /// When `path` is not on a BPF file system, or there is something.
    pub fn pin(&self, path: &Path) -> Result<()> {
        let path = CString::new(path.to_string_lossy().as_bytes())?;
        let attributes = Pin {
            path: path.as_ptr() as u64,
            descriptor: self.0.as_raw_fd() as u32,
            flags: 0,
        };
        bpf(OBJ_PIN, attributes).map(drop)
    }
}

/// How many programs there are on `device`: of XDP, and of tcx on what leaves it.
///
/// # Errors
/// When there is no such device, or the kernel does not tell.
pub fn count(namespace: &Namespace, device: &str) -> Result<[u32; 2]> {
    let link = namespace.output(&format!("ip -j link show dev {device}"))?;
    let link: serde_json::Value = serde_json::from_str(&link)?;
    let xdp = u32::from(!link[0]["xdp"].is_null());
    let tcx = namespace.run(|| {
        let mut query = Query {
            ifindex: nix::net::if_::if_nametoindex(device)?,
            place: TCX_EGRESS,
            flags: 0,
            attach_flags: 0,
            ids: 0,
            count: 0,
            padding: 0,
            others: [0; 4],
        };
        ask(PROG_QUERY, &mut query)?;
        Ok(query.count)
    })?;
    Ok([xdp, tcx])
}

#[expect(
    unsafe_code,
    reason = "there is no safe way to load two instructions; aya wants an object file"
)]
fn load(program_type: u32, returned: u32, flags: u32, name: &str) -> Result<Program> {
    let instructions = [RETURN | u64::from(returned) << 32, EXIT];
    let mut padded = [0; 16];
    ensure!(name.len() < padded.len(), "{name} is too long");
    padded[..name.len()].copy_from_slice(name.as_bytes());
    let attributes = Load {
        program_type,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags,
        name: padded,
    };
    let descriptor = bpf(PROG_LOAD, attributes)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(Program(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

fn bpf<T>(command: libc::c_int, mut attributes: T) -> Result<i32> {
    ask(command, &mut attributes)
}

/// The same, and what the kernel answers is in `attributes`.
#[expect(unsafe_code, reason = "a system call that has no other name")]
fn ask<T>(command: libc::c_int, attributes: &mut T) -> Result<i32> {
    // SAFETY: `attributes` is the start of a bpf_attr of the length given, and what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    ensure!(result >= 0, io::Error::last_os_error());
    Ok(result as i32)
}
