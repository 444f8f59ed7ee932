use cl_base::Time;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The host's source of [`Time`]: the wall clock at start plus the monotonic clock since, so that it
/// never goes backwards whatever happens to the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Time,
    start: Instant,
}

impl Clock {
    /// A clock that starts now at the wall-clock time (at the epoch, if the wall clock is before it).
    pub fn new() -> Clock {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { wall: Time::ZERO + since_epoch, start: Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Time {
        self.wall + self.start.elapsed()
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}
