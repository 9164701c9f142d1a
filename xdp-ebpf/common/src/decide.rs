//! A packet with its backend chosen: find out who knows the flow.
//!
//! The rule is the same for a packet fresh from a client and for one another node sent, because the node of a backend is
//! the only one that knows that backend's flows:
//!
//! 1. a chosen backend on this node that knows the flow gets the packet;
//! 2. a packet that may belong to an older flow is first taken to those who may have it: the backend that the sender says
//!    the row had before, and those that the rows of the nodes on the way have or had, node by node ([`walk`]);
//!    [`crate::tunnel::MAX_HOPS`] ends that;
//! 3. when nobody knows it, it goes back to the backend that was chosen first;
//! 4. there it is a new flow: noted and delivered.
//!
//! A bare SYN skips 2: it may only begin a flow, and never moves one.

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
    s.blocked = false;
    let here = s.chosen.place == Target::HERE;
    if here {
        s.aim(s.chosen.address, s.chosen.port);
        if tables.note(s) == Knowledge::Known {
            return Found::Known;
        }
    }
    if s.begins() || s.flags & tunnel::FLAG_FINAL != 0 {
        return Found::Settled;
    }
    let mut asked = here;
    if s.second.place == Target::HERE && s.flags & tunnel::FLAG_RETURN == 0 {
        s.aim(s.second.address, s.second.port);
        if tables.note(s) == Knowledge::Known {
            s.second.copy_to(&mut s.chosen);
            return Found::Known;
        }
        asked = true;
        // Whoever gets the packet need not ask here again.
        s.second.place = Target::NOWHERE;
    }
    if asked && s.hops < tunnel::MAX_HOPS {
        Found::Rows
    } else {
        Found::Nobody
    }
}

/// Makes of what was found, `s.found`, where the packet goes.
#[inline(always)]
pub fn conclude<T: Decisions>(tables: &T, s: &mut Scratch) -> Way {
    match s.found {
        Found::Known => return delivered(s),
        Found::Ask => {
            s.reason = if s.part == Part::Error {
                Reason::IcmpError
            } else {
                Reason::SecondChance
            };
            return Way::There;
        }
        // Whoever has the connection will get it when its client tries again. Anybody else would reset it.
        Found::Blocked if !s.transport.udp && s.flags & tunnel::FLAG_RETURN == 0 => return Way::Nowhere,
        Found::Settled => {}
        Found::Blocked | Found::Nobody | Found::Rows => {
            if s.flags & tunnel::FLAG_RETURN != 0 && s.second.place != Target::HERE {
                s.second.copy_to(&mut s.chosen);
                s.second.place = Target::NOWHERE;
                s.flags = tunnel::FLAG_FINAL;
                s.reason = Reason::Returned;
                return Way::There;
            }
            if s.flags & tunnel::FLAG_RETURN != 0 {
                // Whoever is to have it is here as well.
                s.second.copy_to(&mut s.chosen);
                s.aim(s.chosen.address, s.chosen.port);
                if tables.note(s) == Knowledge::Known {
                    return delivered(s);
                }
            }
        }
    }
    if s.chosen.place != Target::HERE {
        s.reason = if s.part == Part::Error {
            Reason::IcmpError
        } else {
            Reason::Tunnel
        };
        return Way::There;
    }
    settle_here(tables, s)
}

/// Makes the candidate, on another node, the one to be asked, and whoever was chosen first the one to come back to.
#[inline(always)]
fn turn_to(s: &mut Scratch) {
    if s.flags & tunnel::FLAG_RETURN == 0 {
        s.chosen.copy_to(&mut s.second);
        s.flags = tunnel::FLAG_RETURN | tunnel::FLAG_AHEAD;
    } else {
        s.flags = tunnel::FLAG_RETURN;
    }
    s.candidate.copy_to(&mut s.chosen);
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
/// the other nodes the next to be asked is found. Where the chosen backend is on another node, that one is only told whom to
/// ask next.
///
/// The node that the sender names is asked first, as it is the likeliest. From there it goes round by the hash of the nodes'
/// tunnel addresses, until the node of the backend chosen first would come again. It does not go by who had the row when:
/// nodes that missed or have not seen some of the row's changes do not agree about that, and would send the packet to and
/// fro between owners that they know, past one that only some know. Whoever is asked first begins the round, so that
/// nobody is passed over of whom the sender and the first backend's node know nothing.
#[inline(always)]
pub fn walk<T: Decisions>(tables: &T, s: &mut Scratch) -> Found {
    let returning = s.flags & tunnel::FLAG_RETURN != 0;
    let first = if returning { s.second.place } else { s.chosen.place };
    if returning && first == Target::HERE {
        return Found::Nobody;
    }
    s.round = Round {
        first: match tables.node(first) {
            Some(node) if first != Target::HERE => hash::address(&node.address),
            _ => 0,
        },
        begins: !returning || s.flags & tunnel::FLAG_AHEAD != 0,
        next: 0,
        distance: u64::MAX,
    };
    if owners(tables, s).is_none() {
        s.owners = [0; 2 + PAST_OWNERS];
    }
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
    let here = s.chosen.place == Target::HERE;
    if here && !returning && s.second.place != Target::NOWHERE {
        if can_be_asked(tables, s, s.second.place) {
            s.second.copy_to(&mut s.candidate);
            turn_to(s);
            return Found::Ask;
        }
        s.blocked = true;
    }
    let next = s.round.next;
    if !steer::aim(tables, next, &mut s.candidate) {
        return if s.blocked { Found::Blocked } else { Found::Nobody };
    }
    if !here {
        s.candidate.copy_to(&mut s.second);
        return Found::Nobody;
    }
    turn_to(s);
    Found::Ask
}

/// Makes the candidate, backend `owner` on another node, the next to be asked, if it is the nearest in the round.
#[inline(always)]
fn consider<T: Tables>(tables: &T, s: &mut Scratch, owner: u32) {
    let Some(node) = tables.node(s.candidate.place) else {
        return;
    };
    let here = hash::address(&node.source);
    let first = if s.round.first == 0 { here } else { s.round.first };
    let after = if s.round.begins { 0 } else { here.wrapping_sub(first) };
    let distance = hash::address(&node.address).wrapping_sub(first);
    if distance <= after || distance >= s.round.distance {
        return;
    }
    if can_be_asked(tables, s, s.candidate.place) {
        (s.round.next, s.round.distance) = (owner, distance);
    } else {
        s.blocked = true;
    }
}

/// Puts into the scratch who has and had the flow's row.
#[inline(always)]
fn owners<T: Tables>(tables: &T, s: &mut Scratch) -> Option<()> {
    let config = tables.config()?;
    let frontend = steer::frontend(tables, s)?;
    let index = steer::row(tables, config, s, frontend);
    let row = tables.row(index)?;
    let past = tables.past(index)?;
    (s.owners[0], s.owners[1]) = (row.current, row.previous);
    s.owners[2..].copy_from_slice(&past.owners);
    Some(())
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
