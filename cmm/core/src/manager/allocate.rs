//! Resource allocator: first fit of cores, lowest node first (dissertation 7.1.2.1).

use crate::api::Part;
use crate::identity::NodeId;

/// Places `ranks` ranks on the first nodes that have cores free, at most `per_node` on each.
///
/// `free` gives each node's free cores in the order of preference. `None` if they do not fit now.
pub(super) fn first_fit(
    free: impl Iterator<Item = (NodeId, u32)>,
    ranks: u32,
    per_node: Option<u32>,
) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut placed = 0;
    for (node, cores) in free {
        let here = cores.min(per_node.unwrap_or(u32::MAX)).min(ranks - placed);
        if here > 0 {
            parts.push(Part { node, first_rank: placed, ranks: here });
            placed += here;
        }
        if placed == ranks {
            return Some(parts);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(free: &[u32], ranks: u32, per_node: Option<u32>) -> Option<Vec<(u32, u32, u32)>> {
        let nodes = free.iter().enumerate().map(|(i, c)| (NodeId(i as u32 + 1), *c));
        first_fit(nodes, ranks, per_node)
            .map(|parts| parts.iter().map(|p| (p.node.0, p.first_rank, p.ranks)).collect())
    }

    #[test]
    fn fills_the_first_nodes_and_numbers_ranks_node_after_node() {
        assert_eq!(fit(&[2, 0, 3, 4], 6, None), Some(vec![(1, 0, 2), (3, 2, 3), (4, 5, 1)]));
    }

    #[test]
    fn spreads_when_told_to() {
        assert_eq!(fit(&[2, 2, 2], 3, Some(1)), Some(vec![(1, 0, 1), (2, 1, 1), (3, 2, 1)]));
        assert_eq!(fit(&[2, 2, 2], 4, Some(1)), None);
    }

    #[test]
    fn says_no_when_there_is_too_little() {
        assert_eq!(fit(&[1, 1], 3, None), None);
        assert_eq!(fit(&[], 1, None), None);
    }
}
