//! Which backend gets which row: rendezvous hashing (Thaler and Ravishankar, 1998) with weights and an upper bound.
//!
//! A table depends on nothing but its members (address, port, protocol, weight) and its size, so every node that
//! knows the same endpoints builds the same one, in whatever order it learnt of them. Each row likes the members in an
//! order of its own and goes to the first that has room; a member that is full keeps the rows for which its own hash is
//! highest. That is a stable matching, and there is one that suits all rows best: it does not matter who asks first.
//!
//! Without a bound nothing would move but the rows of who comes or goes, and shares would differ as chance has it. A member
//! gets at most an eighth more than its weight's share, and some get less. When one of N members goes, 1.1 times 1/N of the
//! rows move at 10 members, 1.2 from 20 to 100, 1.3 above; where the bound, in whole rows, changes with N, up to twice that.
//! As a row likes few members most, the same ones own it in turn when many come and go.

use super::key::Key;
use std::collections::BinaryHeap;

/// One backend of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub key: Key,
    /// At least 1; 0 counts as no member.
    pub weight: u32,
    /// What its rows will hold.
    pub id: u32,
}

/// Smallest and largest table, in rows.
const SIZES: (usize, usize) = (128, 1 << 16);
/// Rows wanted for each member.
///
/// A table of another size is another table: nearly every row has another owner. With 20 the sizes change at 6, 12,
/// 25 and 51 members, so that rolling updates with Kubernetes' default surge of a quarter (4 to 5, 8 to 10, 16 to 20,
/// 20 to 25, 40 to 50) do not cross a border; powers of two would have 4, 8 and 16 replicas cross one each time.
const ROWS_PER_MEMBER: usize = 20;

/// The size of the table of `members` backends, in rows, before the whole is made to fit: 1 if there are none.
pub(super) fn size(members: usize) -> usize {
    match members {
        0 => 1,
        _ => members
            .saturating_mul(ROWS_PER_MEMBER)
            .min(SIZES.1)
            .next_power_of_two()
            .clamp(SIZES.0, SIZES.1),
    }
}

/// The ids of the owners of `size` rows (a power of two); 0 everywhere if there is no member.
pub(super) fn table(members: &[Member], size: usize) -> Vec<u32> {
    let mut members: Vec<Member> = members.iter().copied().filter(|member| member.weight > 0).collect();
    members.sort_unstable_by_key(|member| member.key);
    let mut rows = vec![0; size];
    let costs = Costs::new(&members);
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let mut seats: Vec<Seats> = members.iter().map(|member| Seats::new(member, size, total)).collect();
    for row in 0..size {
        // Who takes a row may give up another, which then asks those it likes less.
        let mut asking = Some((row, (0, 0)));
        while let Some((row, refused)) = asking {
            let Some((cost, index)) = costs.first_choice(row, refused) else {
                break;
            };
            rows[row] = members[index].id;
            asking = seats[index].take(row, cost).map(|(row, cost)| (row, (cost, index)));
        }
    }
    rows
}

/// How little each row likes each member. Every row asks every member, so what that takes lies close together.
struct Costs {
    identities: Vec<u64>,
    /// `None` if all are the same.
    weights: Option<Vec<u64>>,
}

impl Costs {
    fn new(members: &[Member]) -> Self {
        let alike = members.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let weights = || members.iter().map(|member| u64::from(member.weight)).collect();
        Self {
            identities: members.iter().map(|member| identity(&member.key)).collect(),
            weights: (!alike).then(weights),
        }
    }

    /// The member a row likes best, of those it likes less than who refused it: cost and index. A cost is above 0: an
    /// exponential variable of the rate of the member's weight, or of the same order.
    fn first_choice(&self, row: usize, refused: (u64, usize)) -> Option<(u64, usize)> {
        let spread = (row as u64).wrapping_mul(ROW_STEP);
        let hashes = self.identities.iter().map(|identity| {
            let product = (identity ^ spread).wrapping_mul(SCORE_STEP);
            product ^ (product >> 32)
        });
        match &self.weights {
            None => least(hashes.map(|hash| hash.max(1)), refused),
            Some(weights) => {
                let cost = |(hash, weight): (u64, &u64)| ((minus_log2(hash) << 16) / weight).max(1);
                least(hashes.zip(weights).map(cost), refused)
            }
        }
    }
}

