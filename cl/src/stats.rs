use crate::counters::label::counts;

counts! {
    /// Counters of an endpoint since it was opened.
    pub struct Stats {
        /// Messages accepted for sending.
        messages_sent,
        /// Datagrams that the network took.
        datagrams_sent,
        /// Of these, datagrams with contents that the network sent from where they lie, without a copy.
        datagrams_lent,
        /// Times that the network would not send from there, and a copy was sent. The next of these datagrams are copied,
        /// then it is asked again.
        lends_refused,
        /// Bytes of contents in the datagrams sent and in the messages sent through shared memory.
        bytes_sent,
        /// Sends refused with an error.
        sends_refused,
        /// Messages handed to the caller.
        messages_received,
        /// Datagrams received, refused ones included.
        datagrams_received,
        /// Bytes of contents in the messages handed to the caller.
        bytes_received,
        /// Messages handed to processes of this host through shared memory; among the messages sent.
        shared_sent,
        /// Messages from processes of this host through shared memory; among the messages received.
        shared_received,
        /// Messages that were copied on their way by us (short ones into and out of shared memory, fragments
        /// and packed ones into buffers of their own), and datagrams that libfabric could not send at once.
        copies,
        /// Times that nothing could be received because the pool was used up.
        starved,
        ;
        /// What was dropped, and why.
        drops: Drops
    }
}

counts! {
    /// Frames and messages dropped, and processes turned away that wanted to share memory, by reason.
    pub struct Drops {
        /// Shorter than a header.
        truncated,
        /// Not our magic number.
        magic,
        /// Another version of the header.
        version,
        /// Impossible fragment numbers, or a length that does not fit them.
        geometry,
        /// For another party than this endpoint's.
        misaddressed,
        /// A fragment that had arrived before.
        duplicate_fragment,
        /// A fragment that contradicts earlier ones of its message.
        inconsistent_fragment,
        /// A fragment for whose message there was no buffer.
        exhausted,
        /// Unfinished messages that gave way to others.
        reassembly_evicted,
        /// Unfinished messages that waited too long for the rest.
        reassembly_expired,
        /// Messages accepted for sending that the system refused later, at least in part.
        send_failed,
        /// Errors of the system while receiving.
        receive_failed,
        /// Datagrams for parties that do not say where they are, or take none (libfabric).
        unreachable,
        /// Datagrams that do not say where they come from (libfabric).
        preamble,
        /// Questions and answers about addresses that make no sense or were not asked for (libfabric).
        control,
        /// Frames whose headers contradict themselves, or whose sender cannot be one (AF_XDP).
        frame,
        /// Processes that connected to share memory and did not say in time what they share.
        stranger_silent,
        /// The same, which gave way to others because too many of them were silent at once.
        stranger_crowded,
        /// Processes that connected to share memory and went away, or refused to share it.
        stranger_left,
        /// Processes of other users that wanted to share memory.
        stranger_user,
        /// Processes that wanted to share what cannot be shared.
        stranger_offer,
        /// Processes that wanted to share memory and for which there was no room, or that the system refused.
        stranger_refused,
    }
}

impl Drops {
    /// All of them together.
    pub fn total(&self) -> u64 {
        self.values().iter().sum()
    }
}
