//! What one object says wrongly, as CEL rules that the API server runs. Each message names the field and what to do.
//!
//! CEL has to know how long texts and lists can be, so all that a rule reads has a greatest length. Functions on addresses are
//! there from Kubernetes 1.31 on. Where an absent field and an empty text mean the same in OpenELB, both are accepted.

use serde_json::{Value, json};

/// Longest text of an Eip's addresses: two IPv6 addresses and some spaces.
pub(crate) const ADDRESSES_LENGTH: u32 = 100;
/// Longest text of one address.
pub(crate) const ADDRESS_LENGTH: u32 = 50;
/// Longest name of an interface, with `can_reach:` and an address in its place.
pub(crate) const NAME_LENGTH: u32 = 100;
/// Longest number of seconds, as text.
pub(crate) const SECONDS_LENGTH: u32 = 20;
/// Most addresses to listen on.
pub(crate) const ADDRESSES_COUNT: u32 = 100;

/// Of `Eip.spec.address`.
pub(crate) fn addresses() -> Value {
    // Addresses that mix both notations are left to whoever reads the Eip. `||` goes before an error on its other side, so
    // each rule says first where it does not apply.
    let no_range = "self.split('-').size() != 2 || !self.split('-').all(end, isIP(end.trim()))";
    let end = |index| sortable(&format!("self.split('-')[{index}].trim().lowerAscii()"));
    json!([
        {
            "rule": "isIP(self.trim()) || isCIDR(self.trim()) \
                     || (self.split('-').size() == 2 && self.split('-').all(end, isIP(end.trim())))",
            "message": "write one address (10.0.0.5), a prefix (10.0.0.0/24, fd00::/64), or the first and the last address \
                        (10.0.0.10-10.0.0.20)"
        },
        {
            "rule": format!("{no_range} || ip(self.split('-')[0].trim()).family() == ip(self.split('-')[1].trim()).family()"),
            "message": "the first address and the last are of different families: make an Eip for IPv4 and one for IPv6"
        },
        {
            "rule": format!(
                "{no_range} || self.contains(':') && self.contains('.') || {} <= {}",
                end(0),
                end(1)
            ),
            "message": "the last address is before the first: swap them"
        },
    ])
}

/// CEL text for `address` (CEL text, too: an address in small letters, IPv6 without dots) with every part at its full width, so
/// that it sorts as the number does. The API server reckons with the longest text there is wherever it loses sight of one, as
/// in lists within lists and in what is joined: so parts are split anew for each, and put together one by one.
fn sortable(address: &str) -> String {
    // What `::` stands for, by the number of parts that are missing.
    let zeros: Vec<String> = (0..8).map(|missing| format!("'{}:'", ":0".repeat(missing))).collect();
    let ends = "(a.startsWith(':') ? '0' : '') + a + (a.endsWith(':') ? '0' : '')";
    let v6 = format!(
        "[{ends}].map(a, a.replace('::', [{}][9 - a.split(':').size()]))[0]",
        zeros.join(", ")
    );
    let parts = format!("a.contains(':') ? {v6} : a.replace('.', ':')");
    let full = |part: usize| format!("('0000' + parts.split(':')[{part}]).substring(parts.split(':')[{part}].size())");
    let sum = |parts: std::ops::Range<usize>| parts.map(full).collect::<Vec<_>>().join(" + ");
    let all = format!("{} + (a.contains(':') ? {} : '')", sum(0..4), sum(4..8));
    format!("[{address}].map(a, [{parts}].map(parts, {all})[0])[0]")
}

