//! BgpConfs and BgpPeers as the API server takes, refuses and keeps them.

use crate::objects::{check, control_plane};
use anyhow::Result;

const FINE: &[&str] = &[];

#[test]
fn a03_autonomous_systems_of_four_bytes_are_taken() -> Result<()> {
    let kubectl = control_plane()?.kubectl();
    let limit: &[&str] = &["less than or equal to 4294967295"];
    check(
        kubectl,
        "v1alpha2",
        "BgpConf",
        &[
            ("{as: 4200000001, asPerRack: {left: 4200000002}}", FINE),
            ("{as: 4294967295}", FINE),
            ("{as: 4294967296}", &["spec.as", limit[0]]),
            ("{as: 0}", &["spec.as", "greater than or equal to 1"]),
            ("{as: -1}", &["spec.as", "greater than or equal to 1"]),
            ("{as: '65000'}", &["spec.as", "integer"]),
            ("{asPerRack: {left: 4294967296}}", &["spec.asPerRack.left", limit[0]]),
        ],
    )?;
    check(
        kubectl,
        "v1alpha2",
        "BgpPeer",
        &[
            (
                "{conf: {peerAs: 4200000001, localAs: 4200000002, neighborAddress: 10.0.0.1}}",
                FINE,
            ),
            (
                "{conf: {peerAs: 4294967296, neighborAddress: 10.0.0.1}}",
                &["spec.conf.peerAs", limit[0]],
            ),
            (
                "{conf: {peerAs: 1, localAs: 4294967296, neighborAddress: 10.0.0.1}}",
                &["spec.conf.localAs", limit[0]],
            ),
        ],
    )?;
    check(
        kubectl,
        "v1alpha1",
        "BgpConf",
        &[("{as: 4200000001, port: 179, routerID: 10.0.0.1}", FINE)],
    )
}

#[test]
fn a18_a_router_is_described_or_refused() -> Result<()> {
    let identifier: &[&str] = &["spec.routerId", "as an IPv4 address"];
    let port: &[&str] = &["spec.listenPort"];
    check(
        control_plane()?.kubectl(),
        "v1alpha2",
        "BgpConf",
        &[
            ("{}", FINE),
            (
                "{as: 65000, routerId: 10.0.0.1, listenPort: 17900, listenAddresses: [0.0.0.0, '::']}",
                FINE,
            ),
            ("{as: 65000, routerId: ''}", FINE),
            ("{as: 65000, listenPort: -1}", FINE),
            ("{as: 65000, routerId: router}", identifier),
            ("{as: 65000, routerId: 'fd00::1'}", identifier),
            ("{as: 65000, listenPort: 65536}", port),
            ("{as: 65000, listenPort: -2}", port),
            (
                "{as: 65000, listenAddresses: [everywhere]}",
                &["spec.listenAddresses", "as 0.0.0.0 or ::"],
            ),
            ("{as: 65000, families: [-1]}", &["spec.families[0]"]),
            (
                "{as: 65000, gracefulRestart: {restartTime: -1}}",
                &["spec.gracefulRestart.restartTime"],
            ),
            (
                "{as: 65000, useMultiplePaths: sometimes}",
                &["spec.useMultiplePaths", "boolean"],
            ),
        ],
    )
}

