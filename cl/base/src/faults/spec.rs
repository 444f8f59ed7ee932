use super::{Faults, Rate, RateError};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a text is not a list of [`Faults`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not of the form `name=value`.
    #[error("{0:?} is not of the form name=value")]
    NotAnItem(String),
    /// No fault has this name.
    #[error("no fault is called {0:?}: use drop, corrupt, duplicate, reorder, delay or any")]
    UnknownName(String),
    /// The same name twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// Not a rate.
    #[error("{name}={value}: {error}")]
    Rate {
        /// Of the item.
        name: String,
        /// Of the item.
        value: String,
        /// Why not.
        #[source]
        error: RateError,
    },
    /// Not a time and a rate.
    #[error("delay={0}: a delay is 2ms@5%, or 1ms..5ms@5%")]
    Delay(String),
}

impl Faults {
    /// Reads one item, `name=value`, of those in the table at [`Faults`].
    ///
    /// # Errors
    /// [`SpecError`] says what is wrong with it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SpecError> {
        let rate = match name {
            "drop" => &mut self.drop,
            "corrupt" => &mut self.corrupt,
            "duplicate" => &mut self.duplicate,
            "reorder" => &mut self.reorder,
            "any" => &mut self.any,
            "delay" => {
                let (span, rate) = delay(value).ok_or_else(|| SpecError::Delay(value.to_owned()))?;
                (self.delay_span, self.delay) = (span, rate);
                return Ok(());
            }
            _ => return Err(SpecError::UnknownName(name.to_owned())),
        };
        *rate = value.parse().map_err(|error| SpecError::Rate {
            name: name.to_owned(),
            value: value.to_owned(),
            error,
        })?;
        Ok(())
    }

    /// The items of a list: names and values, every name once. Blank items are skipped.
    ///
    /// # Errors
    /// [`SpecError::NotAnItem`] and [`SpecError::Twice`].
    pub fn items(list: &str) -> Result<Vec<(&str, &str)>, SpecError> {
        let mut items: Vec<(&str, &str)> = Vec::new();
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, value) = item.split_once('=').ok_or_else(|| SpecError::NotAnItem(item.to_owned()))?;
            let (name, value) = (name.trim(), value.trim());
            if items.iter().any(|(n, _)| *n == name) {
                return Err(SpecError::Twice(name.to_owned()));
            }
            items.push((name, value));
        }
        Ok(items)
    }
}

/// `LOW..HIGH@RATE` or `TIME@RATE`.
fn delay(value: &str) -> Option<((Duration, Duration), Rate)> {
    let (span, rate) = value.split_once('@')?;
    let time = |text: &str| humantime::parse_duration(text.trim()).ok();
    let (low, high) = match span.split_once("..") {
        Some((low, high)) => (time(low)?, time(high)?),
        None => (time(span)?, time(span)?),
    };
    (low <= high).then_some(((low, high), rate.parse().ok()?))
}

impl FromStr for Faults {
    type Err = SpecError;
    fn from_str(list: &str) -> Result<Faults, SpecError> {
        let mut faults = Faults::NONE;
        for (name, value) in Faults::items(list)? {
            faults.set(name, value)?;
        }
        Ok(faults)
    }
}

