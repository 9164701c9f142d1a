//! What `CONFIG` holds: seeds, masks, times and the clamp, from flags, the kernel and the network.

use nix::time::{ClockId, clock_getres, clock_gettime};
use std::{net::IpAddr, time::Duration};
use weir_common::abi::Config;

/// The same on every node of a cluster unless a flag says otherwise: nodes that differ would disagree about rows.
pub const DEFAULT_SELECTION_SEED: u64 = 0x5765_6972_5765_6972;

/// A flow that never got past its SYN; the kernel's own connection tracking gives it a minute, too.
const HALF_OPEN: Duration = Duration::from_secs(60);
/// An idle established TCP flow: five days, as the kernel's connection tracking.
const ESTABLISHED: Duration = Duration::from_secs(5 * 24 * 3600);
/// An idle UDP flow.
pub const UDP: Duration = Duration::from_secs(180);
/// A closed TCP flow: twice the longest segment lifetime Linux reckons with.
const CLOSED: Duration = Duration::from_secs(120);

/// How long the first fragment of a datagram is remembered: as long as hosts wait for the others (RFC 8200 §4.5 says 60 s at
/// most, Linux waits 30).
const FRAGMENT: Duration = Duration::from_secs(30);
/// ICMP errors of its own that a node sends in a second, as many as Linux by default (`icmp_msgs_per_sec`).
const ANSWERS_PER_SECOND: u32 = 1000;
/// Limiter units in a jiffy.
const UNITS_PER_JIFFY: u64 = 1 << 20;

/// Jiffies in a tick of the packet path.
const JIFFIES_PER_TICK: u64 = 64;

/// Bytes the tunnel adds to an inner packet: outer header, UDP 8, Geneve 8, option header 4, its longest data 56.
const fn tunnel_overhead(tunnel: IpAddr) -> u16 {
    let outer = if tunnel.is_ipv4() { 20 } else { 40 };
    outer + 8 + 8 + 4 + 56
}

/// The largest MSS whose segments fit the tunnel: for IPv4 and IPv6 flows, in bytes; 0 leaves the MSS alone.
///
/// `tunnel` is this node's tunnel address, `mtu` the smallest MTU packets may meet on the way to another node; `None`
/// when there is no other node to send to.
#[must_use]
pub fn mss(tunnel: Option<IpAddr>, mtu: Option<u16>) -> (u16, u16) {
    let (Some(tunnel), Some(mtu)) = (tunnel, mtu) else {
        return (0, 0);
    };
    let inner = mtu.saturating_sub(tunnel_overhead(tunnel));
    // IP header and TCP header without options (RFC 6691).
    (inner.saturating_sub(20 + 20), inner.saturating_sub(40 + 20))
}

/// The largest MSS whose segments fit this node's own links, whose smallest MTU is `mtu`: for IPv4 and IPv6 flows, in bytes;
/// 0 leaves the MSS alone. What a client offers in its SYN is for replies, which do not take the tunnel.
#[must_use]
pub fn syn_mss(mtu: Option<u16>) -> (u16, u16) {
    mtu.map_or((0, 0), |mtu| (mtu.saturating_sub(20 + 20), mtu.saturating_sub(40 + 20)))
}

/// One second in limiter units.
fn second(hz: u64) -> u32 {
    u32::try_from(hz * UNITS_PER_JIFFY).unwrap_or(u32::MAX)
}

/// The parts that do not change while the agent runs.
#[must_use]
pub fn fixed(selection_seed: u64, flow_seed: u64, flow_buckets: u32, cache_buckets: u32, tunnel_port: u16) -> Config {
    let hz = jiffies_per_second();
    Config {
        selection_seed,
        flow_seed,
        flow_mask: flow_buckets.saturating_sub(1),
        cache_mask: cache_buckets.saturating_sub(1),
        half_open_ticks: ticks(HALF_OPEN, hz),
        established_ticks: ticks(ESTABLISHED, hz),
        udp_ticks: ticks(UDP, hz),
        closed_ticks: ticks(CLOSED, hz),
        fragment_ticks: ticks(FRAGMENT, hz),
        second: second(hz),
        answer_interval: (second(hz) / ANSWERS_PER_SECOND).max(1),
        tunnel_port: tunnel_port.to_be_bytes(),
        ..Config::default()
    }
}

/// The kernel's HZ: its coarse clocks advance once a jiffy.
#[must_use]
pub fn jiffies_per_second() -> u64 {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::from_millis(4), Duration::from);
    let nanoseconds = u64::try_from(resolution.as_nanos()).unwrap_or(u64::MAX).max(1);
    // Rounded: a jiffy of HZ 300 is 3,333,333 ns.
    ((1_000_000_000 + nanoseconds / 2) / nanoseconds).max(1)
}

/// The packet path's clock now, in ticks of 64 jiffies; wraps. It may be a few ticks off.
#[must_use]
pub fn now() -> u32 {
    (jiffies() / JIFFIES_PER_TICK) as u32
}

/// Whole seconds in so many ticks; 0 for a time that is yet to come.
#[must_use]
pub fn seconds(ticks: u32) -> u64 {
    if ticks > u32::MAX / 2 {
        return 0;
    }
    u64::from(ticks) * JIFFIES_PER_TICK / jiffies_per_second()
}

/// The kernel's jiffies now, give or take some.
///
/// The kernel counts jiffies by its monotonic clock, and begins five minutes before 32 bits of them overflow.
#[must_use]
pub fn jiffies() -> u64 {
    let hz = jiffies_per_second();
    let start = (1_u64 << 32) - 300 * hz;
    let since_boot = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    start + since_boot.as_millis() as u64 * hz / 1000
}

fn ticks(time: Duration, hz: u64) -> u32 {
    u32::try_from(time.as_secs() * hz / JIFFIES_PER_TICK)
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mss_leaves_room_for_the_tunnel() {
        let v4 = "192.0.2.1".parse().ok();
        let v6 = "2001:db8::1".parse().ok();
        assert_eq!(mss(v4, Some(1500)), (1500 - 96 - 40, 1500 - 96 - 60));
        assert_eq!(mss(v6, Some(1500)), (1500 - 116 - 40, 1500 - 116 - 60));
        assert_eq!(mss(v4, None), (0, 0));
        assert_eq!(mss(None, Some(1500)), (0, 0));
    }

    #[test]
    fn the_mss_of_a_syn_is_that_of_the_own_links() {
        assert_eq!(syn_mss(Some(1500)), (1460, 1440));
        assert_eq!(syn_mss(None), (0, 0));
    }

    #[test]
    fn ticks_are_64_jiffies() {
        assert_eq!(ticks(Duration::from_secs(64), 250), 250);
        assert_eq!(ticks(Duration::from_secs(0), 250), 1);
    }

    #[test]
    fn the_clock_runs_as_the_kernels() {
        let list = std::fs::read_to_string("/proc/timer_list").unwrap();
        let jiffies = list.lines().find_map(|line| line.strip_prefix("jiffies: "));
        let kernel = jiffies.unwrap().trim().parse::<u64>().unwrap() / JIFFIES_PER_TICK;
        assert!(now().abs_diff(kernel as u32) < 100, "{} here, {kernel} there", now());
    }

    #[test]
    fn this_kernel_has_a_sensible_hz() {
        assert!((24..=2000).contains(&jiffies_per_second()));
    }
}
