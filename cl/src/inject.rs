//! Faults on purpose: the injector of dissertation 7.2.3.2, in front of any transport.
//!
//! What an endpoint sends (or receives, or both) is lost, held back, changed, reordered and doubled as often
//! as an [`Injection`] says, decided by [`cl_base::faults`] from a seed and counted by kind
//! ([`Endpoint::faults`](crate::Endpoint::faults)). It is asked for by
//! [`EndpointConfig::faults`](crate::EndpointConfig::faults) or, for programs as they are shipped, by the
//! environment variable [`FAULTS_VARIABLE`]:
//!
//! ```text
//! GHIDRAH_CL_FAULTS=drop=1%,reorder=1%,duplicate=1%,corrupt=1e-6/byte,delay=2ms@5%,seed=7
//! ```
//!
//! A changed message is changed before the kernel computes its checksum, so it arrives: above this layer it
//! takes a checksum or a MAC to notice. An endpoint without faults has no injector in its way; one with faults
//! shares no memory with others, so that nothing gets past the injector.

pub(crate) mod transport;

use cl_base::faults::{Faults, SpecError};
use std::fmt;
use std::str::FromStr;

/// The environment variable that overrides [`EndpointConfig::faults`](crate::EndpointConfig::faults); empty
/// for no faults.
pub const FAULTS_VARIABLE: &str = "GHIDRAH_CL_FAULTS";

/// Which faults to inject, and where. Its text form is that of [`Faults`], where `seed=NUMBER` and
/// `side=out`, `in` or `both` may stand beside the faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    /// How often which fault happens.
    pub faults: Faults,
    /// Equal seeds give equal decisions about equal sequences of datagrams; each endpoint makes its own
    /// of it and its [`PeerId`]. `None` takes one from the clock; the log tells which.
    pub seed: Option<u64>,
    /// Which datagrams are concerned.
    pub side: Side,
}

/// Which datagrams of an endpoint suffer faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Those it sends.
    #[default]
    Outgoing,
    /// Those it receives.
    Incoming,
    /// All.
    Both,
}

/// Why a text is not an [`Injection`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectionError {
    /// One of the faults is wrong.
    #[error(transparent)]
    Fault(#[from] SpecError),
    /// The seed is not a number.
    #[error("seed={0}: a seed is a number of 64 bits")]
    Seed(String),
    /// The side is none.
    #[error("side={0}: a side is out, in or both")]
    Side(String),
}

impl From<Faults> for Injection {
    /// On what is sent, with a seed from the clock.
    fn from(faults: Faults) -> Injection {
        Injection { faults, ..Injection::default() }
    }
}

impl FromStr for Injection {
    type Err = InjectionError;
    fn from_str(list: &str) -> Result<Injection, InjectionError> {
        let mut injection = Injection::default();
        for (name, value) in Faults::items(list)? {
            match name {
                "seed" => {
                    let seed = value.parse().map_err(|_| InjectionError::Seed(value.to_owned()))?;
                    injection.seed = Some(seed);
                }
                "side" => {
                    injection.side = match value {
                        "out" => Side::Outgoing,
                        "in" => Side::Incoming,
                        "both" => Side::Both,
                        _ => return Err(InjectionError::Side(value.to_owned())),
                    };
                }
                _ => injection.faults.set(name, value)?,
            }
        }
        Ok(injection)
    }
}

impl fmt::Display for Injection {
    /// As [`Injection::from_str`](FromStr) reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Outgoing => "out",
            Side::Incoming => "in",
            Side::Both => "both",
        };
        if self.faults != Faults::NONE {
            write!(f, "{},", self.faults)?;
        }
        if let Some(seed) = self.seed {
            write!(f, "seed={seed},")?;
        }
        write!(f, "side={side}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cl_base::faults::Rate;
    use proptest::prelude::*;

    #[test]
    fn seed_and_side_stand_beside_the_faults() {
        let injection: Injection = "drop=1%,seed=7,side=both".parse().unwrap();
        let faults = Faults { drop: Rate::per_message(0.01), ..Faults::NONE };
        assert_eq!(injection, Injection { faults, seed: Some(7), side: Side::Both });
        assert_eq!("".parse(), Ok(Injection::default()));
        let error = |list: &str| list.parse::<Injection>().unwrap_err().to_string();
        assert_eq!(error("seed=-1"), "seed=-1: a seed is a number of 64 bits");
        assert_eq!(error("side=left"), "side=left: a side is out, in or both");
        assert_eq!(error("seed=1,seed=2"), "seed is given twice");
        assert!(error("drop=2").starts_with("drop=2: a rate is"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(p in 0.0..=1.0f64, seed in any::<Option<u64>>(), side in 0..3usize) {
            let faults = Faults { any: Rate::per_message(p), ..Faults::NONE };
            let side = [Side::Outgoing, Side::Incoming, Side::Both][side];
            let injection = Injection { faults, seed, side };
            prop_assert_eq!(injection.to_string().parse(), Ok(injection), "{}", injection);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "((drop|delay|seed|side|=|,)[0-9a-z%@,=.]{0,8}){0,5}") {
            let _ = text.parse::<Injection>();
        }
    }
}