/// Of `Eip.spec`.
pub(crate) fn eip() -> Value {
    let on_an_interface = "has(self.protocol) && self.protocol != 'bgp'";
    json!([
        {
            "rule": format!("!({on_an_interface}) || (has(self.interface) && self.interface.trim() != '')"),
            "message": "spec.interface is needed with protocol layer2 and vip: name the nodes' interface in that network, or \
                        can_reach: and an address in it",
            "reason": "FieldValueRequired",
            "fieldPath": ".interface"
        },
        {
            "rule": format!(
                "!({on_an_interface}) || !has(self.interface) || (self.interface.contains(':') ? self.interface.startsWith('can_reach:') \
                 && isIP(self.interface.substring(10).trim()) : self.interface.trim() != 'lo')"
            ),
            "message": "name an interface that is in a network, as eth0, or write can_reach: and an address, as can_reach:10.0.0.1",
            "fieldPath": ".interface"
        },
        {
            "rule": "self.address == oldSelf.address || (has(self.resizable) && self.resizable)",
            "message": "spec.address cannot be changed: make another Eip, or set spec.resizable to true first",
            "fieldPath": ".address"
        },
    ])
}

/// Of `Eip.spec` in v1alpha1.
pub(crate) fn eip_v1alpha1() -> Value {
    json!([{
        "rule": "self.address == oldSelf.address",
        "message": "spec.address cannot be changed: make another Eip",
        "fieldPath": ".address"
    }])
}

/// Of a text that is one address.
pub(crate) fn address(what: &str) -> Value {
    json!([{
        "rule": "self == '' || isIP(self)",
        "message": format!("write {what} as an IPv4 or IPv6 address")
    }])
}

/// Of a list of addresses to listen on.
pub(crate) fn listen_addresses() -> Value {
    json!([{
        "rule": "self.all(address, isIP(address))",
        "message": "write each address to listen on as an IPv4 or IPv6 address, as 0.0.0.0 or ::"
    }])
}

/// Of a router identifier.
pub(crate) fn router_id() -> Value {
    json!([{
        "rule": "self == '' || (isIP(self) && ip(self).family() == 4)",
        "message": "write a router identifier as an IPv4 address, or leave it out: then each node has its own"
    }])
}

/// Of `BgpPeer.spec.conf`, not of `spec`: one written in the other version, which nobody has converted yet, has none.
pub(crate) fn peer() -> Value {
    let said = |field: &str, empty: &str| format!("(has(self.{field}) && self.{field} != {empty})");
    let interface = said("neighborInterface", "''");
    needed_of_a_peer(
        &format!("{} || {interface}", said("neighborAddress", "''")),
        &format!("{} || {} || {interface}", said("peerAs", "0"), said("peerGroup", "''")),
    )
}

/// Of `BgpPeer.spec.config` in v1alpha1.
pub(crate) fn peer_v1alpha1() -> Value {
    needed_of_a_peer("has(self.neighborAddress)", "has(self.peerAs)")
}

fn needed_of_a_peer(address: &str, system: &str) -> Value {
    json!([
        {
            "rule": address,
            "message": "neighborAddress is needed: the address of the router to peer with",
            "reason": "FieldValueRequired",
            "fieldPath": ".neighborAddress"
        },
        {
            "rule": system,
            "message": "peerAs is needed: the autonomous system of the router to peer with",
            "reason": "FieldValueRequired",
            "fieldPath": ".peerAs"
        },
    ])
}

/// Of a selector by labels.
pub(crate) fn selector() -> Value {
    json!([{
        "rule": "!has(self.matchExpressions) || self.matchExpressions.all(it, it.operator in ['In', 'NotIn'] \
                 ? has(it.values) && it.values.size() > 0 \
                 : it.operator in ['Exists', 'DoesNotExist'] && (!has(it.values) || it.values.size() == 0))",
        "message": "give operators In and NotIn values, and Exists and DoesNotExist none; there are no others"
    }])
}

/// Of a number of seconds that is a text.
pub(crate) fn seconds() -> Value {
    json!([{
        "rule": "self.matches('^[0-9]+$')",
        "message": "write seconds as digits in quotes, as \"30\""
    }])
}

/// Of a hold time (RFC 4271, section 4.2).
pub(crate) fn hold_time() -> Value {
    json!([{
        "rule": "self.matches('^[0-9]+$') && (int(self) == 0 || int(self) >= 3)",
        "message": "write seconds as digits in quotes: \"0\", which is for ever, or at least \"3\""
    }])
}
