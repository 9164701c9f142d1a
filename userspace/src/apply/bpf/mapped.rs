//! An array map as memory of this process: single stores of aligned words, no system call, no copy.
//!
//! The kernel reads the same pages while packets pass, so every access here is one atomic 64-bit load or store.
#![expect(unsafe_code, reason = "mmap and the memory behind it")]

use super::error::Error;
use bytemuck::Pod;
use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU64, Ordering},
};
use weir_common::word::Word;

/// An array map with `BPF_F_MMAPABLE`, or a part of one, in memory; `T` is its value type.
///
/// All pages of it are there from the first moment on, and count as the memory of this process.
#[derive(Debug)]
pub struct Mapped<T> {
    name: &'static str,
    base: NonNull<AtomicU64>,
    entries: u32,
    value: PhantomData<T>,
}

// SAFETY: the memory belongs to the map, not to a thread, and shared access to it is atomic.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// The kernel rounds every value of an array up to 8 bytes.
    pub(super) const STRIDE: usize = size_of::<T>().div_ceil(8);

    /// Maps all `entries` values of the map behind `fd`, which must be an array of `T` with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    ///
    /// [`Error::Mmap`] with the system call's error.
    pub fn open(name: &'static str, fd: BorrowedFd<'_>, entries: u32) -> Result<Self, Error> {
        Self::part(name, fd, 0, entries)
    }

    /// Maps `entries` values from number `first` on, which becomes index 0. The map is as for [`Self::open`], has that many,
    /// and number `first` is at the beginning of a page.
    ///
    /// # Errors
    ///
    /// [`Error::Mmap`] with the system call's error, which is `EINVAL` within a page.
    pub(super) fn part(name: &'static str, fd: BorrowedFd<'_>, first: u32, entries: u32) -> Result<Self, Error> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::bytes(entries),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                Self::bytes(first) as libc::off_t,
            )
        };
        match NonNull::new(base.cast::<AtomicU64>()) {
            Some(pointer) if base != libc::MAP_FAILED => Ok(Self {
                name,
                base: pointer,
                entries,
                value: PhantomData,
            }),
            _ => Err(Error::Mmap {
                map: name,
                source: io::Error::last_os_error(),
            }),
        }
    }

    fn bytes(entries: u32) -> usize {
        entries as usize * Self::STRIDE * 8
    }

    /// Number of values.
    #[must_use]
    pub const fn entries(&self) -> u32 {
        self.entries
    }

    /// The words of the value at `index`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`].
    pub fn words(&self, index: u32) -> Result<&[AtomicU64], Error> {
        if index >= self.entries {
            return Err(Error::OutOfBounds {
                map: self.name,
                index,
                entries: self.entries,
            });
        }
        // SAFETY: the mapping covers `entries * STRIDE` words, `index` is below `entries`, and the mapping lives as
        // long as `self`.
        Ok(unsafe { slice::from_raw_parts(self.base.as_ptr().add(index as usize * Self::STRIDE), Self::STRIDE) })
    }

    /// The value at `index` as the packet path has it: `WAYS` entries of `ENTRY` words that CPUs share. `None` beyond the
    /// map's end.
    #[must_use]
    pub fn shared<const ENTRY: usize, const WAYS: usize>(&self, index: u32) -> Option<&[[Word; ENTRY]; WAYS]> {
        const { assert!(ENTRY * WAYS == Self::STRIDE) };
        let words = self.words(index).ok()?;
        // SAFETY: as many words as asked for (checked above), which live as long as `self`; a `Word` is one atomic 64-bit
        // word as these are.
        Some(unsafe { &*words.as_ptr().cast() })
    }

    /// Stores `words` into the value at `index`, from the first word on.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`].
    pub fn store(&mut self, index: u32, words: &[u64]) -> Result<(), Error> {
        for (word, value) in self.words(index)?.iter().zip(words) {
            word.store(*value, Ordering::Release);
        }
        Ok(())
    }

    /// Stores `words` so that a reader who sees the final word number `guard` sees all of them: first `guard` becomes
    /// `closed`, then the others follow, then `guard`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`].
    pub fn store_guarded(&mut self, index: u32, words: &[u64], guard: usize, closed: u64) -> Result<(), Error> {
        let target = self.words(index)?;
        if let Some(word) = target.get(guard) {
            word.store(closed, Ordering::SeqCst);
        }
        for (position, (word, value)) in target.iter().zip(words).enumerate() {
            if position != guard {
                word.store(*value, Ordering::Release);
            }
        }
        if let (Some(word), Some(value)) = (target.get(guard), words.get(guard)) {
            word.store(*value, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Stores one word of the value at `index`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`].
    pub fn store_word(&mut self, index: u32, position: usize, value: u64) -> Result<(), Error> {
        if let Some(word) = self.words(index)?.get(position) {
            word.store(value, Ordering::Release);
        }
        Ok(())
    }

    /// The value at `index`, word by word: what the kernel writes meanwhile may be half in it.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`].
    pub fn load(&self, index: u32) -> Result<T, Error> {
        let mut value = T::zeroed();
        let words = self.words(index)?;
        for (chunk, word) in bytemuck::bytes_of_mut(&mut value).chunks_mut(8).zip(words) {
            let bytes = word.load(Ordering::Acquire).to_ne_bytes();
            for (target, source) in chunk.iter_mut().zip(bytes) {
                *target = source;
            }
        }
        Ok(value)
    }
}

impl<T: Pod> Mapped<T> {
    /// All values in place. Only for maps that no program writes, whose values fill their words, and while nobody stores into
    /// the map, by this mapping or another: for an agent, whose lock keeps others out. Who looks beside the one that stores
    /// uses [`Self::load`].
    #[must_use]
    pub fn values(&self) -> &[T] {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8) };
        // SAFETY: the mapping covers `entries` values without gaps (checked above) and lives as long as `self`; nobody
        // stores meanwhile (the caller's part), the programs only read, and any bytes are a `T`.
        unsafe { slice::from_raw_parts(self.base.as_ptr().cast::<T>(), self.entries as usize) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        let bytes = self.entries as usize * size_of::<T>().div_ceil(8) * 8;
        // SAFETY: `part` made this mapping with this size, and nothing borrows from it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), bytes) };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::fd::{AsFd, OwnedFd};

    /// Memory that can be mapped as a map of `entries` values can.
    pub fn file<T: Pod>(entries: u32) -> OwnedFd {
        let memory = nix::sys::memfd::memfd_create("weir-test", nix::sys::memfd::MFdFlags::empty()).unwrap();
        let file = std::fs::File::from(memory);
        file.set_len(Mapped::<T>::bytes(entries) as u64).unwrap();
        file.into()
    }

    pub fn anonymous<T: Pod>(entries: u32) -> Mapped<T> {
        Mapped::open("TEST", file::<T>(entries).as_fd(), entries).unwrap()
    }

    #[test]
    fn small_values_are_eight_bytes_apart() {
        let mut map = anonymous::<u32>(5);
        map.store(3, &[7]).unwrap();
        assert_eq!(map.load(3).unwrap(), 7);
        assert_eq!(map.load(1).unwrap(), 0);
    }

    #[test]
    fn values_come_back_whole() {
        let mut map = anonymous::<[u64; 3]>(6);
        map.store_guarded(2, &[1, 2, 3], 1, 0).unwrap();
        assert_eq!(map.load(2).unwrap(), [1, 2, 3]);
        assert_eq!(map.values()[2], [1, 2, 3]);
        map.store_word(2, 2, 9).unwrap();
        assert_eq!(map.values()[2], [1, 2, 9]);
    }

    #[test]
    fn a_part_begins_with_a_page() {
        let memory = file::<u64>(100_000);
        let part = |first| Mapped::<u64>::part("TEST", memory.as_fd(), first, 9);
        assert!(matches!(part(1), Err(Error::Mmap { .. })));
        part(1 << 13).unwrap().store(8, &[5]).unwrap();
        let whole = Mapped::<u64>::open("TEST", memory.as_fd(), 100_000).unwrap();
        assert_eq!(whole.load((1 << 13) + 8).unwrap(), 5);
    }

    #[test]
    fn an_index_beyond_the_map_is_an_error() {
        let mut map = anonymous::<u64>(7);
        assert!(matches!(map.store(7, &[1]), Err(Error::OutOfBounds { index: 7, .. })));
    }
}
