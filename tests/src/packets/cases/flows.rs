//! The flow table under pressure: what is kept, what makes room, and when a newcomer stands aside.

use super::wrap::received;
use super::{CLIENT_PORT, Case, Step, arriving, came, leaving, to_vip};
use crate::packets::frames::{Ip, Tcp, Udp, flag};
use crate::packets::world::{self, Family, Protocol, Target};
use weir_common::verdict::{Action, Reason};

/// More flows than the small table of the tests has room for, many times over.
const MANY: std::ops::Range<u16> = 10_000..10_400;

/// Ticks that pass backwards; more than the kernel's own that pass during a test.
const AHEAD: u32 = 0_u32.wrapping_sub(5_000);

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let aged = |cases: Case, ticks: u32| cases.after([Step::Later(ticks)]);
    vec![
        refused("full of established flows", family).after(established(family)),
        aged(
            refused("full of established flows, in time", family).after(established(family)),
            90_000,
        ),
        aged(
            admitted("full of forgotten flows", family).after(established(family)),
            100_001,
        ),
        // As by a CPU whose clock is a tick ahead: younger than now is not old.
        aged(
            refused("full of established flows, noted ahead of time", family).after(established(family)),
            AHEAD,
        ),
        aged(
            refused("full of datagrams, noted ahead of time", family).after(datagrams(family)),
            AHEAD,
        ),
        admitted("full of half-open flows", family).after(segments(family, flag::SYN)),
        admitted("full of closed flows", family)
            .after(established(family))
            .after(segments(family, flag::FIN | flag::ACK)),
        admitted("full of reset flows", family)
            .after(established(family))
            .after(segments(family, flag::RST)),
        refused("full of datagrams", family).after(datagrams(family)),
        aged(
            admitted("full of forgotten datagrams", family).after(datagrams(family)),
            10_001,
        ),
        kept(family),
        dropped(family),
        reopened(family),
    ]
}

fn name(text: &str, family: Family) -> String {
    format!("flows, {text} {}", family.name())
}

fn arrived(family: Family, upper: &Tcp) -> Step {
    came(arriving().carry(&to_vip(family).carry(upper)))
}

/// A segment with these flags from each of many clients.
fn segments(family: Family, flags: u8) -> Vec<Step> {
    MANY.map(|port| arrived(family, &Tcp::new(port, world::LOCAL.port, flags)))
        .collect()
}

/// Client by client, so that a later one does not take a half-open one's place.
fn established(family: Family) -> Vec<Step> {
    let open = |port| [flag::SYN, flag::ACK].map(|flags| arrived(family, &Tcp::new(port, world::LOCAL.port, flags)));
    MANY.flat_map(open).collect()
}

fn datagrams(family: Family) -> Vec<Step> {
    let one = |port| came(arriving().carry(&to_vip(family).carry(&Udp::new(port, world::LOCAL.port, b"flood"))));
    MANY.map(one).collect()
}

fn newcomer() -> Tcp {
    Tcp::new(CLIENT_PORT, world::LOCAL.port, flag::SYN)
}

fn delivered(family: Family) -> Vec<u8> {
    let pod = Target::Local.backend(family, Protocol::Tcp);
    arriving().carry(
        &to_vip(family)
            .to(pod.ip())
            .carry(&newcomer().ports(CLIENT_PORT, pod.port())),
    )
}

fn refused(text: &str, family: Family) -> Case {
    Case::pass(
        name(text, family),
        arriving().carry(&to_vip(family).carry(&newcomer())),
        Reason::FlowTableFull,
    )
}

fn admitted(text: &str, family: Family) -> Case {
    let frame = arriving().carry(&to_vip(family).carry(&newcomer()));
    Case::ingress(
        name(text, family),
        frame,
        Action::Pass,
        Reason::Local,
        delivered(family),
    )
}

/// An established flow outlives a flood of SYNs: its reply still gets the VIP.
fn kept(family: Family) -> Case {
    let pod = Target::Local.backend(family, Protocol::Tcp);
    let ip = Ip::between(pod.ip(), family.client());
    let segment = |port| Tcp::new(port, CLIENT_PORT, flag::ACK);
    let open = [flag::SYN, flag::ACK].map(|flags| arrived(family, &Tcp::new(CLIENT_PORT, world::LOCAL.port, flags)));
    let frame = leaving().carry(&ip.carry(&segment(pod.port())));
    let expected = leaving().carry(&ip.from(family.vip()).carry(&segment(world::LOCAL.port)));
    Case::egress(
        name("established before a flood of syns", family),
        frame,
        Reason::EgressReply,
        expected,
    )
    .after(open)
    .after(segments(family, flag::SYN))
}

/// A newcomer from the tunnel has no stack to stand aside to: the packet inside is not this node's.
fn dropped(family: Family) -> Case {
    let steering = Target::Local.steering(family, Protocol::Tcp, 0);
    let frame = received(Target::Near, family, &steering, &to_vip(family).carry(&newcomer()));
    Case::drop(name("full, from the tunnel", family), frame, Reason::FlowTableFull).after(established(family))
}

/// A client uses its port again after it closed: half-open again, so a flood may take its place.
fn reopened(family: Family) -> Case {
    let pod = Target::Local.backend(family, Protocol::Tcp);
    let ip = Ip::between(pod.ip(), family.client());
    let flags = [flag::SYN, flag::ACK, flag::FIN | flag::ACK, flag::SYN];
    let steps = flags.map(|flags| arrived(family, &Tcp::new(CLIENT_PORT, world::LOCAL.port, flags)));
    let frame = leaving().carry(&ip.carry(&Tcp::new(pod.port(), CLIENT_PORT, flag::ACK)));
    Case::egress(
        name("reopened, then a flood of syns", family),
        frame.clone(),
        Reason::EgressNoFlow,
        frame,
    )
    .after(steps)
    .after(segments(family, flag::SYN))
}
