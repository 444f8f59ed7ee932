use super::{Channel, Way};
use crate::shm::ring::{Producer, Stretch};

/// Why no more of many messages were put into a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop<M> {
    /// There were no more.
    Done,
    /// There is no room for the next one now.
    Full,
    /// This one does not go that way: it is longer than what is copied, or the other side is gone.
    Other(M),
}

impl Channel {
    /// Hands over copies of messages of up to `copy_max` bytes, at most [`INLINE_MAX`](crate::shm::INLINE_MAX), and tells how
    /// many. What is known of the ring stays in registers meanwhile, for stores are what a message costs.
    #[inline(never)]
    pub(in crate::shm) fn send_copies<M: AsRef<[u8]>, I: Iterator<Item = M>>(
        &mut self,
        copy_max: usize,
        mut messages: I,
    ) -> (usize, Stop<M>, I) {
        let copy_max = if self.is_over() { None } else { Some(copy_max) };
        let mut stretch = self.producer.stretch(&self.out.ring);
        let mut before = 0;
        let stop = loop {
            let Some(message) = messages.next() else { break Stop::Done };
            let contents = message.as_ref();
            if copy_max.is_none_or(|max| contents.len() > max) {
                break Stop::Other(message);
            }
            if !stretch.put(contents) {
                before += stretch.messages();
                let put;
                (put, stretch) = put_behind(&mut self.producer, &self.out, stretch, contents);
                if !put {
                    break Stop::Full;
                }
                before += 1;
            }
        };
        let count = before + stretch.messages();
        self.producer.end_stretch(stretch);
        (count, stop, messages)
    }
}

/// Puts a message behind a stretch into which it does not fit, and tells of the stretch behind that. Not a method
/// of the stretch, which is handed on by value: what a call refers to does not stay in registers.
#[inline(never)]
fn put_behind<'a>(
    producer: &mut Producer,
    out: &'a Way,
    written: Stretch<'a>,
    contents: &[u8],
) -> (bool, Stretch<'a>) {
    producer.end_stretch(written);
    let put = producer.put(&out.ring, out.consumed(), None, contents);
    (put, producer.stretch(&out.ring))
}
