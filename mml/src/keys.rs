//! Keys of principals: one secret of 32 bytes each, from which the key for key agreement (X25519) and the
//! key for signatures (Ed25519) are derived.

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What one principal must keep to itself.
///
/// On disk it is a file of mode 0600 with 64 hexadecimal digits.
///
/// In memory the seed and the X25519 key are overwritten when the last copy goes. `ring` keeps the Ed25519 key,
/// and does not overwrite it.
#[derive(Clone)]
pub struct SecretKey {
    seed: Zeroizing<[u8; 32]>,
    agreement: StaticSecret,
    signing: std::sync::Arc<Ed25519KeyPair>,
}

/// What everybody may know of a principal. As text: 128 hexadecimal digits, X25519 first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    /// For key agreement.
    pub x25519: [u8; 32],
    /// For signatures.
    pub ed25519: [u8; 32],
}

/// Why a key file was refused.
#[derive(Debug, thiserror::Error)]
#[error("key file {}: {kind}", path.display())]
pub struct KeyFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: KeyFileErrorKind,
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileErrorKind {
    /// There is none.
    #[error(
        "not found; restore it from a copy, or make a new key with `ghidrah keys rotate`, or name the right --dir"
    )]
    Missing,
    /// Others may read or write it.
    #[error(
        "mode {mode:04o} lets others read or write it; `chmod 0600 {}`, and replace the key (`ghidrah keys rotate`) if \
         others could read it", path.display()
    )]
    TooOpen {
        /// Its mode.
        mode: u32,
        /// The file.
        path: PathBuf,
    },
    /// Not 64 hexadecimal digits.
    #[error(
        "holds {0} hexadecimal digits where 64 are needed; restore it, or create a new key and its roster entry"
    )]
    Length(usize),
    /// Something else than hexadecimal digits.
    #[error(
        "holds something else than hexadecimal digits; restore it, or create a new key and its roster entry"
    )]
    NotHex,
    /// The system's refusal.
    #[error("{0}")]
    Io(io::Error),
}

/// The system gave no entropy.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no entropy")]
pub struct NoEntropy;

/// 32 bytes that nobody can guess.
///
/// # Errors
/// [`NoEntropy`].
pub fn entropy() -> Result<[u8; 32], NoEntropy> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(bytes)
}

