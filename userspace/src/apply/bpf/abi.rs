//! Lets aya copy the ABI's types: aya's own marker trait, on one wrapper, for whatever `bytemuck` calls plain data.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]

/// A value of the map layout as aya copies it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Abi<T>(pub T);

// SAFETY: `bytemuck::Pod` already promises plain bytes without padding, and the wrapper is transparent.
unsafe impl<T: bytemuck::Pod> aya::Pod for Abi<T> {}
