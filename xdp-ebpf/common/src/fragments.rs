//! `FRAGMENTS`: the ports of datagrams that came in pieces, and which pieces are believed.
//!
//! Only the first fragment has ports. It is steered like a whole packet and leaves them here, under what all fragments of
//! a datagram have in common (RFC 791 §3.2, RFC 8200 §4.5): source, destination, protocol and identification. Every later
//! one looks them up and then meets the same frontend, row and backend.
//!
//! **Who can change what.** The key has source and destination in full, so a fragment can touch only datagrams of the same
//! source to the same VIP; nobody who cannot send in another's name touches another's flow. Somebody who can (a forger, or
//! a neighbour behind the same address translation) has to be kept from doing more here than he can do to the receiver's
//! own reassembly. When a second first fragment comes with other ports, there are three ways:
//!
//! - *the older one stays*: somebody who sends first fragments with all 65,536 identifications beforehand decides for
//!   [`Config::fragment_ticks`] where his victim's later fragments go, without any race. So does chance, for a client whose
//!   16 bits of identification come round within that time (RFC 8900 §3.2, RFC 4963);
//! - *both are refused* (what RFC 5722 does to overlaps): the same, but the victim's datagrams are lost rather than
//!   astray, and so are those of the fast client;
//! - *the newer one wins*: what was sent beforehand is overwritten by the victim's own first fragment, and only who hits
//!   the microseconds between that and the later ones does harm.
//!
//! The newer one wins. What is astray then arrives at a backend of the same VIP that waits for other bytes under this
//! identification, or none, and is thrown away there: the checksum of the whole datagram is made with ports and addresses.
//! Later fragments never write.
//!
//! **Hostile shapes** ([`Piece::is_sound`]) are never looked up: they stand aside, or are dropped where they came in the
//! tunnel. **Pressure**: the bucket of a datagram is a keyed hash's, so nobody can aim; a bucket without room gives up the
//! oldest of its four. A flood has to bring 2^14 first fragments between a datagram's first and its last.
//!
//! **Sharing.** A writer claims an entry by compare-and-swap on its control word, fills it, and publishes by swapping that
//! word again. A reader believes what it compared only if the control word, read by a swap of itself for itself, is the same
//! before and after: on every machine such a swap is ordered against all that stands around it. The control word has the
//! number of the writing in it, or one that came and went in between would not be seen.

use crate::{
    abi::{Config, FRAGMENT_BUCKETS, FRAGMENT_WAYS, protocol},
    addr::Address,
    hash::{self, Tuple},
    packet::{Hold, Packet, Tcp, Udp},
    parse::Ip,
    scratch::{Part, Scratch},
    tables::{FragmentWords, Tables},
    verdict::Reason,
};

const NAME: usize = 4;
const CONTROL: usize = 5;
/// Control word of an entry that is being written. No writing has this number.
const BUSY: u64 = u64::MAX;
/// Writings of one entry are numbered from 1 to this, round and round.
const WRITINGS: u32 = 254;

/// What all fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Source.
    pub source: Address,
    /// Destination.
    pub destination: Address,
    /// Identification, memory order (IPv4's 16 bits first, then zeros).
    pub id: u32,
    /// IP protocol.
    pub protocol: u8,
}

impl Key {
    /// Of the datagram that the fragment `ip` is part of.
    #[inline(always)]
    #[must_use]
    pub fn new(ip: &Ip) -> Self {
        Self {
            source: ip.source,
            destination: ip.destination,
            id: ip.fragment_id,
            protocol: ip.protocol,
        }
    }

    /// Index of the bucket that the datagram may be in.
    #[inline(always)]
    #[must_use]
    pub fn bucket(&self, config: &Config) -> u32 {
        let [low, high]: [u16; 2] = bytemuck::must_cast(self.id);
        let tuple = Tuple {
            source: self.source,
            destination: self.destination,
            source_port: low,
            destination_port: high,
            protocol: self.protocol,
        };
        hash::tuple(config.flow_seed, &tuple) as u32 & (FRAGMENT_BUCKETS - 1)
    }

