//! The status as tables for people. Pure.

use super::{CountedBackend, CountedFrontend, Status};
use crate::report::{InterfaceReport, VipReport, seconds_since_1970};
use comfy_table::{Table, presets::NOTHING};
use std::{fmt::Write, net::SocketAddr};
use weir_core::plan::Policy;

/// All of it.
pub fn render(status: &Status) -> String {
    let mut text = head(status);
    section(
        &mut text,
        "INTERFACES",
        &["interface", "xdp", "ifindex", "on"],
        status.report.interfaces.iter().map(interface),
    );
    let vips = status.report.vips.iter().map(vip);
    section(
        &mut text,
        "VIPS",
        &["address", "owner", "mode", "interface", "eip", "services"],
        vips,
    );
    let frontends = status.counted.iter().map(frontend);
    section(
        &mut text,
        "FRONTENDS",
        &[
            "frontend", "service", "backends", "packets", "bytes", "syns", "policies",
        ],
        frontends,
    );
    let backends = status
        .counted
        .iter()
        .flat_map(|frontend| frontend.counted.iter().map(|own| backend(frontend, own)));
    section(
        &mut text,
        "BACKENDS",
        &["frontend", "backend", "node", "state", "packets", "bytes", "flows"],
        backends,
    );
    let nodes = status.report.nodes.iter().map(|node| {
        vec![
            node.name.clone(),
            node.address.to_string(),
            if node.reachable { "yes" } else { "no" }.to_owned(),
        ]
    });
    section(
        &mut text,
        "OTHER NODES",
        &["node", "tunnel address", "reachable"],
        nodes,
    );
    let reasons = status.reasons.iter().filter(|reason| reason.packets > 0).map(|reason| {
        vec![
            reason.name.to_owned(),
            reason.packets.to_string(),
            bytes(reason.bytes),
            reason.description.to_owned(),
        ]
    });
    section(
        &mut text,
        "PACKETS BY REASON",
        &["reason", "packets", "bytes", ""],
        reasons,
    );
    let conditions = status.report.conditions.iter().map(|condition| {
        vec![
            condition.object.to_string(),
            condition.field.clone(),
            condition.reason.clone(),
            condition.message.clone(),
        ]
    });
    section(
        &mut text,
        "CONDITIONS",
        &["object", "field", "reason", "message"],
        conditions,
    );
    text
}

fn head(status: &Status) -> String {
    let report = &status.report;
    let agent = agent(status, seconds_since_1970());
    let tunnel = report.tunnel_address.map_or_else(
        || "none, this node is not in the manifests".to_owned(),
        |address| SocketAddr::new(address, report.tunnel_port).to_string(),
    );
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "node    {}\nagent   {agent}", report.node);
    let _ = writeln!(
        text,
        "tunnel  {tunnel}\npins    {} (layout {})",
        report.pin_dir.display(),
        report.layout_version
    );
    if let Some(reason) = &status.counters_missing {
        let _ = writeln!(text, "no counters: {reason}");
    }
    text
}

/// Whether the agent runs, and of when what is shown is. `now` is in seconds since 1970.
fn agent(status: &Status, now: u64) -> String {
    let report = &status.report;
    let since = |time: u64| age(now.saturating_sub(time));
    let made = report
        .waiting
        .as_ref()
        .map_or(Some(report.updated), |waiting| waiting.as_of);
    if !status.agent_alive {
        return match made {
            Some(made) => format!("not running; the data path is as it was left {} ago", since(made)),
            None => "not running; the last one has made nothing true".to_owned(),
        };
    }
    let running = format!("running for {} (pid {})", since(report.started), report.pid);
    let Some(waiting) = &report.waiting else { return running };
    let shown = made.map_or_else(
        || "nothing is served".to_owned(),
        |made| format!("the data path is as the agent before it left it {} ago", since(made)),
    );
    format!("{running}, waiting: {}; {shown}", waiting.awaited)
}

