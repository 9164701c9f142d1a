//! The directory: what an (address, port, protocol) is to this node. One displacement word, one slot, no hash map.

use crate::{abi::DirectoryEntry, addr::Address, hash, tables::Tables};

/// An address with its hash, so that it is hashed once for the filter and every key made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The address.
    pub address: Address,
    hash: u64,
}

impl Hashed {
    /// Hashes `address`.
    #[inline(always)]
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            address,
            hash: hash::address(&address),
        }
    }

    /// Whether the filter lets the address through: true for each of ours, and by chance for few others.
    #[inline(always)]
    pub fn may_be_ours<T: Tables>(&self, tables: &T) -> bool {
        let (index, bit) = hash::filter_bit(self.hash);
        tables.filter(index) & bit != 0
    }

    /// The directory's entry for this address with `port` (memory order) and `protocol`.
    #[inline(always)]
    pub fn entry<'a, T: Tables>(&self, tables: &'a T, port: u16, protocol: u8) -> Option<&'a DirectoryEntry> {
        let hash = hash::directory(self.hash, port, protocol);
        let displacement = tables.displacement(hash::displacement_index(hash));
        let entry = tables.directory(hash::slot(hash, displacement))?;
        let matches = entry.kind != crate::abi::kind::FREE
            && u16::from_ne_bytes(entry.port) == port
            && entry.protocol == protocol
            && entry.address.words() == self.address.words();
        matches.then_some(entry)
    }

    /// The entry, if it is of this kind.
    #[inline(always)]
    pub fn entry_of<'a, T: Tables>(
        &self,
        tables: &'a T,
        port: u16,
        protocol: u8,
        kind: u8,
    ) -> Option<&'a DirectoryEntry> {
        self.entry(tables, port, protocol).filter(|entry| entry.kind == kind)
    }
}