    /// [`crate::abi::Fragment`]'s `id..reserved`.
    #[inline(always)]
    fn name(&self) -> u64 {
        bytemuck::must_cast([self.id, u32::from_ne_bytes([self.protocol, 0, 0, 0])])
    }

    #[inline(always)]
    fn is_of(&self, words: &FragmentWords) -> bool {
        words[NAME].load() == self.name()
            && [words[0].load(), words[1].load()] == self.source.words()
            && [words[2].load(), words[3].load()] == self.destination.words()
    }
}

/// [`crate::abi::Fragment`]'s `source_port..stamp`, of ports in memory order.
#[inline(always)]
fn control((source, destination): (u16, u16), stamp: u32) -> u64 {
    let ports: u32 = bytemuck::must_cast([source, destination]);
    bytemuck::must_cast([ports, stamp])
}

#[inline(always)]
fn ports_of(control: u64) -> (u16, u16) {
    let [ports, _]: [u32; 2] = bytemuck::must_cast(control);
    let [source, destination]: [u16; 2] = bytemuck::must_cast(ports);
    (source, destination)
}

#[inline(always)]
fn stamp_of(control: u64) -> u32 {
    let [_, stamp]: [u32; 2] = bytemuck::must_cast(control);
    stamp
}

/// The stamp of the writing after the one stamped `former`, at tick `now`.
#[inline(always)]
fn next_stamp(former: u32, now: u32) -> u32 {
    let number = former & 0xff;
    now << 8 | if number < WRITINGS { number + 1 } else { 1 }
}

/// Ticks since the writing. Stamps hold 24 bits of a tick.
#[inline(always)]
fn age(stamp: u32, now: u32) -> u32 {
    const HALF: u32 = 1 << 23;
    let age = now.wrapping_sub(stamp >> 8) & (2 * HALF - 1);
    // Another CPU's clock may be a tick ahead: what it noted is not old but new.
    if age >= HALF { 0 } else { age }
}

/// The ports (memory order) in `words`, if that is the datagram `key` and its first fragment not too long ago.
#[inline(always)]
fn read(words: &FragmentWords, config: &Config, now: u32, key: &Key) -> Option<(u16, u16)> {
    let control = words[CONTROL].load();
    let stamp = stamp_of(control);
    let known = control != BUSY && stamp != 0 && age(stamp, now) <= config.fragment_ticks;
    let whole = known
        && words[CONTROL].replace(control, control)
        && key.is_of(words)
        && words[CONTROL].replace(control, control);
    whole.then(|| ports_of(control))
}

/// More than any way of a bucket.
const NO_WAY: u64 = FRAGMENT_WAYS as u64;

/// How well the entry `way` of a bucket suits the datagram `key`: 0 not at all, more is better; the way in the lowest bits.
#[inline(always)]
fn rank(words: &FragmentWords, way: usize, now: u32, key: &Key) -> u64 {
    let control = words[CONTROL].load();
    let stamp = stamp_of(control);
    let rank = match control {
        BUSY => return 0,
        _ if key.is_of(words) => u32::MAX,
        _ if stamp == 0 => u32::MAX - 1,
        _ => age(stamp, now) + 1,
    };
    u64::from(rank) * NO_WAY + way as u64
}

/// Writes the ports of the datagram `key` into `words`, unless another CPU takes the entry meanwhile: the later fragments are
/// then such whose first one is not known.
#[inline(always)]
fn write(words: &FragmentWords, now: u32, key: &Key, ports: (u16, u16)) {
    let old = words[CONTROL].load();
    if old == BUSY || !words[CONTROL].replace(old, BUSY) {
        return;
    }
    let ([s0, s1], [d0, d1]) = (key.source.words(), key.destination.words());
    words[0].store(s0);
    words[1].store(s1);
    words[2].store(d0);
    words[3].store(d1);
    words[NAME].store(key.name());
    // The swap orders the stores before it; a plain store would not on every machine.
    words[CONTROL].replace(BUSY, control(ports, next_stamp(stamp_of(old), now)));
}