impl fmt::Display for Faults {
    /// As [`Faults::from_str`](FromStr) reads it; empty if nothing ever happens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Faults { drop, corrupt, duplicate, reorder, delay, delay_span: (low, high), any } = self;
        let mut separator = "";
        for (name, rate) in [
            ("drop", drop),
            ("corrupt", corrupt),
            ("duplicate", duplicate),
            ("reorder", reorder),
            ("any", any),
        ] {
            if !rate.is_never() {
                write!(f, "{separator}{name}={rate}")?;
                separator = ",";
            }
        }
        // The span also matters to `any`.
        if !delay.is_never() || self.delay_span != Faults::NONE.delay_span {
            let time = humantime::format_duration;
            write!(f, "{separator}delay={}..{}@{delay}", time(*low), time(*high))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_read_item_by_item() {
        let faults: Faults =
            " drop=1%, reorder=0.02,duplicate=1e-3 , corrupt=1e-6/byte,delay=2ms@5%,any=50%/message,"
                .parse()
                .unwrap();
        let expected = Faults {
            drop: Rate::per_message(0.01),
            corrupt: Rate::per_byte(1e-6),
            duplicate: Rate::per_message(0.001),
            reorder: Rate::per_message(0.02),
            delay: Rate::per_message(0.05),
            delay_span: (Duration::from_millis(2), Duration::from_millis(2)),
            any: Rate::per_message(0.5),
        };
        assert_eq!(faults, expected);
        assert_eq!("".parse(), Ok(Faults::NONE));
        let span: Faults = "delay=500us..1s@1e-4/byte".parse().unwrap();
        assert_eq!(span.delay_span, (Duration::from_micros(500), Duration::from_secs(1)));
        assert_eq!(span.delay, Rate::per_byte(1e-4));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |list: &str| list.parse::<Faults>().unwrap_err().to_string();
        assert_eq!(error("drop"), "\"drop\" is not of the form name=value");
        assert_eq!(
            error("lose=1%"),
            "no fault is called \"lose\": use drop, corrupt, duplicate, reorder, delay or any"
        );
        assert_eq!(error("drop=1%,drop=2%"), "drop is given twice");
        for rate in ["", "x", "-1%", "101%", "1.5", "NaN", "inf", "1%/bit", "/byte", "1%%"] {
            let message = error(&format!("drop={rate}"));
            assert!(message.starts_with(&format!("drop={rate}: a rate is 1%")), "{message}");
        }
        for never in ["delay=5ms@0", "delay=4y724y@0,drop=1%"] {
            let faults: Faults = never.parse().unwrap();
            assert_eq!(faults.to_string().parse(), Ok(faults), "{never}");
        }
        for delay in ["2ms", "5%", "2ms@", "@5%", "2@5%", "3ms..2ms@5%", "1ms..@1%", "-1ms@1%"] {
            assert_eq!(
                error(&format!("delay={delay}")),
                format!("delay={delay}: a delay is 2ms@5%, or 1ms..5ms@5%")
            );
        }
    }

    fn rate() -> impl Strategy<Value = Rate> {
        (0.0..=1.0f64, any::<bool>())
            .prop_map(|(p, per_byte)| if per_byte { Rate::per_byte(p) } else { Rate::per_message(p) })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            rates in [rate(), rate(), rate(), rate(), rate(), rate()],
            low in 0u64..1 << 40,
            more in 0u64..1 << 40,
        ) {
            let [drop, corrupt, duplicate, reorder, delay, any] = rates;
            let delay_span = (Duration::from_nanos(low), Duration::from_nanos(low + more));
            let mut faults = Faults { drop, corrupt, duplicate, reorder, delay, delay_span, any };
            let text = faults.to_string();
            // What never happens is not written, so in which unit it never does is forgotten.
            for rate in [
                &mut faults.drop, &mut faults.corrupt, &mut faults.duplicate,
                &mut faults.reorder, &mut faults.delay, &mut faults.any,
            ] {
                if rate.is_never() {
                    *rate = Rate::NEVER;
                }
            }
            prop_assert_eq!(text.parse::<Faults>(), Ok(faults), "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = text.parse::<Faults>();
        }

        #[test]
        fn any_text_of_the_right_letters_is_read_or_refused(
            text in "((drop|corrupt|delay|any|reorder|x)=[0-9.e%@a-z/-]{0,12},?){0,4}"
        ) {
            if let Ok(faults) = text.parse::<Faults>() {
                prop_assert_eq!(faults.to_string().parse::<Faults>().map(|f| f.to_string()), Ok(faults.to_string()));
            }
        }
    }
}
