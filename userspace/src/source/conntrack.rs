//! Which connections the kernel's connection tracking (`nf_conntrack`) translates to another destination, as kube-proxy
//! has it do.
//!
//! Asked by ctnetlink (`NETLINK_NETFILTER`). Only asks: nothing is tracked, and no connection changed, for being asked
//! about. The kernel may load its module `nf_conntrack_netlink` for it.

mod message;

use message::Progress;
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt,
            socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};
use rtnetlink::packet_core::DecodeError;
use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};
use weir_core::model::Protocol;

/// The kernel gives at most this many bytes at a time, and makes the next ones only when these are read: its own buffer
/// does not overflow, however long the table.
const CHUNK: usize = 1 << 15;
/// Seconds without anything from the kernel. It works while we call it, so that a long table does not count.
const PATIENCE: i64 = 5;
/// Is there where connections are tracked, also where they cannot be asked for.
const TRACKING: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// Dumps begun before giving up on a complete one.
const ATTEMPTS: u32 = 5;

/// A flow as its first packet had it, before it was translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TranslatedFlow {
    /// Who began it.
    pub client: SocketAddr,
    /// What it was sent to. Never the destination it was translated to.
    pub destination: SocketAddr,
    /// Over what.
    pub protocol: Protocol,
}

/// Why it is not known what is translated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `CAP_NET_ADMIN` is missing, in the user namespace that owns the network namespace.
    #[error("the kernel shows the connections it tracks only to those with CAP_NET_ADMIN")]
    NotPermitted,
    /// The socket failed.
    #[error("cannot ask the kernel for the connections it tracks")]
    Socket(#[source] io::Error),
    /// The kernel refused for another reason.
    #[error("the kernel refuses to show the connections it tracks")]
    Refused(#[source] io::Error),
    /// Nothing came for some seconds.
    #[error("the kernel does not answer when asked for the connections it tracks")]
    Silent,
    /// The answer is not what we know as one.
    #[error("the kernel's answer about the connections it tracks makes no sense")]
    Unreadable(#[source] DecodeError),
    /// Some of the answer was lost, each time.
    #[error("the kernel's answers about the connections it tracks were incomplete, {ATTEMPTS} times")]
    Incomplete,
}

/// Every TCP and UDP flow that connection tracking of this thread's network namespace translates to another destination:
/// another address, or another port. Without TCP connections that are over (`TIME_WAIT`, `CLOSE`), since nothing of them
/// is to be kept.
///
/// Blocks while the kernel goes through its whole table: call it off the async loop. Memory is taken only for what is
/// returned; from Linux 5.15 the kernel leaves out by itself what it does not translate. A flow that begins or ends
/// meanwhile may be in or not.
///
/// Nothing, and no error, where the kernel has no connection tracking: it then has no such protocol
/// (`EPROTONOSUPPORT`) or no such subsystem of it (`EINVAL`, `ENOENT`; an error where connections are tracked all the
/// same). Without the right to ask it says `EPERM`, before it looks for the subsystem: that is an error, and leaves open
/// whether there is anything.
///
/// # Errors
///
/// Any [`Error`]; nothing is then known.
pub fn translated() -> Result<HashSet<TranslatedFlow>, Error> {
    for _ in 0..ATTEMPTS {
        if let Some(flows) = dump()? {
            return Ok(flows);
        }
    }
    Err(Error::Incomplete)
}

/// One dump, on a socket of its own, so that the rest of one given up is not taken for a part of the next; `None` when
/// it was not complete.
fn dump() -> Result<Option<HashSet<TranslatedFlow>>, Error> {
    let mut flows = HashSet::new();
    let socket = match open() {
        Ok(socket) => socket,
        Err(Errno::EPROTONOSUPPORT) => return Ok(Some(flows)),
        Err(errno) => return Err(Error::Socket(errno.into())),
    };
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut chunk, MsgFlags::MSG_TRUNC) {
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(Errno::ENOBUFS) => return Ok(None),
            Err(Errno::EAGAIN) => return Err(Error::Silent),
            Err(errno) => return Err(Error::Socket(errno.into())),
        };
        let messages = chunk
            .get(..length)
            .ok_or_else(|| Error::Unreadable(format!("{length} bytes at once").into()))?;
        match message::read(messages, &mut flows).map_err(Error::Unreadable)? {
            Progress::More => {}
            Progress::Complete => return Ok(Some(flows)),
            Progress::Incomplete => return Ok(None),
            Progress::Refused(Errno::EINVAL | Errno::ENOENT) if !Path::new(TRACKING).exists() => {
                return Ok(Some(flows));
            }
            Progress::Refused(Errno::EPERM) => return Err(Error::NotPermitted),
            Progress::Refused(errno) => return Err(Error::Refused(errno.into())),
        }
    }
}

/// A socket that has asked.
fn open() -> Result<OwnedFd, Errno> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
    // From then on only the kernel can send to it.
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    send(socket.as_raw_fd(), &message::request(), MsgFlags::empty())?;
    Ok(socket)
}
