//! A packet with its backend chosen: find out who knows the flow.
//!
//! The node of a backend is the only one that knows that backend's flows:
//!
//! 1. a chosen backend on this node that knows the flow gets the packet;
//! 2. for a packet that may belong to an older flow, this node asks those that may have it, one after the other: the node
//!    that the sender says the row's backend was on before, and those that this node's row, and the rows of the nodes
//!    asked, have or had ([`walk`]). Who is asked and does not know the flow sends the packet back, and says whom it would
//!    ask next. [`crate::tunnel::MAX_HOPS`] ends that;
//! 3. when nobody knows it, it is a new flow: noted and delivered to the backend chosen.
//!
//! A bare SYN skips 2: it may only begin a flow, and never moves one. When one that may know the flow cannot be asked, a
//! segment of a connection is dropped, as whoever gets it in its place would reset the connection.

use crate::{
    abi::{PAST_OWNERS, kind},
    flows::{Knowledge, Noted},
    hash,
    lookup::Hashed,
    packet::tcp_flag,
    scratch::{Part, Round, Scratch, Target},
    stages::Decisions,
    steer,
    tables::Tables,
    tunnel::{self, Outer},
    verdict::Reason,
};

/// What became of the decision. The target is in `s.chosen`, the reason in `s.reason`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nobody gets the packet.
    Nowhere = 0,
    /// It is for a backend on this node.
    Here = 1,
    /// It is for a backend on another.
    There = 2,
}

/// What came of asking whether somebody knows the flow better than the chosen backend.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// There is nobody left to ask.
    #[default]
    Nobody = 0,
    /// A backend of this node knows the flow: `s.chosen`.
    Known = 1,
    /// Another node is to be asked: `s.chosen`.
    Ask = 2,
    /// Another node would have to be asked and cannot be, for `s.reason`.
    Blocked = 3,
    /// This node's own rows are to be asked.
    Rows = 4,
    /// Nobody is to be asked: the packet may begin a flow, or everybody has been asked.
    Settled = 5,
}

/// Decides who gets the packet in `s`. In three stages, so that they do not stand on the stack together.
#[inline(always)]
pub fn decide<T: Decisions>(tables: &T, s: &mut Scratch) -> Way {
    s.found = tables.look(s);
    tables.settle(s);
    if s.found == Found::Rows {
        s.found = tables.walk(s);
        tables.settle(s);
    }
    tables.conclude(s)
}

/// Looks for the flow at the backends that the packet names: the chosen one, and the second.
#[inline(always)]
pub fn look<T: Decisions>(tables: &T, s: &mut Scratch) -> Found {
    s.blocked = s.flags & tunnel::FLAG_BLOCKED != 0;
    s.round.next = 0;
    s.reason = Reason::NodeUnreachable;
    let here = s.chosen.place == Target::HERE;
    if here {
        s.aim(s.chosen.address, s.chosen.port);
        match tables.note(s) {
            Knowledge::Known => return Found::Known,
            // Its first datagram has been to everybody.
            Knowledge::Begun => return Found::Settled,
            Knowledge::Unproven | Knowledge::Unknown => {}
        }
    }
    if s.begins() {
        return Found::Settled;
    }
    let asked = s.flags & tunnel::FLAG_RETURN != 0;
    let mut mine = here;
    if s.second.place == Target::HERE && !asked {
        s.aim(s.second.address, s.second.port);
        if tables.note(s) == Knowledge::Known {
            s.second.copy_to(&mut s.chosen);
            return Found::Known;
        }
        mine = true;
        // Whoever gets the packet need not ask here again.
        s.second.place = Target::NOWHERE;
    }
    match () {
        () if mine && (asked || s.hops < tunnel::MAX_HOPS) => Found::Rows,
        () if s.blocked => Found::Blocked,
        () => Found::Nobody,
    }
}

/// Makes of what was found, `s.found`, where the packet goes.
#[inline(always)]
pub fn conclude<T: Decisions>(tables: &T, s: &mut Scratch) -> Way {
    match s.found {
        Found::Known => return delivered(s),
        Found::Ask => {
            s.reason = of_error(s, Reason::SecondChance);
            return Way::There;
        }
        Found::Nobody | Found::Blocked if s.flags & tunnel::FLAG_RETURN != 0 => return give_back(tables, s),
        // Whoever has the connection will get it when its client tries again. Anybody else would reset it.
        Found::Blocked if !s.transport.udp => return Way::Nowhere,
        Found::Settled | Found::Blocked | Found::Nobody | Found::Rows => {}
    }
    if s.chosen.place != Target::HERE {
        s.reason = of_error(s, Reason::Tunnel);
        return Way::There;
    }
    settle_here(tables, s)
}

