//! What kube-proxy would write for Services of three endpoints, cut down to what a packet from outside meets.

use crate::{
    bench::services::{PORT, TARGET_PORT, vip},
    lab::Namespace,
};
use anyhow::{Context, Result, ensure};
use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
};

/// Packets with this mark get the node's address as their source.
const MARK: &str = "0x4000";

/// In the way of kube-proxy's mode `iptables`, with the legacy tool: one rule after the other.
///
/// # Errors
/// When the rules are refused.
pub fn iptables(namespace: &Namespace, services: u32, pods: &[IpAddr]) -> Result<()> {
    let mut rules = "*nat\n:SERVICES - [0:0]\n-A PREROUTING -j SERVICES\n".to_owned();
    let _ = writeln!(
        rules,
        "-A POSTROUTING -m mark ! --mark {MARK}/{MARK} -j RETURN\n-A POSTROUTING -j MASQUERADE"
    );
    for service in 0..services {
        let _ = writeln!(rules, ":SERVICE-{service} - [0:0]");
        let _ = writeln!(
            rules,
            "-A SERVICES -d {}/32 -p udp --dport {PORT} -j SERVICE-{service}",
            vip(service)
        );
        let _ = writeln!(rules, "-A SERVICE-{service} -j MARK --or-mark {MARK}");
        for (number, pod) in pods.iter().enumerate() {
            let _ = writeln!(rules, ":POD-{service}-{number} - [0:0]");
            let chance = match pods.len() - number {
                1 => String::new(),
                left => format!(" -m statistic --mode random --probability {:.9}", 1.0 / left as f64),
            };
            let _ = writeln!(rules, "-A SERVICE-{service}{chance} -j POD-{service}-{number}");
            let _ = writeln!(
                rules,
                "-A POD-{service}-{number} -p udp -j DNAT --to-destination {pod}:{TARGET_PORT}"
            );
        }
    }
    feed(namespace.command("iptables-legacy-restore"), &(rules + "COMMIT\n"))
}

/// In the way of kube-proxy's mode `nftables`: one look into a map of verdicts.
///
/// # Errors
/// When the rules are refused.
pub fn nftables(namespace: &Namespace, services: u32, pods: &[IpAddr]) -> Result<()> {
    let choices: Vec<_> = pods
        .iter()
        .enumerate()
        .map(|(number, pod)| format!("{number} : {pod}"))
        .collect();
    let (choices, count) = (choices.join(", "), pods.len());
    let mut rules = "table ip bench {\n".to_owned();
    let mut verdicts = Vec::new();
    for service in 0..services {
        let _ = writeln!(
            rules,
            "chain service-{service} {{ meta mark set meta mark or {MARK}; meta l4proto udp dnat to numgen random mod {count} map {{ {choices} }} : {TARGET_PORT}\n}}"
        );
        let address: Ipv4Addr = vip(service);
        verdicts.push(format!("{address} . udp . {PORT} : goto service-{service}"));
    }
    let _ = writeln!(
        rules,
        "map services {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {} }}\n }}\n\
         chain incoming {{ type nat hook prerouting priority dstnat; ip daddr . meta l4proto . udp dport vmap @services\n }}\n\
         chain outgoing {{ type nat hook postrouting priority srcnat; meta mark and {MARK} == {MARK} masquerade\n }}\n}}",
        verdicts.join(", ")
    );
    let mut command = namespace.command("nft");
    command.args(["-f", "-"]);
    feed(command, &rules)
}

fn feed(mut command: Command, rules: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    child.stdin.take().context("no input")?.write_all(rules.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
            .chars()
            .take(500)
            .collect::<String>()
    );
    Ok(())
}
