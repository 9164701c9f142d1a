//! Ethernet and its VLAN tags.

/// A MAC address.
pub type Mac = [u8; 6];

/// One VLAN tag: (`EtherType` of the tag, tag control information).
pub type Tag = (u16, u16);

/// An Ethernet header with any number of tags.
#[derive(Clone, Debug)]
pub struct Link {
    /// Destination MAC.
    pub destination: Mac,
    /// Source MAC.
    pub source: Mac,
    /// Tags, outermost first.
    pub tags: Vec<Tag>,
}

impl Link {
    /// Untagged, from `source` to `destination`.
    #[must_use]
    pub fn between(source: Mac, destination: Mac) -> Self {
        Self {
            destination,
            source,
            tags: Vec::new(),
        }
    }

    /// The same header with these tags.
    #[must_use]
    pub fn tagged(&self, tags: &[Tag]) -> Self {
        Self {
            tags: tags.to_vec(),
            ..self.clone()
        }
    }

    /// The way back: source and destination exchanged, tags kept.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            destination: self.source,
            source: self.destination,
            tags: self.tags.clone(),
        }
    }

    /// A frame around an IP packet; the `EtherType` follows from its version.
    #[must_use]
    pub fn carry(&self, packet: &[u8]) -> Vec<u8> {
        let ether_type = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        self.carry_as(ether_type, packet)
    }

    /// A frame around anything.
    #[must_use]
    pub fn carry_as(&self, ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(64);
        frame.extend(self.destination);
        frame.extend(self.source);
        for (tag, control) in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend(ether_type.to_be_bytes());
        frame.extend(payload);
        frame
    }
}
