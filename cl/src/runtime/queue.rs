use std::collections::VecDeque;

/// How soon an event is handled relative to others; equal ones in order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before everything else: what keeps the system alive.
    Urgent,
    /// Before ordinary work.
    High,
    /// Ordinary work.
    #[default]
    Normal,
    /// When there is nothing better to do.
    Low,
}

impl Priority {
    const COUNT: usize = Priority::Low as usize + 1;
}

/// First in, first out, within each priority.
#[derive(Debug)]
pub(super) struct RunQueue<E> {
    lanes: [VecDeque<E>; Priority::COUNT],
}

impl<E> RunQueue<E> {
    pub(super) fn new() -> RunQueue<E> {
        RunQueue { lanes: std::array::from_fn(|_| VecDeque::new()) }
    }

    pub(super) fn push(&mut self, priority: Priority, event: E) {
        self.lanes[priority as usize].push_back(event);
    }

    /// The oldest event of the highest priority.
    pub(super) fn pop(&mut self) -> Option<(Priority, E)> {
        const ALL: [Priority; Priority::COUNT] =
            [Priority::Urgent, Priority::High, Priority::Normal, Priority::Low];
        ALL.into_iter().find_map(|p| Some((p, self.lanes[p as usize].pop_front()?)))
    }

    /// True if an event of a higher priority than `priority` waits.
    pub(super) fn has_above(&self, priority: Priority) -> bool {
        self.lanes[..priority as usize].iter().any(|lane| !lane.is_empty())
    }

    /// Events that wait.
    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_priority_goes_first_and_equals_keep_their_order() {
        let mut queue = RunQueue::new();
        for (n, p) in [Priority::Low, Priority::Normal, Priority::Urgent, Priority::Normal, Priority::High]
            .into_iter()
            .enumerate()
        {
            queue.push(p, n);
        }
        assert!(queue.has_above(Priority::Low) && !queue.has_above(Priority::Urgent) && queue.len() == 5);
        let order: Vec<usize> = std::iter::from_fn(|| queue.pop().map(|(_, n)| n)).collect();
        assert_eq!(order, [2, 4, 1, 3, 0]);
        assert_eq!(queue.len(), 0);
    }
}
