//! Messages are built here from bytes, by hand, and cut and changed in every place.

use super::*;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ESTABLISHED: u8 = 3;
const NESTED: u16 = 0x8000;
const BYTE_ORDER: u16 = 0x4000;
const MULTIPART: u16 = 2;
const NEW: u16 = 0x0100;
const DONE: u16 = 3;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().div_ceil(4) * 4, 0);
    bytes
}

fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &parts.concat())
}

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([1, 0, 0, 0, 0x39, 0x30, 0, 0]);
    bytes.extend(payload);
    bytes
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn direction(kind: u16, protocol: u8, source: &str, destination: &str) -> Vec<u8> {
    let (source, destination) = (socket(source), socket(destination));
    let address = |v4: u16, v6: u16, address: IpAddr| match address {
        IpAddr::V4(address) => attribute(v4, &address.octets()),
        IpAddr::V6(address) => attribute(v6, &address.octets()),
    };
    let port = |kind: u16, port: u16| attribute(kind | BYTE_ORDER, &port.to_be_bytes());
    nested(
        kind,
        &[
            nested(1, &[address(1, 3, source.ip()), address(2, 4, destination.ip())]),
            nested(
                2,
                &[
                    attribute(1, &[protocol]),
                    port(2, source.port()),
                    port(3, destination.port()),
                ],
            ),
        ],
    )
}

/// A connection from `client` to `destination`, whose replies come from `server` and go to `back`; with a state over TCP.
fn connection(protocol: u8, state: u8, [client, destination, server, back]: [&str; 4]) -> Vec<u8> {
    let state = nested(4, &[nested(1, &[attribute(1, &[state]), attribute(2, &[7])])]);
    let family = if socket(client).is_ipv4() { 2 } else { 10 };
    let payload = [
        vec![family, 0, 0, 0],
        direction(1, protocol, client, destination),
        direction(2, protocol, server, back),
        attribute(3, &[0, 0, 1, 0xae]),
        attribute(7, &[0, 0, 0, 60]),
        if protocol == TCP { state } else { Vec::new() },
        attribute(18, &[0, 9]),
    ];
    message(NEW, MULTIPART, &payload.concat())
}

const TRANSLATED: [&str; 4] = ["192.0.2.7:40000", "203.0.113.1:80", "10.0.0.5:8080", "192.0.2.7:40000"];
const TRANSLATED_V6: [&str; 4] = [
    "[2001:db8::7]:1",
    "[2001:db8:1::1]:53",
    "[fd00::5]:5353",
    "[fd00::1]:999",
];

fn flow_of(protocol: Protocol, ends: [&str; 4]) -> TranslatedFlow {
    TranslatedFlow {
        client: socket(ends[0]),
        destination: socket(ends[1]),
        protocol,
    }
}

/// What is taken from `messages`, of which there have to be more.
fn taken(messages: &[Vec<u8>]) -> HashSet<TranslatedFlow> {
    let mut flows = HashSet::new();
    assert_eq!(read(&messages.concat(), &mut flows).unwrap(), Progress::More);
    flows
}

