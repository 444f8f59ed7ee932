use super::Hold;
use crate::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Messages a shelf keeps at once. A delay of 5 % of a million messages a second by 10 ms is 500 of them;
/// what comes when all places are taken is not held back.
pub const HELD_MAX: usize = 4096;
/// How long a message waits to be overtaken. If nothing follows for so long nothing is left to be confused.
const OVERTAKING_MAX: Duration = Duration::from_millis(2);

/// Messages that are held back: `T` is a message, `K` the way it goes.
#[derive(Debug)]
pub struct Shelf<K, T> {
    /// By the time they go on, and by arrival among equals.
    held: BTreeMap<Place, (K, T)>,
    /// Those that go on before their time once they have been overtaken.
    overtaken: Vec<Overtaken<K>>,
    arrivals: u64,
}

type Place = (Time, u64);

#[derive(Debug)]
struct Overtaken<K> {
    way: K,
    left: u32,
    place: Place,
}

impl<K: Copy + PartialEq, T> Shelf<K, T> {
    /// An empty shelf.
    pub fn new() -> Shelf<K, T> {
        Shelf { held: BTreeMap::new(), overtaken: Vec::new(), arrivals: 0 }
    }

    /// Keeps a message for `hold`, or hands it back if there is no place left ([`HELD_MAX`]).
    ///
    /// # Errors
    /// The message.
    pub fn hold(&mut self, now: Time, way: K, message: T, hold: Hold) -> Result<(), T> {
        if self.held.len() >= HELD_MAX {
            return Err(message);
        }
        self.arrivals += 1;
        let place = match hold {
            Hold::For(time) => (now + time, self.arrivals),
            Hold::Behind(left) => {
                let place = (now + OVERTAKING_MAX, self.arrivals);
                self.overtaken.push(Overtaken { way, left, place });
                place
            }
        };
        self.held.insert(place, (way, message));
        Ok(())
    }

    /// Takes note that a message has gone `way` at `now`: those it was to overtake may be due.
    pub fn passed(&mut self, now: Time, way: K) {
        let held = &mut self.held;
        self.overtaken.retain_mut(|o| {
            if o.way != way {
                return true;
            }
            o.left = o.left.saturating_sub(1);
            if o.left > 0 {
                return true;
            }
            // Unless it has gone on already, its time having come.
            if let Some(message) = held.remove(&o.place) {
                held.insert((now.min(o.place.0), o.place.1), message);
            }
            false
        });
    }

    /// When the next message goes on; [`Time::MAX`] if none is held.
    pub fn next_due(&self) -> Time {
        self.held.first_key_value().map_or(Time::MAX, |((due, _), _)| *due)
    }

    /// The message that goes on first, if its time has come by `now`.
    pub fn peek_due(&self, now: Time) -> Option<&(K, T)> {
        self.held.first_key_value().filter(|((due, _), _)| *due <= now).map(|(_, message)| message)
    }

    /// Takes the message that goes on first, if its time has come by `now`.
    pub fn pop_due(&mut self, now: Time) -> Option<(K, T)> {
        let entry = self.held.first_entry().filter(|e| e.key().0 <= now)?;
        let (place, message) = entry.remove_entry();
        self.overtaken.retain(|o| o.place != place);
        Some(message)
    }

    /// Messages held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// True if none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl<K: Copy + PartialEq, T> Default for Shelf<K, T> {
    fn default() -> Shelf<K, T> {
        Shelf::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_delayed_message_comes_when_its_time_has_come() {
        let mut shelf = Shelf::new();
        shelf.hold(at(0), 'a', 1, Hold::For(Duration::from_millis(5))).unwrap();
        shelf.hold(at(0), 'a', 2, Hold::For(Duration::from_millis(3))).unwrap();
        assert_eq!(shelf.next_due(), at(3));
        assert_eq!(shelf.pop_due(at(2)), None);
        shelf.passed(at(2), 'a');
        assert_eq!((shelf.pop_due(at(4)), shelf.pop_due(at(4))), (Some(('a', 2)), None));
        assert_eq!((shelf.pop_due(at(5)), shelf.next_due()), (Some(('a', 1)), Time::MAX));
    }

    #[test]
    fn a_reordered_message_comes_behind_later_ones_that_go_its_way() {
        let mut shelf = Shelf::new();
        shelf.hold(at(0), 'a', 1, Hold::Behind(2)).unwrap();
        shelf.passed(at(0), 'a');
        shelf.passed(at(0), 'b');
        assert_eq!(shelf.pop_due(at(0)), None);
        shelf.passed(at(0), 'a');
        assert_eq!(shelf.pop_due(at(0)), Some(('a', 1)));
        shelf.hold(at(0), 'a', 2, Hold::Behind(3)).unwrap();
        assert_eq!(shelf.pop_due(at(1)), None);
        assert_eq!(shelf.pop_due(at(2)), Some(('a', 2)), "nothing follows");
        assert!(shelf.overtaken.is_empty() && shelf.is_empty());
    }

    #[test]
    fn a_full_shelf_hands_the_message_back() {
        let mut shelf = Shelf::new();
        (0..HELD_MAX).for_each(|n| shelf.hold(at(0), (), n, Hold::Behind(1)).unwrap());
        assert_eq!(shelf.hold(at(0), (), 9, Hold::For(Duration::ZERO)), Err(9));
        assert_eq!(shelf.len(), HELD_MAX);
    }
}
