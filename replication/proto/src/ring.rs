//! Sets of members by their offsets from the primary on the ring, as bits: which of them are spares
//! (PROTOCOL.md 2.10).

/// The `k` members before the primary.
pub(crate) fn last(n: usize, k: usize) -> u64 {
    (n - k..n).fold(0, |bits, offset| bits | 1 << offset)
}

/// The `k` spares of this round of n views in strict mode: one set of each class of sets that rotation turns into
/// each other, so that n views go through a whole class. Round 0 has the members before the primary.
pub(crate) fn of_round(n: usize, k: usize, round: u64) -> u64 {
    let classes: Vec<u64> = sets(n, k).filter(|set| is_first_of_class(*set, n)).collect();
    classes[(round % classes.len() as u64) as usize]
}

/// All sets of `k` offsets without the primary, the one with the highest offsets first.
fn sets(n: usize, k: usize) -> impl Iterator<Item = u64> {
    (0..1u64 << (n - 1)).rev().map(|set| set << 1).filter(move |set| set.count_ones() as usize == k)
}

/// Whether no rotation of the set that leaves the primary out comes earlier.
fn is_first_of_class(set: u64, n: usize) -> bool {
    let all = (1u64 << n) - 1;
    let rotations = (1..n).map(|by| (set << by | set >> (n - by)) & all);
    rotations.filter(|rotated| rotated & 1 == 0).all(|rotated| rotated <= set)
}
