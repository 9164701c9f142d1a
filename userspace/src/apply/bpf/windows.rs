//! An array map of which only what is looked at is memory of this process.
//!
//! The kernel puts all pages of an array into a mapping at once, and they count as this process's memory, though they are the
//! map's and there anyway. The arrays have nearly 200 MiB; a change stores a few words. So it maps a window for these, and lets
//! go when the changes are done.

use super::{error::Error, mapped::Mapped};
use bytemuck::Pod;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes that a window is a multiple of: as every page size of Linux divides it, a window begins with a page. What a page
/// costs to map, some 0.1 µs, is then no more than the calls.
const WINDOW: usize = 1 << 16;
/// Bytes of windows that are mapped at once at most, for one array.
const MOST: usize = 8 << 20;
/// Windows that are mapped together where everything is read.
const TOGETHER: u32 = 16;

/// An array map with `BPF_F_MMAPABLE`; `T` is its value type.
#[derive(Debug)]
pub struct Windows<T> {
    name: &'static str,
    map: OwnedFd,
    entries: u32,
    windows: Vec<Option<Mapped<T>>>,
    /// Those that are mapped.
    open: Vec<usize>,
}

impl<T: Pod> Windows<T> {
    const STRIDE: usize = Mapped::<T>::STRIDE * 8;
    /// Values of a window, as few as make a multiple of [`WINDOW`], so that none is in two.
    const VALUES: u32 = (WINDOW >> Self::STRIDE.trailing_zeros()) as u32;
    /// Windows that may be mapped at once.
    const ROOM: usize = MOST / (Self::VALUES as usize * Self::STRIDE);

    /// The map behind `fd`, which must be an array of `entries` values `T` with `BPF_F_MMAPABLE`. Maps nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::Mmap`] when this process has no descriptor to spare.
    pub fn new(name: &'static str, fd: BorrowedFd<'_>, entries: u32) -> Result<Self, Error> {
        const { assert!(Self::STRIDE.trailing_zeros() <= WINDOW.trailing_zeros() && Self::ROOM > 0) };
        let map = fd
            .try_clone_to_owned()
            .map_err(|source| Error::Mmap { map: name, source })?;
        let windows = entries.div_ceil(Self::VALUES) as usize;
        Ok(Self {
            name,
            map,
            entries,
            windows: std::iter::repeat_with(|| None).take(windows).collect(),
            open: Vec::new(),
        })
    }

    /// Number of values.
    #[must_use]
    pub const fn entries(&self) -> u32 {
        self.entries
    }

    /// The window with the value at `index`, and the value's index in it. It stays mapped until [`Self::let_go`], or until
    /// there is no room for another.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`], [`Error::Mmap`].
    pub fn at(&mut self, index: u32) -> Result<(&mut Mapped<T>, u32), Error> {
        let (number, within) = ((index / Self::VALUES) as usize, index % Self::VALUES);
        if index < self.entries && matches!(self.windows.get(number), Some(None)) {
            if self.open.len() >= Self::ROOM {
                self.let_go();
            }
            let window = self.part(index - within, Self::VALUES)?;
            if let Some(place) = self.windows.get_mut(number) {
                *place = Some(window);
            }
            self.open.push(number);
        }
        match self.windows.get_mut(number) {
            Some(Some(window)) if index < self.entries => Ok((window, within)),
            _ => Err(Error::OutOfBounds {
                map: self.name,
                index,
                entries: self.entries,
            }),
        }
    }

    /// Unmaps all windows.
    pub fn let_go(&mut self) {
        for number in self.open.drain(..) {
            if let Some(window) = self.windows.get_mut(number) {
                *window = None;
            }
        }
    }

    /// All of the map in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Mmap`].
    pub fn whole(&self) -> Result<Mapped<T>, Error> {
        Mapped::open(self.name, self.map.as_fd(), self.entries)
    }

    /// All of the map, part by part, in order; each is in memory as long as it is held.
    pub fn parts(&self) -> impl Iterator<Item = Result<Mapped<T>, Error>> {
        let length = Self::VALUES * TOGETHER;
        (0..self.entries)
            .step_by(length as usize)
            .map(move |first| self.part(first, length))
    }

