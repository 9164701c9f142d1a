//! `FLOW_CACHE`: which backend of a row in transition a flow belongs to, and where clients with affinity belong.
//!
//! For a flow it is only a saver of detours: the backend's node decides, and an entry that names neither backend of the
//! row is ignored. An entry is made when a SYN passes while its row is in transition. A later SYN never changes it: where it
//! names another backend than the row's current one, it is forgotten.
//!
//! For a client with affinity the entry is the memory itself, kept while the client is heard of within the Service's time.
//! Such an entry outlives the backend's id, so it also holds some bits of what the id stood for.

use crate::{
    abi::{BACKEND_ID_BITS, Backend, CACHE_WAYS, Config},
    hash,
    tables::{CacheWords, Tables},
};

/// Tag of an entry that is being written.
const BUSY: u64 = 1;
/// The part of [`crate::abi::CacheEntry::backend`] that is the id.
pub const ID: u32 = (1 << BACKEND_ID_BITS) - 1;

/// Where the entry of a flow or client with this selection hash is, and its tag. Tags have bit 1 set, so they are neither 0
/// nor [`BUSY`].
///
/// The selection hash is all that is known of the flow here. Its seed is no secret, so somebody can make two flows alike, at
/// the price of a detour for one of them; where entries stand is keyed, so nobody can aim at a bucket.
#[inline(always)]
fn place(config: &Config, selection: u64) -> (u32, u64) {
    let hash = hash::keyed(config.flow_seed, selection);
    ((hash >> 32) as u32 & config.cache_mask, hash | 2)
}

#[inline(always)]
fn pack(backend: u32, now: u32) -> u64 {
    bytemuck::must_cast([backend, now])
}

/// A backend's id with some bits of what it stands for.
#[inline(always)]
#[must_use]
pub fn ticket(id: u32, backend: &Backend) -> u32 {
    let hash = hash::address(&backend.address) ^ u64::from(u16::from_ne_bytes(backend.port)).wrapping_mul(0x9e37_79b9);
    id & ID | ((hash >> 32) as u32 ^ hash as u32) & !ID
}

/// The backend word noted for a flow or client that was heard of within `limit` ticks, and how many ago that was; it then
/// counts as heard of now.
#[inline(always)]
pub fn lookup<T: Tables>(tables: &T, config: &Config, selection: u64, limit: u32) -> Option<(u32, u32)> {
    let (index, tag) = place(config, selection);
    let bucket: &[CacheWords; CACHE_WAYS] = tables.cache(index)?;
    for words in bucket {
        if words[0].load() == tag {
            let value = words[1].load();
            let [backend, seen]: [u32; 2] = bytemuck::must_cast(value);
            let now = tables.now();
            let age = now.wrapping_sub(seen);
            // Another CPU's clock may be a tick ahead: what it noted is not old but new.
            if age > limit && age <= u32::MAX / 2 {
                return None;
            }
            if seen != now && !tables.read_only() {
                words[1].replace(value, pack(backend, now));
            }
            return (words[0].load() == tag).then_some((backend, age));
        }
    }
    None
}

/// Forgets what is noted for a flow or client.
#[inline(never)]
pub fn forget<T: Tables>(tables: &T, config: &Config, selection: u64) {
    let (index, tag) = place(config, selection);
    let Some(bucket) = tables.cache(index).filter(|_| !tables.read_only()) else {
        return;
    };
    for words in bucket {
        if words[0].load() == tag {
            words[0].replace(tag, 0);
        }
    }
}

/// Notes `backend` for a flow or client that [`lookup`] does not know, in place of the entry unused for longest.
#[inline(never)]
pub fn insert<T: Tables>(tables: &T, config: &Config, selection: u64, backend: u32) {
    let (index, tag) = place(config, selection);
    let now = tables.now();
    let Some(bucket) = tables.cache(index).filter(|_| !tables.read_only()) else {
        return;
    };
    let mut victim = &bucket[0];
    let mut oldest = 0;
    for words in bucket {
        let [_, seen]: [u32; 2] = bytemuck::must_cast(words[1].load());
        let age = if words[0].load() == 0 {
            u32::MAX
        } else {
            now.wrapping_sub(seen)
        };
        if age > oldest {
            oldest = age;
            victim = words;
        }
    }
    let old = victim[0].load();
    if old != BUSY && victim[0].replace(old, BUSY) {
        victim[1].store(pack(backend, now));
        victim[0].replace(BUSY, tag);
    }
}
