//! Frames that are to come again: copied into `HELD`, where the agent finds them, and known by their metadata when it
//! has brought them back.

use crate::{frame::load_len, maps::HELD};
use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
};
use weir_common::{
    abi::{Again, HELD_FRAME, HELD_TRIES, Held},
    packet::Hold,
};

/// Copies the frame to `HELD`, unless it was held often enough.
#[inline(always)]
pub fn hold(ctx: *mut xdp_md) -> Hold {
    let tries = tries(ctx);
    if tries >= HELD_TRIES {
        return Hold::Over;
    }
    // SAFETY: reads the context.
    let (len, ifindex) = unsafe { (bpf_xdp_get_buff_len(ctx), (*ctx).ingress_ifindex) };
    if len == 0 || len > HELD_FRAME as u64 {
        return Hold::NoRoom;
    }
    // The map has no value type: libbpf refuses a ring buffer that has one.
    let Some(mut entry) = HELD.reserve_untyped::<Held>(0) else {
        return Hold::NoRoom;
    };
    let held = entry.as_mut_ptr();
    // SAFETY: the entry is as long as a `Held`, and `len` bytes fit its frame.
    let copied = unsafe {
        (&raw mut (*held).ifindex).write(ifindex);
        (&raw mut (*held).tries).write(tries);
        (&raw mut (*held).len).write(len as u32);
        bpf_xdp_load_bytes(
            ctx,
            0,
            (&raw mut (*held).frame).cast(),
            load_len::<HELD_FRAME>(len as u32),
        ) == 0
    };
    if copied {
        entry.submit(0);
        Hold::Held
    } else {
        entry.discard(0);
        Hold::NoRoom
    }
}

/// How often the frame was held already.
#[inline(always)]
fn tries(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the program's own context.
    let (meta, data) = unsafe { ((*ctx).data_meta as usize, (*ctx).data as usize) };
    if meta + size_of::<Again>() > data {
        return 0;
    }
    // SAFETY: in bounds, and any bit pattern is an `Again`.
    let again = unsafe { (meta as *const Again).read() };
    if again.mark == Again::MARK { again.tries } else { 0 }
}