fn section(text: &mut String, title: &str, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_header(header.iter().map(|cell| cell.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    if table.row_count() > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{title}\n{}", table.trim_fmt());
    }
}

fn interface(interface: &InterfaceReport) -> Vec<String> {
    let on = match (&interface.device, interface.vlan) {
        (None, _) => "missing".to_owned(),
        (Some(device), 0) => device.clone(),
        (Some(device), vlan) => format!("{device} vlan {vlan}"),
    };
    vec![
        interface.name.clone(),
        interface.xdp_mode.map_or("off", |mode| mode.name()).to_owned(),
        interface
            .ifindex
            .map_or_else(|| "-".to_owned(), |ifindex| ifindex.to_string()),
        on,
    ]
}

fn vip(vip: &VipReport) -> Vec<String> {
    let owner = match (&vip.owner, vip.owned) {
        (Some(owner), true) => format!("{owner} (this node)"),
        (Some(owner), false) => owner.clone(),
        (None, _) => "-".to_owned(),
    };
    let services: Vec<String> = vip.services.iter().map(ToString::to_string).collect();
    vec![
        vip.address.to_string(),
        owner,
        format!("{:?}", vip.mode).to_lowercase(),
        vip.interface.clone().unwrap_or_else(|| "-".to_owned()),
        vip.eip.clone(),
        services.join(" "),
    ]
}

fn name(frontend: &CountedFrontend) -> String {
    let own = &frontend.frontend;
    format!("{}/{}", SocketAddr::new(own.address, own.port), own.protocol)
}

fn frontend(frontend: &CountedFrontend) -> Vec<String> {
    vec![
        name(frontend),
        frontend.frontend.service.to_string(),
        frontend.counted.len().to_string(),
        frontend.packets.to_string(),
        bytes(frontend.bytes),
        frontend.syns.to_string(),
        policies(&frontend.frontend.policy),
    ]
}

/// A frontend's policies in a few words, nothing if it has none.
fn policies(policy: &Policy) -> String {
    let mut words = Vec::new();
    words.extend(policy.affinity_seconds.map(|seconds| format!("affinity {seconds} s")));
    match &policy.sources.allowed {
        Some(allowed) if allowed.is_empty() => words.push("nobody allowed".to_owned()),
        Some(allowed) => words.push(format!("{} allowed", ranges(allowed.len()))),
        None => {}
    }
    let denied = policy.sources.denied.len();
    words.extend((denied > 0).then(|| format!("{} denied", ranges(denied))));
    let limits = &policy.limits;
    let rates = [
        (limits.flows, "flows/s"),
        (limits.packets, "packets/s"),
        (limits.source_flows, "flows/s per source"),
        (limits.source_packets, "packets/s per source"),
    ];
    words.extend(
        rates
            .iter()
            .filter_map(|(rate, unit)| Some(format!("{} {unit}", (*rate)?))),
    );
    words.join(", ")
}

fn ranges(count: usize) -> String {
    format!("{count} range{}", if count == 1 { "" } else { "s" })
}

fn backend(frontend: &CountedFrontend, counted: &CountedBackend) -> Vec<String> {
    let own = &counted.backend;
    let node = if own.local {
        format!("{} (this node)", own.node)
    } else {
        own.node.to_string()
    };
    vec![
        name(frontend),
        SocketAddr::new(own.address, own.port).to_string(),
        node,
        own.state.name().to_owned(),
        counted.packets.to_string(),
        bytes(counted.bytes),
        if own.local {
            counted.flows.to_string()
        } else {
            "-".to_owned()
        },
    ]
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" {
        format!("{count} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::plan::{Limits, Sources};

    #[test]
    fn policies_take_few_words() {
        assert_eq!(policies(&Policy::default()), "");
        let limits = Limits {
            flows: Some(100),
            source_packets: Some(7),
            ..Limits::default()
        };
        let allowed = |text: &[&str]| Some(text.iter().map(|text| text.parse().unwrap()).collect());
        let policy = Policy {
            affinity_seconds: Some(60),
            sources: Sources {
                allowed: allowed(&["10.0.0.0/8", "192.0.2.0/24"]),
                denied: ["10.7.0.0/16".parse().unwrap()].into(),
            },
            limits,
        };
        let expected = "affinity 60 s, 2 ranges allowed, 1 range denied, 100 flows/s, 7 packets/s per source";
        assert_eq!(policies(&policy), expected);
        let nobody = Policy {
            sources: Sources::nobody(),
            ..Policy::default()
        };
        assert_eq!(policies(&nobody), "nobody allowed");
    }

    #[test]
    fn sizes_and_ages_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 40), "3.0 TiB");
        assert_eq!(
            (age(5), age(600), age(7200), age(864_000)),
            ("5 s".into(), "10 min".into(), "2 h".into(), "10 d".into())
        );
    }
}
