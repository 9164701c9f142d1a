//! Datagrams larger than the path: every fragment of one reaches the same pod, in whatever order they come.

use crate::scene::Scene;
use anyhow::{Context, Result, ensure};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage};
use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
};
use tests::{
    lab::{FAMILIES, Family, Shape, address, client, servers, wait},
    packets::frames::{Ip, Udp},
};

const SHAPE: Shape = Shape {
    nodes: 3,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};
/// Sockets of one test and family: one of three pods is left out less than once in 10^6 runs.
const MANY: usize = 40;
/// What the client takes for the MTU of its path: its fragments have to fit the tunnel.
const CLIENT_MTU: u32 = 1400;

/// Runs `act` with a client that makes fragments which fit the tunnel.
fn play(act: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            let router = address::router_outside(family);
            let line = format!("route replace default via {router} dev eth0 mtu {CLIENT_MTU}\n");
            scene.lab.client.ip_batch(&line)?;
        }
        act(scene)
    })
}

#[test]
fn large_datagrams_reach_the_pods_of_every_node_and_so_do_their_answers() -> Result<()> {
    play(|scene| {
        let names: BTreeSet<&str> = scene.lab.pods().map(|pod| pod.name.as_str()).collect();
        for family in FAMILIES {
            let answers = scene.lab.client.run(|| {
                (0..MANY)
                    .map(|number| {
                        let socket = client::udp_socket(Scene::dns(family))?;
                        client::ask_udp_with(&socket, &servers::content(4_000 + number * 100))
                    })
                    .collect::<Result<Vec<_>>>()
            })?;
            let seen: BTreeSet<&str> = answers.iter().map(|answer| answer.pod.as_str()).collect();
            ensure!(seen == names, "{family}: only {seen:?} were reached");
            let strange: Vec<_> = answers.iter().filter(|answer| answer.client != answer.local).collect();
            ensure!(
                strange.is_empty(),
                "{family}: not the client's own address: {strange:?}"
            );
        }
        Ok(())
    })
}

/// A client whose datagrams leave in fragments of the test's making.
struct Sender {
    raw: OwnedFd,
    socket: UdpSocket,
    vip: SocketAddr,
    own: SocketAddr,
}

impl Sender {
    /// To be called in the client's namespace.
    fn new(family: Family) -> Result<Self> {
        let vip = Scene::dns(family);
        let kind = if vip.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let raw = socket::socket(kind, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        let socket = client::udp_socket(vip)?;
        let own = socket.local_addr()?;
        Ok(Self { raw, socket, vip, own })
    }

    /// The fragments of the datagram `id`, which is not 0: the kernel would choose one for each.
    fn fragments(&self, id: u16, payload: &[u8]) -> Vec<Vec<u8>> {
        const LENGTH: usize = 1_200;
        let upper = Udp::new(self.own.port(), self.vip.port(), payload);
        let cuts: Vec<usize> = (LENGTH..payload.len() + 8).step_by(LENGTH).collect();
        Ip::between(self.own.ip(), self.vip.ip()).cut(id, &upper, &cuts)
    }

    fn send(&self, packet: &[u8]) -> Result<()> {
        let to = SockaddrStorage::from(SocketAddr::new(self.vip.ip(), 0));
        socket::sendto(self.raw.as_raw_fd(), packet, &to, MsgFlags::empty()).context("cannot send a fragment")?;
        Ok(())
    }

    /// Takes the echo of `payload` and returns the pod's line.
    fn receive(&self, payload: &[u8]) -> Result<String> {
        let mut buffer = vec![0; 1 << 16];
        let length = wait::uninterrupted(|| self.socket.recv(&mut buffer)).context("no answer")?;
        let end = buffer[..length].iter().position(|&byte| byte == b'\n');
        let (line, echoed) = buffer[..length].split_at(end.context("an answer without a line")?);
        ensure!(echoed[1..] == *payload, "{} bytes came back changed", echoed.len() - 1);
        Ok(String::from_utf8(line.to_vec())?)
    }
}

/// The first fragment comes last, and the others wait for it.
#[test]
fn large_datagrams_arrive_in_reverse_order_too() -> Result<()> {
    play(|scene| {
        for family in FAMILIES {
            let before = scene.status(scene.owner(family)?)?.reason("fragment_held")?;
            let lines = scene.lab.client.run(|| {
                (1..=MANY)
                    .map(|number| {
                        let sender = Sender::new(family)?;
                        let payload = servers::content(4_000 + number * 100);
                        for packet in sender.fragments(number as u16, &payload).iter().rev() {
                            sender.send(packet)?;
                        }
                        sender.receive(&payload).with_context(|| format!("datagram {number}"))
                    })
                    .collect::<Result<Vec<_>>>()
            })?;
            for pod in scene.lab.pods() {
                let own = format!("pod={} ", pod.name);
                ensure!(
                    lines.iter().any(|line| line.starts_with(&own)),
                    "{family}: {} was not reached: {lines:?}",
                    pod.name
                );
            }
            let after = scene.status(scene.owner(family)?)?.reason("fragment_held")?;
            ensure!(after > before, "{family}: nothing was held ({before}, {after})");
        }
        Ok(())
    })
}

/// Later fragments without a first one end after their tries, and harm nobody.
#[test]
fn a_flood_of_later_fragments_is_let_go() -> Result<()> {
    const FLOOD: u16 = 2_000;
    play(|scene| {
        for family in FAMILIES {
            // What stands aside would go to and fro between node and router, and be counted each time.
            for node in &scene.lab.nodes {
                let line = format!("route add unreachable {}\n", address::vip_network(family));
                node.namespace.ip_batch(&line)?;
            }
            let owner = scene.owner(family)?;
            let before = scene.status(owner)?;
            let (held, given_up) = (before.reason("fragment_held")?, before.reason("fragment")?);
            scene.lab.client.run(|| {
                let sender = Sender::new(family)?;
                for id in 1..=FLOOD {
                    sender.send(&sender.fragments(id, &servers::content(2_000))[1])?;
                }
                Ok(())
            })?;
            wait::until("every fragment to be given up", || {
                let now = scene.status(owner)?.reason("fragment")?;
                ensure!(now >= given_up + u64::from(FLOOD), "{given_up}, then {now}");
                Ok(())
            })?;
            let now = scene.status(owner)?.reason("fragment_held")?;
            ensure!(now > held, "none was held: {held}, then {now}");
            let payload = servers::content(5_000);
            let line = scene.lab.client.run(|| {
                let sender = Sender::new(family)?;
                for packet in sender.fragments(9, &payload).iter().rev() {
                    sender.send(packet)?;
                }
                sender.receive(&payload)
            })?;
            ensure!(line.starts_with("pod="), "{line}");
        }
        Ok(())
    })
}
