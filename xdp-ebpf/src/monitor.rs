//! Samples of verdicts for `weir monitor`, through a ring buffer. While nobody asks, it is one load and one branch after
//! the verdict; what a sample costs is paid by the packets that are sampled.

use crate::{
    frame::load_len,
    maps::{Maps, scratch},
};
use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    btf_maps::{Array, RingBuf},
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::btf_map,
};
use core::{ffi::c_void, mem::offset_of, ptr::addr_of_mut};
use weir_common::{
    abi::{Monitor, SAMPLED_BYTES, Sample, sampled},
    tables::Tables as _,
    verdict::{Action, Reason, Verdict},
};

/// `BPF_F_MMAPABLE`: who monitors renews its time by single stores.
#[btf_map]
static MONITOR: Array<Monitor, 1, { 1 << 10 }> = Array::new();
#[btf_map]
static SAMPLES: RingBuf<[u8; 0], { 1 << 18 }> = RingBuf::new();

const SECOND: u64 = 1_000_000_000;

/// Whether anybody asks.
#[inline(always)]
fn is_on() -> bool {
    // SAFETY: a live map value. Volatile: user space stores into it.
    let until = MONITOR
        .get_ptr(0)
        .map(|monitor| unsafe { (&raw const (*monitor).until).read_volatile() });
    until.is_some_and(|until| until != 0) && !Maps::<0>.read_only()
}

/// Samples a frame that came in.
#[inline(always)]
pub fn ingress(ctx: *mut xdp_md, verdict: &Verdict) {
    if is_on() {
        let (action, out) = numbers(verdict.action);
        weir_sample_ingress(ctx, verdict.reason as u32, action, out);
    }
}

/// Samples a frame that leaves.
#[inline(always)]
pub fn egress(skb: *mut __sk_buff, verdict: &Verdict) {
    if is_on() {
        weir_sample_egress(skb, verdict.reason as u32);
    }
}

#[inline(always)]
const fn numbers(action: Action) -> (u32, u32) {
    match action {
        Action::Pass => (sampled::PASS, 0),
        Action::Drop => (sampled::DROP, 0),
        Action::Transmit => (sampled::TRANSMIT, 0),
        Action::Redirect(ifindex) => (sampled::REDIRECT, ifindex),
    }
}

/// A function of its own, checked once, as the stages are.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_sample_ingress(ctx: *mut xdp_md, reason: u32, action: u32, out: u32) -> u32 {
    if !is_due() {
        return 0;
    }
    // SAFETY: the program's own context.
    let (ifindex, length) = unsafe { ((*ctx).ingress_ifindex, bpf_xdp_get_buff_len(ctx) as u32) };
    emit(reason, action, [ifindex, out], length, |to, len| {
        // SAFETY: the helper writes `len` bytes to memory of ours that has room for them.
        unsafe { bpf_xdp_load_bytes(ctx, 0, to, len) }
    });
    0
}

/// As [`weir_sample_ingress`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_sample_egress(skb: *mut __sk_buff, reason: u32) -> u32 {
    if !is_due() {
        return 0;
    }
    // SAFETY: the program's own context.
    let (ifindex, length) = unsafe { ((*skb).ifindex, (*skb).len) };
    emit(reason, sampled::LEAVES, [ifindex, 0], length, |to, len| {
        // SAFETY: as above.
        unsafe { bpf_skb_load_bytes(skb.cast(), 0, to, len) }
    });
    0
}

/// Whether the time is not over, and this packet's turn has come.
#[inline(always)]
fn is_due() -> bool {
    let Some(monitor) = MONITOR.get(0) else { return false };
    // SAFETY: reads a clock and a random number.
    let (now, random) = unsafe { (bpf_ktime_get_ns() / SECOND, bpf_get_prandom_u32()) };
    now < u64::from(monitor.until) && (monitor.every <= 1 || random % monitor.every == 0)
}

#[inline(always)]
fn emit(reason: u32, action: u32, [ifindex, out]: [u32; 2], length: u32, load: impl Fn(*mut c_void, u32) -> i64) {
    const _: () = assert!(size_of::<Sample>() % 8 == 0 && offset_of!(Sample, frame) % 8 == 0);
    let Some(mut entry) = SAMPLES.reserve_untyped::<Sample>(0) else {
        return;
    };
    let sample = entry.as_mut_ptr();
    // SAFETY: the entry is ours, aligned to eight bytes, until it is submitted.
    unsafe {
        let words = sample.cast::<u64>();
        for word in 0..size_of::<Sample>() / 8 {
            // Volatile, or the compiler would call `memset`, which does not exist here.
            words.add(word).write_volatile(0);
        }
        (*sample).time = bpf_ktime_get_ns();
        (*sample).reason = reason;
        (*sample).action = action;
        (*sample).ifindex = ifindex;
        (*sample).out = out;
        (*sample).length = length;
        if (reason == Reason::Local as u32 || reason == Reason::Decapsulated as u32)
            && let Some(s) = scratch(0)
        {
            s.ip.destination.copy_to(&mut (*sample).vip);
            (*sample).vip_port = s.transport.destination_port.to_ne_bytes();
        }
        let to = addr_of_mut!((*sample).frame).cast::<c_void>();
        let mut captured = SAMPLED_BYTES as u32;
        let loaded = if length >= captured {
            load(to, SAMPLED_BYTES as u32)
        } else {
            captured = load_len::<SAMPLED_BYTES>(length);
            if length == 0 { -1 } else { load(to, captured) }
        };
        (*sample).captured = if loaded == 0 { captured } else { 0 };
    }
    entry.submit(0);
}
