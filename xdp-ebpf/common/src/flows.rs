//! `FLOWS`: the flows of this node's backends, exact, in a set-associative array. Replies are rewritten by it, and other
//! nodes' second chances are decided by it, so what it forgets is a connection that breaks.
//!
//! # Life of an entry
//!
//! A flow lives in one of two buckets of four that its keyed hash names. It is *born* when a packet that may start it is
//! delivered, or one that continues a flow nobody knows (the table may have been lost). Neither proves anything, as
//! anybody can send either in a client's name, so it is not yet *proven*. The backend proves it:
//!
//! | state | from | by |
//! |---|---|---|
//! | `OPENING` | nothing | a first segment |
//! | `ANSWERED` | `OPENING` | the backend's SYN-ACK, whose number the client's acknowledgment must have, or that of the one before |
//! | `ESTABLISHED` | `ANSWERED` | that acknowledgment: who sends it has seen the SYN-ACK |
//! | `ESTABLISHED` | `OPENING`, `RESET` | a segment of the backend without SYN, FIN, RST: it has the connection |
//! | `CLIENT_CLOSED`, `BACKEND_CLOSED` | `ESTABLISHED` | FIN of one end; the other may go on for as long as it likes |
//! | `CLOSED` | any | FIN of both ends, or the backend's RST; FIN of the backend before all else |
//! | `RESET` | any proven one | RST in the client's name, which may be a lie |
//! | `UDP_OPENING`, `UDP` | nothing | a datagram of the client; one of the backend |
//!
//! A proven flow knows where its client's stream is. A segment from far outside is another connection's, from the port of a
//! client that vanished without a word: the flow is not known for it, and stays as it is. The backend says where the stream
//! goes on, as it would of a new connection that it takes.
//!
//! It *ages* by the tick of the last packet of either end that counts for it; a SYN never counts for a flow that is proven.
//! It *dies* when its place is wanted: free places go first, then flows past their limit (five days for a proven one),
//! then of those not proven the oldest, then of the closed ones the oldest. A proven flow within its limit is never given
//! up: a flood of SYNs, of stray segments or of datagrams only replaces itself. When both buckets are full of proven flows
//! the newcomer is refused, which is counted.
//!
//! # Sharing
//!
//! Writers claim an entry by compare-and-swap on its control word, fill it, and publish by storing that word; readers
//! check the word again after they read.

use crate::{
    abi::{Config, FLOW_WAYS, flow_state},
    addr::Address,
    hash::{self, Tuple},
    packet::tcp_flag,
    parse::Transport,
    scratch::{Part, Scratch},
    tables::{FlowWords, Tables},
};

const CONTROL: usize = 6;
const TIME: usize = 7;

/// What this node knows of a flow.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Nothing.
    Unknown = 0,
    /// Somebody has sent packets of it; it may be another backend's all the same.
    Unproven = 1,
    /// It is the backend's.
    Known = 2,
    /// Datagrams have come to this backend lately, and it has not answered yet.
    Begun = 3,
}

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

/// The time word: `Flow`'s `last_seen` and `number`.
#[inline(always)]
fn time(now: u32, number: u32) -> u64 {
    bytemuck::must_cast([now, number])
}