#[test]
fn a20_a21_a22_a_neighbour_is_described_or_refused() -> Result<()> {
    let seconds: &[&str] = &["digits in quotes"];
    check(
        control_plane()?.kubectl(),
        "v1alpha2",
        "BgpPeer",
        &[
            ("{conf: {peerAs: 65001, neighborAddress: 10.0.0.1}}", FINE),
            ("{conf: {peerAs: 65001, neighborAddress: 'fd00::1'}}", FINE),
            ("{conf: {peerAs: 65001, neighborInterface: eth0}}", FINE),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1, removePrivateAs: ALL, authPassword: secret}, timers: {config: {holdTime: '9', \
              keepaliveInterval: '3', connectRetry: '10'}}, transport: {passiveMode: true, remotePort: 17900}, ebgpMultihop: {enabled: true, \
              multihopTtl: 255}, afiSafis: [{config: {family: {afi: AFI_IP6, safi: SAFI_UNICAST}, enabled: true}, addPaths: {config: \
              {sendMax: 10}}}], nodeSelector: {matchLabels: {rack: left}, matchExpressions: [{key: a, operator: Exists}]}}",
                FINE,
            ),
            (
                "{conf: {peerAs: 65001}}",
                &["spec.conf.neighborAddress", "the address of the router to peer with"],
            ),
            (
                "{conf: {neighborAddress: 10.0.0.1}}",
                &["spec.conf.peerAs", "the autonomous system of the router"],
            ),
            (
                "{conf: {peerAs: 65001, neighborAddress: router}}",
                &["spec.conf.neighborAddress", "as an IPv4 or IPv6 address"],
            ),
            (
                "{conf: {peerAs: 65001, neighborAddress: 10.0.0.0/24}}",
                &["spec.conf.neighborAddress"],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1, removePrivateAs: SOME}}",
                &["spec.conf.removePrivateAs", "\"REPLACE\""],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, timers: {config: {holdTime: 90}}}",
                &["spec.timers.config.holdTime", "string"],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, timers: {config: {holdTime: 90s}}}",
                &["spec.timers.config.holdTime", seconds[0]],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, timers: {config: {holdTime: '2'}}}",
                &["spec.timers.config.holdTime", "at least \"3\""],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, timers: {config: {connectRetry: soon}}}",
                &["spec.timers.config.connectRetry", seconds[0]],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, timers: {config: {keepaliveInterval: '-1'}}}",
                &["spec.timers.config.keepaliveInterval"],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, timers: {config: {minimumAdvertisementInterval: ''}}}",
                &["spec.timers.config.minimumAdvertisementInterval"],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, transport: {remotePort: 65536}}",
                &["spec.transport.remotePort"],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, transport: {remoteAddress: there}}",
                &["spec.transport.remoteAddress", "as an IPv4 or IPv6 address"],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, transport: {tcpMss: 70000}}",
                &["spec.transport.tcpMss"],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, ebgpMultihop: {multihopTtl: 256}}",
                &["spec.ebgpMultihop.multihopTtl"],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, afiSafis: [{config: {family: {afi: IPv4}}}]}",
                &["spec.afiSafis[0].config.family.afi", "\"AFI_IP6\""],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, afiSafis: [{config: {family: {safi: SAFI_MULTICAST}}}]}",
                &["spec.afiSafis[0].config.family.safi"],
            ),
            (
                "{conf: {peerAs: 1, neighborAddress: 10.0.0.1}, afiSafis: [{addPaths: {config: {sendMax: 256}}}]}",
                &["spec.afiSafis[0].addPaths.config.sendMax"],
            ),
        ],
    )
}

#[test]
fn a04_the_older_version_has_its_own_fields() -> Result<()> {
    let kubectl = control_plane()?.kubectl();
    check(
        kubectl,
        "v1alpha1",
        "BgpConf",
        &[
            ("{as: 65000, port: 17900, routerID: 10.0.0.1}", FINE),
            ("{as: 65000, port: 0, routerID: 10.0.0.1}", &["spec.port"]),
            (
                "{as: 65000, port: 179, routerID: router}",
                &["spec.routerID", "as an IPv4 address"],
            ),
        ],
    )?;
    check(
        kubectl,
        "v1alpha1",
        "BgpPeer",
        &[
            (
                "{config: {peerAs: 65001, neighborAddress: 10.0.0.1}, addPaths: {sendMax: 10}, usingPortForward: true}",
                FINE,
            ),
            (
                "{config: {peerAs: 65001}}",
                &["spec.config.neighborAddress", "Required value"],
            ),
            (
                "{config: {neighborAddress: 10.0.0.1}}",
                &["spec.config.peerAs", "the autonomous system of the router"],
            ),
            (
                "{config: {peerAs: 65001, neighborAddress: router}}",
                &["spec.config.neighborAddress"],
            ),
            (
                "{config: {peerAs: 65001, neighborAddress: 10.0.0.1}, transport: {remotePort: 0}}",
                &["spec.transport.remotePort"],
            ),
        ],
    )
}