#[test]
fn the_request_is_a_dump_of_both_families_by_status() {
    let mut bytes = 28_u32.to_ne_bytes().to_vec();
    bytes.extend(0x0101_u16.to_ne_bytes());
    bytes.extend(0x0301_u16.to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(attribute(3, &[0, 0, 0, 0x20]));
    assert_eq!(request(), bytes);
}

#[test]
fn flows_to_another_address_or_port_count_once_each() {
    let port_only = ["192.0.2.7:2", "203.0.113.1:80", "203.0.113.1:8080", "192.0.2.7:2"];
    let messages = [
        connection(TCP, ESTABLISHED, TRANSLATED),
        connection(UDP, 0, TRANSLATED),
        connection(TCP, ESTABLISHED, TRANSLATED),
        connection(UDP, 0, TRANSLATED_V6),
        connection(TCP, ESTABLISHED, port_only),
    ];
    let expected = [
        flow_of(Protocol::Tcp, TRANSLATED),
        flow_of(Protocol::Udp, TRANSLATED),
        flow_of(Protocol::Udp, TRANSLATED_V6),
        flow_of(Protocol::Tcp, port_only),
    ];
    assert_eq!(taken(&messages), HashSet::from(expected));
}

#[test]
fn flows_that_keep_their_destination_do_not_count() {
    let plain = ["192.0.2.7:2", "203.0.113.1:80", "203.0.113.1:80", "192.0.2.7:2"];
    let other_source = ["192.0.2.7:2", "203.0.113.1:80", "203.0.113.1:80", "10.0.0.1:3"];
    let messages = [plain, other_source].map(|ends| connection(TCP, ESTABLISHED, ends));
    assert_eq!(taken(&messages), HashSet::new());
}

#[test]
fn tcp_counts_until_it_is_over() {
    for state in 0..=9 {
        let flows = taken(&[connection(TCP, state, TRANSLATED)]);
        // 7 is TIME_WAIT, 8 is CLOSE.
        assert_eq!(flows.len(), usize::from(state != 7 && state != 8), "state {state}");
    }
}

#[test]
fn other_protocols_do_not_count() {
    for protocol in (0..=255).filter(|&protocol| protocol != TCP && protocol != UDP) {
        let flows = taken(&[connection(protocol, 0, TRANSLATED)]);
        assert_eq!(flows, HashSet::new(), "protocol {protocol}");
    }
    let echo = nested(2, &[attribute(1, &[1]), attribute(4, &[0, 1])]);
    let payload = [
        vec![2, 0, 0, 0],
        nested(1, std::slice::from_ref(&echo)),
        nested(2, &[echo]),
    ];
    assert_eq!(taken(&[message(NEW, MULTIPART, &payload.concat())]), HashSet::new());
}

#[test]
fn messages_of_other_kinds_are_passed_over() {
    let messages = [
        message(1, 0, &[]),
        message(2, 0, &[0; 20]),
        message(0x0a00, MULTIPART, &[1, 2, 3, 4, 5]),
        vec![0; 3],
        connection(TCP, ESTABLISHED, TRANSLATED),
    ];
    assert_eq!(taken(&messages), HashSet::from([flow_of(Protocol::Tcp, TRANSLATED)]));
    assert_eq!(taken(&[]), HashSet::new());
}

#[test]
fn the_end_of_a_dump_says_whether_it_is_complete() {
    let read = |bytes: &[u8]| read(bytes, &mut HashSet::new()).unwrap();
    let mut dump = connection(UDP, 0, TRANSLATED);
    dump.extend(message(DONE, MULTIPART, &0_i32.to_ne_bytes()));
    assert_eq!(read(&dump), Progress::Complete);
    let refused = message(2, 0, &[&(-1_i32).to_ne_bytes()[..], &[0; 16]].concat());
    assert_eq!(read(&refused), Progress::Refused(Errno::EPERM));
    let failed = message(DONE, MULTIPART, &(-12_i32).to_ne_bytes());
    assert_eq!(read(&failed), Progress::Refused(Errno::ENOMEM));
    let interrupted = message(DONE, MULTIPART | 0x10, &0_i32.to_ne_bytes());
    assert_eq!(read(&interrupted), Progress::Incomplete);
    assert_eq!(read(&message(4, 0, &[])), Progress::Incomplete);
}

#[test]
fn a_cut_message_is_an_error() {
    for whole in [
        connection(TCP, ESTABLISHED, TRANSLATED),
        message(DONE, MULTIPART, &0_i32.to_ne_bytes()),
    ] {
        for length in 1..whole.len() {
            let mut flows = HashSet::new();
            assert!(read(&whole[..length], &mut flows).is_err(), "{length} bytes");
            assert_eq!(flows, HashSet::new());
        }
    }
}

/// The same with the message's length cut, too: attributes end early.
#[test]
fn a_short_message_is_an_error_or_has_nothing_that_counts() {
    let whole = connection(TCP, ESTABLISHED, TRANSLATED);
    // Header, general header, and a tuple of each direction.
    let tuples = 16 + 4 + 2 * direction(1, TCP, TRANSLATED[0], TRANSLATED[1]).len();
    for length in 16..tuples {
        let mut short = whole[..length].to_vec();
        short[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        let mut flows = HashSet::new();
        let _ = read(&short, &mut flows);
        assert_eq!(flows, HashSet::new(), "{length} bytes");
    }
}

#[test]
fn no_changed_byte_does_harm() {
    let whole = [
        connection(TCP, ESTABLISHED, TRANSLATED),
        connection(UDP, 0, TRANSLATED_V6),
        message(DONE, MULTIPART, &0_i32.to_ne_bytes()),
    ]
    .concat();
    for place in 0..whole.len() {
        let byte = whole[place];
        // Each bit, none and all.
        for value in (0..8).map(|bit| byte ^ 1 << bit).chain([0, 255]) {
            let mut changed = whole.clone();
            changed[place] = value;
            let mut flows = HashSet::new();
            let _ = read(&changed, &mut flows);
            assert!(flows.len() <= 2, "byte {place} as {value}");
        }
    }
}
