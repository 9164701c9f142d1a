//! A packet with its backend chosen: find out who knows the flow.
//!
//! The rule is the same for a packet fresh from a client and for one another node sent, because the node of a backend is
//! the only one that knows that backend's flows:
//!
//! 1. a chosen backend on this node that knows the flow gets the packet;
//! 2. a packet that may belong to an older flow is first taken to those who may have it: the backend that the sender says
//!    the row had before, or those that this node's own rows have had, one after the other. Who is asked and does not know
//!    it goes on by its own rows; [`crate::tunnel::MAX_HOPS`] ends that;
//! 3. when nobody knows it, it goes back to the backend that was chosen first;
//! 4. there it is a new flow: noted and delivered.
//!
//! A bare SYN skips 2: it may only begin a flow, and never moves one.

use crate::{
    abi::{PAST_OWNERS, kind},
    flows::Knowledge,
    lookup::Hashed,
    packet::tcp_flag,
    scratch::{Part, Scratch, Target},
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

/// What came of asking this node's own rows.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// There is nobody left to ask.
    Nobody = 0,
    /// A backend of this node knows the flow: `s.chosen`.
    Known = 1,
    /// Another node is to be asked: `s.chosen`.
    Ask = 2,
    /// Another node would have to be asked and cannot be, for `s.reason`.
    Blocked = 3,
}

