//! The policies of a frontend in the words of its directory entry.

use super::Settings;
use crate::plan::{Limits, Policy};
use weir_common::abi::{DirectoryEntry, policy};

/// Jiffies in a tick of the packet path.
const JIFFIES_PER_TICK: u64 = 64;
/// Limiter units in a jiffy: [`weir_common::abi::Config::second`] is one second in them.
const UNITS_PER_JIFFY: u64 = 1 << 20;

/// `entry` with the policies of its frontend.
pub(super) fn with_policy(entry: DirectoryEntry, wanted: &Policy, settings: &Settings) -> DirectoryEntry {
    let Limits {
        flows,
        packets,
        source_flows,
        source_packets,
    } = wanted.limits;
    let interval = |rate: Option<u32>| rate.map_or(0, |rate| interval(rate, settings));
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    DirectoryEntry {
        policies: flag(wanted.affinity_seconds.is_some(), policy::AFFINITY)
            | flag(!wanted.sources.are_unrestricted(), policy::SOURCES)
            | flag(wanted.sources.allowed.is_some(), policy::ALLOW_LISTED)
            | flag(!wanted.limits.are_none(), policy::LIMITED),
        affinity_ticks: wanted.affinity_seconds.map_or(0, |seconds| ticks(seconds, settings)),
        flow_interval: interval(flows),
        packet_interval: interval(packets),
        source_flow_interval: interval(source_flows),
        source_packet_interval: interval(source_packets),
        ..entry
    }
}

/// Ticks of a time in seconds, at least that long and at least 1.
fn ticks(seconds: u32, settings: &Settings) -> u32 {
    let jiffies = u64::from(seconds).saturating_mul(settings.jiffies_per_second);
    u32::try_from(jiffies.div_ceil(JIFFIES_PER_TICK))
        .unwrap_or(u32::MAX)
        .max(1)
}

/// Limiter units from one to the next at a rate per second, at least 1.
fn interval(rate: u32, settings: &Settings) -> u32 {
    let second = settings.jiffies_per_second.saturating_mul(UNITS_PER_JIFFY);
    u32::try_from(second / u64::from(rate.max(1)))
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Sources;

    const SETTINGS: Settings = Settings {
        tunnel_port: 6081,
        jiffies_per_second: 250,
        now: 0,
        udp_idle: 180,
    };

    #[test]
    fn times_and_rates_are_in_the_kernels_units() {
        assert_eq!(
            [1, 64, 10_800, 86_400].map(|seconds| ticks(seconds, &SETTINGS)),
            [4, 250, 42_188, 337_500]
        );
        let second = 250 << 20;
        assert_eq!(
            [1, 250, 1 << 20].map(|rate| interval(rate, &SETTINGS)),
            [second, 1 << 20, 250]
        );
        assert_eq!(interval(u32::MAX, &SETTINGS), 1, "0 would be no limit");
    }

    #[test]
    fn each_policy_has_its_flag_and_no_policy_has_none() {
        let words = |policy: &Policy| with_policy(DirectoryEntry::default(), policy, &SETTINGS);
        assert_eq!(words(&Policy::default()), DirectoryEntry::default());
        let affinity = Policy {
            affinity_seconds: Some(64),
            ..Policy::default()
        };
        assert_eq!(
            (words(&affinity).policies, words(&affinity).affinity_ticks),
            (policy::AFFINITY, 250)
        );
        let nobody = Policy {
            sources: Sources::nobody(),
            ..Policy::default()
        };
        assert_eq!(words(&nobody).policies, policy::SOURCES | policy::ALLOW_LISTED);
        let limited = Policy {
            limits: Limits {
                source_packets: Some(250),
                ..Limits::default()
            },
            ..Policy::default()
        };
        let entry = words(&limited);
        assert_eq!(
            (entry.policies, entry.source_packet_interval),
            (policy::LIMITED, 1 << 20)
        );
        assert_eq!(
            (entry.flow_interval, entry.packet_interval, entry.source_flow_interval),
            (0, 0, 0)
        );
    }
}
