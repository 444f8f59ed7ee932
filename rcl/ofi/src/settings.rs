//! Settings from the environment.

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Messages up to this many bytes are sent at once, longer ones when there is a place for them.
const EAGER_DEFAULT: usize = 64 << 10;
/// The same where the receiver could copy them out of the sender's memory, by a system call: longer ones gain by one copy less.
const EAGER_SHARED_DEFAULT: usize = 64 << 10;
/// No message sent at once may be longer: it needs a buffer in one piece at both ends.
const EAGER_MAX: usize = 1 << 20;
const DEAD_AFTER_DEFAULT: f64 = 30.0;
const LINGER_DEFAULT: f64 = 10.0;
/// Bounds of times: shorter ones mistake a busy machine for a dead one, longer ones are for ever.
const SECONDS: std::ops::RangeInclusive<f64> = 0.5..=86_400.0;

/// How endpoints are opened.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `RCL_ADDRESS`: the IP address to bind.
    pub(crate) ip: IpAddr,
    /// `RCL_SHM`: whether ranks on the same host share memory.
    pub(crate) shared_memory: bool,
    /// `RCL_EAGER`: bytes sent at once over the network.
    pub(crate) eager: usize,
    /// `RCL_EAGER_SHM`: and between processes that may copy each other's memory.
    pub(crate) eager_shared: usize,
    /// `RCL_DEAD_AFTER`: a peer that is silent for so long is dead.
    pub(crate) dead_after: Duration,
    /// `RCL_LINGER`: how long closing an endpoint waits for peers to take in what was sent.
    pub(crate) linger: Duration,
}

impl Settings {
    /// What the environment says, or what is wrong with it.
    pub(crate) fn from_environment() -> Result<Settings, String> {
        Settings::from(|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
        let ip = match variable("RCL_ADDRESS") {
            Some(text) => text.parse().map_err(|_| format!("RCL_ADDRESS={text:?} is no IP address"))?,
            None => own_address(),
        };
        let shared_memory = match variable("RCL_SHM").as_deref() {
            None | Some("1") => true,
            Some("0") => false,
            Some(text) => return Err(format!("RCL_SHM={text:?}: use 1 or 0")),
        };
        let bytes = |name, default| match variable(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(bytes) if bytes <= EAGER_MAX => Ok(bytes),
                _ => Err(format!("{name}={text:?}: use bytes, up to {EAGER_MAX}")),
            },
        };
        let seconds = |name, default| match variable(name) {
            None => Ok(Duration::from_secs_f64(default)),
            Some(text) => match text.parse() {
                Ok(seconds) if SECONDS.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
                _ => {
                    let (start, end) = (SECONDS.start(), SECONDS.end());
                    Err(format!("{name}={text:?}: use seconds, {start} to {end}"))
                }
            },
        };
        Ok(Settings {
            ip,
            shared_memory,
            eager: bytes("RCL_EAGER", EAGER_DEFAULT)?,
            eager_shared: bytes("RCL_EAGER_SHM", EAGER_SHARED_DEFAULT)?,
            dead_after: seconds("RCL_DEAD_AFTER", DEAD_AFTER_DEFAULT)?,
            linger: seconds("RCL_LINGER", LINGER_DEFAULT)?,
        })
    }
}

/// What is meant when the environment says nothing.
#[cfg(any(fuzzing, test))]
impl Default for Settings {
    fn default() -> Settings {
        Settings::from(|_| None).expect("the defaults are right")
    }
}

/// The address from which this host reaches others: that of its default route, or the loopback's without one. Nothing is
/// sent to find it out; the destination is one of those set aside for documentation.
fn own_address() -> IpAddr {
    let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    let own = socket.and_then(|s| s.connect(elsewhere).and_then(|()| s.local_addr()));
    own.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |addr| addr.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Result<Settings, String> {
        Settings::from(|asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn settings_are_read_and_what_is_wrong_is_named() {
        assert_eq!(with("RCL_ADDRESS", "::1").unwrap().ip, "::1".parse::<IpAddr>().unwrap());
        assert!(!with("RCL_SHM", "0").unwrap().shared_memory);
        assert_eq!(with("RCL_EAGER", "100").unwrap().eager, 100);
        assert_eq!(with("RCL_DEAD_AFTER", "2.5").unwrap().dead_after, Duration::from_millis(2500));
        let wrong = [
            ("RCL_ADDRESS", "here"),
            ("RCL_SHM", "yes"),
            ("RCL_EAGER", "1G"),
            ("RCL_EAGER_SHM", "9999999"),
            ("RCL_DEAD_AFTER", "0"),
            ("RCL_LINGER", "nan"),
        ];
        for (name, value) in wrong {
            assert!(with(name, value).unwrap_err().contains(&format!("{name}={value:?}")));
        }
    }
}
