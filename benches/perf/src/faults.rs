//! Faults injected on purpose, as a report tells of them.

use cl_base::faults::FaultCounts;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::AddAssign;

/// What was done to datagrams on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// Datagrams that were subject to faults, those that nothing happened to included.
    pub datagrams: u64,
    /// Lost.
    pub dropped: u64,
    /// Changed.
    pub corrupted: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Held back until later ones had passed.
    pub reordered: u64,
    /// Held back for a time.
    pub delayed: u64,
}

impl Injected {
    /// All faults together.
    pub fn total(&self) -> u64 {
        let Injected { datagrams: _, dropped, corrupted, duplicated, reordered, delayed } = *self;
        dropped + corrupted + duplicated + reordered + delayed
    }
}

impl From<FaultCounts> for Injected {
    fn from(counts: FaultCounts) -> Injected {
        let FaultCounts { messages, dropped, corrupted, duplicated, reordered, delayed } = counts;
        Injected { datagrams: messages, dropped, corrupted, duplicated, reordered, delayed }
    }
}

impl AddAssign for Injected {
    fn add_assign(&mut self, other: Injected) {
        let Injected { datagrams, dropped, corrupted, duplicated, reordered, delayed } = other;
        self.datagrams += datagrams;
        self.dropped += dropped;
        self.corrupted += corrupted;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.delayed += delayed;
    }
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Injected { datagrams, dropped, corrupted, duplicated, reordered, delayed } = self;
        write!(f, "of {datagrams} datagrams {dropped} dropped, {corrupted} corrupted, ")?;
        write!(f, "{duplicated} duplicated, {reordered} reordered, {delayed} delayed")
    }
}

/// An [`Injection`](cl::Injection) as the text that people write.
pub(crate) mod as_text {
    use cl::Injection;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(faults: &Option<Injection>, to: S) -> Result<S::Ok, S::Error> {
        match faults {
            Some(injection) => to.collect_str(injection),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Injection>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    #[test]
    fn a_case_keeps_its_faults_on_the_way_to_a_worker() {
        let case = *table::quick().subjects[0].case();
        for faults in [None, Some("drop=1%,corrupt=1e-6/byte,seed=7,side=both".parse().unwrap())] {
            let case = crate::Case { faults, ..case };
            let text = serde_json::to_string(&case).unwrap();
            assert_eq!(serde_json::from_str::<crate::Case>(&text).unwrap(), case, "{text}");
        }
    }

    #[test]
    fn faults_add_up() {
        let one =
            Injected { datagrams: 100, dropped: 1, corrupted: 2, duplicated: 3, reordered: 4, delayed: 5 };
        let mut sum = one;
        sum += one;
        assert_eq!((sum.datagrams, sum.total()), (200, 30));
        assert_eq!(
            one.to_string(),
            "of 100 datagrams 1 dropped, 2 corrupted, 3 duplicated, 4 reordered, 5 delayed"
        );
    }
}
