//! Keys of a plan and their text forms, which make a plan plain JSON and YAML: `10.1.0.2:80/TCP` for a frontend,
//! `10.244.1.7:8080/TCP on node-b` for a backend, with ` (local)` behind it on its own node.

use crate::model::{KeyError, Protocol};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

/// VIP, port and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FrontendKey {
    /// The VIP.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// TCP or UDP (SCTP is stood aside from and never planned).
    pub protocol: Protocol,
}

/// One endpoint of a Service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BackendKey {
    /// Pod address.
    pub address: IpAddr,
    /// Pod port.
    pub port: u16,
    /// Protocol of the frontend.
    pub protocol: Protocol,
    /// Node the pod runs on.
    pub node: Arc<str>,
    /// Whether that is this node.
    pub local: bool,
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.address, self.port), self.protocol)
    }
}

impl FromStr for FrontendKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (address, port, protocol) = socket(text).ok_or(KeyError {
            text: text.into(),
            expected: "`address:port/PROTOCOL`",
        })?;
        Ok(Self {
            address,
            port,
            protocol,
        })
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} on {}",
            SocketAddr::new(self.address, self.port),
            self.protocol,
            self.node
        )?;
        if self.local { f.write_str(LOCAL) } else { Ok(()) }
    }
}

/// Behind the text form of a backend on this node.
const LOCAL: &str = " (local)";

impl FromStr for BackendKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let expected = || KeyError {
            text: text.into(),
            expected: "`address:port/PROTOCOL on node`",
        };
        let (endpoint, node) = text.split_once(" on ").ok_or_else(expected)?;
        let (address, port, protocol) = socket(endpoint).ok_or_else(expected)?;
        let (node, local) = node.strip_suffix(LOCAL).map_or((node, false), |node| (node, true));
        Ok(Self {
            address,
            port,
            protocol,
            node: node.into(),
            local,
        })
    }
}

/// Reads `address:port/PROTOCOL`.
fn socket(text: &str) -> Option<(IpAddr, u16, Protocol)> {
    let (socket, protocol) = text.rsplit_once('/')?;
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => return None,
    };
    let socket: SocketAddr = socket.parse().ok()?;
    Some((socket.ip(), socket.port(), protocol))
}

impl From<FrontendKey> for String {
    fn from(key: FrontendKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for FrontendKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<BackendKey> for String {
    fn from(key: BackendKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for BackendKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for text in ["10.1.0.2:80/TCP", "[fd00::2]:53/UDP"] {
            assert_eq!(text.parse::<FrontendKey>().unwrap().to_string(), text);
        }
        for text in ["10.244.1.7:8080/TCP on node-b", "[fd00::7]:53/UDP on node-a (local)"] {
            assert_eq!(text.parse::<BackendKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "10.1.0.2:80", "10.1.0.2/TCP", "10.1.0.2:80/SCTP", "fd00::2:80/TCP"] {
            assert!(text.parse::<FrontendKey>().is_err(), "{text}");
        }
        assert!("10.1.0.2:80/TCP".parse::<BackendKey>().is_err());
    }
}
