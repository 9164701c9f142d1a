//! `FLOWS`: the flows of this node's backends, exact, in a set-associative array.
//!
//! A flow lives in one of two buckets of four that its keyed hash names. It is *born* when a packet that may start it
//! (or, after a loss of the table, continue it) is delivered; it *ages* by the tick of the client's last packet, each
//! state with its own limit; it *dies* when its place is wanted: free places go first, then flows past their limit, then
//! the oldest half-open flow, then the oldest closed one. Established TCP and UDP flows within their limit are never
//! given up, so a flood of SYNs only replaces itself; when both buckets are full of those the newcomer is refused, and
//! the packet stands aside and is counted.
//!
//! Writers claim an entry by compare-and-swap on its control word, fill it, and publish by storing that word; readers
//! check the word again after they read.

use crate::{
    abi::{Config, FLOW_WAYS, flow_state},
    addr::Address,
    hash::{self, Tuple},
    packet::tcp_flag,
    tables::{FlowWords, Scratch, Tables},
};

const CONTROL: usize = 6;
const TIME: usize = 7;

/// The control word: `Flow`'s `client_port..state`.
#[inline(always)]
fn control(key: &Tuple, vip_port: u16, state: u8) -> u64 {
    let ([a, b], [c, d]) = (key.source_port.to_ne_bytes(), key.destination_port.to_ne_bytes());
    let [e, f] = vip_port.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, key.protocol, state])
}

/// The part of a control word that identifies the flow.
const IDENTITY: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0]);

#[inline(always)]
fn state_of(control: u64) -> u8 {
    control.to_ne_bytes()[7]
}

#[inline(always)]
fn vip_port_of(control: u64) -> u16 {
    let [_, _, _, _, e, f, _, _] = control.to_ne_bytes();
    u16::from_ne_bytes([e, f])
}

#[inline(always)]
fn with_state(control: u64, state: u8) -> u64 {
    let [a, b, c, d, e, f, g, _] = control.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, state])
}

/// Indexes of the two buckets that a flow (client to pod) may be in, under a seed and a table of `mask + 1` buckets.
#[inline(always)]
#[must_use]
pub fn buckets(seed: u64, mask: u32, key: &Tuple) -> [u32; 2] {
    let hash = hash::tuple(seed, key);
    [hash as u32 & mask, (hash >> 32) as u32 & mask]
}

/// The entry at `place`: 0 to 3 in the first bucket, 4 to 7 in the second.
///
/// A place goes through the scratch before it comes here: the verifier then walks what follows once, and not for each of
/// the eight.
#[inline(always)]
fn entry<T: Tables>(tables: &T, buckets: [u32; 2], place: u64) -> Option<&FlowWords> {
    let bucket: &[FlowWords; FLOW_WAYS] = tables.flows(if place < FLOW_WAYS as u64 {
        buckets[0]
    } else {
        buckets[1]
    })?;
    bucket.get(place as usize % FLOW_WAYS)
}

/// The entry of `s.flow` (client to pod) and its control word.
#[inline(always)]
fn find<'a, T: Tables>(tables: &'a T, config: &Config, s: &mut Scratch) -> Option<(&'a FlowWords, u64)> {
    let key = s.flow;
    let wanted = control(&key, 0, 0);
    let (client, pod) = (key.source.words(), key.destination.words());
    let buckets = buckets(config.flow_seed, config.flow_mask, &key);
    s.place = NO_PLACE;
    'search: for (number, index) in buckets.into_iter().enumerate() {
        for (way, words) in tables.flows(index)?.iter().enumerate() {
            let control = words[CONTROL].load();
            if control & IDENTITY == wanted
                && state_of(control) >= flow_state::OPENING
                && [words[0].load(), words[1].load()] == client
                && [words[2].load(), words[3].load()] == pod
            {
                s.place = (number * FLOW_WAYS + way) as u64;
                break 'search;
            }
        }
    }
    tables.settle(s);
    if s.place >= NO_PLACE {
        return None;
    }
    let words = entry(tables, buckets, s.place)?;
    let control = words[CONTROL].load();
    (control & IDENTITY == wanted).then_some((words, control))
}

/// More than any place.
const NO_PLACE: u64 = 2 * FLOW_WAYS as u64;

/// The VIP and its port (memory order) that the client of `s.flow` talks to.
#[inline(always)]
pub fn vip<T: Tables>(tables: &T, config: &Config, s: &mut Scratch) -> Option<(Address, u16)> {
    let (words, control) = find(tables, config, s)?;
    let vip = Address::from_words([words[4].load(), words[5].load()]);
    // Still the same flow, or another one took the entry and what was read may be of either.
    (words[CONTROL].load() & IDENTITY == control & IDENTITY).then(|| (vip, vip_port_of(control)))
}