/// Sends a packet that this node was asked about, and knows nothing of, back to who asked.
#[inline(always)]
fn give_back<T: Tables>(tables: &T, s: &mut Scratch) -> Way {
    s.reason = Reason::NodeUnreachable;
    if s.second.place == Target::NOWHERE || s.second.place == Target::HERE {
        return Way::Nowhere;
    }
    s.second.copy_to(&mut s.chosen);
    let next = s.round.next;
    steer::aim(tables, next, &mut s.second);
    s.flags = tunnel::FLAG_BACK | s.flags & tunnel::FLAG_AHEAD | blocked(s);
    s.reason = Reason::Returned;
    Way::There
}

/// What the next node has to know of those who could not be asked.
#[inline(always)]
fn blocked(s: &Scratch) -> u8 {
    if s.blocked { tunnel::FLAG_BLOCKED } else { 0 }
}

/// The reason for sending a packet on.
#[inline(always)]
fn of_error(s: &Scratch, reason: Reason) -> Reason {
    if s.part == Part::Error {
        Reason::IcmpError
    } else {
        reason
    }
}

/// Makes the candidate, on another node, the one to be asked, and the chosen backend the one to come back to.
#[inline(always)]
fn ask(s: &mut Scratch) -> Found {
    let ahead = if s.flags & tunnel::FLAG_BACK == 0 {
        tunnel::FLAG_AHEAD
    } else {
        0
    };
    s.flags = tunnel::FLAG_RETURN | ahead | blocked(s);
    s.chosen.copy_to(&mut s.second);
    s.candidate.copy_to(&mut s.chosen);
    Found::Ask
}

/// Whether the packet can be taken to a node and come back; if not, `s.reason` is why.
#[inline(always)]
fn can_be_asked<T: Tables>(tables: &T, s: &mut Scratch, place: u32) -> bool {
    let Some(node) = tables.node(place).filter(|node| node.ifindex != 0) else {
        s.reason = Reason::NodeUnreachable;
        return false;
    };
    if s.ip.len + tunnel::overhead(Outer::towards(node).v6, true) > usize::from(node.mtu) {
        s.reason = Reason::TooBigForTunnel;
        s.mtu = node
            .mtu
            .saturating_sub(tunnel::overhead(Outer::towards(node).v6, true) as u16);
        return false;
    }
    true
}

/// Goes through the owners that this node's own row of the flow has and had. Those on this node are asked here and now; of
/// the other nodes the next to be asked is found. If this node was asked itself it only tells whom to ask next, and so it
/// does for a chosen backend on another node.
///
/// The node that the sender names is asked first, as it is the likeliest. Then it goes round by the hash of the nodes'
/// tunnel addresses, from the one that asks to it again, always to the nearest behind the one asked last of which either of
/// the two knows; whoever is asked first may be anywhere. It does not go by who had the row when: nodes that missed or have
/// not seen some of the row's changes do not agree about that.
#[inline(always)]
pub fn walk<T: Decisions>(tables: &T, s: &mut Scratch) -> Found {
    let asked = s.flags & tunnel::FLAG_RETURN != 0;
    let back = s.flags & tunnel::FLAG_BACK != 0;
    let here = s.chosen.place == Target::HERE;
    let sender = hash::address(&s.outer.source);
    let first = match tables.node(s.chosen.place) {
        _ if asked => sender,
        Some(node) if !here => hash::address(&node.address),
        _ => 0,
    };
    let last = match () {
        () if s.flags & tunnel::FLAG_AHEAD != 0 => 0,
        () if back => sender,
        // This one: see [`consider`].
        () if asked => Round::HERE,
        () => 0,
    };
    s.round = Round {
        first,
        last,
        answered: if back { sender } else { 0 },
        next: 0,
        distance: u64::MAX,
    };
    owners(tables, s);
    for place in 0..s.owners.len() {
        // What was found so far goes through the scratch: the verifier then walks every turn once.
        tables.settle(s);
        let owner = s.owners[place];
        if owner == 0 || !steer::aim(tables, owner, &mut s.candidate) {
            continue;
        }
        if s.candidate.place == Target::HERE {
            s.aim(s.candidate.address, s.candidate.port);
            if tables.note(s) == Knowledge::Known {
                s.candidate.copy_to(&mut s.chosen);
                return Found::Known;
            }
        } else {
            consider(tables, s, owner);
        }
    }
    tables.settle(s);
    if asked {
        return Found::Nobody;
    }
    if !here {
        let next = s.round.next;
        if steer::aim(tables, next, &mut s.candidate) {
            s.candidate.copy_to(&mut s.second);
        }
        return Found::Nobody;
    }
    if s.second.place != Target::NOWHERE {
        s.second.copy_to(&mut s.candidate);
        if !back {
            if can_be_asked(tables, s, s.candidate.place) {
                return ask(s);
            }
            s.blocked = true;
        } else if consider(tables, s, 0) {
            return ask(s);
        }
    }
    let next = s.round.next;
    if steer::aim(tables, next, &mut s.candidate) {
        return ask(s);
    }
    if s.blocked { Found::Blocked } else { Found::Nobody }
}

