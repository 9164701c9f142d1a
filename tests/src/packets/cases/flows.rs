//! The flow table under pressure: what is kept, what makes room, and when a newcomer stands aside.

use super::wrap::received;
use super::{CLIENT_PORT, Case, Step, answered, arriving, came, leaving, left, to_vip};
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
            refused("full of datagrams, noted ahead of time", family).after(exchanges(family)),
            AHEAD,
        ),
        admitted("full of half-open flows", family).after(segments(family, flag::SYN)),
        refused("full of flows that the client has closed", family)
            .after(established(family))
            .after(segments(family, flag::FIN | flag::ACK)),
        admitted("full of closed flows", family)
            .after(established(family))
            .after(finished(family)),
        admitted("full of flows that were acknowledged blindly", family).after(MANY.flat_map(|port| {
            let blind = Tcp::new(port, world::LOCAL.port, flag::ACK).acknowledging(0x1506_0708);
            let [syn, answer, _] = opened(family, port);
            [syn, answer, arrived(family, &blind)]
        })),
        admitted("full of stray segments", family)
            .after(segments(family, flag::ACK))
            .after(segments(family, flag::ACK)),
        admitted("full of reset flows", family)
            .after(established(family))
            .after(segments(family, flag::RST)),
        refused("full of datagrams", family).after(exchanges(family)),
        admitted("full of datagrams without an answer", family).after(datagrams(family)),
        reset_in_anothers_name(family),
        aged(
            admitted("full of forgotten datagrams", family).after(exchanges(family)),
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
    MANY.flat_map(|port| opened(family, port)).collect()
}

/// A whole handshake of one client.
fn opened(family: Family, port: u16) -> [Step; 3] {
    let segment = |flags| arrived(family, &Tcp::new(port, world::LOCAL.port, flags));
    [
        segment(flag::SYN),
        answered(family, Target::Local, port),
        segment(flag::ACK),
    ]
}

fn datagrams(family: Family) -> Vec<Step> {
    let one = |port| came(arriving().carry(&to_vip(family).carry(&Udp::new(port, world::LOCAL.port, b"flood"))));
    MANY.map(one).collect()
}

/// Datagrams that are answered.
fn exchanges(family: Family) -> Vec<Step> {
    let pod = Target::Local.backend(family, Protocol::Udp);
    let answer = |port| {
        let datagram = Udp::new(pod.port(), port, b"answer");
        left(leaving().carry(&Ip::between(pod.ip(), family.client()).carry(&datagram)))
    };
    let questions = datagrams(family);
    questions
        .into_iter()
        .zip(MANY.map(answer))
        .flat_map(<[Step; 2]>::from)
        .collect()
}

/// Both ends say that they have no more to say.
fn finished(family: Family) -> Vec<Step> {
    let pod = Target::Local.backend(family, Protocol::Tcp);
    let fin = flag::FIN | flag::ACK;
    let theirs = |port| {
        let segment = Tcp::new(pod.port(), port, fin);
        left(leaving().carry(&Ip::between(pod.ip(), family.client()).carry(&segment)))
    };
    let both = |port| [arrived(family, &Tcp::new(port, world::LOCAL.port, fin)), theirs(port)];
    MANY.flat_map(both).collect()
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
    let open = opened(family, CLIENT_PORT);
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
    let fin = Tcp::new(pod.port(), CLIENT_PORT, flag::FIN | flag::ACK);
    let closed = [
        arrived(family, &fin.ports(CLIENT_PORT, world::LOCAL.port)),
        left(leaving().carry(&ip.carry(&fin))),
        arrived(family, &newcomer()),
    ];
    let steps = opened(family, CLIENT_PORT).into_iter().chain(closed);
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

/// Somebody sends RST in the client's name. The backend ignores it and goes on, so a flood must not take the flow's place.
fn reset_in_anothers_name(family: Family) -> Case {
    let pod = Target::Local.backend(family, Protocol::Tcp);
    let ip = Ip::between(pod.ip(), family.client());
    let segment = |port| Tcp::new(port, CLIENT_PORT, flag::ACK);
    let steps = [
        arrived(family, &Tcp::new(CLIENT_PORT, world::LOCAL.port, flag::RST)),
        left(leaving().carry(&ip.carry(&segment(pod.port())))),
    ];
    let frame = leaving().carry(&ip.carry(&segment(pod.port())));
    let expected = leaving().carry(&ip.from(family.vip()).carry(&segment(world::LOCAL.port)));
    Case::egress(
        name("reset in another's name, then a flood of syns", family),
        frame,
        Reason::EgressReply,
        expected,
    )
    .after(opened(family, CLIENT_PORT))
    .after(steps)
    .after(segments(family, flag::SYN))
}
