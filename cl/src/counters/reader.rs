//! Reading other processes' counters. The files are read, not mapped: their owner may cut them short at any
//! time, and to touch a page beyond the end would kill the reader.

use super::Kind;
use super::page::{self, PEERS_MAX, Scope};
use super::place::{Directory, Found, directories, directories_of_all};
use cl_base::{PeerId, Time};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Times that a page is read again which was being written meanwhile.
const ATTEMPTS: usize = 20;
/// And how long to wait before that: the writer needs microseconds, if it has a processor.
const PAUSE: Duration = Duration::from_millis(1);

/// A counter as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The layer, and what of it: `cl`, `cl drops`.
    pub group: String,
    /// The counter's name there.
    pub name: String,
    /// What its value is.
    pub kind: Kind,
    /// A sentence for people.
    pub meaning: String,
}

/// The counters of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCounters {
    /// Whose they are; `None`: all the others'.
    pub peer: Option<PeerId>,
    /// The values, in the order of [`Snapshot::peer_counters`].
    pub values: Vec<u64>,
}

/// One endpoint's counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where they were read.
    pub path: PathBuf,
    /// The process, as it calls itself: the number may be of another namespace.
    pub pid: u32,
    /// When that process started, in ticks since boot: with `pid` its identity.
    pub started_ticks: u64,
    /// Whose endpoint it is.
    pub me: PeerId,
    /// What else the endpoint says of itself: pairs such as its address.
    pub about: Vec<(String, String)>,
    /// The wall clock when it was opened.
    pub opened: Time,
    /// The wall clock when the counters were written.
    pub written: Time,
    /// The endpoint's counters and their values.
    pub totals: Vec<(Counter, u64)>,
    /// What is counted of each peer.
    pub peer_counters: Vec<Counter>,
    /// The peers.
    pub peers: Vec<PeerCounters>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Listing {
    /// The directories that were looked into.
    pub directories: Vec<PathBuf>,
    /// The endpoints.
    pub endpoints: Vec<Snapshot>,
    /// Files and directories that could not be read, and why.
    pub skipped: Vec<(PathBuf, String)>,
    /// Files of processes that are gone; they have been removed.
    pub removed: usize,
}

/// The counters of all endpoints of this user, or of everybody if the user is root, on this host.
pub fn list() -> Listing {
    let root = rustix::process::geteuid().is_root();
    list_in(&if root { directories_of_all() } else { directories() })
}

/// As [`list`], in these directories only.
pub fn list_in(directories: &[PathBuf]) -> Listing {
    let mut listing = Listing::default();
    for path in directories {
        match Directory::open(path, false) {
            Ok(directory) => {
                listing.directories.push(path.clone());
                directory.visit(|word| word == page::MAGIC, |path, found| listing.add(path, found));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => listing.skipped.push((path.clone(), error.to_string())),
        }
    }
    listing
}

impl Listing {
    fn add(&mut self, path: PathBuf, found: Found) {
        match found {
            Found::Removed => self.removed += 1,
            Found::Skipped(why) => self.skipped.push((path, why)),
            Found::Alive(file) => match read(&file).and_then(|words| parse(&path, &words)) {
                Ok(snapshot) => self.endpoints.push(snapshot),
                Err(why) => self.skipped.push((path, why)),
            },
        }
    }
}

/// The words of a page, as they were at one moment.
fn read(file: &File) -> Result<Vec<u64>, String> {
    let mut bytes = vec![0; page::LEN];
    for attempt in 1.. {
        let generation = read_word(file, page::GENERATION)?;
        if generation.is_multiple_of(2) || attempt == ATTEMPTS {
            file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => "it has been cut short".to_owned(),
                _ => error.to_string(),
            })?;
            // Or else it stopped in the middle of writing: better a little mixed than nothing.
            if read_word(file, page::GENERATION)? == generation || attempt == ATTEMPTS {
                break;
            }
        }
        std::thread::sleep(PAUSE);
    }
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    Ok(bytes.chunks_exact(8).map(word).collect())
}

