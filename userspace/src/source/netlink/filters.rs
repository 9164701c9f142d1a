//! Filters of tc's classifiers on an interface. Pure.

use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};

/// A filter that every packet is shown to which no filter before it has decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The smallest number is asked first.
    pub priority: u16,
    /// `bpf`, `matchall`, `u32` and the like.
    pub kind: String,
    /// Name of the program, of kind `bpf`.
    pub program: Option<String>,
}

/// Kind of the queueing discipline that has the filters of this interface, if the message is about that one: `clsact`, or
/// `ingress`, which has none on the way out.
pub fn discipline(message: &TcMessage, ifindex: u32) -> Option<&str> {
    let here = u32::try_from(message.header.index) == Ok(ifindex);
    kind(message).filter(|kind| here && ["clsact", "ingress"].contains(kind))
}

/// A filter; `None` when the message is about the head of a list of them, or of a chain that only another filter leads to.
pub fn filter(message: &TcMessage) -> Option<Filter> {
    // Heads have no handle of their own; in u32, they are tables.
    let handle = u32::from(message.header.handle);
    let kind = kind(message)?;
    if handle == 0 || kind == "u32" && handle & 0xfff == 0 {
        return None;
    }
    let mut filter = Filter {
        // `TC_H_MAKE(priority << 16, protocol)`
        priority: (message.header.info >> 16) as u16,
        kind: kind.to_owned(),
        program: None,
    };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Chain(chain) if *chain != 0 => return None,
            TcAttribute::Options(options) => {
                filter.program = options.iter().find_map(|option| match option {
                    TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(filter)
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}
