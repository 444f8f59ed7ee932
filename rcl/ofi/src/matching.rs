//! Which message goes into which receive.
//!
//! A receive names a source or takes any, and a tag of which some bits may be ignored. A message goes into the
//! receive posted first among those it fits; a receive takes the message that arrived first among those that fit it.
//!
//! Receives that leave the same open (any source or one, these bits of the tag or those) are a class. A program has a few:
//! MPICH ignores two bits in every receive, and the tag in those for any tag. In each class, what a receive fits is one key,
//! by which both receives and waiting messages are looked up. So a match costs one look-up for each class in use, however
//! many receives are posted and however many messages wait. Beyond [`CLASSES_MAX`] classes the lists are searched.
//!
//! No I/O, no time, no memory of others: sources are numbers, what receives and messages are is the caller's.

use rustc_hash::FxHashMap;
use slab::Slab;

/// Classes that are looked up; MPI libraries use fewer than half of these.
const CLASSES_MAX: usize = 8;
/// The list of all messages in the order of their arrival, behind those of the classes.
const ARRIVALS: usize = CLASSES_MAX;
const NOBODY: u32 = u32::MAX;

/// What a receive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// From whom; `None` for anybody.
    pub(crate) source: Option<u32>,
    pub(crate) tag: u64,
    /// Bits of the tag that do not matter.
    pub(crate) ignore: u64,
}

impl Wanted {
    fn fits(&self, source: u32, tag: u64) -> bool {
        self.source.is_none_or(|wanted| wanted == source) && (self.tag ^ tag) & !self.ignore == 0
    }
}

/// The name of a receive that is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReceiveId(usize);

/// The name of a message that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageId(usize);

/// What all receives of a class leave open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    any_source: bool,
    ignore: u64,
}

/// What fits one another in a class: the source if it matters, and the bits of the tag that do.
type Key = (u32, u64);

impl Open {
    fn of(wanted: &Wanted) -> Open {
        Open { any_source: wanted.source.is_none(), ignore: wanted.ignore }
    }

    fn key(self, source: u32, tag: u64) -> Key {
        (if self.any_source { NOBODY } else { source }, tag & !self.ignore)
    }
}

struct Class {
    open: Open,
    receives: FxHashMap<Key, Ends>,
    messages: FxHashMap<Key, Ends>,
}

/// The first and the last of a list.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: usize,
    last: usize,
}

const NONE: usize = usize::MAX;
const EMPTY: Ends = Ends { first: NONE, last: NONE };

#[derive(Clone, Copy, Debug)]
struct Links {
    before: usize,
    after: usize,
}

const UNLINKED: Links = Links { before: NONE, after: NONE };

/// A member of up to `LISTS` lists.
trait Linked {
    fn links(&mut self, list: usize) -> &mut Links;
}

fn append<T: Linked>(all: &mut Slab<T>, ends: &mut Ends, list: usize, id: usize) {
    *all[id].links(list) = Links { before: ends.last, after: NONE };
    match ends.last {
        NONE => ends.first = id,
        last => all[last].links(list).after = id,
    }
    ends.last = id;
}

fn unlink<T: Linked>(all: &mut Slab<T>, ends: &mut Ends, list: usize, id: usize) {
    let Links { before, after } = std::mem::replace(all[id].links(list), UNLINKED);
    match before {
        NONE => ends.first = after,
        before => all[before].links(list).after = after,
    }
    match after {
        NONE => ends.last = before,
        after => all[after].links(list).before = before,
    }
}

/// Takes `id` out of the list of its key, and the key away with its last.
fn unlink_keyed<T: Linked>(
    all: &mut Slab<T>,
    lists: &mut FxHashMap<Key, Ends>,
    key: Key,
    list: usize,
    id: usize,
) {
    let ends = lists.get_mut(&key).expect("what is linked has a list");
    unlink(all, ends, list, id);
    if ends.first == NONE {
        lists.remove(&key);
    }
}

struct Receive<R> {
    wanted: Wanted,
    /// `None` beyond the greatest number of classes.
    class: Option<usize>,
    /// The order of posting.
    sequence: u64,
    links: Links,
    item: R,
}

impl<R> Linked for Receive<R> {
    fn links(&mut self, _: usize) -> &mut Links {
        &mut self.links
    }
}

struct Message<M> {
    source: u32,
    tag: u64,
    /// In the list of its key in each class, and in that of all.
    links: [Links; CLASSES_MAX + 1],
    item: M,
}

impl<M> Linked for Message<M> {
    fn links(&mut self, list: usize) -> &mut Links {
        &mut self.links[list]
    }
}

/// Receives posted and messages waiting.
pub(crate) struct Matching<R, M> {
    classes: Vec<Class>,
    receives: Slab<Receive<R>>,
    /// Receives of no class.
    others: Ends,
    messages: Slab<Message<M>>,
    arrivals: Ends,
    posted: u64,
}

impl<R, M> Matching<R, M> {
    pub(crate) fn new() -> Matching<R, M> {
        Matching {
            classes: Vec::new(),
            receives: Slab::new(),
            others: EMPTY,
            messages: Slab::new(),
            arrivals: EMPTY,
            posted: 0,
        }
    }