fn read_word(file: &File, at: usize) -> Result<u64, String> {
    let mut bytes = [0; 8];
    match file.read_exact_at(&mut bytes, at as u64 * 8) {
        Ok(()) => Ok(u64::from_ne_bytes(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err("it has been cut short".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes sense of a page, which may hold anything.
fn parse(path: &Path, words: &[u64]) -> Result<Snapshot, String> {
    assert_eq!(words.len(), page::WORDS, "as many as were read");
    match words[0] {
        page::MAGIC => {}
        0 => return Err("it is just being made".to_owned()),
        _ => return Err("it is no page of counters".to_owned()),
    }
    if words[1] != page::VERSION {
        return Err(format!("its layout is version {}; this program reads {}", words[1], page::VERSION));
    }
    let nonsense = |what: &str| Err(format!("its {what} makes no sense"));
    if words[2] != page::WORDS as u64 {
        return nonsense("length");
    }
    let Ok(pid) = u32::try_from(words[page::PID]) else { return nonsense("process") };
    let bytes: Vec<u8> = words[page::TEXT_AT..page::TOTALS_AT].iter().flat_map(|w| w.to_ne_bytes()).collect();
    let text = usize::try_from(words[page::TEXT_LEN]).ok().and_then(|len| bytes.get(..len));
    let Some(text) = text.and_then(|text| std::str::from_utf8(text).ok()) else { return nonsense("text") };
    let mut snapshot = Snapshot {
        path: path.to_owned(),
        pid,
        started_ticks: words[page::STARTED],
        me: PeerId::from_u64(words[page::ME]),
        about: Vec::new(),
        opened: Time::from_nanos(words[page::OPENED_AT]),
        written: Time::from_nanos(words[page::WRITTEN_AT]),
        totals: Vec::new(),
        peer_counters: Vec::new(),
        peers: Vec::new(),
    };
    for line in text.lines() {
        // What is shown on a terminal must not steer it.
        let line: Vec<String> = line.split('\t').map(|cell| cell.replace(char::is_control, "?")).collect();
        let scope = match (line[0].as_str(), line.len()) {
            ("endpoint", 3) => {
                snapshot.about.push((line[1].clone(), line[2].clone()));
                continue;
            }
            ("total", 5) => Scope::Total,
            ("peer", 5) => Scope::Peer,
            _ => return nonsense("text"),
        };
        let kind = match line[3].as_str() {
            "count" => Kind::Count,
            "level" => Kind::Level,
            _ => return nonsense("text"),
        };
        let [_, group, name, _, meaning] = <[String; 5]>::try_from(line).expect("five, as was checked");
        let counter = Counter { group, name, kind, meaning };
        match scope {
            Scope::Total => {
                let Some(value) = words[page::TOTALS_AT..page::ROWS_AT].get(snapshot.totals.len()) else {
                    return nonsense("number of counters");
                };
                snapshot.totals.push((counter, *value));
            }
            Scope::Peer if snapshot.peer_counters.len() + 1 < page::ROW_WORDS => {
                snapshot.peer_counters.push(counter);
            }
            Scope::Peer => return nonsense("number of counters"),
        }
    }
    if words[page::ROWS] > 1 + PEERS_MAX as u64 {
        return nonsense("number of peers");
    }
    let rows = words[page::ROWS_AT..].chunks_exact(page::ROW_WORDS).take(words[page::ROWS] as usize);
    for (at, row) in rows.enumerate() {
        let values = row[1..=snapshot.peer_counters.len()].to_vec();
        let peer = (at > 0).then(|| PeerId::from_u64(row[0]));
        // Nothing of the others is nothing to tell.
        if peer.is_some() || values.iter().any(|value| *value > 0) {
            snapshot.peers.push(PeerCounters { peer, values });
        }
    }
    Ok(snapshot)
}
