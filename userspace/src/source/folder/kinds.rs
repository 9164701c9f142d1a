//! The kinds of objects that are read from manifests.

use super::super::objects::{Converted, convert};
use serde::de::DeserializeOwned;
use weir_crds::GROUP;

/// A kind that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Eip,
    Service,
    EndpointSlice,
    Node,
    Namespace,
    BgpConf,
    BgpPeer,
}

impl Kind {
    /// The kind of an object by its `apiVersion` and `kind`; `None` for the many that are not read.
    pub(super) fn of(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Some(match (group, kind) {
            (GROUP, "Eip") => Self::Eip,
            (GROUP, "BgpConf") => Self::BgpConf,
            (GROUP, "BgpPeer") => Self::BgpPeer,
            ("", "Service") => Self::Service,
            ("", "Node") => Self::Node,
            ("", "Namespace") => Self::Namespace,
            ("discovery.k8s.io", "EndpointSlice") => Self::EndpointSlice,
            _ => return None,
        })
    }

    /// Reads one object: how a value of any type is read is the caller's.
    pub(super) fn read<E>(self, reader: &impl Reader<Error = E>) -> Result<Converted, E> {
        Ok(match self {
            Self::Eip => convert::eip(reader.read()?),
            Self::Service => convert::service(reader.read()?),
            Self::EndpointSlice => convert::endpoint_slice(reader.read()?),
            Self::Node => convert::node(reader.read()?),
            Self::Namespace => convert::namespace(reader.read()?),
            Self::BgpConf => convert::bgp_conf(reader.read()?),
            Self::BgpPeer => convert::bgp_peer(reader.read()?),
        })
    }
}

/// Something that has one object's text or value.
pub(super) trait Reader {
    type Error;

    /// The object as a `T`.
    fn read<T: DeserializeOwned>(&self) -> Result<T, Self::Error>;
}