/// Makes the candidate, backend `owner` on another node, the next to be asked, if it is the nearest so far; says whether.
#[inline(always)]
fn consider<T: Tables>(tables: &T, s: &mut Scratch, owner: u32) -> bool {
    if !can_be_asked(tables, s, s.candidate.place) {
        s.blocked = true;
        return false;
    }
    let Some(node) = tables.node(s.candidate.place) else {
        return false;
    };
    let here = hash::address(&node.source);
    let first = if s.round.first == 0 { here } else { s.round.first };
    let after = match s.round.last {
        0 => 0,
        Round::HERE => here.wrapping_sub(first),
        last => last.wrapping_sub(first),
    };
    let position = hash::address(&node.address);
    let distance = position.wrapping_sub(first);
    let nearest = distance > after && distance < s.round.distance && position != s.round.answered;
    if nearest {
        (s.round.next, s.round.distance) = (owner, distance);
    }
    nearest
}

/// Puts into the scratch who has and had the flow's row; nobody, if it has none.
#[inline(always)]
fn owners<T: Tables>(tables: &T, s: &mut Scratch) {
    s.owners = [0; 2 + PAST_OWNERS];
    let (Some(config), Some(frontend)) = (tables.config(), steer::frontend(tables, s)) else {
        return;
    };
    let index = steer::row(tables, config, s, frontend);
    let (Some(row), Some(past)) = (tables.row(index), tables.past(index)) else {
        return;
    };
    (s.owners[0], s.owners[1]) = (row.current, row.previous);
    s.owners[2..].copy_from_slice(&past.owners);
    // Who left the row for the past in between is in neither.
    s.blocked |= tables.row(index) != Some(row);
}

#[inline(always)]
fn delivered(s: &mut Scratch) -> Way {
    s.reason = match s.part {
        Part::Error => Reason::IcmpError,
        _ if s.tunneled => Reason::Decapsulated,
        _ => Reason::Local,
    };
    Way::Here
}

/// The chosen backend is on this node, and nobody knows the flow better.
#[inline(always)]
fn settle_here<T: Decisions>(tables: &T, s: &mut Scratch) -> Way {
    if s.part == Part::Error {
        s.reason = Reason::IcmpErrorUnknown;
        return Way::Nowhere;
    }
    s.aim(s.chosen.address, s.chosen.port);
    let backend = Hashed::new(s.flow.destination).entry_of(tables, s.flow.destination_port, s.protocol, kind::BACKEND);
    let Some(backend) = backend else {
        if s.tunneled {
            s.reason = Reason::TunnelUnknownBackend;
            return Way::Nowhere;
        }
        // Its entry in the directory is on its way.
        return note_new(tables, s, s.chosen.id);
    };
    note_new(tables, s, backend.id)
}

#[inline(always)]
fn note_new<T: Decisions>(tables: &T, s: &mut Scratch, id: u32) -> Way {
    // Nothing follows a reset.
    if s.part == Part::Packet && s.transport.flags & tcp_flag::RST == 0 {
        match tables.insert(s) {
            Noted::Refused => {
                s.reason = Reason::FlowTableFull;
                return Way::Nowhere;
            }
            Noted::New => tables.count_flow(id),
            Noted::Old => {}
        }
    }
    delivered(s)
}