#[inline(always)]
fn time_of(word: u64) -> [u32; 2] {
    bytemuck::must_cast(word)
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

/// Whether a flow in this state is the backend's.
#[inline(always)]
fn is_proven(state: u8) -> bool {
    use flow_state::{BACKEND_CLOSED, CLIENT_CLOSED, ESTABLISHED, UDP};
    // What has ended may begin at another backend, from the same port.
    matches!(state, ESTABLISHED | CLIENT_CLOSED | BACKEND_CLOSED | UDP)
}

/// [`crate::abi::Flow::number`] of a flow in `state` whose backend answers a SYN, and wants `acknowledgment`.
#[inline(always)]
fn answered(state: u8, number: u32, acknowledgment: u32) -> u32 {
    let (half, last) = (acknowledgment >> 16, number >> 16);
    match state {
        flow_state::ANSWERED if half == last => number,
        flow_state::ANSWERED => half << 16 | last,
        _ => half << 16 | half,
    }
}

/// Whether a client with this acknowledgment got one of the two answers that made `number`. Data that came with the answer
/// (RFC 7413) may be acknowledged with it, up to 64 KiB.
#[inline(always)]
fn acknowledges(number: u32, acknowledgment: u32) -> bool {
    let after = |half: u32| (acknowledgment >> 16).wrapping_sub(half) & 0xffff;
    after(number >> 16) <= 1 || after(number) <= 1
}

/// How far the backend acknowledges on before it is noted within one tick.
const STEP: u32 = 1 << 26;

/// Whether a client's segment with this sequence number can be of the flow whose backend has acknowledged `number`: at most
/// the largest window ahead (RFC 7323 §2.3), or repeated late. A client that opens a connection from the port of one that was
/// never closed begins anywhere (RFC 6528).
#[inline(always)]
fn is_in_reach(number: u32, sequence: u32) -> bool {
    const AHEAD: u32 = (1 << 30) + STEP;
    const BEHIND: u32 = 1 << 28;
    number == 0 || sequence.wrapping_sub(number).wrapping_add(BEHIND) <= AHEAD + BEHIND
}

/// What the flow becomes, and what is known of it, when the client's packet arrives.
#[inline(always)]
fn on_arrival(state: u8, number: u32, packet: &Transport) -> (u8, Knowledge) {
    use flow_state::{ANSWERED, BACKEND_CLOSED, CLIENT_CLOSED, CLOSED, ESTABLISHED, OPENING, RESET, UDP};
    if packet.is_bare_syn() {
        // A client may open a connection anew from an old one's port; a live one answers for itself (RFC 5961 §4).
        return match state {
            CLOSED | RESET => (OPENING, Knowledge::Unproven),
            OPENING | ANSWERED => (state, Knowledge::Unproven),
            _ => (state, Knowledge::Known),
        };
    }
    let state = match state {
        UDP => return (state, Knowledge::Known),
        ANSWERED if packet.flags & tcp_flag::ACK != 0 && acknowledges(number, packet.acknowledgment) => ESTABLISHED,
        _ if !is_proven(state) || !is_in_reach(number, packet.sequence) => return (state, Knowledge::Unproven),
        _ => state,
    };
    let next = match state {
        _ if packet.flags & tcp_flag::RST != 0 => RESET,
        _ if packet.flags & tcp_flag::FIN == 0 => state,
        BACKEND_CLOSED => CLOSED,
        ESTABLISHED => CLIENT_CLOSED,
        other => other,
    };
    (next, Knowledge::Known)
}

/// What the flow becomes when the backend's packet leaves.
#[inline(always)]
fn on_departure(state: u8, flags: u8) -> u8 {
    use flow_state::{ANSWERED, BACKEND_CLOSED, CLIENT_CLOSED, CLOSED, ESTABLISHED, OPENING, RESET, UDP, UDP_OPENING};
    match state {
        UDP | UDP_OPENING => UDP,
        _ if flags & tcp_flag::RST != 0 => CLOSED,
        _ if flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN | tcp_flag::ACK => match state {
            OPENING | ANSWERED => ANSWERED,
            other => other,
        },
        _ if flags & tcp_flag::FIN != 0 => match state {
            // What begins with its end was taken up late.
            CLIENT_CLOSED | CLOSED | OPENING => CLOSED,
            _ => BACKEND_CLOSED,
        },
        OPENING | RESET => ESTABLISHED,
        other => other,
    }
}

/// What is known of `s.flow`. The packet in hand is taken in: time, state, and for a packet that starts a flow anew the VIP
/// it came by.
#[inline(always)]
pub fn note<T: Tables>(tables: &T, s: &mut Scratch) -> Knowledge {
    let Some(config) = tables.config() else {
        return Knowledge::Unknown;
    };
    let Some((words, control)) = find(tables, config, s) else {
        return Knowledge::Unknown;
    };
    let (vip, vip_port, transport) = (&s.ip.destination, s.transport.destination_port, &s.transport);
    let state = state_of(control);
    let [seen, number] = time_of(words[TIME].load());
    let now = tables.now();
    let expired = is_older(now.wrapping_sub(seen), limit(config, state));
    if s.part != Part::Packet {
        // It says nothing about the flow's state, and it is not for one that is not proven.
        return if is_proven(state) && !expired {
            Knowledge::Known
        } else {
            Knowledge::Unproven
        };
    }
    let (next, mut knowledge) = on_arrival(state, number, transport);
    if expired {
        // It may have ended long ago, and its port be another connection's by now.
        knowledge = Knowledge::Unproven;
    }
    if tables.read_only() || expired && !transport.is_bare_syn() {
        return knowledge;
    }
    if state == flow_state::UDP_OPENING && !expired {
        knowledge = Knowledge::Begun;
    }
    // What is not proven keeps the time of its birth, or a flood could keep itself alive.
    let counts = knowledge == Knowledge::Known && !transport.is_bare_syn();
    if state == flow_state::ANSWERED && counts {
        words[TIME].store(time(now, transport.sequence));
    } else if seen != now && (counts || next == flow_state::OPENING && state != next) {
        words[TIME].store(time(now, number));
    }
    let starts = transport.udp || next == flow_state::OPENING && transport.is_bare_syn();
    let same_vip = [words[4].load(), words[5].load()] == vip.words() && vip_port_of(control) == vip_port;
    // Whoever resets a flow in its client's name must not take it over by another VIP as well.
    if state == flow_state::RESET && !same_vip && !is_older(now.wrapping_sub(seen), config.closed_ticks) {
        return knowledge;
    }
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
    knowledge
}

/// The VIP and its port (memory order) that the client of `s.flow` talks to. The backend's packet in hand is taken in.
#[inline(always)]
pub fn reply<T: Tables>(tables: &T, s: &mut Scratch) -> Option<(Address, u16)> {
    let config = tables.config()?;
    let (words, control) = find(tables, config, s)?;
    let vip = Address::from_words([words[4].load(), words[5].load()]);
    // Still the same flow, or another one took the entry and what was read may be of either.
    let again = words[CONTROL].load();
    if again & IDENTITY != control & IDENTITY || state_of(again) == flow_state::BUSY {
        return None;
    }
    let ended = matches!(state_of(control), flow_state::CLOSED | flow_state::RESET);
    let answers = s.transport.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN | tcp_flag::ACK;
    if ended && answers && s.part == Part::Packet && !s.transport.udp {
        // The SYN that is answered did not come through a VIP, or the flow would be opening: the client has come directly.
        if !tables.read_only() {
            words[CONTROL].replace(control, with_state(control, flow_state::FREE));
        }
        return None;
    }
    if s.part == Part::Packet && !tables.read_only() {
        let (state, now) = (state_of(control), tables.now());
        let next = on_departure(state, s.transport.flags);
        let [seen, number] = time_of(words[TIME].load());
        let acknowledged = s.transport.acknowledgment;
        let wanted = match next {
            flow_state::ANSWERED if answers => answered(state, number, s.transport.sequence.wrapping_add(1)),
            flow_state::ESTABLISHED | flow_state::CLIENT_CLOSED | flow_state::BACKEND_CLOSED
                if s.transport.flags & tcp_flag::ACK != 0
                    && ((seen, state) != (now, next)
                        || acknowledged.wrapping_sub(number).wrapping_add(STEP) > 2 * STEP) =>
            {
                acknowledged
            }
            _ => number,
        };
        if (seen, number) != (now, wanted) {
            words[TIME].store(time(now, wanted));
        }
        if next != state {
            words[CONTROL].replace(control, with_state(control, next));
        }
    }
    Some((vip, vip_port_of(control)))
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

/// What came of noting a flow.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// There is no room.
    Refused = 0,
    /// It is new.
    New = 1,
    /// It was there, and goes on.
    Old = 2,
}

/// Notes `s.flow`, which nobody knows better, as come by the packet's destination. What has expired begins anew.
#[inline(always)]
pub fn insert<T: Tables>(tables: &T, s: &mut Scratch) -> Noted {
    let Some(config) = tables.config() else {
        return Noted::Refused;
    };
    let now = tables.now();
    let first = if s.transport.udp {
        flow_state::UDP_OPENING
    } else {
        flow_state::OPENING
    };
    if let Some((words, control)) = find(tables, config, s) {
        let [seen, number] = time_of(words[TIME].load());
        let expired = is_older(now.wrapping_sub(seen), limit(config, state_of(control)));
        if expired && !tables.read_only() {
            words[TIME].store(time(now, number));
            words[CONTROL].replace(control, with_state(control, first));
        }
        return Noted::Old;
    }
    let buckets = buckets(config.flow_seed, config.flow_mask, &s.flow);
    // The best rank so far, with its place in the lowest bits.
    s.place = 0;
    for (number, index) in buckets.into_iter().enumerate() {
        let Some(bucket) = tables.flows(index) else {
            return Noted::Refused;
        };
        for (way, words) in bucket.iter().enumerate() {
            let [seen, _] = time_of(words[TIME].load());
            let rank = rank(config, state_of(words[CONTROL].load()), now.wrapping_sub(seen));
            let candidate = u64::from(rank) * NO_PLACE + (number * FLOW_WAYS + way) as u64;
            if candidate > s.place {
                s.place = candidate;
            }
            tables.settle(s);
        }
    }
    if s.place < NO_PLACE {
        return Noted::Refused;
    }
    if tables.read_only() {
        return Noted::New;
    }
    let Some(words) = entry(tables, buckets, s.place % NO_PLACE) else {
        return Noted::Refused;
    };
    let old = words[CONTROL].load();
    // Another CPU may have taken the entry since it was ranked.
    let [seen, _] = time_of(words[TIME].load());
    let key = &s.flow;
    if rank(config, state_of(old), now.wrapping_sub(seen)) == 0
        || !words[CONTROL].replace(old, with_state(old, flow_state::BUSY))
    {
        return Noted::Refused;
    }
    let ([c0, c1], [p0, p1]) = (key.source.words(), key.destination.words());
    words[0].store(c0);
    words[1].store(c1);
    words[2].store(p0);
    words[3].store(p1);
    write_vip(words, &s.ip.destination);
    words[TIME].store(time(now, 0));
    publish(words, old, control(key, s.transport.destination_port, first));
    Noted::New
}

/// Ticks for which a flow in this state is believed without a packet.
#[inline(always)]
fn limit(config: &Config, state: u8) -> u32 {
    match state {
        flow_state::OPENING | flow_state::ANSWERED => config.half_open_ticks,
        flow_state::CLOSED => config.closed_ticks,
        flow_state::UDP_OPENING | flow_state::UDP => config.udp_ticks,
        // A reset may be a lie, and its flow live on in silence.
        _ => config.established_ticks,
    }
}

/// Whether an age in ticks is beyond a limit. Another CPU's clock may be a tick ahead: what it noted is not old but new.
#[inline(always)]
fn is_older(age: u32, limit: u32) -> bool {
    age > limit && age <= u32::MAX / 2
}

/// How readily an entry is given up: 0 never, more is sooner.
#[inline(always)]
fn rank(config: &Config, state: u8, age: u32) -> u32 {
    const FREE: u32 = 4 << 29;
    const EXPIRED: u32 = 3 << 29;
    const UNPROVEN: u32 = 2 << 29;
    const CLOSED: u32 = 1 << 29;
    let class = match state {
        flow_state::FREE => return FREE,
        flow_state::BUSY => return 0,
        flow_state::OPENING | flow_state::ANSWERED | flow_state::UDP_OPENING => UNPROVEN,
        flow_state::CLOSED | flow_state::RESET => CLOSED,
        _ => 0,
    };
    let old = is_older(age, limit(config, state));
    // Another CPU's clock may be a tick ahead: what it noted is not old but new.
    let age = if age > u32::MAX / 2 { 0 } else { age & (CLOSED - 1) };
    match class {
        _ if old => EXPIRED | age,
        0 => 0,
        class => class | age,
    }
}
