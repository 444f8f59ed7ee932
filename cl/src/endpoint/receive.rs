//! Receiving: from shared memory and from the network, by turns.

use super::Endpoint;
use super::rhythm::SHARED_IN_A_ROW;
use crate::message::{Message, Received};
use crate::shm::Shm;

impl Endpoint {
    /// The next message that has arrived. `None` means: nothing now.
    #[inline]
    pub fn poll(&mut self) -> Option<Received> {
        self.flush();
        if !self.sharing {
            return self.poll_network();
        }
        if self.rhythm.in_a_row >= SHARED_IN_A_ROW {
            self.rhythm.in_a_row = 0;
            if let Some(received) = self.poll_network_if_due() {
                return Some(received);
            }
        }
        match self.poll_shared() {
            Some(received) => {
                self.rhythm.in_a_row += 1;
                Some(received)
            }
            None => self.poll_network_if_due(),
        }
    }

    /// Calls `each` with up to `max` messages that have arrived, where they lie, and tells how many there were:
    /// the fastest way to receive many small messages. Like [`Endpoint::poll`] it sends what waits.
    #[inline]
    pub fn drain(&mut self, max: usize, mut each: impl FnMut(Message<'_>)) -> usize {
        self.flush();
        let mut count = 0;
        if self.sharing
            && let Some(shm) = &mut self.shm
        {
            let budget = match self.rhythm.in_a_row {
                // The network has its turn, too.
                SHARED_IN_A_ROW.. => max - max / 4,
                _ => max,
            };
            count = shm.visit(budget, |_, from, addr, contents| each(Message { from, addr, contents }));
            if count > 0 {
                self.rhythm.shared_is_used = true;
            }
            self.rhythm.in_a_row = if budget < max { 0 } else { self.rhythm.in_a_row + count as u32 };
        }
        if count < max && !self.network_can_wait() {
            if self.shm.is_some() {
                self.tend_if_due();
            }
            let seen = self.network.visit(max - count, &mut self.tally, |from, addr, contents| {
                each(Message { from, addr, contents });
            });
            self.rhythm.looked_at_network(seen > 0);
            count += seen;
        }
        count
    }

    #[inline]
    fn poll_shared(&mut self) -> Option<Received> {
        let (channel, from, addr, buf) = self.shm.as_mut()?.recv(&mut self.tally.stats)?;
        self.rhythm.shared_is_used = true;
        Some(Received { from, addr, buf, channel: Some(channel) })
    }

    pub(crate) fn poll_network(&mut self) -> Option<Received> {
        self.tend_if_due();
        let received = self.network.recv(&mut self.tally)?;
        self.tally.received(received.from, received.buf.len());
        Some(received)
    }

    #[inline]
    fn poll_network_if_due(&mut self) -> Option<Received> {
        if self.network_can_wait() {
            return None;
        }
        let received = self.poll_network();
        self.rhythm.looked_at_network(received.is_some());
        received
    }

    /// True if memory is busy and the network was looked at lately. Not after a sleep, for then the bell that
    /// may have ended it must be silenced, or it would end the next one.
    #[inline]
    fn network_can_wait(&mut self) -> bool {
        self.sharing
            && self.rhythm.is_shared_hot()
            && !self.shm.as_ref().is_some_and(Shm::is_asleep)
            && !self.rhythm.network_is_due(&self.clock)
    }
}
