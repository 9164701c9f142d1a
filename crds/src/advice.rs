//! What is to be told to whoever writes a BGP object that is taken and does not do what they may think.
//!
//! OpenELB has taken these values and stored them, so none is refused: an object with one could not be changed any more.

use crate::{BgpConfSpec, BgpPeerSpec, GracefulRestart};

/// GoBGP's numbers of the families that addresses of Services are in: IPv4 and IPv6, unicast.
const FAMILIES: [u32; 2] = [65_537, 131_073];
/// Bytes of the key of a TCP MD5 signature that Linux takes.
const PASSWORD_LENGTH: usize = 80;
/// What GoBGP calls its modes of graceful restart.
const MODES: [&str; 3] = ["helper-only", "bilateral", "remote-helper"];
/// Seconds of a session without a message, where nothing is written (RFC 4271, section 10).
const HOLD_TIME: u64 = 90;
/// The greatest number of seconds in the 12 bits of a graceful restart capability (RFC 4724, section 3).
const RESTART_TIME: u32 = 4095;

/// Of one list or map so many entries are talked about, which is enough to see what is meant.
const MOST: usize = 8;

/// Sentences, each with the field first.
#[must_use]
pub fn bgp_conf(spec: &BgpConfSpec) -> Vec<String> {
    let mut said = Vec::new();
    for (rack, _) in spec.as_per_rack.iter().filter(|(_, system)| **system == 0).take(MOST) {
        said.push(format!(
            "spec.asPerRack.{rack}: 0 is no autonomous system, so nodes of that rack have that of spec.as"
        ));
    }
    for (index, family) in spec
        .families
        .iter()
        .enumerate()
        .filter(|(_, it)| !FAMILIES.contains(it))
        .take(MOST)
    {
        said.push(format!(
            "spec.families[{index}]: no address of a Service is in family {family}; write {} for IPv4 unicast, {} for IPv6 unicast",
            FAMILIES[0], FAMILIES[1]
        ));
    }
    graceful_restart(spec.graceful_restart.as_ref(), &mut said);
    said
}

/// Sentences, each with the field first.
#[must_use]
pub fn bgp_peer(spec: &BgpPeerSpec) -> Vec<String> {
    let mut said = Vec::new();
    let conf = spec.conf.clone().unwrap_or_default();
    let numbers = [
        (
            "peerType",
            conf.peer_type,
            1,
            "0 is a neighbour of the same autonomous system, 1 one of another",
        ),
        (
            "sendCommunity",
            conf.send_community,
            3,
            "0 is standard ones, 1 extended ones, 2 both, 3 none",
        ),
        (
            "allowOwnAs",
            conf.allow_own_as,
            255,
            "it is how often our own autonomous system may be in a path",
        ),
    ];
    for (field, value, greatest, meaning) in numbers {
        if let Some(value) = value.filter(|value| *value > greatest) {
            said.push(format!(
                "spec.conf.{field}: {value} means nothing; write a number from 0 to {greatest}: {meaning}"
            ));
        }
    }
    if conf
        .auth_password
        .is_some_and(|password| password.len() > PASSWORD_LENGTH)
    {
        said.push(format!(
            "spec.conf.authPassword: Linux takes no more than {PASSWORD_LENGTH} bytes, so no session comes up; write a shorter one here \
             and at the neighbour"
        ));
    }
    timers(spec, &mut said);
    selector(spec, &mut said);
    graceful_restart(spec.graceful_restart.as_ref(), &mut said);
    said
}

fn graceful_restart(spec: Option<&GracefulRestart>, said: &mut Vec<String>) {
    let Some(spec) = spec else { return };
    let times = [
        ("deferralTime", spec.deferral_time, u32::from(u16::MAX)),
        ("peerRestartTime", spec.peer_restart_time, RESTART_TIME),
    ];
    for (field, value, greatest) in times {
        if let Some(value) = value.filter(|value| *value > greatest) {
            said.push(format!(
                "spec.gracefulRestart.{field}: {value} seconds are more than there is room for; write a number from 0 to {greatest}"
            ));
        }
    }
    if let Some(mode) = spec.mode.as_deref().filter(|mode| !mode.is_empty()) {
        let written = mode.to_ascii_lowercase().replace('_', "-");
        if !MODES.contains(&&*written) {
            said.push(format!(
                "spec.gracefulRestart.mode: `{mode}` means nothing; write one of {}",
                MODES.join(", ")
            ));
        }
    }
}

fn timers(spec: &BgpPeerSpec, said: &mut Vec<String>) {
    let config = spec.timers.as_ref().and_then(|timers| timers.config.clone());
    let config = config.unwrap_or_default();
    let seconds = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
    let hold = seconds(config.hold_time);
    if let Some(hold) = hold.filter(|hold| *hold > u16::MAX.into()) {
        said.push(format!(
            "spec.timers.config.holdTime: {hold} seconds are more than a message has room for; write at most {}",
            u16::MAX
        ));
    }
    if hold.is_some_and(|hold| hold == 1 || hold == 2) {
        said.push(
            "spec.timers.config.holdTime: less than 3 seconds are refused by any neighbour; write 0 or at least 3"
                .to_owned(),
        );
    }
    let hold = hold.unwrap_or(HOLD_TIME);
    if let Some(keepalive) = seconds(config.keepalive_interval)
        && hold > 0
        && keepalive >= hold
    {
        said.push(format!(
            "spec.timers.config.keepaliveInterval: the session is given up after {hold} seconds, before the next message after \
             {keepalive}; write a third of the hold time, or leave it out"
        ));
    }
}

