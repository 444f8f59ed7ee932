//! A test-only fault: a manager that lies. It is part of the shipped binary, so that what is tested is what
//! is shipped, and needs an environment variable that nobody sets by accident.

use cmm_core::identity::NodeId;

/// With this variable set to `flip-outputs@nodeN`, the manager on node N flips a bit in the contents of every
/// reply and notification that it sends, as a fault in its memory would. The other managers, which inherit
/// the variable as well, do not.
pub const CORRUPT_VARIABLE: &str = "GHIDRAH_TEST_CORRUPT_MANAGER";

/// Corrupts what a manager sends to clients, if told to.
#[derive(Debug)]
pub(super) struct Corruption {
    active: bool,
    sent: u64,
}

impl Corruption {
    /// Looks at the environment for a fault of the manager on `node`.
    ///
    /// # Errors
    /// If the variable has an unknown value.
    pub(super) fn from_env(node: NodeId) -> Result<Corruption, String> {
        let value = std::env::var(CORRUPT_VARIABLE).unwrap_or_default();
        let active = match value.strip_prefix("flip-outputs@node").map(str::parse) {
            None if value.is_empty() => false,
            Some(Ok(liar)) => NodeId(liar) == node,
            _ => {
                return Err(format!(
                    "{CORRUPT_VARIABLE}={value}: the only fault known is flip-outputs@nodeN"
                ));
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
