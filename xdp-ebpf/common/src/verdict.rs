//! What is done with a packet, and why: one closed list of reasons, shared by counters, metrics, status and tests.

/// What the kernel does with the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand it to the network stack.
    Pass,
    /// Send it out of the interface it came in by.
    Transmit,
    /// Send it out of the interface with this index.
    Redirect(u32),
    /// Discard it. Only for tunnel packets and packets for our VIPs.
    Drop,
}

/// An action and the reason for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal;)+) => {
        /// Why a verdict was reached. The number indexes `REASONS`; the name is the metric label.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name people see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence about it.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

reasons! {
    /// The destination is no address of ours: passed after the filter word.
    NotOurs = 0, "not_ours";
    /// Neither IP nor ARP: passed.
    NotIp = 1, "not_ip";
    /// The frame ends before its headers do: passed.
    Truncated = 2, "truncated";
    /// A header that contradicts itself or an unknown version: passed.
    Malformed = 3, "malformed";
    /// An address we know, but no port or kind of packet that we serve, and not a VIP: passed.
    NotServed = 4, "not_served";
    /// A VIP, but no frontend has this port and protocol: stood aside.
    NoFrontend = 5, "no_frontend";
    /// A frontend without any backend: stood aside.
    NoBackend = 6, "no_backend";
    /// A fragment for a VIP that cannot be one, or whose first one is not known and cannot be waited for: stood aside.
    /// Dropped when it was waited for in vain, or came in the tunnel.
    Fragment = 7, "fragment";
    /// More IPv6 extension headers for a VIP than we follow: stood aside.
    ExtensionHeaders = 8, "extension_headers";
    /// ARP request for a VIP we own: answered.
    ArpReply = 9, "arp_reply";
    /// ARP that asks for none of our VIPs on this interface: passed.
    ArpNotOurs = 10, "arp_not_ours";
    /// Neighbour solicitation for a VIP we own: answered.
    NeighborAdvertisement = 11, "neighbor_advertisement";
    /// Neighbour solicitation for none of our VIPs on this interface: passed.
    NeighborNotOurs = 12, "neighbor_not_ours";
    /// Neighbour solicitation for a VIP that fails RFC 4861 section 7.1.1: passed.
    NeighborInvalid = 13, "neighbor_invalid";
    /// Echo request to a VIP: answered.
    EchoReply = 14, "echo_reply";
    /// Delivered to a backend on this node.
    Local = 15, "local";
    /// Sent through the tunnel to the backend's node.
    Tunnel = 16, "tunnel";
    /// Taken out of the tunnel and delivered to a backend on this node.
    Decapsulated = 17, "decapsulated";
    /// A flow this node does not know, sent on to the row's previous backend.
    SecondChance = 18, "second_chance";
    /// The backend's node cannot be reached now: stood aside.
    NodeUnreachable = 19, "node_unreachable";
    /// Too big for the tunnel to the backend's node: stood aside.
    TooBigForTunnel = 20, "too_big_for_tunnel";
    /// No room in `FLOWS` for a new flow: stood aside.
    FlowTableFull = 21, "flow_table_full";
    /// A tunnel packet from an address that is no node of ours: dropped.
    TunnelUnknownSender = 22, "tunnel_unknown_sender";
    /// A tunnel packet that is not one Weir sends: dropped.
    TunnelMalformed = 23, "tunnel_malformed";
    /// A tunnel packet for a backend that is not on this node and for a flow it does not know: dropped.
    TunnelUnknownBackend = 24, "tunnel_unknown_backend";
    /// The kernel gave no room for the tunnel header: stood aside.
    NoHeadroom = 25, "no_headroom";
    /// Egress: no packet of a backend's flow: passed.
    EgressNotOurs = 26, "egress_not_ours";
    /// Egress: a backend talks, but in no flow that came through a VIP: passed.
    EgressNoFlow = 27, "egress_no_flow";
    /// Egress: a backend's reply, source rewritten to the VIP.
    EgressReply = 28, "egress_reply";
    /// Nobody who was asked knows the flow: sent back to the backend that gets new ones.
    Returned = 29, "returned";
    /// A source that the Service does not let in: dropped.
    SourceRefused = 30, "source_refused";
    /// More new flows than the Service allows: dropped.
    FlowLimit = 31, "flow_limit";
    /// More packets than the Service allows: dropped.
    PacketLimit = 32, "packet_limit";
    /// Too big for the tunnel and not to be fragmented: the sender was told the MTU.
    TooBigAnswered = 33, "too_big_answered";
    /// The same, but the sender is not told again so soon: dropped.
    TooBigSilent = 34, "too_big_silent";
    /// An ICMP error about a flow through a VIP: delivered to its backend, or sent to that one's node.
    IcmpError = 35, "icmp_error";
    /// An ICMP error to a VIP about no flow that anybody knows: stood aside, or dropped where it came in the tunnel.
    IcmpErrorUnknown = 36, "icmp_error_unknown";
    /// A fragment that came before its datagram's first: taken by the agent, to be tried again.
    FragmentHeld = 37, "fragment_held";
    /// A flow that the stack had before Weir drew the VIP's packets, and keeps: passed.
    StackFlow = 38, "stack_flow";
}

/// Room in `REASONS`; at least [`Reason::ALL`] long.
pub const REASON_SLOTS: u32 = 64;

const _: () = assert!(Reason::ALL.len() < REASON_SLOTS as usize);

impl Verdict {
    /// Passed for `reason`.
    #[inline(always)]
    #[must_use]
    pub const fn pass(reason: Reason) -> Self {
        Self {
            action: Action::Pass,
            reason,
        }
    }

    /// Dropped for `reason`.
    #[inline(always)]
    #[must_use]
    pub const fn drop(reason: Reason) -> Self {
        Self {
            action: Action::Drop,
            reason,
        }
    }

    /// Of a responder: sent back out if it answered, passed for any other reason.
    #[inline(always)]
    #[must_use]
    pub const fn of_responder(reason: Reason) -> Self {
        match reason {
            Reason::ArpReply | Reason::NeighborAdvertisement | Reason::EchoReply => Self::transmit(reason),
            _ => Self::pass(reason),
        }
    }

    /// Sent back out for `reason`.
    #[inline(always)]
    #[must_use]
    pub const fn transmit(reason: Reason) -> Self {
        Self {
            action: Action::Transmit,
            reason,
        }
    }
}
