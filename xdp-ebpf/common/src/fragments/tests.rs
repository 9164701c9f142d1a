extern crate std;

use super::*;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

type Bucket = [FragmentWords; FRAGMENT_WAYS];

const NOW: u32 = 5_000;
const LIMIT: u32 = 100;

fn config() -> Config {
    Config {
        flow_seed: 7,
        fragment_ticks: LIMIT,
        ..Config::default()
    }
}

fn key(id: u32) -> Key {
    Key {
        source: Address::from_v4([203, 0, 113, 7]),
        destination: Address::from_v4([10, 10, 1, 2]),
        id,
        protocol: protocol::UDP,
    }
}

/// As [`recall`].
fn at(bucket: &Bucket, now: u32, key: &Key) -> Option<(u16, u16)> {
    let words = bucket.iter().find(|words| key.is_of(words))?;
    read(words, &config(), now, key)
}

/// As [`teach`].
fn learn(bucket: &Bucket, now: u32, key: &Key, ports: (u16, u16)) {
    let ranks = bucket.iter().enumerate().map(|(way, words)| rank(words, way, now, key));
    let best = ranks.max().filter(|rank| *rank >= NO_WAY);
    if let Some(best) = best {
        write(&bucket[(best % NO_WAY) as usize], now, key, ports);
    }
}

#[test]
fn a_first_fragment_tells_the_ports_until_its_time_is_over() {
    let bucket = Bucket::default();
    assert_eq!(at(&bucket, NOW, &key(1)), None);
    learn(&bucket, NOW, &key(1), (10, 20));
    assert_eq!(at(&bucket, NOW, &key(1)), Some((10, 20)));
    assert_eq!(at(&bucket, NOW + LIMIT, &key(1)), Some((10, 20)));
    assert_eq!(at(&bucket, NOW + LIMIT + 1, &key(1)), None);
    assert_eq!(
        at(&bucket, NOW - 1, &key(1)),
        Some((10, 20)),
        "another CPU's clock is behind"
    );
}

#[test]
fn times_are_right_when_ticks_wrap() {
    for start in [u32::MAX - 1, (1 << 24) - 1, 0] {
        let bucket = Bucket::default();
        learn(&bucket, start, &key(1), (10, 20));
        assert_eq!(at(&bucket, start.wrapping_add(3), &key(1)), Some((10, 20)), "{start}");
        assert_eq!(at(&bucket, start.wrapping_add(LIMIT + 1), &key(1)), None, "{start}");
    }
}

#[test]
fn only_the_same_datagram_meets_an_entry() {
    let own = key(1);
    let other = Address::from_v4([203, 0, 113, 8]);
    for another in [
        Key { source: other, ..own },
        Key {
            destination: other,
            ..own
        },
        Key { id: 2, ..own },
        Key {
            protocol: protocol::TCP,
            ..own
        },
    ] {
        let bucket = Bucket::default();
        learn(&bucket, NOW, &own, (10, 20));
        assert_eq!(at(&bucket, NOW, &another), None, "{another:?}");
        learn(&bucket, NOW, &another, (30, 40));
        assert_eq!(
            at(&bucket, NOW, &own),
            Some((10, 20)),
            "{another:?} changed another datagram"
        );
    }
}

#[test]
fn the_newer_first_fragment_wins() {
    let bucket = Bucket::default();
    learn(&bucket, NOW, &key(1), (10, 20));
    learn(&bucket, NOW, &key(1), (30, 40));
    assert_eq!(at(&bucket, NOW, &key(1)), Some((30, 40)));
    assert_eq!(
        bucket
            .iter()
            .filter(|words| stamp_of(words[CONTROL].load()) != 0)
            .count(),
        1,
        "one datagram has one entry"
    );
}

#[test]
fn the_oldest_gives_way() {
    let bucket = Bucket::default();
    for id in 1..=4 {
        learn(&bucket, NOW + id, &key(id), (id as u16, 20));
    }
    learn(&bucket, NOW + 5, &key(5), (5, 20));
    let known: BTreeSet<u32> = (1..=5).filter(|&id| at(&bucket, NOW + 5, &key(id)).is_some()).collect();
    assert_eq!(known, BTreeSet::from([2, 3, 4, 5]));
}

