//! A 64-bit word of a map that several CPUs and user space read and write at the same time.
//!
//! LLVM's BPF back end has no plain atomic load below CPU v4 and rustc's BPF target declares no compare-and-swap, so in
//! the kernel a load is a volatile one (a single aligned 64-bit load, which BPF does not tear) and the compare-and-swap
//! is one instruction. On the host the same words are [`core::sync::atomic::AtomicU64`].
#![expect(
    unsafe_code,
    reason = "volatile access and one instruction that rustc cannot spell for BPF"
)]

use core::cell::UnsafeCell;

/// One shared 64-bit word.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Word(UnsafeCell<u64>);

// SAFETY: every access goes through the methods below, each of which is one indivisible access.
unsafe impl Sync for Word {}

impl Word {
    /// A word that holds `value`.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value now.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn load(&self) -> u64 {
        // SAFETY: the pointer comes from a live reference and is aligned.
        unsafe { self.0.get().read_volatile() }
    }

    /// Stores `value`.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn store(&self, value: u64) {
        // SAFETY: as for `load`.
        unsafe { self.0.get().write_volatile(value) }
    }

    /// Stores `new` if the word still holds `old`, and says whether it did.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        let mut seen = old;
        // SAFETY: the word is live and aligned; the instruction touches nothing else.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({word} + 0, r0, {new})",
                word = in(reg) self.0.get(),
                new = in(reg) new,
                inout("r0") seen,
                options(nostack),
            );
        }
        seen == old
    }

    #[cfg(not(target_arch = "bpf"))]
    fn atomic(&self) -> &core::sync::atomic::AtomicU64 {
        // SAFETY: same size and alignment (checked below), and no other kind of access exists.
        unsafe { core::sync::atomic::AtomicU64::from_ptr(self.0.get()) }
    }

    /// The value now.
    #[cfg(not(target_arch = "bpf"))]
    pub fn load(&self) -> u64 {
        self.atomic().load(core::sync::atomic::Ordering::Acquire)
    }

    /// Stores `value`.
    #[cfg(not(target_arch = "bpf"))]
    pub fn store(&self, value: u64) {
        self.atomic().store(value, core::sync::atomic::Ordering::Release);
    }

    /// Stores `new` if the word still holds `old`, and says whether it did.
    #[cfg(not(target_arch = "bpf"))]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        use core::sync::atomic::Ordering::{AcqRel, Acquire};
        self.atomic().compare_exchange(old, new, AcqRel, Acquire).is_ok()
    }
}

const _: () = assert!(align_of::<Word>() == align_of::<core::sync::atomic::AtomicU64>());
