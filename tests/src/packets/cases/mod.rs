//! The golden table: one file for each subject. Cases are written once with a family parameter and expanded for both; a
//! case that has only one family says so by its name.

mod arp;
mod echo;
mod egress;
mod flows;
pub mod fragments;
mod history;
mod icmp;
mod ndp;
mod numbers;
mod pass;
mod policy;
mod steer;
pub mod takeover;
mod transition;
mod tunnel;
mod untunnelled;
mod wrap;

use super::frames::{Ip, Link, Tcp, Udp, Upper, flag};
use super::runner::Program;
use super::world::{CLIENT_PORT, Family, NODE_MAC, Protocol, ROUTER_MAC, Target};
use std::sync::LazyLock;
use weir_common::verdict::{Action, Reason};

/// What happens before a case's frame.
#[derive(Clone, Debug)]
pub enum Step {
    /// This frame is processed.
    Frame(Program, Vec<u8>),
    /// The row of a frontend with one row changes.
    Row {
        /// The frontend's port.
        port: u16,
        /// Which of the VIPs.
        family: Family,
        /// Which of the protocols.
        protocol: Protocol,
        /// New current backend.
        current: Option<Target>,
        /// New previous backend.
        previous: Option<Target>,
    },
    /// This many ticks pass.
    Later(u32),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, unique.
    pub name: String,
    /// Which program gets the frame.
    pub program: Program,
    /// What happened before.
    pub before: Vec<Step>,
    /// The frame.
    pub frame: Vec<u8>,
    /// What is to be done with it.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The frame afterwards.
    pub expected: Vec<u8>,
    /// Whether limits must be untouched before its steps.
    pub fresh: bool,
    /// Offset of an outer IP header in `expected`, whose source port and flow label are the flow hash's to choose.
    pub outer: Option<usize>,
}

impl Case {
    /// A frame for the ingress program that is passed untouched.
    #[must_use]
    pub fn pass(name: impl Into<String>, frame: Vec<u8>, reason: Reason) -> Self {
        let expected = frame.clone();
        Self::ingress(name, frame, Action::Pass, reason, expected)
    }

    /// A frame for the ingress program that is dropped, untouched.
    #[must_use]
    pub fn drop(name: impl Into<String>, frame: Vec<u8>, reason: Reason) -> Self {
        let expected = frame.clone();
        Self::ingress(name, frame, Action::Drop, reason, expected)
    }

    /// A frame for the ingress program.
    #[must_use]
    pub fn ingress(name: impl Into<String>, frame: Vec<u8>, action: Action, reason: Reason, expected: Vec<u8>) -> Self {
        let before = Vec::new();
        Self {
            name: name.into(),
            program: Program::Ingress,
            before,
            frame,
            action,
            reason,
            expected,
            fresh: false,
            outer: None,
        }
    }

    /// A frame for the egress program.
    #[must_use]
    pub fn egress(name: impl Into<String>, frame: Vec<u8>, reason: Reason, expected: Vec<u8>) -> Self {
        Self {
            program: Program::Egress,
            ..Self::ingress(name, frame, Action::Pass, reason, expected)
        }
    }

    /// The same after these steps.
    #[must_use]
    pub fn after(self, steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            before: self.before.into_iter().chain(steps).collect(),
            ..self
        }
    }

    /// The same with limits untouched before.
    #[must_use]
    pub fn fresh(self) -> Self {
        Self { fresh: true, ..self }
    }

    /// The same with an outer IP header at `l3` of the expected frame.
    #[must_use]
    pub fn outer(self, l3: usize) -> Self {
        Self {
            outer: Some(l3),
            ..self
        }
    }
}

/// A frame that came in before.
#[must_use]
pub fn came(frame: Vec<u8>) -> Step {
    Step::Frame(Program::Ingress, frame)
}

/// A frame that left before.
#[must_use]
pub fn left(frame: Vec<u8>) -> Step {
    Step::Frame(Program::Egress, frame)
}

/// `target` answers the SYN of the client's `port`, so that [`data`] acknowledges it.
fn answered(family: Family, target: Target, port: u16) -> Step {
    let pod = target.backend(family, Protocol::Tcp);
    let answer = Tcp::new(pod.port(), port, flag::SYN | flag::ACK).sequence(0x0506_0707);
    left(leaving().carry(&Ip::between(pod.ip(), family.client()).carry(&answer)))
}

/// A connection from the client's usual port to `target` on this node is begun by way of a frontend.
fn begun(family: Family, port: u16, target: Target) -> [Step; 2] {
    let syn = came(arriving().carry(&to_vip(family).carry(&syn(port))));
    [syn, answered(family, target, CLIENT_PORT)]
}

/// Every case.
#[must_use]
pub fn all() -> &'static [Case] {
    static ALL: LazyLock<Vec<Case>> = LazyLock::new(make);
    &ALL
}

fn make() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(arp::cases());
    cases.extend(ndp::cases());
    for family in Family::BOTH {
        cases.extend(echo::cases(family));
        cases.extend(pass::cases(family));
        cases.extend(steer::cases(family));
        cases.extend(takeover::cases(family));
        cases.extend(transition::cases(family));
        cases.extend(numbers::cases(family));
        cases.extend(tunnel::cases(family));
        cases.extend(untunnelled::cases(family));
        cases.extend(egress::cases(family));
        cases.extend(flows::cases(family));
        cases.extend(fragments::cases(family));
        cases.extend(history::cases(family));
        cases.extend(policy::cases(family));
        cases.extend(icmp::cases(family));
    }
    cases.extend(echo::v4());
    cases.extend(pass::v4());
    cases.extend(pass::v6());
    cases
}

/// From the router to this node.
fn arriving() -> Link {
    Link::between(ROUTER_MAC, NODE_MAC)
}

/// From this node to the router.
fn leaving() -> Link {
    Link::between(NODE_MAC, ROUTER_MAC)
}

/// From the client to the VIP.
fn to_vip(family: Family) -> Ip {
    Ip::between(family.client(), family.vip())
}

/// A first packet: SYN with options, or a datagram.
fn opening(protocol: Protocol, port: u16) -> Box<dyn Upper> {
    match protocol {
        Protocol::Tcp => Box::new(syn(port)),
        Protocol::Udp => Box::new(Udp::new(CLIENT_PORT, port, b"first")),
    }
}

/// A later packet with data.
fn following(protocol: Protocol, port: u16) -> Box<dyn Upper> {
    match protocol {
        Protocol::Tcp => Box::new(data(port)),
        Protocol::Udp => Box::new(Udp::new(CLIENT_PORT, port, b"second")),
    }
}

/// A SYN as a client sends it.
fn syn(port: u16) -> Tcp {
    Tcp::new(CLIENT_PORT, port, flag::SYN).options(&[2, 4, 5, 0xb4, 4, 2, 1, 1])
}

/// Data of an established connection.
fn data(port: u16) -> Tcp {
    Tcp::new(CLIENT_PORT, port, flag::ACK | flag::PSH).payload(b"GET / HTTP/1.1\r\n\r\n")
}