#[test]
fn an_entry_that_is_being_written_is_neither_read_nor_taken() {
    let bucket = Bucket::default();
    for id in 1..=4 {
        learn(&bucket, NOW, &key(id), (id as u16, 20));
    }
    let busy = bucket.iter().find(|words| key(1).is_of(words)).expect("it was learnt");
    let before = busy[CONTROL].load();
    busy[CONTROL].store(BUSY);
    assert_eq!(at(&bucket, NOW, &key(1)), None);
    learn(&bucket, NOW, &key(5), (5, 20));
    assert_eq!(busy[CONTROL].load(), BUSY);
    busy[CONTROL].store(before);
    assert_eq!(at(&bucket, NOW, &key(1)), Some((1, 20)));
}

#[test]
fn writings_are_told_apart_and_none_looks_empty_or_busy() {
    let mut stamp = 0;
    let mut numbers = BTreeSet::new();
    for _ in 0..WRITINGS {
        stamp = next_stamp(stamp, u32::MAX);
        assert_ne!(control((u16::MAX, u16::MAX), stamp), BUSY);
        assert_ne!(next_stamp(stamp, 0), 0);
        numbers.insert(stamp & 0xff);
    }
    assert_eq!(numbers.len(), WRITINGS as usize);
}

#[test]
fn datagrams_spread_over_the_buckets() {
    let buckets: BTreeSet<u32> = (0..FRAGMENT_BUCKETS).map(|id| key(id).bucket(&config())).collect();
    // Of n balls in n boxes, 63 % of the boxes get one.
    assert!(buckets.len() > FRAGMENT_BUCKETS as usize * 6 / 10, "{}", buckets.len());
    assert!(buckets.last() < Some(&FRAGMENT_BUCKETS));
}

/// Writers put many datagrams through one bucket, each with ports that follow from its identification, so that a reader
/// can tell when it was given another's.
#[test]
fn nobody_reads_ports_of_another_datagram() {
    const IDS: u32 = 16;
    const READS: u32 = 200_000;
    let ports = |id: u32| (id as u16, !(id as u16));
    let (bucket, done) = (Bucket::default(), AtomicBool::new(false));
    let met = thread::scope(|scope| {
        for offset in 0..2 {
            let (bucket, done) = (&bucket, &done);
            scope.spawn(move || {
                let mut id = offset;
                while !done.load(Ordering::Relaxed) {
                    learn(bucket, NOW, &key(id % IDS), ports(id % IDS));
                    id = id.wrapping_add(1);
                }
            });
        }
        let mut met = 0;
        let mut wrong = None;
        // The writers may get their first turn late.
        for read in 0..1_000 * READS {
            if read >= READS && met >= 100 {
                break;
            }
            let id = read % IDS;
            if let Some(found) = at(&bucket, NOW, &key(id)) {
                met += 1;
                if found != ports(id) {
                    wrong = Some((id, found));
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None, "(identification, ports)");
        met
    });
    assert!(met >= 100, "the readers met only {met} entries");
}

#[test]
fn sound_fragments() {
    let piece = |protocol, offset, len, more| Piece {
        protocol,
        offset,
        len,
        more,
    };
    let (tcp, udp, other) = (protocol::TCP, protocol::UDP, 1);
    for sound in [
        piece(udp, 0, 8, true),
        piece(udp, 8, 1, false),
        piece(udp, 1480, 1480, true),
        piece(tcp, 0, 24, true),
        piece(tcp, 24, 8, true),
        piece(udp, 65_528, 7, false),
        piece(other, 0, 8, true),
        piece(other, 8, 3, false),
    ] {
        assert!(sound.is_sound(), "{sound:?}");
    }
    for (hostile, why) in [
        (piece(tcp, 0, 8, true), "the flags are in the next one"),
        (piece(tcp, 0, 16, true), "the header is not all there"),
        (piece(tcp, 8, 1480, true), "writes over the flags"),
        (piece(tcp, 16, 8, false), "writes over the checksum"),
        (piece(udp, 0, 0, true), "no ports"),
        (piece(udp, 0, 1484, true), "no multiple of 8"),
        (piece(udp, 1480, 1001, true), "no multiple of 8"),
        (piece(udp, 1480, 0, false), "nothing in it"),
        (piece(udp, 65_528, 8, false), "ends beyond 65,535"),
        (piece(other, 0, 12, true), "no multiple of 8"),
    ] {
        assert!(!hostile.is_sound(), "{hostile:?}: {why}");
    }
}
