//! Frames written by hand on a device: ARP and NDP questions, as a router or a stranger on the LAN would ask them.
//!
//! Its packet bytes and checksums share nothing with the product.

use super::{Lab, Namespace, address::STRANGER_MAC};
use anyhow::{Context, Result};
use nix::{
    net::if_::if_nametoindex,
    sys::{
        socket::{
            self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, setsockopt,
            sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

/// How long answers to a question are collected; they come within microseconds.
const ANSWER_TIME: Duration = Duration::from_millis(300);
/// More frames than a socket's buffer holds (208 KiB, each counted with its overhead of hundreds of bytes).
const BUFFERED: usize = 1000;

/// An open device that sends and receives whole Ethernet frames.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// The stranger's place on the LAN.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn of_stranger(lab: &Lab) -> Result<Self> {
        Self::open(&lab.stranger, "eth0")
    }

    fn open(namespace: &Namespace, device: &str) -> Result<Self> {
        namespace.run(|| {
            let socket = socket::socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )?;
            let index = if_nametoindex(device).with_context(|| format!("no device {device}"))?;
            socket::bind(socket.as_raw_fd(), &link_address(index)?)?;
            Ok(Self { socket })
        })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// When the device does not take it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        socket::send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).context("cannot send a frame")?;
        Ok(())
    }

    /// Sends `frame` and collects what `choose` makes of the frames that come in shortly after.
    ///
    /// # Errors
    /// When the device fails.
    pub fn ask<T>(&self, frame: &[u8], choose: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
        self.send(frame)?;
        let deadline = Instant::now() + ANSWER_TIME;
        let mut answers = Vec::new();
        let mut buffer = [0; 2048];
        let mut late = 0;
        // What has come is read also when the time is over, as it is after this process was stopped; what comes on is not.
        while late < BUFFERED {
            let left = deadline.saturating_duration_since(Instant::now());
            let flags = if left.is_zero() {
                late += 1;
                MsgFlags::MSG_DONTWAIT
            } else {
                let timeout = TimeVal::new(0, i64::from(left.subsec_micros()).max(1));
                setsockopt(&self.socket, ReceiveTimeout, &timeout)?;
                MsgFlags::empty()
            };
            match socket::recv(self.socket.as_raw_fd(), &mut buffer, flags) {
                Ok(length) => answers.extend(choose(&buffer[..length])),
                Err(nix::errno::Errno::EAGAIN) if left.is_zero() => break,
                Err(nix::errno::Errno::EAGAIN) => {}
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(answers)
    }

    /// Asks the LAN who has `target`, from `asker` (the unspecified address makes it a duplicate address probe), and
    /// returns the MAC address of each answer.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When the two addresses are not of one family.
    pub fn who_has(&self, target: IpAddr, asker: IpAddr) -> Result<Vec<String>> {
        match (target, asker) {
            (IpAddr::V4(target), IpAddr::V4(asker)) => {
                self.ask(&arp_request(target, asker), |frame| arp_answer(frame, target))
            }
            (IpAddr::V6(target), IpAddr::V6(asker)) => self.ask(&neighbor_solicitation(target, asker), |frame| {
                neighbor_answer(frame, target)
            }),
            _ => panic!("{target} and {asker} are of different families"),
        }
    }
}

#[expect(unsafe_code, reason = "nix has no safe way to name a device by its index")]
fn link_address(index: u32) -> Result<LinkAddr> {
    let raw = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index.try_into()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `raw` is a whole, initialised sockaddr_ll, its family says so, and the length is its own.
    let address = unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(size_of_val(&raw) as u32)) };
    address.context("not a link-layer address")
}

/// RFC 826; with an unspecified sender it is the probe of RFC 5227.
fn arp_request(target: Ipv4Addr, sender: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(STRANGER_MAC);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

fn arp_answer(frame: &[u8], target: Ipv4Addr) -> Option<String> {
    let arp = payload(frame, 0x0806)?;
    let is_reply = arp.get(6..8)? == [0, 2] && arp.get(14..18)? == target.octets();
    let to_asker = frame.get(..6)? == STRANGER_MAC && arp.get(18..24)? == STRANGER_MAC;
    (is_reply && to_asker).then(|| mac(&arp[8..14]))
}

/// RFC 4861 §4.3; from the unspecified address it is the probe of RFC 4862 §5.4.
fn neighbor_solicitation(target: Ipv6Addr, sender: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    if !sender.is_unspecified() {
        message.extend([1, 1]);
        message.extend(STRANGER_MAC);
    }
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let checksum = icmp6_checksum(sender, group, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = ethernet([0x33, 0x33, 0xff, a, b, c], 0x86dd);
    frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, 58, 255]);
    frame.extend(sender.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

/// Takes an advertisement only if it is valid (RFC 4861 §7.1.2).
fn neighbor_answer(frame: &[u8], target: Ipv6Addr) -> Option<String> {
    let packet = payload(frame, 0x86dd)?;
    let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
    let message = packet.get(40..40 + length)?;
    let [source, destination] = [8, 24].map(|start| packet.get(start..start + 16)?.try_into().ok());
    let checksum = icmp6_checksum(
        Ipv6Addr::from_octets(source?),
        Ipv6Addr::from_octets(destination?),
        message,
    );
    let valid = packet[6] == 58 && packet[7] == 255 && message.len() >= 32 && checksum == 0;
    let is_answer = message[0] == 136 && message[1] == 0 && message[8..24] == target.octets();
    (valid && is_answer && message[24..26] == [2, 1]).then(|| mac(&message[26..32]))
}

fn ethernet(destination: [u8; 6], kind: u16) -> Vec<u8> {
    [&destination[..], &STRANGER_MAC, &kind.to_be_bytes()].concat()
}

fn payload(frame: &[u8], kind: u16) -> Option<&[u8]> {
    (frame.get(12..14)? == kind.to_be_bytes()).then(|| &frame[14..])
}

fn mac(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

/// RFC 4443 §2.3; over a message with its checksum in place it is 0.
fn icmp6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut bytes = [source.octets(), destination.octets()].concat();
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(message);
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
