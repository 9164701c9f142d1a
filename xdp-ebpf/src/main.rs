//! The kernel half: two programs around [`weir_common`]'s packet path. They make a frame of the context, ask for a
//! verdict, count its reason and return its action; nothing is decided here.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "contexts, map values and helpers are raw pointers here")]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "`is_val_statically_known` has no stable form")]

mod event;
mod frame;
mod held;
mod maps;
mod monitor;
mod stages;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_UNSPEC, xdp_action},
    helpers::bpf_redirect,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use frame::{SkbFrame, XdpFrame};
use maps::Maps;
use weir_common::{egress, ingress, verdict::Action};

/// On every frame that arrives.
#[xdp(frags)]
pub fn weir_ingress(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(ctx.ctx);
    let (len, ifindex) = (frame.len(), frame.ifindex());
    let verdict = ingress::process(&mut frame, &Maps::<0>, ifindex);
    maps::count_reason(verdict.reason as u32, len as u64);
    event::report(verdict.reason, ifindex);
    monitor::ingress(ctx.ctx, &verdict);
    match verdict.action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Transmit => xdp_action::XDP_TX,
        // SAFETY: takes numbers only.
        Action::Redirect(ifindex) => unsafe { bpf_redirect(ifindex, 0) as u32 },
    }
}

/// On every frame that leaves.
#[classifier]
pub fn weir_egress(ctx: TcContext) -> i32 {
    let mut frame = SkbFrame::new(ctx.as_ptr().cast());
    let len = frame.len();
    let verdict = egress::process(&mut frame, &Maps::<1>);
    maps::count_reason(verdict.reason as u32, len as u64);
    monitor::egress(ctx.as_ptr().cast(), &verdict);
    // The next program or filter still sees the frame; every other code would end a tcx chain here.
    TC_ACT_UNSPEC
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics, or the object would not verify: an endless loop is no program.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