/// Looks for `s.flow`, and if it is known takes the packet in: time, state, and for a packet that starts a flow anew the
/// VIP it came by.
///
/// Not inlined: it is needed in more places than the verifier should have to walk it in.
#[inline(never)]
pub fn note<T: Tables>(tables: &T, config: &Config, s: &mut Scratch) -> bool {
    let Some((words, control)) = find(tables, config, s) else {
        return false;
    };
    let (vip, vip_port, transport) = (&s.ip.destination, s.transport.destination_port, &s.transport);
    let state = state_of(control);
    let next = match state {
        flow_state::UDP => flow_state::UDP,
        _ if transport.flags & (tcp_flag::RST | tcp_flag::FIN) != 0 => flow_state::CLOSED,
        flow_state::CLOSED if transport.is_bare_syn() => flow_state::OPENING,
        flow_state::OPENING if !transport.is_bare_syn() => flow_state::ESTABLISHED,
        other => other,
    };
    let now = tables.now();
    if words[TIME].load() as u32 != now {
        words[TIME].store(u64::from(now));
    }
    let starts = transport.udp || transport.is_bare_syn() && state != flow_state::ESTABLISHED;
    let same_vip = [words[4].load(), words[5].load()] == vip.words() && vip_port_of(control) == vip_port;
    if starts && !same_vip {
        if words[CONTROL].replace(control, with_state(control, flow_state::BUSY)) {
            write_vip(words, vip);
            let [a, b, c, d, _, _, g, _] = control.to_ne_bytes();
            let [e, f] = vip_port.to_ne_bytes();
            publish(words, control, u64::from_ne_bytes([a, b, c, d, e, f, g, next]));
        }
    } else if next != state {
        // Lost only to another packet of the same flow, whose change is as good.
        words[CONTROL].replace(control, with_state(control, next));
    }
    true
}

#[inline(always)]
fn write_vip(words: &FlowWords, vip: &Address) {
    let [high, low] = vip.words();
    words[4].store(high);
    words[5].store(low);
}

/// From BUSY to `control`. The swap orders the stores before it; a plain store would not on every machine.
#[inline(always)]
fn publish(words: &FlowWords, claimed: u64, control: u64) {
    words[CONTROL].replace(with_state(claimed, flow_state::BUSY), control);
}

/// Notes `s.flow`, which [`note`] does not know, as come by the packet's destination. False when there is no room.
#[inline(never)]
pub fn insert<T: Tables>(tables: &T, config: &Config, s: &mut Scratch) -> bool {
    let now = tables.now();
    let buckets = buckets(config.flow_seed, config.flow_mask, &s.flow);
    // The best rank so far, with its place in the lowest bits.
    s.place = 0;
    for (number, index) in buckets.into_iter().enumerate() {
        let Some(bucket) = tables.flows(index) else {
            return false;
        };
        for (way, words) in bucket.iter().enumerate() {
            let age = now.wrapping_sub(words[TIME].load() as u32);
            let rank = rank(config, state_of(words[CONTROL].load()), age);
            let candidate = u64::from(rank) * NO_PLACE + (number * FLOW_WAYS + way) as u64;
            if candidate > s.place {
                s.place = candidate;
            }
            tables.settle(s);
        }
    }
    if s.place < NO_PLACE {
        return false;
    }
    let Some(words) = entry(tables, buckets, s.place % NO_PLACE) else {
        return false;
    };
    let old = words[CONTROL].load();
    // Another CPU may have taken the entry since it was ranked.
    let age = now.wrapping_sub(words[TIME].load() as u32);
    let key = &s.flow;
    if rank(config, state_of(old), age) == 0 || !words[CONTROL].replace(old, with_state(old, flow_state::BUSY)) {
        return false;
    }
    let ([c0, c1], [p0, p1]) = (key.source.words(), key.destination.words());
    words[0].store(c0);
    words[1].store(c1);
    words[2].store(p0);
    words[3].store(p1);
    write_vip(words, &s.ip.destination);
    words[TIME].store(u64::from(now));
    let state = if s.transport.udp {
        flow_state::UDP
    } else {
        flow_state::OPENING
    };
    publish(words, old, control(key, s.transport.destination_port, state));
    true
}

/// How readily an entry is given up: 0 never, more is sooner.
#[inline(always)]
fn rank(config: &Config, state: u8, age: u32) -> u32 {
    const FREE: u32 = 4 << 29;
    const EXPIRED: u32 = 3 << 29;
    const HALF_OPEN: u32 = 2 << 29;
    const CLOSED: u32 = 1 << 29;
    let limit = match state {
        flow_state::FREE => return FREE,
        flow_state::OPENING => config.half_open_ticks,
        flow_state::ESTABLISHED => config.established_ticks,
        flow_state::CLOSED => config.closed_ticks,
        flow_state::UDP => config.udp_ticks,
        _ => return 0,
    };
    // Another CPU's clock may be a tick ahead: what it noted is not old but new.
    let age = if age > u32::MAX / 2 { 0 } else { age & (CLOSED - 1) };
    match state {
        _ if age > limit => EXPIRED | age,
        flow_state::OPENING => HALF_OPEN | age,
        flow_state::CLOSED => CLOSED | age,
        _ => 0,
    }
}