/// Notes the ports (source, destination; memory order) of the datagram whose first fragment is at `s.ip`.
///
/// As in [`crate::flows`], the place goes through the scratch: the verifier then walks what follows once.
#[inline(always)]
pub fn teach<T: Tables>(tables: &T, s: &mut Scratch, ports: (u16, u16)) {
    let key = Key::new(&s.ip);
    let Some(config) = tables.config().filter(|_| !tables.read_only()) else {
        return;
    };
    let Some(bucket) = tables.fragments(key.bucket(config)) else {
        return;
    };
    let now = tables.now();
    s.place = 0;
    for (way, words) in bucket.iter().enumerate() {
        let rank = rank(words, way, now, &key);
        if rank > s.place {
            s.place = rank;
        }
        tables.settle(s);
    }
    if s.place >= NO_WAY {
        write(&bucket[(s.place % NO_WAY) as usize], now, &key, ports);
    }
}

/// Makes the later fragment at `s.ip` one of its flow, with the ports that the first one left.
/// [`Reason::FragmentHeld`] when nobody knows them: what is to be asked of [`hold`] then.
#[inline(always)]
pub fn recall<T: Tables>(tables: &T, s: &mut Scratch) -> Result<(), Reason> {
    let unknown = Reason::FragmentHeld;
    let key = Key::new(&s.ip);
    let config = tables.config().ok_or(unknown)?;
    let bucket = tables.fragments(key.bucket(config)).ok_or(unknown)?;
    s.place = NO_WAY;
    for (way, words) in bucket.iter().enumerate() {
        // Of two that two CPUs wrote at once, the one that is written again later.
        if key.is_of(words) && s.place == NO_WAY {
            s.place = way as u64;
        }
        tables.settle(s);
    }
    if s.place >= NO_WAY {
        return Err(unknown);
    }
    let words = &bucket[(s.place % NO_WAY) as usize];
    let (source, destination) = read(words, config, tables.now(), &key).ok_or(unknown)?;
    s.part = Part::Fragment;
    s.transport.source_port = source;
    s.transport.destination_port = destination;
    s.transport.flags = 0;
    s.transport.udp = s.ip.protocol != protocol::TCP;
    Ok(())
}

/// What is done with a later fragment for one of our VIPs whose first one is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It was given to the agent, and is dropped for now.
    Held,
    /// It cannot be held: it stands aside, for it may be the last of a datagram that the stack puts together.
    Aside,
    /// The first one did not come in time, so the datagram is lost: dropped.
    Lost,
}

/// Has the frame held, unless nothing may be changed.
#[inline(always)]
pub fn hold<P: Packet, T: Tables>(packet: &P, tables: &T) -> Unknown {
    if tables.read_only() {
        return Unknown::Held;
    }
    match packet.hold() {
        Hold::Held => Unknown::Held,
        Hold::NoRoom => Unknown::Aside,
        Hold::Over => Unknown::Lost,
    }
}

/// Where a fragment's bytes stand in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// IP protocol of the datagram.
    pub protocol: u8,
    /// Offset in bytes.
    pub offset: usize,
    /// Bytes that it carries, behind the IP header and the headers of every fragment.
    pub len: usize,
    /// Whether others follow it.
    pub more: bool,
}

impl Piece {
    /// Whether a sender that means no harm makes such fragments. A packet that has a fragment header and is whole (offset 0
    /// and no others, RFC 6946) is no fragment and not asked about.
    ///
    /// False for a first fragment too short for the transport header and for one that begins inside it, which would write
    /// over what was checked (RFC 1858, RFC 3128; RFC 7112 for IPv6); for one that others follow and that is no multiple
    /// of 8 bytes long, for one without any bytes, and for one that ends beyond the largest datagram (RFC 791 §3.2,
    /// RFC 8200 §4.5).
    #[inline(always)]
    #[must_use]
    pub fn is_sound(&self) -> bool {
        const LARGEST: usize = 65_535;
        let header = match self.protocol {
            protocol::TCP => size_of::<Tcp>(),
            protocol::UDP => size_of::<Udp>(),
            _ => 0,
        };
        let opens = if self.offset == 0 {
            self.len >= header
        } else {
            self.offset >= header
        };
        opens && self.len != 0 && self.offset + self.len <= LARGEST && (!self.more || self.len.is_multiple_of(8))
    }
}

#[cfg(test)]
mod tests;