/// The least of the costs that, with its index, is above `refused`.
fn least(costs: impl Iterator<Item = u64>, refused: (u64, usize)) -> Option<(u64, usize)> {
    let mut best = None;
    let mut least = u64::MAX;
    for (index, cost) in costs.enumerate() {
        if cost < least && (cost, index) > refused {
            least = cost;
            best = Some((cost, index));
        }
    }
    best
}

/// Odd, so that rows differ.
const ROW_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Odd, and another one.
const SCORE_STEP: u64 = 0xd6e8_feb8_6659_fd93;
/// Bits behind the point in a logarithm.
const FRACTION: u32 = 40;

/// The rows a member has.
struct Seats {
    /// Most rows it may have.
    most: usize,
    /// The dearest first.
    taken: BinaryHeap<(u64, usize)>,
}

impl Seats {
    fn new(member: &Member, size: usize, total: u64) -> Self {
        let share = size as u64 * u64::from(member.weight);
        Self {
            // An eighth above its share, and never less than one.
            most: (u128::from(share) * 9).div_ceil(u128::from(total) * 8) as usize,
            taken: BinaryHeap::new(),
        }
    }

    /// Takes a row; gives the one it cannot keep then, and what that cost.
    fn take(&mut self, row: usize, cost: u64) -> Option<(usize, u64)> {
        self.taken.push((cost, row));
        if self.taken.len() <= self.most {
            return None;
        }
        self.taken.pop().map(|(cost, row)| (row, cost))
    }
}

/// Of a fraction of 2^64, taken from 1: -log2(1 - hash / 2^64), with [`FRACTION`] bits behind the point, below 2^47. In whole
/// numbers, so that it is the same on every machine; off by less than 0.01.
fn minus_log2(hash: u64) -> u64 {
    let rest = !hash | 1;
    let whole = u64::from(rest.leading_zeros());
    let fraction = (rest << whole << 1) >> (64 - FRACTION);
    // log2(1 + f) is f + 0.344 f (1 - f), nearly.
    let bow = ((fraction >> 10) * (((1 << FRACTION) - fraction) >> 10)) >> (FRACTION - 20);
    let log = fraction + bow * 352 / 1024;
    ((whole + 1) << FRACTION) - log
}

