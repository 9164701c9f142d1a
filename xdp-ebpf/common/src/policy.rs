//! What a frontend's policies say of a packet: whom it lets in, and how much of it.
//!
//! A limit is a *generic cell rate algorithm* (ITU-T I.371) in one word: the time up to which what was let in has used the
//! limit up. Each packet moves it on by one interval; a packet that would find it more than a second ahead is refused. So
//! up to a second's worth may come at once. Of several CPUs that meet, one may get a packet in for nothing.

use crate::{
    abi::{Config, DirectoryEntry, LIMITER_WAYS, policy, source},
    hash,
    scratch::{Part, Scratch},
    tables::{SourceLimiterWords, Tables},
    verdict::Reason,
    word::Word,
};

/// Lets the packet in, or says why not. The sender's own limits come first, so that who is over them does not use up what
/// is for all.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, config: &Config, s: &Scratch, frontend: &DirectoryEntry) -> Result<(), Reason> {
    let policies = frontend.policies;
    if policies & policy::SOURCES != 0 {
        let wanted = match tables.source(frontend.id, &s.client) {
            source::ALLOWED => true,
            source::DENIED => false,
            _ => policies & policy::ALLOW_LISTED == 0,
        };
        if !wanted {
            return Err(Reason::SourceRefused);
        }
    }
    if policies & policy::LIMITED == 0 || tables.read_only() {
        return Ok(());
    }
    // As many units as `Config::second` has in a second.
    let now = tables.jiffies() << 20;
    let new = s.begins();
    if frontend.source_packet_interval != 0 || new && frontend.source_flow_interval != 0 {
        let limiter = of_source(tables, config, s, frontend.id, now);
        if let Some([_, flows, packets, _]) = limiter {
            take(packets, now, frontend.source_packet_interval, config).ok_or(Reason::PacketLimit)?;
            if new {
                take(flows, now, frontend.source_flow_interval, config).ok_or(Reason::FlowLimit)?;
            }
        }
    }
    if let Some([flows, packets]) = tables.limiter(frontend.id) {
        take(packets, now, frontend.packet_interval, config).ok_or(Reason::PacketLimit)?;
        if new {
            take(flows, now, frontend.flow_interval, config).ok_or(Reason::FlowLimit)?;
        }
    }
    Ok(())
}

/// Uses `interval` of a limit, which 0 does not have; `None` when it is used up.
#[inline(always)]
pub fn take(used: &Word, now: u64, interval: u32, config: &Config) -> Option<()> {
    if interval == 0 {
        return Some(());
    }
    let old = used.load();
    let from = if old > now { old } else { now };
    if from - now > u64::from(config.second) {
        return None;
    }
    used.replace(old, from + u64::from(interval));
    Some(())
}

/// The limiter of the packet's source; the one longest at rest makes room for a source that has none.
#[inline(always)]
fn of_source<'a, T: Tables>(
    tables: &'a T,
    config: &Config,
    s: &Scratch,
    frontend: u32,
    now: u64,
) -> Option<&'a SourceLimiterWords> {
    // An error uses up what its own sender may send, not what is due to whom it names.
    let sender = if s.part == Part::Error { &s.ip.source } else { &s.client };
    // Keyed before all else: what an address hashes to without a key is no secret.
    let hash = hash::keyed(
        hash::keyed(config.flow_seed, u64::from(frontend)),
        hash::address(sender),
    );
    let tag = hash | 1;
    let bucket: &[SourceLimiterWords; LIMITER_WAYS] = tables.source_limiters((hash >> 40) as u32)?;
    let mut victim = &bucket[0];
    let mut least = u64::MAX;
    for words in bucket {
        if words[0].load() == tag {
            return Some(words);
        }
        let (flows, packets) = (words[1].load(), words[2].load());
        let busy = if flows > packets { flows } else { packets };
        if busy < least {
            least = busy;
            victim = words;
        }
    }
    let old = victim[0].load();
    if victim[0].replace(old, tag) {
        victim[1].store(now);
        victim[2].store(now);
    }
    Some(victim)
}
