//! Arbitrary offers and neighbours.

use super::channel;
use super::handshake::Terms;
use crate::pool::Layout;

/// What a process says that wants to share memory.
pub fn offer(input: &[u8]) {
    let Ok(Terms { ring_words, pool, .. }) = Terms::parse(input) else { return };
    assert!(ring_words.is_power_of_two());
    let Some(layout) = Layout::new(&pool) else { return };
    for (class, place) in layout.classes().iter().enumerate() {
        for index in [0, place.count / 2, place.count - 1] {
            assert!(place.slot(index).end <= layout.len());
            assert_eq!(layout.find(place.number(index)), Some((class, index)));
        }
    }
    assert_eq!(layout.find(layout.slots()), None);
}

/// What a process writes with which we share memory.
pub fn neighbour(input: &[u8]) {
    channel::fuzzing::neighbour(input);
}
