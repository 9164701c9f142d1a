//! `--interface auto`: the interfaces by which this host's default routes leave, IPv4's and IPv6's.
//!
//! Asked once, at the start: an agent that moved to another interface by itself would leave behind who still sends to the
//! first.

use anyhow::Context;
use std::{fs, path::Path};

/// Stands for the interfaces of the default routes.
pub const AUTO: &str = "auto";

/// The interfaces that are meant: `auto` gives way to those of the default routes in the network namespace of this process,
/// other names stay.
///
/// # Errors
///
/// When `auto` is among them and there is no default route, or the kernel's list of routes cannot be read.
pub fn resolve(interfaces: Vec<String>) -> anyhow::Result<Vec<String>> {
    if !interfaces.iter().any(|name| name == AUTO) {
        return Ok(interfaces);
    }
    let read = |path: &str| match fs::read_to_string(Path::new("/proc/self/net").join(path)) {
        // A host may have one family alone.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot read /proc/self/net/{path}"))
        }
        text => Ok(text.unwrap_or_default()),
    };
    let mut found: Vec<String> = [least(v4(&read("route")?)), least(v6(&read("ipv6_route")?))]
        .into_iter()
        .flatten()
        .collect();
    found.dedup();
    anyhow::ensure!(
        !found.is_empty(),
        "--interface {AUTO} takes the interface of the default route, and this host has none; name an interface that `ip link` shows"
    );
    let others = interfaces.into_iter().filter(|name| name != AUTO);
    Ok(found.into_iter().chain(others).collect())
}

/// The interface of the route that the kernel prefers.
fn least<'a>(routes: impl Iterator<Item = (u32, &'a str)>) -> Option<String> {
    let (_, interface) = routes.min_by_key(|(metric, _)| *metric)?;
    Some(interface.to_owned())
}

/// Metric and interface of each default route of `/proc/net/route`: name, destination, gateway, flags, two counters, metric,
/// mask, in hexadecimal but for the counters and the metric.
fn v4(text: &str) -> impl Iterator<Item = (u32, &str)> {
    text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, "00000000", _, flags, _, _, metric, "00000000", ..] = fields[..] else {
            return None;
        };
        usable(flags, interface).then_some((metric.parse().ok()?, interface))
    })
}

/// The same of `/proc/net/ipv6_route`: destination and its length, source and its length, next hop, metric, two counters,
/// flags, name, all numbers in hexadecimal.
fn v6(text: &str) -> impl Iterator<Item = (u32, &str)> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "00", _, _, _, metric, _, _, flags, interface] = fields[..] else {
            return None;
        };
        usable(flags, interface).then_some((u32::from_str_radix(metric, 16).ok()?, interface))
    })
}

/// Whether a route is up and leads somewhere: the kernel shows unreachable ones by way of `lo`, or as rejecting.
fn usable(flags: &str, interface: &str) -> bool {
    const UP: u32 = 0x1;
    const REJECT: u32 = 0x200;
    let flags = u32::from_str_radix(flags, 16).unwrap_or_default();
    flags & UP != 0 && flags & REJECT == 0 && interface != "lo" && interface != "*"
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0
eth1\t00000000\t010AA8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t000AA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";
    const V6: &str = "\
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     bond0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
";

    #[test]
    fn the_default_route_of_the_least_metric_counts() {
        assert_eq!(least(v4(V4)).as_deref(), Some("eth1"));
        assert_eq!(least(v6(V6)).as_deref(), Some("bond0"));
    }

    #[test]
    fn no_default_route_is_none() {
        assert_eq!(least(v4("")), None);
        assert_eq!(least(v6(V6.lines().nth(1).unwrap())), None);
    }

    #[test]
    fn names_stay_as_they_are() {
        let names = vec!["eth7".to_owned(), "bond0".to_owned()];
        assert_eq!(resolve(names.clone()).unwrap(), names);
    }
}
