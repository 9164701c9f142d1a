//! The cases: one packet of each kind that costs something else, for both families.

use super::{
    scene::{self, port},
    settings::{LONG_FRAME, NEXT_FLOW, ONE_FLOW, RANDOM_FLOW, SHORT_FRAME},
};
use crate::packets::{
    frames::flag::{ACK, SYN},
    world::Family,
};
use weir_common::verdict::Reason;

/// The program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// XDP, on arrival.
    Ingress,
    /// tc, on departure.
    Egress,
}

/// What a run must end with, or the number is of something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The action the program returns.
    pub action: u32,
    /// The reason that is counted for every packet.
    pub reason: Reason,
    /// Bytes the frame grows by, or shrinks by when negative; `None` when it differs from packet to packet.
    pub growth: Option<i32>,
}

/// Packets sent before anything is measured, so that tables hold what the case is about.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// The frames, each with the program that gets it; arriving ones come the way of the case's frame.
    pub frames: Vec<(Program, Vec<u8>)>,
    /// Whether the first one is sent once for every flow of the case, or all of them once.
    pub every_flow: bool,
    /// The reason counted for it then.
    pub reason: Reason,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// The family of the packets.
    pub family: Family,
    /// The program.
    pub program: Program,
    /// The frame every run begins with, or the template of it.
    pub frame: Vec<u8>,
    /// How the flow of a run is chosen: see `settings`.
    pub choice: u64,
    /// Number of flows; a power of two.
    pub flows: u64,
    /// Number of VIPs they go to; a power of two.
    pub vips: u64,
    /// Whether all places of `FLOWS` and `FLOW_CACHE` are taken before, by flows of long ago.
    pub full: bool,
    /// What is sent before.
    pub preparation: Option<Preparation>,
    /// What must come out.
    pub expected: Expected,
}

/// Actions of XDP and tc programs.
mod action {
    pub(super) const PASS: u32 = 2;
    pub(super) const TRANSMIT: u32 = 3;
    pub(super) const TC_UNSPEC: u32 = u32::MAX;
}

/// Bytes a tunnel adds: outer IP, UDP, Geneve, option header and the choice of a backend.
fn tunnel(family: Family) -> i32 {
    family.header() as i32 + 8 + 8 + 4 + 20
}

/// Every case, in the table's order.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for make in [not_ours, question, new_flow, stateless] {
        cases.extend(Family::BOTH.map(make));
    }
    for (name, flows) in [
        ("cached-1", 1),
        ("cached-4k", 1 << 12),
        ("cached-64k", 1 << 16),
        ("cached-512k", 1 << 19),
    ] {
        cases.extend(Family::BOTH.map(|family| cached(family, name, flows)));
    }
    for (name, vips, flows) in [
        ("vips-1-64k", 1, 1 << 16),
        ("vips-64-64k", 64, 1 << 16),
        ("vips-1024-64k", 1024, 1 << 16),
    ] {
        cases.extend(Family::BOTH.map(|family| spread(family, name, vips, flows)));
    }
    for make in [
        transition,
        second_chance,
        icmp_error,
        first_fragment,
        later_fragment,
        local,
        decapsulate,
        egress,
    ] {
        cases.extend(Family::BOTH.map(make));
    }
    for (name, make) in [
        ("old-stateless", stateless as fn(Family) -> Case),
        ("old-cached-64k", |family| cached(family, "", 1 << 16)),
        ("old-new-flow", new_flow),
        ("old-local", local),
        ("old-new-local", new_local),
    ] {
        let full = |family| Case {
            name,
            full: true,
            ..make(family)
        };
        cases.extend(Family::BOTH.map(full));
    }
    cases
}

fn case(name: &'static str, family: Family, frame: Vec<u8>, expected: Expected) -> Case {
    Case {
        name,
        family,
        program: Program::Ingress,
        frame,
        choice: ONE_FLOW,
        flows: 1,
        vips: 1,
        full: false,
        preparation: None,
        expected,
    }
}

fn passed(reason: Reason, growth: i32) -> Expected {
    Expected {
        action: action::PASS,
        reason,
        growth: Some(growth),
    }
}

fn transmitted(reason: Reason, growth: Option<i32>) -> Expected {
    Expected {
        action: action::TRANSMIT,
        reason,
        growth,
    }
}

fn not_ours(family: Family) -> Case {
    case("not-ours", family, scene::foreign(family), passed(Reason::NotOurs, 0))
}

fn question(family: Family) -> Case {
    let reason = if family.is_v6() {
        Reason::NeighborAdvertisement
    } else {
        Reason::ArpReply
    };
    case("arp", family, scene::question(family), transmitted(reason, Some(0)))
}

/// A SYN of a new flow each time, for a row in transition: the flow is noted in the cache, which evicts another.
fn new_flow(family: Family) -> Case {
    let frame = scene::client(family, port::CHANGED, SYN, SHORT_FRAME);
    Case {
        choice: NEXT_FLOW,
        flows: 1 << 32,
        ..case("new-flow", family, frame, transmitted(Reason::Tunnel, None))
    }
}

fn stateless(family: Family) -> Case {
    let frame = scene::client(family, port::UNCHANGED, ACK, SHORT_FRAME);
    case(
        "stateless",
        family,
        frame,
        transmitted(Reason::Tunnel, Some(tunnel(family))),
    )
}

