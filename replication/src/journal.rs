//! An append-only file of checksummed records: the stable storage of a replica, and of whoever else must remember what
//! it promised (PROTOCOL.md 2.14: what was promised is written before it is said).
//!
//! ```text
//! file   = magic (8 bytes) record*
//! record = length (u32, little-endian) checksum (first 16 bytes of BLAKE3 over length and body) body
//! ```
//! A record that is cut short at the end of the file was being written when the process died. Nothing that
//! relies on it was said, so it is cut off. A damaged record anywhere else means that the disk has lost what
//! this process may have promised: the journal refuses to open.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"GHJRNL01";
const HEADER: usize = 4 + 16;
/// A longer record is damage: snapshots, the largest records, are bounded far below.
const RECORD_MAX: usize = 256 << 20;

/// Why a journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its contents are not what was written.
    #[error(
        "{path} is damaged at byte {offset}: {what}. This process must not act on a broken memory; move the \
         file away to let its node start without one"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: usize,
        /// What was found.
        what: &'static str,
    },
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    sync: bool,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens or makes the journal at `path` and gives the records that are in it. With `sync`, every
    /// [`Journal::commit`] waits for the device.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] for anything but a clean file or one cut short in its last record.
    pub fn open(path: &Path, sync: bool) -> Result<(Journal, Vec<Vec<u8>>), JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() < MAGIC.len() {
            file.set_len(0).map_err(io)?;
            file.write_all(MAGIC).map_err(io)?;
            bytes = MAGIC.to_vec();
        }
        let (records, whole) = parse(&bytes).map_err(|(offset, what)| JournalError::Damaged {
            path: path.to_owned(),
            offset,
            what,
        })?;
        if whole < bytes.len() {
            tracing::warn!(
                path = %path.display(),
                bytes = bytes.len() - whole,
                "the last record was being written when the process died; it is cut off"
            );
            file.set_len(whole as u64).map_err(io)?;
        }
        Ok((Journal { path: path.to_owned(), file, sync, buffer: Vec::new() }, records))
    }

    /// Adds a record to what the next [`Journal::commit`] writes.
    pub fn append(&mut self, body: &[u8]) {
        push_record(&mut self.buffer, body);
    }

    /// Writes what was appended; nothing that relies on it may be said before.
    ///
    /// # Errors
    /// After one the journal must not be used again: what is on disk is unknown.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written.and_then(|()| if self.sync { self.file.sync_data() } else { Ok(()) }).map_err(|e| self.io(e))
    }

    /// Replaces the whole contents by `records`, atomically: a crash leaves the old or the new ones.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub fn replace<'a>(&mut self, records: impl IntoIterator<Item = &'a [u8]>) -> Result<(), JournalError> {
        self.buffer.clear();
        let mut bytes = MAGIC.to_vec();
        for body in records {
            push_record(&mut bytes, body);
        }
        let next = self.path.with_extension("next");
        let write = || {
            let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
            let mut file = options.open(&next)?;
            file.write_all(&bytes)?;
            if self.sync {
                file.sync_all()?;
            }
            std::fs::rename(&next, &self.path)?;
            if self.sync
                && let Some(dir) = self.path.parent()
            {
                File::open(dir)?.sync_all()?;
            }
            OpenOptions::new().append(true).open(&self.path)
        };
        self.file = write().map_err(|e| self.io(e))?;
        Ok(())
    }

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), source }
    }
}

fn push_record(out: &mut Vec<u8>, body: &[u8]) {
    assert!(body.len() <= RECORD_MAX, "a record of {} bytes", body.len());
    let length = (body.len() as u32).to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(&length, body));
    out.extend_from_slice(body);
}

fn checksum(length: &[u8], body: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(length).update(body);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// Where a journal is damaged, and what was found there.
type Damage = (usize, &'static str);

/// The records, and how many bytes of the file are whole; or where the damage is.
fn parse(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, usize), Damage> {
    if !bytes.starts_with(MAGIC) {
        return Err((0, "not a journal of this version"));
    }
    let mut records = Vec::new();
    let mut at = MAGIC.len();
    while at < bytes.len() {
        let rest = &bytes[at..];
        let Some((length, after)) = rest.split_first_chunk::<4>() else { break };
        let len = u32::from_le_bytes(*length) as usize;
        let Some((sum, after)) = after.split_first_chunk::<16>() else { break };
        let Some(body) = after.get(..len) else {
            if len > RECORD_MAX {
                return Err((at, "an impossible length"));
            }
            break;
        };
        if checksum(length, body) != *sum {
            return Err((at, "a record's checksum does not match"));
        }
        records.push(body.to_vec());
        at += HEADER + len;
    }
    Ok((records, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join("j");
        let (mut j, records) = Journal::open(&path, false).unwrap();
        assert!(records.is_empty());
        for body in [&b"one"[..], b"", b"three"] {
            j.append(body);
        }
        j.commit().unwrap();
        path
    }

    fn read(path: &Path) -> Vec<Vec<u8>> {
        Journal::open(path, false).unwrap().1
    }

    #[test]
    fn records_come_back_in_order_and_can_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = journal(&dir);
        let (mut j, records) = Journal::open(&path, true).unwrap();
        assert_eq!(records, [&b"one"[..], b"", b"three"]);
        j.append(b"four");
        j.commit().unwrap();
        assert_eq!(read(&path).len(), 4);
        j.replace([&b"new"[..]]).unwrap();
        j.append(b"newer");
        j.commit().unwrap();
        assert_eq!(read(&path), [&b"new"[..], b"newer"]);
    }

    #[test]
    fn a_torn_tail_is_cut_off_wherever_it_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = journal(&dir);
        let whole = std::fs::read(&path).unwrap();
        let last = whole.len() - HEADER - 5;
        for cut in last..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(read(&path).len(), 2, "cut at {cut}");
            assert_eq!(read(&path).len(), 2, "and again");
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = journal(&dir);
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            if let Ok((_, records)) = Journal::open(&path, false) {
                // Only a length that now reaches past the end looks like a torn tail; it never lies.
                assert!(
                    records.len() < 3
                        && [&b"one"[..], b"", b"three"]
                            .starts_with(&records.iter().map(Vec::as_slice).collect::<Vec<_>>()),
                    "bit {bit}"
                );
            }
        }
    }
}
