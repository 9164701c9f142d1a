use super::*;
use proptest::{collection::vec, prelude::*};

#[derive(Clone, Debug)]
enum Act {
    Insert(u16, u8),
    Remove(u16),
    Change(u16, u8),
    /// One more, of none too.
    Count(u16),
    /// From here on changes are counted.
    Mark,
}

fn act() -> impl Strategy<Value = Act> {
    let key = || 0..400_u16;
    prop_oneof![
        8 => (key(), 0..3_u8).prop_map(|(key, value)| Act::Insert(key, value)),
        4 => key().prop_map(Act::Remove),
        2 => (key(), 0..3_u8).prop_map(|(key, value)| Act::Change(key, value)),
        2 => key().prop_map(Act::Count),
        1 => Just(Act::Mark),
    ]
}

type Pair = (SharedMap<u16, u8>, BTreeMap<u16, u8>);

fn check((map, model): &Pair) {
    assert!(map.iter().eq(model));
    assert_eq!(map.len(), model.len());
    assert!(map.runs.iter().all(|run| (1..=LONGEST).contains(&run.len())));
    assert_eq!(*map, model.clone().into_iter().collect(), "however it came about");
    for key in 0..400 {
        assert_eq!(map.get(&key), model.get(&key));
        assert!(map.iter_from(&key).eq(model.range(key..)));
    }
}

fn changes(former: &Pair, now: &Pair) {
    let expected: Vec<_> = (0..400_u16)
        .map(|key| (key, former.1.get(&key).copied(), now.1.get(&key).copied()))
        .filter(|(_, former, now)| former != now)
        .collect();
    let found = now.0.changes_since(&former.0);
    let found: Vec<_> = found
        .map(|(key, former, now)| (*key, former.copied(), now.copied()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(former.0 == now.0, former.1 == now.1);
}

proptest! {
    #[test]
    fn is_as_an_ordinary_map_and_knows_what_changed(acts in vec(act(), 0..900)) {
        let mut now = Pair::default();
        let mut marks = vec![now.clone()];
        for act in acts {
            let (map, model) = &mut now;
            match act {
                Act::Insert(key, value) => assert_eq!(map.insert(key, value), model.insert(key, value)),
                Act::Remove(key) => assert_eq!(map.remove_entry(&key), model.remove_entry(&key)),
                Act::Change(key, value) => {
                    assert_eq!(map.get_mut(&key).map(|held| *held = value), model.get_mut(&key).map(|held| *held = value));
                }
                Act::Count(key) => {
                    *map.or_default(key) += 1;
                    *model.entry(key).or_default() += 1;
                }
                Act::Mark => marks.push(now.clone()),
            }
        }
        check(&now);
        for mark in &marks {
            check(mark);
            changes(mark, &now);
            changes(&now, mark);
        }
    }
}

#[test]
fn copies_share_all_but_the_run_that_changed() {
    let map: SharedMap<u32, u32> = (0..1000).map(|key| (key, key)).collect();
    let mut other = map.clone();
    other.insert(500, 0);
    let shared = map
        .runs
        .iter()
        .zip(&other.runs)
        .filter(|(one, other)| Arc::ptr_eq(one, other));
    assert_eq!((map.runs.len(), shared.count()), (16, 15));
}

#[test]
fn keys_that_come_in_order_fill_their_runs() {
    let mut map = SharedMap::new();
    for key in 0..1000 {
        map.insert(key, key);
    }
    let room: Vec<_> = map.runs.iter().map(|run| (run.len(), run.capacity())).collect();
    assert_eq!(room, [&[(LONGEST, LONGEST); 15][..], &[(40, 64)]].concat());
}
