//! When heartbeats leave: at times that many agents have in common, as far as their clocks agree.
//!
//! A manager that sleeps is woken by whatever arrives, and waking it costs many times what a heartbeat costs. What
//! arrives together wakes it once. So does what an agent's wake-up takes from the jobs of a node: it takes it from all nodes of a
//! job at the same time, and they wait for each other once.

use cl_base::Time;
use std::time::Duration;

/// Agents that send at the same time. A socket's queue holds four times as many without being read.
const TOGETHER: usize = 64;
/// The times in a period at which agents send, in eighths of it. With more agents than these hold, more send together.
const SLOTS: usize = 8;

/// The time of the next heartbeat of the agent that has this place among all, after one at `now`.
pub fn agent_slot(now: Time, period: Duration, place: usize) -> Time {
    let slot = u32::try_from(place / TOGETHER % SLOTS).expect("below SLOTS");
    next(now, period, period * slot / SLOTS as u32)
}

/// The time at which a manager's next period ends, after one at `now`: half a period after the first agents have sent.
pub fn manager_slot(now: Time, period: Duration) -> Time {
    next(now, period, period / 2)
}

/// The first multiple of `period`, plus `offset`, that is half a period or more away.
fn next(now: Time, period: Duration, offset: Duration) -> Time {
    let (period, offset) = (period.as_nanos() as u64, offset.as_nanos() as u64);
    let earliest = (now.as_nanos() + period / 2).saturating_sub(offset);
    Time::from_nanos(earliest.div_ceil(period) * period + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Time {
        Time::from_nanos((1 << 50) / 100_000_000 * 100_000_000 + ms * 1_000_000)
    }

    #[test]
    fn agents_send_once_in_a_period_and_64_of_them_together() {
        assert_eq!(agent_slot(at(0), PERIOD, 0), at(100));
        assert_eq!(agent_slot(at(3), PERIOD, 63), at(100), "a timer that was late");
        assert_eq!(agent_slot(at(99), PERIOD, 63), at(200), "and one that was early");
        assert_eq!(agent_slot(at(0), PERIOD, 64), Time::from_nanos(at(0).as_nanos() + 112_500_000));
        assert_eq!(agent_slot(at(0), PERIOD, 8 * 64), at(100), "the first slot again");
        assert_eq!(manager_slot(at(50), PERIOD), at(150));
        let mut now = at(17);
        for _ in 0..1000 {
            let next = agent_slot(now, PERIOD, 100);
            let pause = next.saturating_since(now);
            assert!(pause >= PERIOD / 2 && pause <= PERIOD * 3 / 2);
            now = next + Duration::from_millis(2);
        }
        assert_eq!(now.saturating_since(at(17)).as_millis(), 999 * 100 + 97, "none is left out");
    }
}
