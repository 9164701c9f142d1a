//! Weir's packet path and the map layout it shares with user space.
//!
//! Everything that decides what happens to a packet is here, generic over [`packet::Packet`] (how to reach the
//! frame's bytes) and [`tables::Tables`] (how to reach the maps), so that the same source runs in the kernel and, over
//! plain memory, in tests. The kernel shell around it (`xdp-ebpf/src`) frames the packet, calls [`ingress::process`] or
//! [`egress::process`], counts the [`verdict::Reason`] and returns the action.
//!
//! Two rules hold everywhere: *decide, then edit* (everything is read and checked before the first byte is written), and
//! *traffic that is not for one of our addresses is passed untouched*.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![warn(missing_docs)]

pub mod abi;
pub mod addr;
pub mod arp;
pub mod arrival;
pub mod cache;
pub mod checksum;
pub mod decide;
pub mod direct;
pub mod echo;
pub mod egress;
pub mod flows;
pub mod forward;
pub mod fragments;
pub mod hash;
pub mod icmp;
pub mod ingress;
pub mod lookup;
pub mod mss;
pub mod ndp;
pub mod packet;
pub mod parse;
pub mod policy;
pub mod rewrite;
pub mod scratch;
pub mod stages;
pub mod steer;
pub mod tables;
pub mod takeover;
pub mod tunnel;
pub mod verdict;
pub mod word;
