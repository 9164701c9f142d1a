//! What an interface's driver can do for XDP, by the generic netlink family `netdev` (Linux 6.3,
//! `Documentation/netlink/specs/netdev.yaml`).

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// `struct nlmsghdr` and `struct genlmsghdr`.
const HEADERS: usize = 16 + 4;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// The controller, which knows the other families.
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Of the family `netdev`.
const DEVICE_GET: u8 = 1;
const DEVICE_IFINDEX: u16 = 1;
const DEVICE_XDP_FEATURES: u16 = 3;

/// Bits of `enum netdev_xdp_act`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    /// Programs run in the driver.
    #[must_use]
    pub const fn native(self) -> bool {
        self.0 & 1 != 0
    }

    /// Packets can be redirected to another interface, and sent by this one when redirected to it.
    #[must_use]
    pub const fn redirects(self) -> bool {
        self.0 & 0b110 == 0b110
    }

    /// Frames larger than a page are taken.
    #[must_use]
    pub const fn multi_buffer(self) -> bool {
        self.0 & 1 << 5 != 0
    }

    /// From the kernel's bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// What the driver of the interface with this index can do; `None` if this kernel does not tell.
///
/// # Errors
///
/// The system call's.
pub fn xdp_features(ifindex: u32) -> io::Result<Option<XdpFeatures>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(2, 0))?;
    let Some(family) = ask(&socket, CONTROLLER, GET_FAMILY, FAMILY_NAME, b"netdev\0", FAMILY_ID)? else {
        return Ok(None);
    };
    let Some(family) = family.first_chunk().copied().map(u16::from_ne_bytes) else {
        return Ok(None);
    };
    let index = ifindex.to_ne_bytes();
    let bits = ask(&socket, family, DEVICE_GET, DEVICE_IFINDEX, &index, DEVICE_XDP_FEATURES)?;
    Ok(bits
        .and_then(|bits| bits.first_chunk().copied())
        .map(|bits| XdpFeatures(u64::from_ne_bytes(bits))))
}

/// Sends a request with one attribute, and gives the value of another from the answer; `None` when the kernel refuses.
fn ask(
    socket: &OwnedFd,
    family: u16,
    command: u8,
    attribute: u16,
    value: &[u8],
    wanted: u16,
) -> io::Result<Option<Vec<u8>>> {
    let kernel = NetlinkAddr::new(0, 0);
    let request = request(family, command, attribute, value);
    sendto(socket.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
    let mut answer = vec![0; 1 << 14];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    Ok(find(&answer, wanted))
}

fn request(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let padded = value.len().next_multiple_of(4);
    let mut message = Vec::with_capacity(HEADERS + 4 + padded);
    message.extend(((HEADERS + 4 + padded) as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and sender, which the kernel fills in.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(HEADERS + 4 + padded, 0);
    message
}

/// The value of attribute `wanted` of an answer.
fn find(answer: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let mut rest = answer.get(HEADERS..).filter(|_| kind != NLMSG_ERROR)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        // The upper two bits are flags.
        let attribute = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & 0x3fff;
        let value = rest.get(4..length)?;
        if attribute == wanted {
            return Some(value.to_vec());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_others() {
        let mut answer = request(20, DEVICE_GET, DEVICE_IFINDEX, &7_u32.to_ne_bytes());
        answer.extend([7, 0, 9, 0, 1, 2, 3, 0]);
        answer.extend([12, 0, 3, 0, 0x27, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(find(&answer, 9), Some(vec![1, 2, 3]));
        let features = find(&answer, DEVICE_XDP_FEATURES).and_then(|bits| bits.first_chunk().copied());
        let features = XdpFeatures::from_bits(u64::from_ne_bytes(features.unwrap()));
        assert!(features.native() && features.redirects() && features.multi_buffer());
        assert_eq!(find(&answer, 4), None);
        for length in 0..answer.len() {
            find(&answer[..length], DEVICE_XDP_FEATURES);
        }
    }

    #[test]
    fn a_refusal_has_no_attributes() {
        let mut answer = request(NLMSG_ERROR, 0, 0, &[0; 16]);
        answer.extend([12, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(find(&answer, 3), None);
    }
}
