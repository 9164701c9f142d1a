//! Programs of the suite `lab`: a generator of frames, the simplest things that can be done with them, and where they end.

use super::rewrite;
use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action},
    btf_maps::{Array, PerCpuArray},
    helpers::bpf_redirect,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// Length of the generated frames, in bytes.
const FRAME: usize = 60;
/// Where the header's checksum, the source and the first half of the destination stand together in one word.
const CHECKSUM_WORD: usize = 24;
const IPV4: u16 = 0x0800;

/// Interfaces by number: where [`generate`] sends to, and where [`redirect`] does.
#[btf_map]
static DEVICES: Array<u64, 2> = Array::new();
/// Frames that arrived at the end.
#[btf_map]
static ARRIVED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Run with live frames: each becomes the packet of the chosen flow and leaves by the first of `DEVICES`.
#[xdp(frags)]
pub fn generate(ctx: XdpContext) -> u32 {
    fresh(&ctx).map_or(xdp_action::XDP_ABORTED, |()| leave(0))
}

/// Leaves by the second of `DEVICES`.
#[xdp(frags)]
pub fn redirect(_ctx: XdpContext) -> u32 {
    leave(1)
}

/// Goes back where it came from; only IPv4, or two of these on one LAN would never let a broadcast end.
#[xdp(frags)]
pub fn reflect(ctx: XdpContext) -> u32 {
    if is_ipv4(&ctx) {
        xdp_action::XDP_TX
    } else {
        xdp_action::XDP_PASS
    }
}

/// Counts and drops IPv4; the rest, such as ARP, is needed to keep the lab alive.
#[xdp(frags)]
pub fn end_xdp(ctx: XdpContext) -> u32 {
    if is_ipv4(&ctx) && arrive().is_some() {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

/// The same for frames that the kernel has made packets of.
#[classifier]
pub fn end_tc(ctx: TcContext) -> i32 {
    // SAFETY: the context is the kernel's.
    let protocol = unsafe { (*ctx.skb.skb).protocol };
    if protocol == u32::from(IPV4.to_be()) && arrive().is_some() {
        TC_ACT_SHOT
    } else {
        TC_ACT_OK
    }
}

#[inline(always)]
fn is_ipv4(ctx: &XdpContext) -> bool {
    let at = ctx.data() + 12;
    // SAFETY: inside the frame by the check before.
    at + 2 <= ctx.data_end() && unsafe { (at as *const u16).read() } == IPV4.to_be()
}

#[inline(always)]
fn leave(device: u32) -> u32 {
    match DEVICES.get(device) {
        // SAFETY: the helper takes any number.
        Some(index) => unsafe { bpf_redirect(*index as u32, 0) as u32 },
        None => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn arrive() -> Option<()> {
    let count = ARRIVED.get_ptr_mut(0)?;
    // SAFETY: this CPU's own, and the program is not interrupted by itself.
    unsafe { *count += 1 };
    Some(())
}

/// Writes the frame anew and mends the header's checksum for the flow's source (RFC 1624 §3).
#[inline(always)]
fn fresh(ctx: &XdpContext) -> Option<()> {
    let template = rewrite::<FRAME>(ctx.data(), ctx.data_end())?;
    let at = ctx.data() + CHECKSUM_WORD;
    if at + 8 > ctx.data_end() {
        return None;
    }
    let old = template[CHECKSUM_WORD / 8];
    // SAFETY: inside the frame by the check above; the kernel places frames at multiples of eight.
    let new = unsafe { (at as *const u64).read() };
    let half = |word: u64, place: u32| (word >> place) & 0xffff;
    let mut sum = (!old & 0xffff) + (!half(old, 16) & 0xffff) + (!half(old, 32) & 0xffff);
    sum += half(new, 16) + half(new, 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    // SAFETY: as above.
    unsafe { (at as *mut u16).write(!sum as u16) };
    Some(())
}
