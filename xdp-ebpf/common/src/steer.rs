//! A packet for a frontend: choose its backend.
//!
//! Most rows have not changed since their flows began, and their packets need no state. A row in transition names the
//! backend it had before; [`crate::decide`] finds out which of the two, or of those before them, a flow belongs to.

use crate::{
    abi::{BACKEND_DRAINING, BACKEND_LOCAL, Config, DirectoryEntry, kind, policy, protocol},
    cache, hash,
    lookup::Hashed,
    policy as policies,
    scratch::{Part, Scratch, Target},
    stages::Decisions,
    tables::Tables,
    takeover,
    verdict::Reason,
};

/// The frontend of the flow in `s`.
#[inline(always)]
pub fn frontend<'a, T: Tables>(tables: &'a T, s: &Scratch) -> Option<&'a DirectoryEntry> {
    Hashed::new(s.ip.destination).entry_of(tables, s.transport.destination_port, s.protocol, kind::FRONTEND)
}

/// Index into `ROWS` of the flow in `s`, whose selection hash goes into `s.hash`.
#[inline(always)]
pub fn row<T: Tables>(tables: &T, config: &Config, s: &mut Scratch, frontend: &DirectoryEntry) -> u32 {
    let mut key = s.tuple();
    // The client alone is what is to stay with one backend.
    if frontend.policies & policy::AFFINITY != 0 {
        key.source_port = 0;
    }
    s.hash = hash::tuple(config.selection_seed, &key);
    tables.settle(s);
    frontend.rows.base.wrapping_add(s.hash as u32 & frontend.rows.mask)
}

/// Fills in who is to get the packet in `s`, which is for a frontend. False when nobody is, for `s.reason`.
#[inline(always)]
pub fn choose<T: Decisions>(tables: &T, s: &mut Scratch) -> bool {
    s.reason = Reason::NoBackend;
    let (Some(config), Some(frontend)) = (tables.config(), frontend(tables, s)) else {
        return false;
    };
    if takeover::is_the_stacks(tables, s, frontend) {
        s.reason = Reason::StackFlow;
        return false;
    }
    tables.count_frontend(frontend.id, s.ip.len as u64, s.begins());
    if frontend.policies & (policy::SOURCES | policy::LIMITED) != 0
        && let Err(reason) = policies::admit(tables, config, s, frontend)
    {
        s.reason = reason;
        return false;
    }
    let index = row(tables, config, s, frontend);
    let Some(row) = tables.row(index) else { return false };
    let starts = s.transport.udp || s.begins();
    let (mut chosen, mut previous) = (row.current, row.previous);
    if chosen == 0 {
        // Nobody takes new flows; what drains keeps those it has.
        if starts {
            return false;
        }
        (chosen, previous) = (previous, 0);
    }
    if frontend.policies & policy::AFFINITY != 0 {
        (chosen, previous) = affine(tables, config, s, frontend, (chosen, previous));
    } else if previous != 0 && !s.transport.udp {
        (chosen, previous) = noted(tables, config, s.hash, s.begins(), (chosen, previous));
    }
    aim(tables, previous, &mut s.second);
    aim(tables, chosen, &mut s.chosen)
}

/// The choice between a row's two backends for the TCP flow with this selection hash, if it is noted.
#[inline(always)]
pub fn noted<T: Tables>(tables: &T, config: &Config, hash: u64, begins: bool, row: (u32, u32)) -> (u32, u32) {
    let (chosen, previous) = row;
    match cache::lookup(tables, config, hash, u32::MAX).map(|(noted, _)| noted & cache::ID) {
        Some(noted) if noted == chosen => return (chosen, 0),
        // A client that opens a connection anew from an old one's port must not be held to a backend that takes no
        // new flows; which of the two it means, the backends' nodes know.
        Some(_) if begins => cache::forget(tables, config, hash),
        Some(noted) if noted == previous => return (previous, 0),
        Some(_) => {}
        None if begins => cache::insert(tables, config, hash, chosen),
        None => {}
    }
    row
}

/// The choice for a client with affinity: the backend it had, if it was heard of lately and that one still takes new flows.
/// A flow from before the client was given another backend is found by its row, like any flow whose backend changed.
#[inline(always)]
fn affine<T: Tables>(
    tables: &T,
    config: &Config,
    s: &Scratch,
    frontend: &DirectoryEntry,
    row: (u32, u32),
) -> (u32, u32) {
    let (chosen, previous) = row;
    let noted = cache::lookup(tables, config, s.hash, frontend.affinity_ticks)
        .filter(|(ticket, _)| still_takes(tables, *ticket, s.begins()));
    if let Some((ticket, _)) = noted {
        let noted = ticket & cache::ID;
        return if noted == chosen { row } else { (noted, chosen) };
    }
    // Errors and later fragments can be sent in anybody's name, and begin nothing.
    if s.part == Part::Packet
        && (s.transport.udp || s.begins())
        && let Some(backend) = tables.backend(chosen)
    {
        cache::forget(tables, config, s.hash);
        cache::insert(tables, config, s.hash, cache::ticket(chosen, backend));
    }
    (chosen, previous)
}

/// Whether a backend noted for a client is still the same, and takes new flows where the packet may begin one.
#[inline(always)]
fn still_takes<T: Tables>(tables: &T, ticket: u32, begins: bool) -> bool {
    let id = ticket & cache::ID;
    tables.backend(id).is_some_and(|backend| {
        backend.protocol != protocol::ANY
            && cache::ticket(id, backend) == ticket
            && !(begins && backend.flags & BACKEND_DRAINING != 0)
    })
}

/// Makes `target` the backend with this id; nowhere, and false, if there is none.
#[inline(always)]
pub fn aim<T: Tables>(tables: &T, id: u32, target: &mut Target) -> bool {
    target.place = Target::NOWHERE;
    if id == 0 {
        return false;
    }
    let Some(backend) = tables.backend(id) else {
        return false;
    };
    if backend.protocol == protocol::ANY {
        return false;
    }
    target.id = id;
    backend.address.copy_to(&mut target.address);
    target.port = u16::from_ne_bytes(backend.port);
    target.place = if backend.flags & BACKEND_LOCAL != 0 {
        Target::HERE
    } else {
        backend.node
    };
    true
}