/// A hash of the key that owes nothing to the selection seed, with all bits mixed (the finish of splitmix64).
fn identity(key: &Key) -> u64 {
    let mut hash = key.hash();
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::owners::Owners;
    use proptest::prelude::*;
    use std::{
        collections::BTreeSet,
        net::{IpAddr, Ipv4Addr},
    };

    fn members(count: u32, salt: u32) -> Vec<Member> {
        (1..=count)
            .map(|id| {
                let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + salt * 0x1_0000 + id * 7));
                Member {
                    key: Key::socket(address, 8080, 6),
                    weight: 1,
                    id,
                }
            })
            .collect()
    }

    fn moved(before: &[u32], after: &[u32]) -> usize {
        before
            .iter()
            .zip(after)
            .filter(|(before, after)| before != after)
            .count()
    }

    #[test]
    fn sizes_are_powers_of_two_and_do_not_change_within_a_rolling_update() {
        assert_eq!([0, 1, 6, 7, 12, 13, 20].map(size), [1, 128, 128, 256, 256, 512, 512]);
        assert_eq!([4000, usize::MAX].map(size), [65536, 65536]);
        for replicas in [4, 5, 8, 10, 16, 20, 32, 40] {
            assert_eq!(
                size(replicas),
                size(replicas + replicas / 4),
                "{replicas} replicas and a quarter"
            );
        }
    }

    #[test]
    fn removing_one_of_n_moves_close_to_its_own_rows() {
        for (count, allowed) in [
            (2, 1.01),
            (3, 1.1),
            (5, 1.15),
            (10, 1.2),
            (20, 1.35),
            (50, 1.5),
            (100, 1.5),
        ] {
            let size = size(count as usize);
            let mut total = 0;
            for salt in 0..20 {
                let all = members(count, salt);
                let mut rest = all.clone();
                rest.remove((salt * 7 % count) as usize);
                total += moved(&table(&all, size), &table(&rest, size));
            }
            let ratio = f64::from(total as u32) / 20.0 / size as f64 * f64::from(count);
            println!("{count} backends: {ratio:.2} times 1/N");
            assert!(
                (0.8..allowed).contains(&ratio),
                "{count} backends: {ratio:.2} times 1/N"
            );
        }
    }

    /// Ten per cent leave and come back every second, for a minute; a leaving one keeps its flows.
    #[test]
    fn under_churn_few_owners_are_more_than_a_row_remembers() {
        for count in [20, 50, 100] {
            let all = members(count, 3);
            let size = size(count as usize);
            let mut rows: Vec<Owners> = table(&all, size).into_iter().map(Owners::first).collect();
            let mut seen: Vec<BTreeSet<u32>> = rows.iter().map(|row| row.all().collect()).collect();
            let (mut forgotten, mut left) = (0, BTreeSet::new());
            for second in 0..60_u64 {
                let mut order = all.clone();
                order.sort_unstable_by_key(|member| {
                    (member.key.hash() ^ second).wrapping_mul(SCORE_STEP).rotate_left(40)
                });
                let (away, there) = order.split_at(all.len() / 10);
                left.extend(away.iter().map(|member| member.id));
                for (row, next) in table(there, size).into_iter().enumerate() {
                    seen[row].insert(next);
                    rows[row] = rows[row].succeed(next, |_| Some(0));
                    let kept = rows[row].all().filter(|id| *id != 0).count();
                    forgotten += usize::from(kept < seen[row].len());
                }
            }
            let owners: usize = seen.iter().map(BTreeSet::len).sum();
            println!(
                "{count} backends, {} of them away once: {} owners in {size} rows, {forgotten} of {} forgotten",
                left.len(),
                owners,
                60 * size
            );
            assert!(left.len() as u32 > count / 2, "only {} were away", left.len());
            assert_eq!(forgotten, 0, "{count} backends");
        }
    }

    #[test]
    fn logarithms_are_right_to_a_hundredth() {
        for hash in [0, 1, 1 << 20, 1 << 62, 1 << 63, 3 << 62, u64::MAX - 5, u64::MAX] {
            let rest = (!hash | 1) as f64 / 2_f64.powi(64);
            let found = minus_log2(hash) as f64 / 2_f64.powi(FRACTION as i32);
            assert!(
                (found + rest.log2()).abs() < 0.01,
                "{hash}: {found}, not {}",
                -rest.log2()
            );
        }
    }

    #[test]
    fn no_members_own_nothing() {
        assert_eq!(table(&[], 8), [0; 8]);
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_table(order in Just((0..30).collect::<Vec<usize>>()).prop_shuffle()) {
            let sorted = members(30, 3);
            let shuffled: Vec<Member> = order.iter().map(|&index| sorted[index]).collect();
            prop_assert_eq!(table(&sorted, 1024), table(&shuffled, 1024));
        }

        #[test]
        fn shares_follow_weights(weights in proptest::collection::vec(1_u32..300, 1..40)) {
            let mut members = members(weights.len() as u32, 1);
            members.iter_mut().zip(&weights).for_each(|(member, &weight)| member.weight = weight);
            let rows = table(&members, 1024);
            let total: u32 = weights.iter().sum();
            prop_assert!(rows.iter().all(|id| *id != 0));
            for member in &members {
                let got = rows.iter().filter(|&&id| id == member.id).count() as f64;
                let exact = 1024.0 * f64::from(member.weight) / f64::from(total);
                prop_assert!(got <= (exact * 1.125).ceil(), "{got} rows for a share of {exact}");
                prop_assert!(got >= exact * 0.95 - 5.0 * exact.sqrt(), "{got} rows for a share of {exact}");
            }
        }

        #[test]
        fn weights_of_the_same_proportions_give_the_same_table(weight in 1_u32..1000) {
            let plain = members(12, 5);
            let mut heavy = plain.clone();
            heavy.iter_mut().for_each(|member| member.weight = weight);
            prop_assert_eq!(table(&plain, 256), table(&heavy, 256));
        }
    }
}
