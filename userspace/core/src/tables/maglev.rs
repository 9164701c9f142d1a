//! Which backend gets which row: Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4) with exact shares.
//!
//! A table depends on nothing but its members (address, port, protocol, weight) and its size, so every node that
//! knows the same endpoints builds the same one, in whatever order it learnt of them. Each member gets its weight's share
//! of the rows, rounded by largest remainder: at most one row off. When one of N members goes, its rows are dealt out
//! and few others move: in all 1.1 times 1/N of the table at 4 members, 1.5 at 10, 2 at 20, 4 at 100.

use super::key::Key;

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
    let mut turns: Vec<Turn> = shares(&members, size)
        .into_iter()
        .zip(&members)
        .map(|(share, member)| Turn {
            id: member.id,
            share,
            taken: 0,
            walk: Walk::new(&member.key, size),
        })
        .collect();
    let mut rows = vec![0; size];
    let mut taken = vec![false; size];
    let rounds = turns.iter().map(|turn| turn.share).max().unwrap_or(0);
    // Everybody is done after `rounds` rounds; in each, a member may have so much of its share as rounds have passed.
    for round in 1..=rounds {
        for turn in &mut turns {
            if turn.taken * rounds < turn.share * round {
                turn.taken += 1;
                if let Some(row) = turn.walk.find(|&row| !taken[row]) {
                    taken[row] = true;
                    rows[row] = turn.id;
                }
            }
        }
    }
    rows
}

struct Turn {
    id: u32,
    share: usize,
    taken: usize,
    walk: Walk,
}

/// Rows of each member: in proportion to its weight, remainders to the largest fractions, ties by hash.
fn shares(members: &[Member], size: usize) -> Vec<usize> {
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    if total == 0 {
        return Vec::new();
    }
    let exact = |member: &Member| size as u64 * u64::from(member.weight);
    let mut shares: Vec<usize> = members.iter().map(|member| (exact(member) / total) as usize).collect();
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_unstable_by_key(|&index| {
        let member = &members[index];
        (
            std::cmp::Reverse(exact(member) % total),
            identity(&member.key),
            member.key,
        )
    });
    let missing = size - shares.iter().sum::<usize>();
    order.iter().take(missing).for_each(|&index| shares[index] += 1);
    shares
}

/// A member's order of preference: every row once, since an odd step is prime to a power of two.
struct Walk {
    at: usize,
    step: usize,
    left: usize,
    mask: usize,
}

impl Walk {
    fn new(key: &Key, size: usize) -> Self {
        let identity = identity(key);
        Self {
            at: identity as usize,
            step: (identity >> 32) as usize | 1,
            left: size,
            mask: size - 1,
        }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let row = self.at & self.mask;
        self.at = self.at.wrapping_add(self.step);
        Some(row)
    }
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
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

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
            (3, 1.5),
            (5, 1.7),
            (10, 1.9),
            (20, 2.4),
            (50, 3.8),
            (100, 4.8),
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
            assert!(
                (0.9..allowed).contains(&ratio),
                "{count} backends: {ratio:.2} times 1/N"
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
        fn shares_follow_weights_within_one_row(weights in proptest::collection::vec(1_u32..300, 1..40)) {
            let mut members = members(weights.len() as u32, 1);
            members.iter_mut().zip(&weights).for_each(|(member, &weight)| member.weight = weight);
            let rows = table(&members, 1024);
            let total: u32 = weights.iter().sum();
            for member in &members {
                let got = rows.iter().filter(|&&id| id == member.id).count() as f64;
                let exact = 1024.0 * f64::from(member.weight) / f64::from(total);
                prop_assert!((got - exact).abs() < 1.0, "{got} rows for a share of {exact}");
            }
        }
    }
}
