use std::fmt;
use std::str::FromStr;

/// The longest name of a libfabric provider, in bytes. The longest there are, of layered ones such as
/// `verbs;ofi_rxm`, have 13.
const NAME_MAX: usize = 31;

/// Which provider of libfabric [`TransportChoice::Ofi`](crate::TransportChoice::Ofi) is to use: one by name
/// (`tcp`, `verbs`, `efa`, `cxi`, `shm` ...), or the best there is.
///
/// It is parsed from and displayed as its name; the empty name stands for the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfiProvider {
    /// Padded with zeroes.
    name: [u8; NAME_MAX],
    len: u8,
}

impl OfiProvider {
    /// The provider that libfabric offers first among those that reach other nodes.
    pub const BEST: OfiProvider = OfiProvider { name: [0; NAME_MAX], len: 0 };

    /// Its name, or nothing if the best is wanted.
    pub fn name(&self) -> Option<&str> {
        let name = &self.name[..usize::from(self.len)];
        (!name.is_empty()).then(|| std::str::from_utf8(name).expect("it is ASCII"))
    }
}

/// The text is no name of a provider: too long, or of other characters than letters, digits, `_` and `;`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no name of a libfabric provider")]
pub struct NotAProvider;

impl FromStr for OfiProvider {
    type Err = NotAProvider;
    fn from_str(s: &str) -> Result<OfiProvider, NotAProvider> {
        let known = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b';';
        if s.len() > NAME_MAX || !s.bytes().all(known) {
            return Err(NotAProvider);
        }
        let mut name = [0; NAME_MAX];
        name[..s.len()].copy_from_slice(s.as_bytes());
        Ok(OfiProvider { name, len: s.len() as u8 })
    }
}

impl fmt::Display for OfiProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TransportChoice;

    #[test]
    fn a_choice_names_a_provider_or_none() {
        let choice = |s: &str| s.parse::<TransportChoice>();
        assert_eq!(choice("ofi"), Ok(TransportChoice::Ofi(OfiProvider::BEST)));
        assert_eq!(choice("ofi:"), choice("ofi"));
        let Ok(TransportChoice::Ofi(verbs)) = choice("ofi:verbs;ofi_rxm") else {
            panic!("a provider in layers is one, too")
        };
        assert_eq!((verbs.name(), verbs.to_string().as_str()), (Some("verbs;ofi_rxm"), "verbs;ofi_rxm"));
        for bad in ["ofi:a b", "ofi:ä", "ofi:../x", "ofi:01234567890123456789012345678901", "ofi2"] {
            assert!(choice(bad).is_err(), "{bad}");
        }
    }

    #[cfg(not(feature = "ofi"))]
    #[test]
    fn without_the_feature_the_error_says_so() {
        use crate::{Endpoint, EndpointConfig};
        let transport = TransportChoice::Ofi(OfiProvider::BEST);
        let bind = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let config = EndpointConfig { transport, ..EndpointConfig::new(cl_base::PeerId::new(1, 0), bind) };
        let error = Endpoint::open(config).unwrap_err().to_string();
        assert!(error.contains("cargo feature `ofi`"), "{error}");
    }
}
