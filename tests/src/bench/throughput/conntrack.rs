//! Makes the kernel forget its connections, as `conntrack -F` does.

use crate::lab::Namespace;
use anyhow::{Result, ensure};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use std::os::fd::AsRawFd;

/// `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK`.
const DELETE: u16 = 1 << 8 | 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;

/// Forgets all connections of `namespace`.
///
/// # Errors
/// When the kernel refuses.
pub fn forget(namespace: &Namespace) -> Result<()> {
    // A netlink header (RFC 3549 §2.3.2) and a generic one of netfilter; no attributes means all.
    let mut message = 20_u32.to_ne_bytes().to_vec();
    for half in [DELETE, NLM_F_REQUEST | NLM_F_ACK, 0, 0, 0, 0] {
        message.extend(half.to_ne_bytes());
    }
    message.extend([0; 4]);
    namespace.run(|| {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 256];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let (kind, error) = (&answer[4..6], &answer[16..20]);
        ensure!(
            length >= 20 && kind == NLMSG_ERROR.to_ne_bytes() && error == [0; 4],
            "the kernel keeps its connections: {:?}",
            &answer[..length]
        );
        Ok(())
    })
}
