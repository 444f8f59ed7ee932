//! What a bad network does to messages, decided by a seeded generator.
//!
//! The functional fault model of dissertation 7.2.3.2: a message is lost, held back, changed, overtaken by
//! later ones, or arrives twice. [`Faults`] says how often, an [`Injector`] decides about one message after
//! another, and a [`Shelf`] keeps those that are held back. Nothing here knows what a message is or how it
//! travels, so simulated networks and the injector in front of real ones are the same code:
//!
//! ```
//! use cl_base::faults::{Faults, Injector};
//!
//! let faults: Faults = "drop=1%, duplicate=0.5%, corrupt=1e-6/byte, delay=2ms@5%".parse().unwrap();
//! let mut injector = Injector::new(faults, 7);
//! let mut message = *b"hello";
//! let verdict = injector.judge(message.len());
//! if let Some(damage) = verdict.damage {
//!     damage.apply(&mut message);
//! }
//! assert_eq!(injector.counts().messages, 1);
//! ```

mod injector;
mod rate;
mod shelf;
mod spec;

pub use injector::{Damage, FaultCounts, Hold, Injector, Verdict};
pub use rate::{Rate, RateError};
pub use shelf::{HELD_MAX, Shelf};
pub use spec::SpecError;

use std::time::Duration;

/// How often which fault happens. The default is never; [`Faults::from_str`](std::str::FromStr) reads
/// a comma-separated list of these:
///
/// | item | meaning |
/// | --- | --- |
/// | `drop=RATE` | the message is lost |
/// | `corrupt=RATE` | one to four neighbouring bytes of it change |
/// | `duplicate=RATE` | it is sent twice |
/// | `reorder=RATE` | one to three later messages on the same way overtake it |
/// | `delay=TIME@RATE`, `delay=LOW..HIGH@RATE` | it is held back for that long |
/// | `any=RATE` | one of these five, each equally likely |
///
/// `RATE` is `1%`, `0.01` or `1e-2` of the messages; with `/byte` behind it, of the bytes, where a message is
/// hit if one of its bytes is. `TIME` is `2ms`, `500us`, `1s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The message is lost.
    pub drop: Rate,
    /// Bytes of it are changed.
    pub corrupt: Rate,
    /// It is sent twice.
    pub duplicate: Rate,
    /// Later messages overtake it.
    pub reorder: Rate,
    /// It is held back for a time within [`Faults::delay_span`].
    pub delay: Rate,
    /// The shortest and the longest time it is held back for.
    pub delay_span: (Duration, Duration),
    /// One of these five faults, chosen at random.
    pub any: Rate,
}

impl Faults {
    /// A network that does nothing wrong.
    pub const NONE: Faults = Faults {
        drop: Rate::NEVER,
        corrupt: Rate::NEVER,
        duplicate: Rate::NEVER,
        reorder: Rate::NEVER,
        delay: Rate::NEVER,
        // For `any`: longer than a round trip within a machine room, shorter than time-outs that mean death.
        delay_span: (Duration::from_millis(1), Duration::from_millis(10)),
        any: Rate::NEVER,
    };

    /// True if no fault ever happens.
    pub fn is_none(&self) -> bool {
        let Faults { drop, corrupt, duplicate, reorder, delay, delay_span: _, any } = *self;
        [drop, corrupt, duplicate, reorder, delay, any].iter().all(|r| r.is_never())
    }
}

impl Default for Faults {
    fn default() -> Faults {
        Faults::NONE
    }
}