fn selector(spec: &BgpPeerSpec, said: &mut Vec<String>) {
    let selector = spec.node_selector.clone().unwrap_or_default();
    let labels = selector.match_labels.into_iter().flatten();
    let wrong = labels.filter(|(key, value)| !is_label_key(key) || !is_label_value(value));
    said.extend(wrong.take(MOST).map(|(key, value)| {
        format!(
            "spec.nodeSelector.matchLabels: no node can have the label `{key}: {value}`, so none opens a session; see `kubectl get nodes \
             --show-labels`"
        )
    }));
    let expressions = selector.match_expressions.into_iter().flatten().enumerate();
    let wrong = expressions.filter(|(_, expression)| !is_label_key(&expression.key));
    said.extend(wrong.take(MOST).map(|(index, expression)| {
        format!(
            "spec.nodeSelector.matchExpressions[{index}].key: no node can have a label `{}`; see `kubectl get nodes --show-labels`",
            expression.key
        )
    }));
}

/// As Kubernetes takes them: a name, or a domain, a slash and a name.
fn is_label_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-')
    };
    let is_domain = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(is_part);
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_domain)
}

/// As Kubernetes takes them; also empty.
fn is_label_value(text: &str) -> bool {
    let is_inside = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
    let ends = [text.chars().next(), text.chars().next_back()];
    let are_ends = ends.into_iter().flatten().all(|it| it.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(is_inside) && are_ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Vec<String> {
        bgp_conf(&serde_saphyr::from_str(text).unwrap())
    }

    fn peer(text: &str) -> Vec<String> {
        bgp_peer(&serde_saphyr::from_str(text).unwrap())
    }

    /// A21.
    #[test]
    fn what_means_something_is_not_talked_about() {
        assert_eq!(conf("{}"), [""; 0]);
        assert_eq!(
            conf(
                "{as: 1, asPerRack: {left: 2}, families: [65537, 131073], gracefulRestart: {deferralTime: 360, mode: HELPER_ONLY}}"
            ),
            [""; 0]
        );
        assert_eq!(peer("{}"), [""; 0]);
        assert_eq!(
            peer(
                "{conf: {peerType: 1, sendCommunity: 3, allowOwnAs: 255, authPassword: secret}, gracefulRestart: {peerRestartTime: 4095}, \
                 timers: {config: {holdTime: '0', keepaliveInterval: '30'}}, \
                 nodeSelector: {matchLabels: {openelb.kubesphere.io/rack: left, plain: ''}}}"
            ),
            [""; 0]
        );
    }

    /// A21.
    #[test]
    fn each_value_that_means_nothing_is_told_with_its_field() {
        let fields = |said: Vec<String>| -> Vec<String> {
            let all = said.iter().filter_map(|text| text.split_once(": "));
            all.map(|(field, _)| field.to_owned()).collect()
        };
        assert_eq!(
            fields(conf(
                "{asPerRack: {left: 0}, families: [65537, 1], gracefulRestart: {deferralTime: 65536, mode: often}}"
            )),
            [
                "spec.asPerRack.left",
                "spec.families[1]",
                "spec.gracefulRestart.deferralTime",
                "spec.gracefulRestart.mode"
            ]
        );
        let long = "p".repeat(81);
        assert_eq!(
            fields(peer(&format!(
                "{{conf: {{peerType: 2, sendCommunity: 4, allowOwnAs: 256, authPassword: {long}}}}}"
            ))),
            [
                "spec.conf.peerType",
                "spec.conf.sendCommunity",
                "spec.conf.allowOwnAs",
                "spec.conf.authPassword"
            ]
        );
        assert_eq!(
            fields(peer(
                "{timers: {config: {holdTime: '65536', keepaliveInterval: '70000'}}, gracefulRestart: {peerRestartTime: 4096}}"
            )),
            [
                "spec.timers.config.holdTime",
                "spec.timers.config.keepaliveInterval",
                "spec.gracefulRestart.peerRestartTime"
            ]
        );
        for hold in ["1", "2"] {
            let text = format!("{{timers: {{config: {{holdTime: '{hold}'}}}}}}");
            assert_eq!(fields(peer(&text)), ["spec.timers.config.holdTime"]);
        }
        assert_eq!(
            fields(peer("{timers: {config: {keepaliveInterval: '90'}}}")),
            ["spec.timers.config.keepaliveInterval"]
        );
        assert_eq!(conf(&format!("{{families: [{}]}}", "0, ".repeat(1000))).len(), MOST);
        for labels in [
            "-rack: left",
            "rack/: left",
            "Example.com/rack: left",
            "rack: left of it",
            "a/b/c: d",
        ] {
            assert_eq!(
                fields(peer(&format!("{{nodeSelector: {{matchLabels: {{{labels}}}}}}}"))),
                ["spec.nodeSelector.matchLabels"],
                "{labels}"
            );
        }
        assert_eq!(
            fields(peer(
                "{nodeSelector: {matchExpressions: [{key: 'my rack', operator: Exists}]}}"
            )),
            ["spec.nodeSelector.matchExpressions[0].key"]
        );
    }
}