/// Decides who gets the packet in `s`.
#[inline(always)]
pub fn decide<T: Decisions>(tables: &T, s: &mut Scratch) -> Way {
    let here = s.chosen.place == Target::HERE;
    let mut knowledge = Knowledge::Unknown;
    if here {
        s.aim(s.chosen.address, s.chosen.port);
        knowledge = tables.note(s);
        if knowledge == Knowledge::Known {
            return delivered(s);
        }
    }
    if !s.begins() && s.flags & tunnel::FLAG_FINAL == 0 {
        match ask(tables, s, here) {
            Walk::Known => return delivered(s),
            Walk::Ask => {
                s.reason = if s.part == Part::Error {
                    Reason::IcmpError
                } else {
                    Reason::SecondChance
                };
                return Way::There;
            }
            // Whoever has the connection will get it when its client tries again. Anybody else would reset it.
            Walk::Blocked if !s.transport.udp && s.flags & tunnel::FLAG_RETURN == 0 => return Way::Nowhere,
            Walk::Blocked | Walk::Nobody => {}
        }
        if s.flags & tunnel::FLAG_RETURN != 0 && s.second.place != Target::HERE {
            s.second.copy_to(&mut s.chosen);
            s.second.place = Target::NOWHERE;
            s.flags = tunnel::FLAG_FINAL;
            s.reason = Reason::Returned;
            return Way::There;
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
    settle_here(tables, s, knowledge)
}

/// Asks whoever may know the flow better than the chosen backend, which is on this node if `here`.
#[inline(always)]
fn ask<T: Decisions>(tables: &T, s: &mut Scratch, here: bool) -> Walk {
    let (mut asked, mut blocked) = (here, false);
    if s.second.place != Target::NOWHERE && s.flags & tunnel::FLAG_RETURN == 0 {
        if s.second.place == Target::HERE {
            s.aim(s.second.address, s.second.port);
            if tables.note(s) == Knowledge::Known {
                s.second.copy_to(&mut s.chosen);
                return Walk::Known;
            }
            asked = true;
            // Whoever gets the packet need not ask here again.
            s.second.place = Target::NOWHERE;
        } else if here && s.hops < tunnel::MAX_HOPS {
            if can_be_asked(tables, s, s.second.place) {
                let mut asks = Target::default();
                s.second.copy_to(&mut asks);
                turn_to(s, &asks);
                return Walk::Ask;
            }
            blocked = true;
        }
    }
    if !asked || s.hops >= tunnel::MAX_HOPS {
        return Walk::Nobody;
    }
    match tables.walk(s) {
        Walk::Nobody if blocked => Walk::Blocked,
        found => found,
    }
}

/// Makes `target`, on another node, the one to be asked, and whoever was chosen first the one to come back to.
#[inline(always)]
fn turn_to(s: &mut Scratch, target: &Target) {
    if s.flags & tunnel::FLAG_RETURN == 0 {
        s.chosen.copy_to(&mut s.second);
        s.flags = tunnel::FLAG_RETURN;
    }
    target.copy_to(&mut s.chosen);
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
        return false;
    }
    true
}

/// Goes through the owners that this node's own row of the flow has had. Those on this node are asked here and now; of the
/// others the next is found, after the backend of this node that was asked last. Where the chosen backend is on another
/// node, that one is only told whom to ask next.
///
/// Once the earliest owner has been asked for a TCP flow, the way goes back to later ones: a sender that was away for a
/// while knows early owners and the current one, and not who came between.
#[inline(always)]
pub fn walk<T: Decisions>(tables: &T, s: &mut Scratch) -> Walk {
    let Some(owners) = owners(tables, s) else {
        return Walk::Nobody;
    };
    let last = Hashed::new(s.flow.destination)
        .entry_of(tables, s.flow.destination_port, s.protocol, kind::BACKEND)
        .map_or(0, |backend| backend.id);
    let mut passed = true;
    for owner in owners {
        passed = passed && (owner != last || last == 0);
    }
    let mut target = Target::default();
    let (mut earlier, mut later, mut blocked) = (0, 0, Walk::Nobody);
    for owner in owners {
        if owner == 0 || owner == last {
            passed = passed || owner == last;
            continue;
        }
        if !steer::aim(tables, owner, &mut target) {
            continue;
        }
        if target.place == Target::HERE {
            s.aim(target.address, target.port);
            if tables.note(s) == Knowledge::Known {
                target.copy_to(&mut s.chosen);
                return Walk::Known;
            }
        } else if owner != s.chosen.id && !(passed && earlier != 0) && !is_second(s, &target) {
            if !can_be_asked(tables, s, target.place) {
                blocked = Walk::Blocked;
            } else if passed {
                earlier = owner;
            } else {
                later = owner;
            }
        }
    }
    let returning = s.flags & tunnel::FLAG_RETURN != 0 && !s.transport.udp;
    let forth = returning && (earlier == 0 || s.flags & tunnel::FLAG_FORTH != 0);
    let next = if forth { later } else { earlier };
    if !steer::aim(tables, next, &mut target) {
        return blocked;
    }
    if s.chosen.place != Target::HERE {
        target.copy_to(&mut s.second);
        return Walk::Nobody;
    }
    turn_to(s, &target);
    if forth {
        s.flags |= tunnel::FLAG_FORTH;
    }
    Walk::Ask
}

/// Whether `target` is the backend to come back to, who need not be asked.
#[inline(always)]
fn is_second(s: &Scratch, target: &Target) -> bool {
    s.flags & tunnel::FLAG_RETURN != 0
        && s.second.port == target.port
        && s.second.address.words() == target.address.words()
}

/// The ids of the backends that the flow's row has and had, the current one first; 0 is none.
#[inline(always)]
fn owners<T: Tables>(tables: &T, s: &mut Scratch) -> Option<[u32; 2 + PAST_OWNERS]> {
    let config = tables.config()?;
    let frontend = steer::frontend(tables, s)?;
    let index = steer::row(tables, config, s, frontend);
    let row = tables.row(index)?;
    let [a, b, c, d] = tables.past(index)?.owners;
    Some([row.current, row.previous, a, b, c, d])
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
fn settle_here<T: Decisions>(tables: &T, s: &mut Scratch, knowledge: Knowledge) -> Way {
    if s.part == Part::Error {
        s.reason = Reason::IcmpErrorUnknown;
        return Way::Nowhere;
    }
    s.aim(s.chosen.address, s.chosen.port);
    if knowledge == Knowledge::Unproven {
        return delivered(s);
    }
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
        if !tables.insert(s) {
            s.reason = Reason::FlowTableFull;
            return Way::Nowhere;
        }
        tables.count_flow(id);
    }
    delivered(s)
}