/// Flows of a row in transition that the cache knows, so that the packet need not name the previous backend.
fn cached(family: Family, name: &'static str, flows: u64) -> Case {
    let frame = scene::client(family, port::CHANGED, ACK, SHORT_FRAME);
    // Half as many flows as entries: now and then five or more want the same four ways, and some have been evicted.
    let growth = (flows < 1 << 19).then(|| tunnel(family));
    Case {
        choice: if flows == 1 { ONE_FLOW } else { RANDOM_FLOW },
        flows,
        preparation: Some(Preparation {
            frames: vec![(Program::Ingress, scene::client(family, port::CHANGED, SYN, SHORT_FRAME))],
            every_flow: true,
            reason: Reason::Tunnel,
        }),
        ..case(name, family, frame, transmitted(Reason::Tunnel, growth))
    }
}

/// Established flows of random clients to random ones of many VIPs whose rows have not changed, each with rows of its own.
fn spread(family: Family, name: &'static str, vips: u64, flows: u64) -> Case {
    let frame = scene::client_of_many(family, ACK);
    Case {
        choice: RANDOM_FLOW,
        flows,
        vips,
        ..case(name, family, frame, transmitted(Reason::Tunnel, Some(tunnel(family))))
    }
}

/// Bytes that a second backend adds.
const SECOND: i32 = 36;

/// An established flow that this node knows nothing of, whose row is in transition: both backends are named.
fn transition(family: Family) -> Case {
    let frame = scene::client(family, port::UNKNOWN, ACK, SHORT_FRAME);
    let growth = Some(tunnel(family) + SECOND);
    case("transition", family, frame, transmitted(Reason::Tunnel, growth))
}

/// The same, and the backend chosen is on this node: the other one's node is asked.
fn second_chance(family: Family) -> Case {
    let frame = scene::client(family, port::HERE_NOW, ACK, SHORT_FRAME);
    let growth = Some(tunnel(family) + SECOND);
    case(
        "second-chance",
        family,
        frame,
        transmitted(Reason::SecondChance, growth),
    )
}

/// An ICMP error about a flow of a backend on another node.
fn icmp_error(family: Family) -> Case {
    let frame = scene::icmp_error(family);
    case(
        "icmp-error",
        family,
        frame,
        transmitted(Reason::IcmpError, Some(tunnel(family))),
    )
}

/// The first fragment of a segment for a backend on another node: its ports are noted.
fn first_fragment(family: Family) -> Case {
    let [frame, _] = scene::fragments(family);
    let growth = Some(tunnel(family));
    case("fragment-first", family, frame, transmitted(Reason::Tunnel, growth))
}

/// A later one of the same segment, which has the ports that were noted.
fn later_fragment(family: Family) -> Case {
    let [first, frame] = scene::fragments(family);
    let growth = Some(tunnel(family));
    Case {
        preparation: Some(Preparation {
            frames: vec![(Program::Ingress, first)],
            every_flow: false,
            reason: Reason::Tunnel,
        }),
        ..case("fragment-later", family, frame, transmitted(Reason::Tunnel, growth))
    }
}

/// A SYN of a new flow each time, for a backend on this node: the flow is noted in `FLOWS`, in place of another.
fn new_local(family: Family) -> Case {
    let frame = scene::client(family, port::LOCAL, SYN, SHORT_FRAME);
    Case {
        choice: NEXT_FLOW,
        flows: 1 << 32,
        ..case("", family, frame, passed(Reason::Local, 0))
    }
}

fn local(family: Family) -> Case {
    let frame = scene::client(family, port::LOCAL, ACK, SHORT_FRAME);
    Case {
        preparation: Some(handshake(family, port::LOCAL, SHORT_FRAME)),
        ..case("local", family, frame, passed(Reason::Local, 0))
    }
}

/// The tunnel packet itself is made by the program under test: see [`super::measure`].
fn decapsulate(family: Family) -> Case {
    let inner = LONG_FRAME - tunnel(family) as usize;
    let frame = scene::client(family, port::OURSELVES, ACK, inner);
    Case {
        preparation: Some(handshake(family, port::OURSELVES, inner)),
        ..case(
            "decapsulate",
            family,
            frame,
            passed(Reason::Decapsulated, -tunnel(family)),
        )
    }
}

fn egress(family: Family) -> Case {
    let expected = Expected {
        action: action::TC_UNSPEC,
        reason: Reason::EgressReply,
        growth: Some(0),
    };
    Case {
        program: Program::Egress,
        preparation: Some(handshake(family, port::LOCAL, SHORT_FRAME)),
        ..case("egress", family, scene::reply(family), expected)
    }
}

/// The local pod's flow 0 is opened by way of the frontend at `port`, and proven.
fn handshake(family: Family, port: u16, length: usize) -> Preparation {
    let from_client = |flags| (Program::Ingress, scene::client(family, port, flags, length));
    Preparation {
        frames: vec![
            from_client(SYN),
            (Program::Egress, scene::answer(family)),
            from_client(ACK),
        ],
        every_flow: false,
        reason: Reason::Local,
    }
}
