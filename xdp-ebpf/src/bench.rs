//! Wrappers that let the kernel's test loop run a packet program a million times on the same frame.
//!
//! The loop does not reset the packet between runs, so an encapsulating program would see its own output. A wrapper writes
//! the frame anew, optionally as a packet of another flow, tail-calls the program under test from a subprogram, so that
//! control comes back, and undoes what that program did to the head of the frame. Empty programs of the same shape are the
//! floor that is subtracted.
//!
//! Not part of the product's object. Checksums are those of the template: the packet path only ever updates them.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "contexts, map values and helpers are raw pointers here")]
#![feature(asm_experimental_arch)]

#[path = "bench/lab.rs"]
mod lab;
#[path = "bench/settings.rs"]
mod settings;

use aya_ebpf::{
    EbpfContext,
    bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action},
    btf_maps::{Array, ProgramArray},
    helpers::bpf_xdp_adjust_head,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use settings::{FRAME_WORDS, LONG_FRAME, NEXT_FLOW, OFFSET_LIMIT, ONE_FLOW, RANDOM_FLOW, SHORT_FRAME, Settings};

#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
/// What chose the last flow: a counter, or the state of a xorshift generator.
#[btf_map]
static CHOICE: Array<u64, 1> = Array::new();
#[btf_map]
static XDP_TARGET: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static TC_TARGET: ProgramArray<1> = ProgramArray::new();

/// Runs the XDP program under test on a fresh short frame, and gives its action.
#[xdp(frags)]
pub fn bench_xdp_short(ctx: XdpContext) -> u32 {
    run_xdp::<SHORT_FRAME>(&ctx).unwrap_or(xdp_action::XDP_ABORTED)
}

/// The same with a long frame.
#[xdp(frags)]
pub fn bench_xdp_long(ctx: XdpContext) -> u32 {
    run_xdp::<LONG_FRAME>(&ctx).unwrap_or(xdp_action::XDP_ABORTED)
}

/// Runs the tc program under test on a fresh short frame, and gives its action.
#[classifier]
pub fn bench_tc(ctx: TcContext) -> i32 {
    match rewrite::<SHORT_FRAME>(ctx.data(), ctx.data_end()) {
        Some(_) => call_tc(ctx.as_ptr()),
        None => TC_ACT_SHOT,
    }
}

/// The floor of programs that leave the frame's length alone.
#[xdp(frags)]
pub fn floor_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The floor of programs that move the frame's head, plus one such move; half of what it costs more is the wrapper's.
#[xdp(frags)]
pub fn floor_xdp_head(ctx: XdpContext) -> u32 {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_xdp_adjust_head(ctx.ctx, -64) };
    xdp_action::XDP_TX
}

/// The floor of tc programs.
#[classifier]
pub fn floor_tc(_ctx: TcContext) -> i32 {
    TC_ACT_OK
}

#[inline(always)]
fn run_xdp<const LENGTH: usize>(ctx: &XdpContext) -> Option<u32> {
    rewrite::<LENGTH>(ctx.data(), ctx.data_end())?;
    let action = call_xdp(ctx.as_ptr());
    let excess = (ctx.data_end() - ctx.data()) as i32 - LENGTH as i32;
    // SAFETY: the context is the kernel's.
    if excess != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, excess) } != 0 {
        return None;
    }
    Some(action)
}

/// A tail call never returns here, but to the caller of this function.
#[inline(never)]
fn call_xdp(ctx: *mut core::ffi::c_void) -> u32 {
    // SAFETY: nothing here waits to be dropped.
    unsafe { XDP_TARGET.tail_call(&XdpContext::new(ctx.cast()), 0) };
    unknown(xdp_action::XDP_ABORTED)
}

/// As [`call_xdp`].
#[inline(never)]
fn call_tc(ctx: *mut core::ffi::c_void) -> i32 {
    // SAFETY: nothing here waits to be dropped.
    unsafe { TC_TARGET.tail_call(&TcContext::new(ctx.cast()), 0) };
    unknown(TC_ACT_SHOT as u32) as i32
}

/// `value`, so that the compiler does not know it: it takes a tail call for a function that returns, and would tell the
/// caller that only this value can come back.
#[inline(always)]
fn unknown(mut value: u32) -> u32 {
    // SAFETY: a register moved to itself. Not an empty text: the kernel refuses line information of no instruction.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}

/// Writes the template over the frame of `LENGTH` bytes and the chosen flow's client over that. Gives the template.
#[inline(always)]
fn rewrite<const LENGTH: usize>(data: usize, end: usize) -> Option<&'static [u64; FRAME_WORDS]> {
    if data + LENGTH > end {
        return None;
    }
    let settings = SETTINGS.get(0)?;
    for word in 0..LENGTH / 8 {
        // SAFETY: inside the frame by the check above; the kernel places frames at multiples of eight. Volatile, because
        // the compiler would make one call of `memcpy` of the loop.
        unsafe { (data as *mut u64).add(word).write_volatile(settings.frame[word]) };
    }
    if LENGTH % 8 != 0 {
        // SAFETY: inside the frame; on BPF an access is as wide as its type says, wherever it is.
        unsafe { ((data + LENGTH - 8) as *mut u64).write(settings.tail) };
    }
    if settings.choice == ONE_FLOW {
        return Some(&settings.frame);
    }
    let flow = choose(settings)?;
    let address = data + (settings.address_offset & (OFFSET_LIMIT - 1)) as usize;
    let port = data + (settings.port_offset & (OFFSET_LIMIT - 1)) as usize;
    if address + 4 > end || port + 2 > end {
        return None;
    }
    // SAFETY: inside the frame by the check above, and as said of the tail. The first byte of the address' last
    // four and of the port stay as in the template.
    unsafe {
        let template = (address as *const u32).read();
        (address as *mut u32)
            .write(template & u32::from_ne_bytes([0xff, 0, 0, 0]) | (flow as u32 & 0x00ff_ffff).to_be());
        (port as *mut u8).add(1).write((flow >> 24) as u8);
    }
    vary_vip(settings, data, end)?;
    Some(&settings.frame)
}

/// Replaces the lower bits of the VIP by some of the state that chose the flow.
#[inline(always)]
fn vary_vip(settings: &Settings, data: usize, end: usize) -> Option<()> {
    if settings.vip_mask == 0 {
        return Some(());
    }
    let vip = data + (settings.vip_offset & (OFFSET_LIMIT - 1)) as usize;
    if vip + 2 > end {
        return None;
    }
    let state = CHOICE.get_ptr_mut(0)?;
    // SAFETY: the bench's own word, and a place inside the frame by the check above.
    unsafe {
        let number = (state.read() >> 40 & settings.vip_mask) as u16;
        let template = u16::from_be((vip as *const u16).read());
        (vip as *mut u16).write((template & !(settings.vip_mask as u16) | number).to_be());
    }
    Some(())
}

#[inline(always)]
fn choose(settings: &Settings) -> Option<u64> {
    let state = CHOICE.get_ptr_mut(0)?;
    // SAFETY: the bench runs on one CPU, and nothing else writes the word.
    let last = unsafe { state.read() };
    let next = match settings.choice {
        NEXT_FLOW => last.wrapping_add(1),
        RANDOM_FLOW => xorshift(last),
        _ => last,
    };
    // SAFETY: as above.
    unsafe { state.write(next) };
    Some(next & settings.flow_mask)
}

/// One step of Marsaglia's generator; `state` must not be zero.
#[inline(always)]
fn xorshift(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
