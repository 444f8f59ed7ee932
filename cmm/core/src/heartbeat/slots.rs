//! When heartbeats leave, and when managers look for them: at times that many have in common, as far as their clocks agree.
//!
//! What an agent's wake-up takes from the jobs of a node it takes from all nodes of a job at the same time, and they wait for
//! each other once. A manager that heartbeats reach by sessions, which wake it, is woken once by what arrives together. One that
//! looks for them does so when those of this period are there.

use cl_base::Time;
use std::time::Duration;

/// Agents that send at the same time. A socket's queue holds four times as many without being read.
const TOGETHER: usize = 64;
/// The times in a period at which agents send, in eighths of it. With more agents than these hold, more send together.
const SLOTS: usize = 8;

/// Heartbeats are forwarded as often as that at least, if they are sent as often: a manager that wakes ten times per second costs
/// nothing to speak of.
const LOOKS: Duration = Duration::from_millis(100);

/// The time of the next heartbeat of the agent that has this place among all, after one at `now`.
pub fn agent_slot(now: Time, period: Duration, place: usize) -> Time {
    let slot = u32::try_from(place / TOGETHER % SLOTS).expect("below SLOTS");
    next(now, period, period * slot / SLOTS as u32)
}

/// How often a manager looks for heartbeats: after so many periods of theirs as fit into an eighth of `suspect_after`, the time
/// after which a silent node is suspected, which may thus come later by an eighth; and into [`LOOKS`].
pub fn looking_period(period: Duration, suspect_after: Duration) -> Duration {
    let fit = (suspect_after / 8).min(LOOKS).as_nanos() / period.as_nanos();
    period * u32::try_from(fit).expect("periods of 100 ms").max(1)
}

/// The time at which a manager looks for heartbeats next, after one at `now`: half a heartbeat's `period` after the first agents
/// have sent. What a backup (`forwards`) then sends to the other managers is there when these look, a quarter of a period later.
pub fn manager_slot(now: Time, period: Duration, looking: Duration, forwards: bool) -> Time {
    next(now, looking, if forwards { period / 2 } else { period * 3 / 4 })
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
        assert_eq!(manager_slot(at(50), PERIOD, PERIOD, true), at(150));
        assert_eq!(manager_slot(at(50), PERIOD, PERIOD, false), at(175), "one that was a backup");
        assert_eq!(manager_slot(at(175), PERIOD, PERIOD, true), at(250), "and is one again");
        let fast = Duration::from_millis(20);
        assert_eq!(manager_slot(at(10), fast, PERIOD, true), at(110));
        assert_eq!(manager_slot(at(10), fast, PERIOD, false), at(115));
        let mut now = at(17);
        for _ in 0..1000 {
            let next = agent_slot(now, PERIOD, 100);
            let pause = next.saturating_since(now);
            assert!(pause >= PERIOD / 2 && pause <= PERIOD * 3 / 2);
            now = next + Duration::from_millis(2);
        }
        assert_eq!(now.saturating_since(at(17)).as_millis(), 999 * 100 + 97, "none is left out");
    }

    #[test]
    fn managers_look_as_often_as_suspicion_needs() {
        let ms = Duration::from_millis;
        for (period, suspect_after, looking) in [
            (100, 1000, 100),
            (100, 400, 100),
            (20, 1000, 100),
            (20, 200, 20),
            (30, 600_000, 90),
            (60_000, 600_000, 60_000),
        ] {
            assert_eq!(
                looking_period(ms(period), ms(suspect_after)),
                ms(looking),
                "{period} {suspect_after}"
            );
        }
    }
}