    /// The class of what a receive wants, in which waiting messages are found; a new one if there is room for it.
    fn class_of(&mut self, wanted: &Wanted) -> Option<usize> {
        let open = Open::of(wanted);
        if let Some(class) = self.classes.iter().position(|class| class.open == open) {
            return Some(class);
        }
        let class = self.classes.len();
        if class == CLASSES_MAX {
            return None;
        }
        let mut lists = FxHashMap::default();
        let mut at = self.arrivals.first;
        while at != NONE {
            let message = &self.messages[at];
            let key = open.key(message.source, message.tag);
            append(&mut self.messages, lists.entry(key).or_insert(EMPTY), class, at);
            at = self.messages[at].links[ARRIVALS].after;
        }
        self.classes.push(Class { open, receives: FxHashMap::default(), messages: lists });
        Some(class)
    }

    /// Posts a receive behind those there are. No waiting message may fit it ([`Matching::find`]).
    pub(crate) fn post(&mut self, wanted: Wanted, item: R) {
        let class = self.class_of(&wanted);
        let sequence = self.posted;
        self.posted += 1;
        let id = self.receives.insert(Receive { wanted, class, sequence, links: UNLINKED, item });
        let ends = match class {
            Some(class) => {
                let class = &mut self.classes[class];
                let key = class.open.key(wanted.source.unwrap_or(NOBODY), wanted.tag);
                class.receives.entry(key).or_insert(EMPTY)
            }
            None => &mut self.others,
        };
        append(&mut self.receives, ends, 0, id);
    }

    /// The receive for a message that has arrived, the first posted of those that fit.
    pub(crate) fn receive_for(&self, source: u32, tag: u64) -> Option<ReceiveId> {
        let mut first: Option<(u64, usize)> = None;
        for class in &self.classes {
            if !class.receives.is_empty()
                && let Some(ends) = class.receives.get(&class.open.key(source, tag))
            {
                let candidate = (self.receives[ends.first].sequence, ends.first);
                first = Some(first.map_or(candidate, |first| first.min(candidate)));
            }
        }
        let mut at = self.others.first;
        while at != NONE {
            let receive = &self.receives[at];
            if first.is_some_and(|(sequence, _)| sequence < receive.sequence) {
                break;
            }
            if receive.wanted.fits(source, tag) {
                first = Some((receive.sequence, at));
                break;
            }
            at = receive.links.after;
        }
        first.map(|(_, id)| ReceiveId(id))
    }

    pub(crate) fn receive(&mut self, id: ReceiveId) -> &mut R {
        &mut self.receives[id.0].item
    }

    /// Takes a receive away.
    pub(crate) fn remove(&mut self, id: ReceiveId) -> R {
        let id = id.0;
        let Receive { wanted, class, .. } = self.receives[id];
        match class {
            Some(class) => {
                let class = &mut self.classes[class];
                let key = class.open.key(wanted.source.unwrap_or(NOBODY), wanted.tag);
                unlink_keyed(&mut self.receives, &mut class.receives, key, 0, id);
            }
            None => unlink(&mut self.receives, &mut self.others, 0, id),
        }
        self.receives.remove(id).item
    }

    /// The first posted of the receives of which `is_it` is true. Searches them all.
    pub(crate) fn search(&self, mut is_it: impl FnMut(&Wanted, &R) -> bool) -> Option<ReceiveId> {
        let found = self.receives.iter().filter(|(_, r)| is_it(&r.wanted, &r.item));
        found.min_by_key(|(_, r)| r.sequence).map(|(id, _)| ReceiveId(id))
    }

    /// Keeps a message for which there is no receive.
    pub(crate) fn keep(&mut self, source: u32, tag: u64, item: M) {
        let links = [UNLINKED; CLASSES_MAX + 1];
        let id = self.messages.insert(Message { source, tag, links, item });
        for (list, class) in self.classes.iter_mut().enumerate() {
            let ends = class.messages.entry(class.open.key(source, tag)).or_insert(EMPTY);
            append(&mut self.messages, ends, list, id);
        }
        append(&mut self.messages, &mut self.arrivals, ARRIVALS, id);
    }

    /// The message for a receive, the first to have arrived of those that fit.
    pub(crate) fn find(&mut self, wanted: &Wanted) -> Option<MessageId> {
        if self.messages.is_empty() {
            return None;
        }
        if let Some(class) = self.class_of(wanted) {
            let class = &self.classes[class];
            let key = class.open.key(wanted.source.unwrap_or(NOBODY), wanted.tag);
            return class.messages.get(&key).map(|ends| MessageId(ends.first));
        }
        let mut at = self.arrivals.first;
        while at != NONE && !wanted.fits(self.messages[at].source, self.messages[at].tag) {
            at = self.messages[at].links[ARRIVALS].after;
        }
        (at != NONE).then_some(MessageId(at))
    }

    /// Source and tag of a message that waits, and the message.
    pub(crate) fn message(&self, id: MessageId) -> (u32, u64, &M) {
        let message = &self.messages[id.0];
        (message.source, message.tag, &message.item)
    }

    /// Takes a message away.
    pub(crate) fn take(&mut self, id: MessageId) -> (u32, u64, M) {
        let id = id.0;
        let Message { source, tag, .. } = self.messages[id];
        for (list, class) in self.classes.iter_mut().enumerate() {
            let key = class.open.key(source, tag);
            unlink_keyed(&mut self.messages, &mut class.messages, key, list, id);
        }
        unlink(&mut self.messages, &mut self.arrivals, ARRIVALS, id);
        (source, tag, self.messages.remove(id).item)
    }

    /// Each waiting message with its source.
    pub(crate) fn messages_mut(&mut self) -> impl Iterator<Item = (u32, &mut M)> {
        self.messages.iter_mut().map(|(_, message)| (message.source, &mut message.item))
    }
}

#[cfg(test)]
#[path = "matching_test.rs"]
mod tests;
