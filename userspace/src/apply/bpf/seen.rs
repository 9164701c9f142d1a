//! An array map beside which an agent stores: of what is looked at there are copies.

use super::mapped::Mapped;
use bytemuck::Pod;
use std::cell::OnceCell;

/// An array map to be read by the packet path's code, which wants references to values. These are to copies, made word by
/// word when they are first asked for, and stay what they are while the map changes.
#[derive(Debug)]
pub struct Seen<T> {
    map: Mapped<T>,
    /// The copies, one behind the other: a packet asks for a few.
    first: Link<T>,
}

type Link<T> = OnceCell<Box<Copied<T>>>;

#[derive(Debug)]
struct Copied<T> {
    index: u32,
    value: T,
    next: Link<T>,
}

impl<T: Pod> Seen<T> {
    /// Nothing of `map` has been asked for yet.
    pub const fn new(map: Mapped<T>) -> Self {
        Self {
            map,
            first: OnceCell::new(),
        }
    }

    /// The value at `index` when it was first asked for; `None` beyond the map's end.
    pub fn get(&self, index: u32) -> Option<&T> {
        let mut link = &self.first;
        while let Some(copied) = link.get() {
            if copied.index == index {
                return Some(&copied.value);
            }
            link = &copied.next;
        }
        let value = self.map.load(index).ok()?;
        let copied = link.get_or_init(|| {
            Box::new(Copied {
                index,
                value,
                next: OnceCell::new(),
            })
        });
        Some(&copied.value)
    }

    /// Lets the copies go: what is asked for next is as the map has it then.
    pub fn forget(&mut self) {
        self.first.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::bpf::mapped::tests::file;
    use std::os::fd::AsFd;

    #[test]
    fn what_was_seen_stays_while_somebody_stores_until_it_is_forgotten() {
        let memory = file::<[u64; 3]>(4);
        let open = || Mapped::<[u64; 3]>::open("TEST", memory.as_fd(), 4).unwrap();
        let (mut agent, mut seen) = (open(), Seen::new(open()));
        agent.store(1, &[1, 2, 3]).unwrap();
        let first = seen.get(1).unwrap();
        agent.store(1, &[4, 5, 6]).unwrap();
        agent.store(3, &[7, 8, 9]).unwrap();
        let other = seen.get(3).unwrap();
        assert_eq!((*first, *other), ([1, 2, 3], [7, 8, 9]));
        assert!(std::ptr::eq(first, seen.get(1).unwrap()));
        assert!(std::ptr::eq(other, seen.get(3).unwrap()));
        assert!(seen.get(4).is_none());
        seen.forget();
        assert_eq!(seen.get(1), Some(&[4, 5, 6]));
    }
}
