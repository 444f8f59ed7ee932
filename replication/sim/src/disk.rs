//! A member's disk: records in frames with checksums, as a journal writes them, of which a crash may keep less
//! than was written and rot may change a bit.

use cl_base::Rng;
use cl_base::codec;
use replication_proto::Record;

/// Bytes before each record: length and checksum.
const HEADER: usize = 4 + 16;

/// The journal of one replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    file: Vec<u8>,
    /// So much of it is durable.
    durable: usize,
    /// A new file that takes the place of the old one once it is durable.
    next: Option<Vec<u8>>,
}

impl Disk {
    /// Appends a record; a checkpoint begins a new file. Durable with the next [`Disk::sync`].
    pub(crate) fn write(&mut self, record: &Record) {
        let body = codec::encode(record);
        if matches!(record, Record::Checkpoint(_)) {
            self.next = Some(Vec::new());
        }
        let file = self.next.as_mut().unwrap_or(&mut self.file);
        let length = (body.len() as u32).to_le_bytes();
        file.extend(length);
        file.extend(checksum(&body));
        file.extend(body);
    }

    pub(crate) fn sync(&mut self) {
        if let Some(next) = self.next.take() {
            self.file = next;
        }
        self.durable = self.file.len();
    }

    /// The machine stops: of what was not durable some beginning is left. True if a record was torn.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> bool {
        self.next = None;
        let kept = rng.within(self.durable as u64, self.file.len() as u64) as usize;
        let torn = kept < self.file.len();
        self.file.truncate(kept);
        torn
    }

    /// A bit changes somewhere.
    pub(crate) fn rot(&mut self, rng: &mut Rng) {
        if !self.file.is_empty() {
            let at = rng.below(self.file.len() as u64) as usize;
            self.file[at] ^= 1 << rng.below(8);
        }
    }

    /// The records after a restart. A record cut short at the end was never relied upon and is dropped; any other
    /// damage means that promises may be lost.
    pub(crate) fn read(&mut self) -> Result<Vec<Record>, &'static str> {
        let (mut at, mut records) = (0, Vec::new());
        while let Some(header) = self.file.get(at..at + HEADER) {
            let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let Some(body) = self.file.get(at + HEADER..at + HEADER + length) else { break };
            if checksum(body) != header[4..] {
                return Err("a checksum does not match");
            }
            records.push(codec::decode::<Record>(body).map_err(|_| "a record is unreadable")?);
            at += HEADER + length;
        }
        self.file.truncate(at);
        self.durable = at;
        Ok(records)
    }
}

fn checksum(body: &[u8]) -> [u8; 16] {
    let mut sum = [0; 16];
    sum.copy_from_slice(&blake3::hash(body).as_bytes()[..16]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication_proto::CheckpointProof;

    fn record(rsn: u64) -> Record {
        Record::Stable(CheckpointProof { rsn, ..CheckpointProof::default() })
    }

    #[test]
    fn what_was_synced_survives_and_what_is_torn_is_dropped() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut disk = Disk::default();
            disk.write(&record(1));
            disk.sync();
            disk.write(&record(2));
            disk.write(&record(3));
            disk.crash(&mut rng);
            let read = disk.read().unwrap();
            assert_eq!(read[0], record(1));
            assert!(read.len() < 4 && read.iter().zip(1..).all(|(r, rsn)| *r == record(rsn)));
        }
    }

    #[test]
    fn rot_is_noticed_or_looks_like_a_torn_end() {
        for seed in 0..500 {
            let mut disk = Disk::default();
            (1..5).for_each(|rsn| disk.write(&record(rsn)));
            disk.sync();
            disk.rot(&mut Rng::new(seed));
            if let Ok(read) = disk.read() {
                assert!(read.len() < 4 && read.iter().zip(1..).all(|(r, rsn)| *r == record(rsn)));
            }
        }
    }
}
