//! The long way in stages. Each is one function of this crate; the kernel shell makes of each a function that the verifier
//! checks once, by itself, instead of once for every way that leads to it. What one stage has to tell the next is in the
//! [`Scratch`].

use crate::{
    arrival, decide,
    decide::{Found, Way},
    flows::{self, Knowledge, Noted},
    forward, fragments, icmp,
    ingress::{self, Class},
    packet::Packet,
    scratch::Scratch,
    steer,
    tables::Tables,
    verdict::Verdict,
};
use core::ops::DerefMut;

/// The stages that only read and write maps.
pub trait Decisions: Tables + Sized {
    /// How [`Scratch`] is held: owned on the host, a per-CPU map's value in the kernel.
    type Scratch: DerefMut<Target = Scratch>;

    /// Room for this packet; its contents are left over from another.
    fn scratch(&self) -> Option<Self::Scratch>;
    /// [`steer::choose`].
    fn choose(&self, s: &mut Scratch) -> bool {
        steer::choose(self, s)
    }
    /// [`decide::look`].
    fn look(&self, s: &mut Scratch) -> Found {
        decide::look(self, s)
    }
    /// [`decide::walk`].
    fn walk(&self, s: &mut Scratch) -> Found {
        decide::walk(self, s)
    }
    /// [`decide::conclude`].
    fn conclude(&self, s: &mut Scratch) -> Way {
        decide::conclude(self, s)
    }
    /// [`flows::note`].
    fn note(&self, s: &mut Scratch) -> Knowledge {
        flows::note(self, s)
    }
    /// Lets the later fragments of the datagram stand aside, as its first one does: no frontend has the port 0.
    fn stand_aside(&self, s: &mut Scratch) {
        fragments::teach(self, s, (0, 0));
    }
    /// [`flows::insert`].
    fn insert(&self, s: &mut Scratch) -> Noted {
        flows::insert(self, s)
    }
}

/// The stages that also read or write the packet.
pub trait Stages<P: Packet>: Decisions {
    /// [`ingress::ours`].
    fn ours(&self, packet: &mut P, ifindex: u32) -> Verdict {
        ingress::ours(packet, self, ifindex)
    }
    /// [`ingress::classify`].
    fn classify(&self, packet: &mut P, s: &mut Scratch) -> Class {
        ingress::classify(packet, self, s)
    }
    /// [`arrival::open`].
    fn open(&self, packet: &mut P, s: &mut Scratch) -> bool {
        arrival::open(packet, self, s)
    }
    /// [`forward::deliver`].
    fn deliver(&self, packet: &mut P, s: &mut Scratch) -> bool {
        forward::deliver(packet, self, s)
    }
    /// [`forward::send`].
    fn send(&self, packet: &mut P, s: &mut Scratch) -> bool {
        forward::send(packet, self, s)
    }
    /// [`icmp::deliver`].
    fn deliver_error(&self, packet: &mut P, s: &mut Scratch) -> bool {
        icmp::deliver(packet, s)
    }
    /// [`icmp::too_big`].
    fn too_big(&self, packet: &mut P, s: &mut Scratch) -> bool {
        icmp::too_big(packet, s)
    }
}
