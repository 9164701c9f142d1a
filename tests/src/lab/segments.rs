//! How much TCP gives to a device at once, by netlink: `ip` of the oldest system we run on cannot say it for IPv4.

use super::Namespace;
use anyhow::{Context, Result, ensure};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType},
};
use std::os::fd::AsRawFd;

/// `IFLA_GSO_MAX_SIZE`, of IPv6 packets beyond 64 KiB.
const MAX_SIZE: u16 = libc::IFLA_GSO_MAX_SIZE;
/// `IFLA_GSO_IPV4_MAX_SIZE`, of IPv4 packets.
const MAX_SIZE_V4: u16 = 63;

/// Lets TCP over either family give `device` packets of up to `bytes`, which may be beyond 64 KiB (BIG TCP).
///
/// # Errors
/// When there is no such device, or the kernel does not take the size.
pub fn allow(namespace: &Namespace, device: &str, bytes: u32) -> Result<()> {
    let answer = namespace.run(|| {
        let index = if_nametoindex(device).with_context(|| format!("no device {device}"))?;
        let socket = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        let kernel = NetlinkAddr::new(0, 0);
        socket::sendto(socket.as_raw_fd(), &request(index, bytes), &kernel, MsgFlags::empty())?;
        let mut answer = [0; 64];
        let length = socket::recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        Ok(answer[..length].to_vec())
    })?;
    // The header's 16 bytes, then 0 or the negative error.
    ensure!(
        answer.get(16..20) == Some(&[0; 4]),
        "the kernel does not take {bytes} bytes for {device}: {answer:?}"
    );
    Ok(())
}

/// `struct nlmsghdr`, `struct ifinfomsg` and two attributes.
fn request(index: u32, bytes: u32) -> Vec<u8> {
    let attribute = |kind: u16| [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &bytes.to_ne_bytes()].concat();
    let kind = libc::RTM_NEWLINK;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let body = [
        &[0; 4][..],
        &index.to_ne_bytes(),
        &[0; 8],
        &attribute(MAX_SIZE),
        &attribute(MAX_SIZE_V4),
    ]
    .concat();
    let length = 16 + body.len() as u32;
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &[0; 8],
        &body,
    ]
    .concat()
}
