//! A test-only fault: a manager that lies. It is part of the shipped binary, so that what is tested is what
//! is shipped, and needs an environment variable that nobody sets by accident.

/// With this variable set to `flip-outputs`, a manager flips a bit in the contents of every reply and
/// notification that it sends, as a fault in its memory would.
pub const CORRUPT_VARIABLE: &str = "GHIDRAH_TEST_CORRUPT_MANAGER";

/// Corrupts what a manager sends to clients, if told to.
#[derive(Debug)]
pub(super) struct Corruption {
    active: bool,
    sent: u64,
}

impl Corruption {
    /// Looks at the environment.
    ///
    /// # Errors
    /// If the variable has an unknown value.
    pub(super) fn from_env() -> Result<Corruption, String> {
        let active = match std::env::var(CORRUPT_VARIABLE).as_deref() {
            Err(_) | Ok("") => false,
            Ok("flip-outputs") => true,
            Ok(other) => {
                return Err(format!("{CORRUPT_VARIABLE}={other}: the only fault known is flip-outputs"));
            }
        };
        if active {
            tracing::warn!("TEST: this manager corrupts everything that it sends to clients");
        }
        Ok(Corruption { active, sent: 0 })
    }

    /// Flips one bit of a message to a client, in the last quarter: behind the headers, in the contents.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        if self.active && !bytes.is_empty() {
            self.sent += 1;
            let bits = bytes.len() as u64 * 8;
            let at = bits - 1 - self.sent * 7 % (bits / 4).max(1);
            bytes[(at / 8) as usize] ^= 1 << (at % 8);
        }
    }
}
