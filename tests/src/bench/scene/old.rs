//! Tables without a free place: every entry is of a flow that has not been heard of for longer than it is believed.

use super::{Host, POD_PORT, mapped, port, wire};
use crate::packets::world::Family;
use anyhow::Result;
use aya::Ebpf;
use bytemuck::must_cast;
use weir_common::abi::{
    CACHE_BUCKETS, CACHE_WAYS, CacheBucket, CacheEntry, FLOW_BUCKETS, FLOW_WAYS, Flow, FlowBucket, flow_state, protocol,
};

/// Ticks are beyond 2^26 at every boot: the kernel begins to count jiffies five minutes before their 32 bits are full.
const LONG_AGO: u64 = 1 << 20;

/// Fills `FLOWS` with established flows of the local pod, and `FLOW_CACHE`.
pub fn fill(product: &Ebpf, family: Family) -> Result<()> {
    let mut random = Random(0x9e37_79b9);
    let mut flows = mapped::<FlowBucket>(product, "FLOWS", FLOW_BUCKETS)?;
    for index in 0..FLOW_BUCKETS {
        let mut bucket = FlowBucket::default();
        bucket.flows.fill_with(|| flow(family, &mut random));
        flows.store(
            index,
            &must_cast::<FlowBucket, [u64; FLOW_WAYS * size_of::<Flow>() / 8]>(bucket),
        )?;
    }
    let mut cache = mapped::<CacheBucket>(product, "FLOW_CACHE", CACHE_BUCKETS)?;
    for index in 0..CACHE_BUCKETS {
        let mut bucket = CacheBucket::default();
        bucket.entries.fill_with(|| CacheEntry {
            // As tags are: neither empty nor being written.
            tag: random.next() | 2,
            backend: 1,
            last_seen: (random.next() % LONG_AGO) as u32,
        });
        cache.store(
            index,
            &must_cast::<CacheBucket, [u64; CACHE_WAYS * size_of::<CacheEntry>() / 8]>(bucket),
        )?;
    }
    Ok(())
}

/// From a client that no case has.
fn flow(family: Family, random: &mut Random) -> Flow {
    let mut client = wire(family, Host::Foreign);
    client.octets[13..].copy_from_slice(&random.next().to_ne_bytes()[..3]);
    let [high, low, ..] = random.next().to_ne_bytes();
    Flow {
        client,
        pod: wire(family, Host::Pod),
        vip: wire(family, Host::Vip),
        client_port: [high, low],
        pod_port: POD_PORT.to_be_bytes(),
        vip_port: port::LOCAL.to_be_bytes(),
        protocol: protocol::TCP,
        state: flow_state::ESTABLISHED,
        last_seen: (random.next() % LONG_AGO) as u32,
        ..Flow::default()
    }
}

/// Marsaglia's xorshift; the state is never zero.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
