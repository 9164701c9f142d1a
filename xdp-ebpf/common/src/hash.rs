//! The hashes of the packet path: short, keyed, and the same on every node, in the kernel and in user space.

use crate::abi::{Address, DIRECTORY_SLOTS, DISPLACEMENTS, FILTER_WORDS};

const K1: u64 = 0x9e37_79b9_7f4a_7c15;
const K2: u64 = 0xd6e8_feb8_6659_fd93;

/// One multiply and one fold: every bit of `word` reaches the upper half, and the upper half the lower.
#[inline(always)]
fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(K1);
    product ^ (product >> 32)
}

#[inline(always)]
fn finish(state: u64) -> u64 {
    let product = state.wrapping_mul(K2);
    product ^ (product >> 29)
}

/// Hash of an address: for `FILTER`, as the start of [`directory`], and for the order in which nodes are asked.
#[inline(always)]
#[must_use]
pub fn address(address: &Address) -> u64 {
    let [high, low] = address.words();
    mix(mix(K2, high), low)
}

/// Where an address' bit stands: (index into `FILTER`, mask with that bit). Of the hash's lower half, whose lowest bits
/// know nothing of an address' last bytes.
#[inline(always)]
#[must_use]
pub fn filter_bit(address_hash: u64) -> (u32, u64) {
    (
        (address_hash >> 22) as u32 & (FILTER_WORDS - 1),
        1 << (address_hash >> 16 & 63),
    )
}

/// Hash of a directory key. `port` is in memory order (network order bytes).
#[inline(always)]
#[must_use]
pub fn directory(address_hash: u64, port: u16, protocol: u8) -> u64 {
    finish(mix(address_hash, u64::from(port) << 8 | u64::from(protocol)))
}

/// Index into `DISPLACEMENT` of a directory key.
#[inline(always)]
#[must_use]
pub fn displacement_index(directory_hash: u64) -> u32 {
    (directory_hash >> 50) as u32 & (DISPLACEMENTS - 1)
}

/// Index into `DIRECTORY` of a key whose bucket is displaced by `displacement`.
#[inline(always)]
#[must_use]
pub fn slot(directory_hash: u64, displacement: u32) -> u32 {
    let step = (directory_hash >> 20) as u32 | 1;
    (directory_hash as u32).wrapping_add(displacement.wrapping_mul(step)) & (DIRECTORY_SLOTS - 1)
}

/// The 5-tuple as the packet holds it; ports in memory order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol.
    pub protocol: u8,
}

/// Hash of a 5-tuple under `seed`: chooses rows (selection seed), flow buckets and cache tags (flow seed).
#[inline(always)]
#[must_use]
pub fn tuple(seed: u64, tuple: &Tuple) -> u64 {
    let [source_high, source_low] = tuple.source.words();
    let [destination_high, destination_low] = tuple.destination.words();
    let ports =
        u64::from(tuple.source_port) << 32 | u64::from(tuple.destination_port) << 16 | u64::from(tuple.protocol);
    let state = mix(mix(seed ^ K2, source_high), source_low);
    finish(mix(mix(mix(state, destination_high), destination_low), ports))
}

/// Another hash of a hash, under `seed`: chooses buckets of the flow cache and limiters of sources.
#[inline(always)]
#[must_use]
pub fn keyed(seed: u64, hash: u64) -> u64 {
    finish(mix(seed ^ K2, hash))
}
