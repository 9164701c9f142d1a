//! The XDP program of the switch ports: it passes everything.
//!
//! A veth device hands on what its peer sends with `XDP_TX` only if it runs an XDP program itself; NAPI through GRO is
//! enough for `XDP_REDIRECT` alone. A cable has no such wish, so the lab fulfils it where nobody looks.

use super::Namespace;
use anyhow::{Context, Result, ensure};
use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `r0 = XDP_PASS; exit`, as eBPF instructions.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
/// For devices with frames larger than a page.
const HAS_FRAGMENTS: u32 = 1 << 5;
const PROG_LOAD: libc::c_int = 5;
const TYPE_XDP: u32 = 6;

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

/// Puts the program on these devices of `namespace`.
///
/// # Errors
/// When it cannot be loaded or attached.
pub(super) fn attach<'a>(namespace: &Namespace, devices: impl Iterator<Item = &'a str>) -> Result<()> {
    let program = load().context("cannot load the program of the switch ports")?;
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let id = about.lines().find_map(|line| line.strip_prefix("prog_id:"));
    let id = id.with_context(|| format!("no prog_id in {about}"))?.trim();
    for device in devices {
        namespace.output(&format!("bpftool net attach xdpdrv id {id} dev {device}"))?;
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "there is no safe way to load two instructions; aya wants an object file"
)]
fn load() -> Result<OwnedFd> {
    let attributes = Load {
        program_type: TYPE_XDP,
        instruction_count: PASS.len() as u32,
        instructions: PASS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: HAS_FRAGMENTS,
        name: *b"lab_switch_port\0",
    };
    // SAFETY: `attributes` is the start of a bpf_attr of the length given, and what it points to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    ensure!(result >= 0, io::Error::last_os_error());
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
