//! `PMI_process_mapping`: which ranks share a node.
//!
//! MPICH reads `(vector,(first,nodes,ranks),…)`: beginning with node number `first`, `nodes` nodes run
//! `ranks` consecutive ranks each. Ranks with equal node number may use shared memory between them.

use crate::api::Part;
use std::fmt::Write as _;

/// Longest mapping that is handed out. A client reads replies into a line buffer of 1,023 bytes.
pub const MAPPING_BYTES_MAX: usize = 960;

/// The mapping for a placement whose parts are in the order of their ranks; a node's number is its index.
///
/// `None` if it would be longer than a client can read. Without a mapping MPICH exchanges host names, which
/// gives the same grouping more slowly.
pub fn process_mapping(parts: &[Part]) -> Option<String> {
    let mut text = String::from("(vector");
    let mut first = 0;
    for block in parts.chunk_by(|a, b| a.ranks == b.ranks) {
        let _ = write!(text, ",({first},{},{})", block.len(), block[0].ranks);
        first += block.len();
    }
    text.push(')');
    (text.len() <= MAPPING_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pmi::tests::placement;

    #[test]
    fn equal_neighbours_are_one_block() {
        let mapping = |ranks: &[u32]| process_mapping(&placement(ranks)).unwrap();
        assert_eq!(mapping(&[4]), "(vector,(0,1,4))");
        assert_eq!(mapping(&[1, 1, 1, 1]), "(vector,(0,4,1))");
        assert_eq!(mapping(&[2, 2, 2, 1]), "(vector,(0,3,2),(3,1,1))");
        assert_eq!(mapping(&[8, 4, 4, 8]), "(vector,(0,1,8),(1,2,4),(3,1,8))");
    }

    #[test]
    fn a_mapping_too_long_for_the_client_is_withheld() {
        let alternating: Vec<u32> = (0..200).map(|i| 1 + i % 2).collect();
        assert_eq!(process_mapping(&placement(&alternating)), None);
        assert_eq!(process_mapping(&placement(&[16; 1000])).unwrap(), "(vector,(0,1000,16))");
    }
}
