//! The loop that drives roles.

use crate::party::Party;
use crate::role::{Role, Step, TICK};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Messages taken from one party before the next has its turn.
const BATCH: usize = 64;
/// Turns between two looks at the clock, for a tick: reading it costs a tenth of the shortest round trip.
const TURNS_PER_LOOK: u32 = 256;

/// Polls the parties in turn, spinning, until every role has finished or `stop` is set.
///
/// # Errors
/// The first role's or party's that fails.
pub fn spin<P: Party, R: Role>(players: &mut [(P, R)], stop: &AtomicBool) -> Step {
    for (party, role) in players.iter_mut() {
        role.start(party)?;
    }
    let mut last_tick = Instant::now();
    let mut turns = 0u32;
    loop {
        let mut finished = true;
        for (party, role) in players.iter_mut() {
            turn(party, role)?;
            finished &= role.finished();
        }
        if finished || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(TURNS_PER_LOOK) && last_tick.elapsed() >= TICK {
            last_tick = Instant::now();
            for (party, role) in players.iter_mut() {
                role.on_tick(party)?;
            }
        }
    }
}

/// Polls the party, asleep while nothing arrives, until the role has finished or `stop` is set.
///
/// # Errors
/// The role's or the party's that fails.
pub fn park<P: Party, R: Role>((party, role): &mut (P, R), stop: &AtomicBool) -> Step {
    role.start(party)?;
    let mut last_tick = Instant::now();
    while !role.finished() && !stop.load(Ordering::Relaxed) {
        if turn(party, role)? {
            // A tick later at most, so that the next tick comes in time, and `stop` is seen.
            party.park(TICK)?;
        }
        if last_tick.elapsed() >= TICK {
            last_tick = Instant::now();
            role.on_tick(party)?;
        }
    }
    Ok(())
}

/// A party's turn. True if nothing had arrived.
#[inline]
fn turn<P: Party, R: Role>(party: &mut P, role: &mut R) -> Result<bool, String> {
    if role.takes_contents() {
        let mut failure = None;
        let taken = party.drain(BATCH, |from, contents| {
            // Nothing is stored for a message that is as it should be: what is measured is the layer.
            if let Err(why) = role.on_contents(from, contents) {
                failure.get_or_insert(why);
            }
        })?;
        if let Some(why) = failure {
            return Err(why);
        }
        if taken > 0 {
            role.after_contents(party)?;
        }
        if taken == 0 {
            role.on_idle(party)?;
        }
        return Ok(taken == 0);
    }
    for taken in 0..BATCH {
        let Some((from, buf)) = party.poll()? else {
            role.on_idle(party)?;
            return Ok(taken == 0);
        };
        role.on_message(party, from, buf)?;
    }
    Ok(false)
}
