//! ctnetlink's messages: the request for every connection, and what of the answer counts.
//!
//! The numbers are those of Linux's `nfnetlink_conntrack.h` and `nf_conntrack_common.h`. Headers are in the order of this
//! machine, the values of attributes in network order.

use super::TranslatedFlow;
use nix::errno::Errno;
use rtnetlink::packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkBuffer,
    NlasIterator, parse_ip, parse_u8, parse_u16_be,
};
use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};
use weir_core::model::Protocol;

/// `NFNL_SUBSYS_CTNETLINK`, whose `IPCTNL_MSG_CT_NEW` is 0: how each connection is told.
const CONNECTION: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = CONNECTION | 1;
/// `struct nfgenmsg`, all zero in the request: both families.
const GENERAL_HEADER: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;

/// `IPS_DST_NAT`.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`.
const OVER: [u8; 2] = [7, 8];

/// How far a dump has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to read.
    More,
    /// That was all.
    Complete,
    /// Something is missing: the kernel lost messages, or its table changed too much.
    Incomplete,
    /// The kernel ended it with this error.
    Refused(Errno),
}

/// Asks for a dump of all connections with another destination. A kernel that cannot choose by status gives all.
pub(super) fn request() -> Vec<u8> {
    let length: u32 = 16 + GENERAL_HEADER as u32 + 8;
    [
        &length.to_ne_bytes()[..],
        &GET.to_ne_bytes(),
        &(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes(),
        // Sequence number and sender, which the kernel fills in, and the general header.
        &[0; 8 + GENERAL_HEADER],
        &8_u16.to_ne_bytes(),
        &CTA_STATUS.to_ne_bytes(),
        &DESTINATION_TRANSLATED.to_be_bytes(),
    ]
    .concat()
}

/// Takes the flows that count from `messages`, which is what one read of the socket gave: whole messages. Those after
/// the end of the dump are not looked at.
///
/// # Errors
///
/// When a length or a value cannot be; flows before it have been taken.
pub(super) fn read(mut messages: &[u8], flows: &mut HashSet<TranslatedFlow>) -> Result<Progress, DecodeError> {
    while !messages.is_empty() {
        let message = NetlinkBuffer::new_checked(messages)?;
        if message.flags() & NLM_F_DUMP_INTR != 0 {
            return Ok(Progress::Incomplete);
        }
        match message.message_type() {
            NLMSG_DONE => return Ok(error(message.payload())?.map_or(Progress::Complete, Progress::Refused)),
            NLMSG_ERROR => {
                if let Some(errno) = error(message.payload())? {
                    return Ok(Progress::Refused(errno));
                }
            }
            NLMSG_OVERRUN => return Ok(Progress::Incomplete),
            CONNECTION => flows.extend(flow(message.payload())?),
            _ => {}
        }
        let length = (message.length() as usize).next_multiple_of(4);
        messages = messages.get(length..).unwrap_or_default();
    }
    Ok(Progress::More)
}

/// The error that a message begins with: 0 for none, else negative.
fn error(payload: &[u8]) -> Result<Option<Errno>, DecodeError> {
    let code = payload.first_chunk().ok_or("an end without its error")?;
    let code = i32::from_ne_bytes(*code);
    Ok((code != 0).then(|| Errno::from_raw(code.wrapping_neg())))
}

/// The connection of a message, if it counts.
fn flow(payload: &[u8]) -> Result<Option<TranslatedFlow>, DecodeError> {
    let attributes = payload.get(GENERAL_HEADER..).ok_or("a connection without a header")?;
    let (mut original, mut reply, mut over) = (None, None, false);
    each(attributes, |kind, value| {
        match kind {
            CTA_TUPLE_ORIG => original = tuple(value)?,
            CTA_TUPLE_REPLY => reply = tuple(value)?,
            CTA_PROTOINFO => over = is_over(value)?,
            _ => {}
        }
        Ok(())
    })?;
    let translated = original
        .zip(reply)
        .filter(|(original, reply)| original.destination != reply.source);
    Ok(translated.filter(|_| !over).map(|(original, _)| TranslatedFlow {
        client: original.source,
        destination: original.destination,
        protocol: original.protocol,
    }))
}

/// Packets of one direction.
struct Tuple {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: Protocol,
}

/// `None` for protocols other than TCP and UDP.
fn tuple(value: &[u8]) -> Result<Option<Tuple>, DecodeError> {
    let (mut addresses, mut ports, mut protocol) = ((None, None), (None, None), None);
    each(value, |part, value| match part {
        CTA_TUPLE_IP => each(value, |kind, value| {
            match kind {
                CTA_IP_V4_SRC | CTA_IP_V6_SRC => addresses.0 = Some(parse_ip(value)?),
                CTA_IP_V4_DST | CTA_IP_V6_DST => addresses.1 = Some(parse_ip(value)?),
                _ => {}
            }
            Ok(())
        }),
        CTA_TUPLE_PROTO => each(value, |kind, value| {
            match kind {
                CTA_PROTO_NUM => protocol = protocol_of(parse_u8(value)?),
                CTA_PROTO_SRC_PORT => ports.0 = Some(parse_u16_be(value)?),
                CTA_PROTO_DST_PORT => ports.1 = Some(parse_u16_be(value)?),
                _ => {}
            }
            Ok(())
        }),
        _ => Ok(()),
    })?;
    let end = |address: Option<IpAddr>, port| Some(SocketAddr::new(address?, port?));
    let ends = end(addresses.0, ports.0).zip(end(addresses.1, ports.1));
    Ok(ends.zip(protocol).map(|((source, destination), protocol)| Tuple {
        source,
        destination,
        protocol,
    }))
}

const fn protocol_of(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        _ => None,
    }
}

/// Whether this is the state of a TCP connection that is over.
fn is_over(value: &[u8]) -> Result<bool, DecodeError> {
    let mut over = false;
    each(value, |kind, value| match kind {
        CTA_PROTOINFO_TCP => each(value, |kind, value| {
            if kind == CTA_PROTOINFO_TCP_STATE {
                over = OVER.contains(&parse_u8(value)?);
            }
            Ok(())
        }),
        _ => Ok(()),
    })?;
    Ok(over)
}

/// Calls `take` with kind, without flags, and value of each attribute.
fn each(attributes: &[u8], mut take: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>) -> Result<(), DecodeError> {
    NlasIterator::new(attributes).try_for_each(|attribute| {
        let attribute = attribute?;
        take(attribute.kind(), attribute.value())
    })
}

#[cfg(test)]
mod tests;