    /// From number `first` on, which begins a window, `length` values or what there is.
    fn part(&self, first: u32, length: u32) -> Result<Mapped<T>, Error> {
        Mapped::part(self.name, self.map.as_fd(), first, length.min(self.entries - first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::bpf::mapped::tests::file;
    use proptest::prelude::*;

    const VALUES: u32 = Windows::<[u64; 3]>::VALUES;

    fn windows<T: Pod>(entries: u32) -> Windows<T> {
        Windows::new("TEST", file::<T>(entries).as_fd(), entries).unwrap()
    }

    fn store(map: &mut Windows<[u64; 3]>, index: u32, words: [u64; 3]) {
        let (window, within) = map.at(index).unwrap();
        window.store(within, &words).unwrap();
    }

    /// Bytes in windows of one that has so many of them open.
    fn mapped<T: Pod>(map: &Windows<T>) -> usize {
        map.windows
            .iter()
            .flatten()
            .map(|window| window.entries() as usize * Windows::<T>::STRIDE)
            .sum()
    }

    fn cut<T: Pod>() {
        let bytes = Windows::<T>::VALUES as usize * Windows::<T>::STRIDE;
        assert!(bytes.is_multiple_of(WINDOW), "{bytes}");
        assert!(!(bytes / 2).is_multiple_of(WINDOW), "{bytes}");
    }

    #[test]
    fn a_window_is_the_least_of_whole_values_that_ends_with_a_page() {
        cut::<u32>();
        cut::<[u64; 3]>();
        cut::<[u64; 4]>();
        cut::<[u64; 9]>();
        cut::<[u64; 32]>();
    }

    #[test]
    fn values_beside_a_border_are_in_windows_of_their_own() {
        let mut map = windows::<[u64; 3]>(3 * VALUES);
        for index in [0, VALUES - 1, VALUES, 2 * VALUES - 1, 2 * VALUES, 3 * VALUES - 1] {
            store(&mut map, index, [index.into(), 1, 2]);
        }
        assert_eq!(map.open, [0, 1, 2]);
        let whole = map.whole().unwrap();
        assert_eq!(whole.load(VALUES - 1).unwrap(), [u64::from(VALUES) - 1, 1, 2]);
        assert_eq!(whole.load(VALUES).unwrap(), [VALUES.into(), 1, 2]);
        assert_eq!(whole.load(VALUES + 1).unwrap(), [0; 3]);
        assert_eq!(whole.load(3 * VALUES - 1).unwrap(), [3 * u64::from(VALUES) - 1, 1, 2]);
    }

    #[test]
    fn the_last_window_ends_with_the_map() {
        let mut map = windows::<[u64; 3]>(VALUES + 5);
        store(&mut map, VALUES + 4, [7; 3]);
        assert_eq!(mapped(&map), 5 * 24);
        assert_eq!(map.whole().unwrap().load(VALUES + 4).unwrap(), [7; 3]);
        let beyond = |index| windows::<[u64; 3]>(VALUES + 5).at(index).map(|_| ());
        for index in [VALUES + 5, 2 * VALUES, u32::MAX] {
            let error = beyond(index).unwrap_err();
            assert!(
                matches!(error, Error::OutOfBounds { index: named, entries, .. } if named == index && entries == VALUES + 5),
                "{error}"
            );
        }
    }

    #[test]
    fn a_window_is_mapped_once_until_it_is_let_go() {
        let mut map = windows::<u64>(100_000);
        assert_eq!(mapped(&map), 0);
        let first = std::ptr::from_ref(map.at(3).unwrap().0.words(0).unwrap());
        map.at(99_999).unwrap();
        assert_eq!(std::ptr::from_ref(map.at(4).unwrap().0.words(0).unwrap()), first);
        assert_eq!(map.open.len(), 2);
        map.let_go();
        assert_eq!((mapped(&map), map.open.len()), (0, 0));
        map.at(3).unwrap();
        assert_eq!(map.open, [0]);
    }

    #[test]
    fn no_more_is_mapped_at_once_than_there_is_room_for() {
        let values = Windows::<[u64; 4]>::VALUES;
        let mut map = windows::<[u64; 4]>(values * (Windows::<[u64; 4]>::ROOM as u32 * 2 + 1));
        let mut most = 0;
        for number in 0..map.windows.len() as u32 {
            let (window, within) = map.at(number * values + 1).unwrap();
            window.store_guarded(within, &[1, 2, 3, number.into()], 0, 0).unwrap();
            most = most.max(mapped(&map));
        }
        assert_eq!(most, MOST);
        assert_eq!(mapped(&map), WINDOW, "of the third round");
        let whole = map.whole().unwrap();
        for number in 0..map.windows.len() as u32 {
            assert_eq!(whole.load(number * values + 1).unwrap(), [1, 2, 3, number.into()]);
        }
    }

    #[test]
    fn the_parts_are_the_whole_in_order() {
        let mut map = windows::<[u64; 3]>(2 * VALUES * TOGETHER + 7);
        let last = map.entries() - 1;
        let indexes = [0, VALUES * TOGETHER - 1, VALUES * TOGETHER, last];
        for index in indexes {
            store(&mut map, index, [1, 2, index.into()]);
        }
        let parts: Vec<_> = map.parts().map(Result::unwrap).collect();
        assert_eq!(
            parts.iter().map(Mapped::entries).collect::<Vec<_>>(),
            [VALUES * TOGETHER, VALUES * TOGETHER, 7]
        );
        let values = parts.iter().flat_map(Mapped::values);
        let found = (0_u32..).zip(values).filter(|(_, value)| **value != [0; 3]);
        assert_eq!(
            found.map(|(index, value)| (index, value[2])).collect::<Vec<_>>(),
            indexes.map(|index| (index, index.into()))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// 72 bytes divide no page, and there are more windows than may be mapped at once.
        #[test]
        fn stores_through_windows_are_those_through_a_whole_mapping(
            stores in proptest::collection::vec((0..20 * VALUES + 9, any::<[u64; 9]>(), 0..4_u8), 1..200),
        ) {
            const { assert!(Windows::<[u64; 9]>::ROOM < 20) };
            let mut map = windows::<[u64; 9]>(20 * VALUES + 9);
            let memory = file::<[u64; 9]>(map.entries());
            let mut other = Mapped::<[u64; 9]>::open("OTHER", memory.as_fd(), map.entries()).unwrap();
            for (index, words, how) in stores {
                let (window, within) = map.at(index).unwrap();
                for (target, index) in [(window, within), (&mut other, index)] {
                    match how {
                        0 => target.store(index, &words).unwrap(),
                        1 => target.store_guarded(index, &words, 1, 0).unwrap(),
                        _ => target.store_word(index, 2, words[2]).unwrap(),
                    }
                }
                if how == 3 {
                    map.let_go();
                }
            }
            prop_assert!(map.whole().unwrap().values() == other.values());
        }
    }
}
