//! The kernel's two kinds of frame as [`Packet`]: `xdp_md` on the way in, `__sk_buff` on the way out.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, xdp_md},
    helpers::{bpf_l4_csum_replace, bpf_skb_pull_data, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
};
use bytemuck::{AnyBitPattern, NoUninit};
use weir_common::{
    checksum::folded32,
    packet::{Hold, Packet},
};

/// The verifier wants a bound on what is added to a packet pointer, and sees it only in the register that is added. The
/// packet path looks at nothing beyond [`weir_common::parse::MAX_OFFSET`], so the mask changes no offset.
#[inline(always)]
fn bounded(mut at: usize) -> usize {
    const MASK: usize = 2047;
    const _: () = assert!(weir_common::parse::MAX_OFFSET <= MASK);
    if !core::intrinsics::is_val_statically_known(at) {
        // SAFETY: arithmetic on one register.
        unsafe { core::arch::asm!("{0} &= {1}", inout(reg) at, const MASK, options(pure, nomem, nostack)) };
    }
    at
}

/// `len`, which is from 1 to `MOST` (a power of two), as a helper may be given it. The verifier wants both bounds in the very
/// register; what it learns from a comparison with 0, old kernels (6.1) do not keep.
#[inline(always)]
pub fn load_len<const MOST: usize>(len: u32) -> u32 {
    const { assert!(MOST.is_power_of_two()) };
    let mut len = len.wrapping_sub(1);
    // SAFETY: arithmetic on one register.
    unsafe {
        core::arch::asm!("{0} &= {1}", "{0} += 1", inout(reg) len, const MOST - 1, options(pure, nomem, nostack));
    }
    len
}

/// The `T` at `at` of the bytes from `data` to `end`.
///
/// `T` may be less aligned in the frame than Rust wants: on BPF an access is as wide as its type says, and the kernel
/// fixes up what the machine cannot do.
#[inline(always)]
fn load<T: AnyBitPattern>(data: usize, end: usize, at: usize) -> Option<T> {
    let start = data + bounded(at);
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: in bounds, and any bit pattern is a `T`.
    Some(unsafe { *(start as *const T) })
}

#[inline(always)]
fn store<T: NoUninit>(data: usize, end: usize, at: usize, value: T) {
    let start = data + bounded(at);
    if start + size_of::<T>() > end {
        return;
    }
    // SAFETY: in bounds; the frame is ours to write.
    unsafe { *(start as *mut T) = value }
}

/// An arriving frame.
pub struct XdpFrame {
    ctx: *mut xdp_md,
    data: usize,
    end: usize,
}

impl XdpFrame {
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        let mut frame = Self { ctx, data: 0, end: 0 };
        frame.refresh();
        frame
    }

    #[inline(always)]
    fn refresh(&mut self) {
        // SAFETY: the program's own context.
        unsafe {
            self.data = (*self.ctx).data as usize;
            self.end = (*self.ctx).data_end as usize;
        }
    }

    /// The program's context.
    #[inline(always)]
    pub fn context(&self) -> *mut xdp_md {
        self.ctx
    }

    /// What a stage that may have moved the frame returned, as a truth; the frame is found again.
    #[inline(always)]
    pub fn after(&mut self, returned: u32) -> bool {
        self.refresh();
        returned != 0
    }

    /// Bytes directly reachable: all of them, but for a frame in several buffers.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.end - self.data
    }

    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the program's own context.
        unsafe { (*self.ctx).ingress_ifindex }
    }
}

impl Packet for XdpFrame {
    #[inline(always)]
    fn load<T: AnyBitPattern>(&self, at: usize) -> Option<T> {
        load(self.data, self.end, at)
    }

    #[inline(always)]
    fn store<T: NoUninit>(&mut self, at: usize, value: T) {
        store(self.data, self.end, at, value);
    }

    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        // The helper is asked only about frames in several buffers.
        // SAFETY: reads the context's frame.
        self.len() >= end || unsafe { bpf_xdp_get_buff_len(self.ctx) } as usize >= end
    }

    #[inline(always)]
    fn adjust_head(&mut self, by: i32) -> bool {
        // SAFETY: the pointers it invalidates are refreshed.
        let done = unsafe { bpf_xdp_adjust_head(self.ctx, by) } == 0;
        self.refresh();
        done
    }

    #[inline(always)]
    fn set_len(&mut self, len: usize) -> bool {
        // SAFETY: as above; what the frame has in other buffers counts.
        let done = unsafe {
            let all = bpf_xdp_get_buff_len(self.ctx) as i32;
            bpf_xdp_adjust_tail(self.ctx, len as i32 - all)
        } == 0;
        self.refresh();
        done
    }

    #[inline(always)]
    fn hold(&self) -> Hold {
        match crate::stages::weir_hold(self.ctx) {
            1 => Hold::Held,
            2 => Hold::Over,
            _ => Hold::NoRoom,
        }
    }
}

/// A leaving frame.
pub struct SkbFrame {
    skb: *mut __sk_buff,
    data: usize,
    end: usize,
}

/// Link layer with two tags, IPv6, and TCP with all its options.
const HEADERS: u32 = 22 + 40 + 60;

impl SkbFrame {
    /// Makes the headers directly reachable where the frame has them elsewhere.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        let mut frame = Self { skb, data: 0, end: 0 };
        frame.refresh();
        // SAFETY: the program's own context.
        let len = unsafe { (*skb).len };
        let wanted = if len < HEADERS { len } else { HEADERS };
        if frame.end - frame.data < wanted as usize {
            // SAFETY: the pointers it invalidates are refreshed; if it fails the frame is merely short.
            unsafe { bpf_skb_pull_data(skb, wanted) };
            frame.refresh();
        }
        frame
    }

    #[inline(always)]
    fn refresh(&mut self) {
        // SAFETY: the program's own context.
        unsafe {
            self.data = (*self.skb).data as usize;
            self.end = (*self.skb).data_end as usize;
        }
    }

    /// Bytes of the frame.
    #[inline(always)]
    pub fn len(&self) -> usize {
        // SAFETY: the program's own context.
        unsafe { (*self.skb).len as usize }
    }
}

impl Packet for SkbFrame {
    #[inline(always)]
    fn load<T: AnyBitPattern>(&self, at: usize) -> Option<T> {
        load(self.data, self.end, at)
    }

    #[inline(always)]
    fn store<T: NoUninit>(&mut self, at: usize, value: T) {
        store(self.data, self.end, at, value);
    }

    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        self.len() >= end
    }

    #[inline(always)]
    fn uncut_len(&self) -> Option<usize> {
        // SAFETY: the program's own context.
        (unsafe { (*self.skb).gso_size } != 0).then(|| self.len())
    }

    fn adjust_head(&mut self, _by: i32) -> bool {
        false
    }

    fn set_len(&mut self, _len: usize) -> bool {
        false
    }

    /// By the kernel's helper, which knows whether the checksum in the frame is whole or left to the NIC.
    #[inline(always)]
    fn update_l4_checksum(&mut self, at: usize, _old: u16, pseudo: u64, body: u64, udp: bool) {
        let mangled = if udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let flags = u64::from(BPF_F_PSEUDO_HDR) | mangled;
        // SAFETY: offsets only; the pointers it invalidates are refreshed.
        unsafe {
            bpf_l4_csum_replace(self.skb, at as u32, 0, u64::from(folded32(pseudo)), flags);
            bpf_l4_csum_replace(self.skb, at as u32, 0, u64::from(folded32(body)), mangled);
        }
        self.refresh();
    }
}
