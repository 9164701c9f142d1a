//! Several CPUs at the same flow table: an established flow survives a flood, and no reply ever gets another flow's VIP.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tests::packets::frames::{Ip, Link, Tcp, flag};
use tests::packets::host::Host;
use tests::packets::runner::Program;
use tests::packets::world::{self, Family, NODE_MAC, Protocol, ROUTER_MAC, Target};
use weir_common::verdict::Reason;

/// Rounds of each established flow's client.
const ROUNDS: usize = 20_000;
/// Client ports of the established flows; few enough for the small table.
const ESTABLISHED: std::ops::Range<u16> = 30_000..30_006;

fn arriving(source: u16, port: u16, flags: u8) -> Vec<u8> {
    let ip = Ip::between(Family::V4.client(), Family::V4.vip());
    Link::between(ROUTER_MAC, NODE_MAC).carry(&ip.carry(&Tcp::new(source, port, flags)))
}

fn leaving(source: std::net::SocketAddr, client: u16, flags: u8) -> Vec<u8> {
    let ip = Ip::between(source.ip(), Family::V4.client());
    let segment = Tcp::new(source.port(), client, flags);
    // What the client's segments acknowledge, which are all built alike.
    let sequence = segment.acknowledgment.wrapping_sub(1);
    Link::between(NODE_MAC, ROUTER_MAC).carry(&ip.carry(&segment.sequence(sequence)))
}

#[test]
fn host_established_flows_survive_a_flood_on_other_cpus() {
    let host = Host::new(world::image());
    let pod = Target::Local.backend(Family::V4, Protocol::Tcp);
    let vip = Family::V4.vip();
    // Two frontends with the same backend, so that a torn read would show in the port.
    let port_of = |client: u16| {
        if client.is_multiple_of(2) {
            world::LOCAL.port
        } else {
            world::MOVED_INSIDE.port
        }
    };
    for client in ESTABLISHED {
        for flags in [flag::SYN, flag::ACK] {
            let outcome = host.process(Program::Ingress, &arriving(client, port_of(client), flags));
            assert_eq!(outcome.reason, Reason::Local);
            let answer = host.process(Program::Egress, &leaving(pod, client, flags | flag::ACK));
            assert_eq!(answer.reason, Reason::EgressReply);
        }
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for flooder in 0..2_u16 {
            let (host, done) = (&host, &done);
            scope.spawn(move || {
                for number in (0..10_000_u16).cycle() {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let client = 1_000 + flooder * 10_000 + number;
                    let port = if number.is_multiple_of(3) {
                        world::LOCAL.port
                    } else {
                        world::MOVED_INSIDE.port
                    };
                    let _ = host.process(Program::Ingress, &arriving(client, port, flag::SYN));
                    let answer = flag::SYN | flag::ACK;
                    let reply = host.process(Program::Egress, &leaving(pod, client, answer));
                    if reply.reason == Reason::EgressReply {
                        let expected = leaving((vip, port).into(), client, answer);
                        assert_eq!(reply.frame, expected, "the reply to a flood's SYN from port {client}");
                    }
                }
            });
        }
        let clients: Vec<_> = ESTABLISHED
            .map(|client| {
                let host = &host;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let outcome = host.process(Program::Ingress, &arriving(client, port_of(client), flag::ACK));
                        assert_eq!(outcome.reason, Reason::Local, "round {round} of client port {client}");
                        let reply = host.process(Program::Egress, &leaving(pod, client, flag::ACK));
                        assert_eq!(
                            reply.reason,
                            Reason::EgressReply,
                            "round {round} of client port {client}"
                        );
                        assert_eq!(reply.frame, leaving((vip, port_of(client)).into(), client, flag::ACK));
                    }
                })
            })
            .collect();
        let results: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "an established flow was lost");
    });
}