impl SecretKey {
    /// A new key.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn generate() -> Result<SecretKey, NoEntropy> {
        entropy().map(SecretKey::from_seed)
    }

    /// The key of a seed; the seed is the secret.
    pub fn from_seed(seed: [u8; 32]) -> SecretKey {
        let seed = Zeroizing::new(seed);
        let signing = Zeroizing::new(blake3::derive_key("ghidrah 1 Ed25519 key", &*seed));
        SecretKey {
            agreement: StaticSecret::from(blake3::derive_key("ghidrah 1 X25519 key", &*seed)),
            seed,
            signing: Ed25519KeyPair::from_seed_unchecked(&*signing).expect("a seed has 32 bytes").into(),
        }
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyFileError`], which says what to do.
    pub fn load(path: impl AsRef<Path>) -> Result<SecretKey, KeyFileError> {
        let path = path.as_ref();
        read_seed(path).map(SecretKey::from_seed).map_err(|kind| KeyFileError { path: path.into(), kind })
    }

    /// Writes a new key file, of mode 0600. An existing file is left alone and is an error.
    ///
    /// # Errors
    /// [`KeyFileErrorKind::Io`].
    pub fn create(&self, path: impl AsRef<Path>) -> Result<(), KeyFileError> {
        let path = path.as_ref();
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            writeln!(file, "{}", Hex(&self.seed))?;
            file.sync_all()
        };
        write().map_err(|e| KeyFileError { path: path.into(), kind: KeyFileErrorKind::Io(e) })
    }

    /// What others need to know of it.
    pub fn public(&self) -> PublicKey {
        let ed25519 = self.signing.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes");
        PublicKey { x25519: x25519_dalek::PublicKey::from(&self.agreement).to_bytes(), ed25519 }
    }

    /// Signs `bytes` as something said in `domain`: a constant for each kind of statement, so that no
    /// signature can be passed off as one of another kind.
    pub fn sign(&self, domain: &str, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.signing.sign(&digest(domain, bytes));
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    pub(crate) fn agreement(&self) -> &StaticSecret {
        &self.agreement
    }
}

/// Whether the holder of `public` has signed `bytes` in `domain`.
#[must_use]
pub fn verify(public: &PublicKey, domain: &str, bytes: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public.ed25519).verify(&digest(domain, bytes), signature).is_ok()
}

/// What is signed in place of a message of any length (dissertation 7.1.7).
fn digest(domain: &str, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("ghidrah 1 signature");
    hasher.update(&(domain.len() as u64).to_le_bytes());
    hasher.update(domain.as_bytes());
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

fn read_seed(path: &Path) -> Result<[u8; 32], KeyFileErrorKind> {
    let file = File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => KeyFileErrorKind::Missing,
        _ => KeyFileErrorKind::Io(e),
    })?;
    let mode = file.metadata().map_err(KeyFileErrorKind::Io)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileErrorKind::TooOpen { mode, path: path.into() });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(1024));
    // A key and some white space; what is longer is wrong anyway.
    file.take(1024).read_to_end(&mut text).map_err(KeyFileErrorKind::Io)?;
    let text = text.trim_ascii();
    if !text.iter().all(u8::is_ascii_hexdigit) {
        return Err(KeyFileErrorKind::NotHex);
    }
    let text = std::str::from_utf8(text).expect("hexadecimal digits");
    from_hex(text).ok_or(KeyFileErrorKind::Length(text.len()))
}

impl PublicKey {
    /// A short name for people to compare: 32 hexadecimal digits of a hash of both keys.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("ghidrah 1 fingerprint");
        hasher.update(&self.x25519);
        hasher.update(&self.ed25519);
        hex(hasher.finalize().as_bytes())[..32].to_owned()
    }
}

/// As hexadecimal digits.
pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    Hex(bytes).to_string()
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {}", self.public())
    }
}

/// Why text is not a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key is 128 hexadecimal digits")]
pub struct BadPublicKey;

impl FromStr for PublicKey {
    type Err = BadPublicKey;
    fn from_str(text: &str) -> Result<PublicKey, BadPublicKey> {
        let (x25519, ed25519) = text.split_at_checked(64).ok_or(BadPublicKey)?;
        Ok(PublicKey {
            x25519: from_hex(x25519).ok_or(BadPublicKey)?,
            ed25519: from_hex(ed25519).ok_or(BadPublicKey)?,
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Hex(&self.x25519), Hex(&self.ed25519))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Hex<'a>(&'a [u8; 32]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

pub(crate) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_file_gives_the_key_back_and_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        let key = SecretKey::generate().unwrap();
        key.create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SecretKey::load(&path).unwrap().public(), key.public());
        assert!(matches!(key.create(&path).unwrap_err().kind, KeyFileErrorKind::Io(_)));
        assert_eq!(SecretKey::load(&path).unwrap().public(), key.public());
    }

    #[test]
    fn a_bad_key_file_is_refused_with_its_name_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        let refusal = |path: &Path| SecretKey::load(path).unwrap_err().to_string();
        assert!(refusal(&path).contains("agent.key: not found"));
        let good = "ab".repeat(32);
        for (text, mode, expected) in [
            (&good[..63], 0o600, "63 hexadecimal digits"),
            ("", 0o600, "0 hexadecimal digits"),
            ("not a key", 0o600, "something else"),
            (&good[..], 0o640, "mode 0640"),
            (&good[..], 0o604, "chmod 0600 /"),
        ] {
            write(&path, text, mode);
            assert!(refusal(&path).contains(expected), "{}", refusal(&path));
        }
        write(&path, &format!("  {good}\n"), 0o400);
        SecretKey::load(&path).unwrap();
    }

    #[test]
    fn a_signature_holds_for_one_key_domain_and_text_only() {
        let (key, other) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let signature = key.sign("vote", b"yes");
        assert!(verify(&key.public(), "vote", b"yes", &signature));
        assert!(!verify(&other.public(), "vote", b"yes", &signature));
        assert!(!verify(&key.public(), "vot", b"eyes", &signature));
        assert!(!verify(&key.public(), "vote", b"no", &signature));
        assert!(!verify(&key.public(), "vote", b"yes", &signature[..63]));
        let mut wrong = signature;
        wrong[40] ^= 1;
        assert!(!verify(&key.public(), "vote", b"yes", &wrong));
    }

    #[test]
    fn public_keys_survive_their_text_and_nothing_else_is_taken_for_one() {
        let key = SecretKey::from_seed([3; 32]).public();
        let text = key.to_string();
        assert_eq!(text.len(), 128);
        assert_eq!(text.parse(), Ok(key));
        for bad in [
            "",
            &text[1..],
            &format!("{text}0"),
            &text.replace(|c: char| c.is_ascii_digit(), "g"),
            &"é".repeat(64),
        ] {
            assert_eq!(bad.parse::<PublicKey>(), Err(BadPublicKey));
        }
    }
}
