//! Counters as other processes see them.

use cl::counters::{DIRECTORY_VARIABLE, Label, Listing, Snapshot, list_in};
use cl::{Counters, Endpoint, EndpointConfig, SharedMemory};
use cl_base::PeerId;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ALICE: PeerId = PeerId::new(1, 0);
const BOB: PeerId = PeerId::new(2, 5);
/// How many messages the other process sends before it pauses.
const MESSAGES: u64 = 5000;

/// A directory of the counters, and a process that sends messages. The environment belongs to a whole process,
/// so every test has such a process of its own.
struct Sender {
    dir: PathBuf,
    child: Child,
}

fn fresh_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ghidrah-counters-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

impl Sender {
    /// Starts one whose counters go to `stat`, which need not be sound.
    fn start(dir: &Path, stat: &Path, way: &str) -> Sender {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_other_process", "--nocapture"])
            .env("COUNTERS_TEST", way)
            .env("COUNTERS_READY", dir.join("ready"))
            .env(DIRECTORY_VARIABLE, stat)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Sender { dir: dir.to_owned(), child }
    }

    /// Waits until it has sent everything and pauses.
    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.dir.join("ready").exists() {
            assert_eq!(self.child.try_wait().unwrap(), None, "the other process has ended");
            assert!(Instant::now() < deadline, "the other process does not get ready");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn open(me: PeerId, shared_memory: SharedMemory) -> Endpoint {
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    Endpoint::open(EndpointConfig { shared_memory, ..EndpointConfig::new(me, bind) }).unwrap()
}

/// What a [`Sender`] does; nothing in the ordinary run of the tests.
#[test]
fn the_other_process() {
    let Ok(way) = std::env::var("COUNTERS_TEST") else { return };
    let shared = || match way.as_str() {
        "shared" => EndpointConfig::new(ALICE, SocketAddr::from(([127, 0, 0, 1], 0))).shared_memory,
        _ => SharedMemory::Never,
    };
    let (mut a, mut b) = (open(ALICE, shared()), open(BOB, shared()));
    a.resolve(BOB, b.local_addr());
    let mut received = 0;
    for n in 0..MESSAGES {
        if n == MESSAGES / 2 {
            // A while for the other side to see the first half.
            for _ in 0..300 {
                assert!(a.poll().is_none());
                std::iter::from_fn(|| b.poll()).for_each(|_| received += 1);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let mut message = a.alloc_copy(&[7; 100]).unwrap();
        while let Err(error) = a.send(BOB, message) {
            assert!(error.is_backpressure());
            message = error.buf;
            std::iter::from_fn(|| b.poll()).for_each(|_| received += 1);
        }
        assert!(a.poll().is_none());
        if n % 32 == 0 {
            std::iter::from_fn(|| b.poll()).for_each(|_| received += 1);
        }
    }
    while received < MESSAGES {
        std::iter::from_fn(|| b.poll()).for_each(|_| received += 1);
    }
    // The first calls may only prepare for sleep.
    for _ in 0..10 {
        for endpoint in [&mut a, &mut b] {
            endpoint.park(Some(Duration::from_millis(1))).unwrap();
            assert!(endpoint.poll().is_none());
        }
    }
    fs::write(std::env::var_os("COUNTERS_READY").unwrap(), "").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

fn look(dir: &Path) -> Listing {
    list_in(&[dir.to_owned()])
}

fn of(listing: &Listing, me: PeerId) -> Option<&Snapshot> {
    listing.endpoints.iter().find(|e| e.me == me)
}

fn total(snapshot: &Snapshot, group: &str, name: &str) -> u64 {
    let found = snapshot.totals.iter().find(|(c, _)| c.group == group && c.name == name);
    found.unwrap_or_else(|| panic!("no {group} {name}")).1
}

fn peer(snapshot: &Snapshot, peer: Option<PeerId>, name: &str) -> Option<u64> {
    let column = snapshot.peer_counters.iter().position(|c| c.name == name).expect("a counter of that name");
    Some(snapshot.peers.iter().find(|p| p.peer == peer)?.values[column])
}

fn counters_grow_and_end_exact(way: &str) {
    let dir = fresh_dir(way);
    let mut sender = Sender::start(&dir, &dir, way);
    let mut seen = Vec::new();
    while !dir.join("ready").exists() {
        if let Some(sent) = of(&look(&dir), ALICE).map(|a| total(a, "cl", "messages_sent")) {
            seen.push(sent);
        }
        assert_eq!(sender.child.try_wait().unwrap(), None, "the other process has ended");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(seen.iter().any(|n| (1..MESSAGES).contains(n)), "nothing was seen while it worked: {seen:?}");
    sender.wait();
    let listing = look(&dir);
    assert!(listing.skipped.is_empty(), "{:?}", listing.skipped);
    let (a, b) = (of(&listing, ALICE).unwrap(), of(&listing, BOB).unwrap());
    assert_eq!((a.pid, b.pid), (sender.child.id(), sender.child.id()));
    assert_eq!((total(a, "cl", "messages_sent"), total(b, "cl", "messages_received")), (MESSAGES, MESSAGES));
    assert_eq!(total(b, "cl", "bytes_received"), MESSAGES * 100);
    assert_eq!(total(a, "cl drops", "truncated"), 0);
    let shared = if way == "shared" { MESSAGES } else { 0 };
    assert_eq!(total(a, "cl", "shared_sent"), shared);
    assert_eq!(peer(a, Some(BOB), "messages_sent"), Some(MESSAGES));
    assert_eq!(peer(a, Some(BOB), "bytes_sent"), Some(MESSAGES * 100));
    // Whoever has never been sent anything has no row, unless memory is shared with it.
    let whom = (way == "shared").then_some(ALICE);
    assert_eq!(peer(b, whom, "messages_received"), Some(MESSAGES));
    assert_eq!(a.about[0].0, "address");
    assert!(a.about[0].1.starts_with("127.0.0.1:"), "{:?}", a.about);
}

#[test]
fn counters_of_a_working_process_are_read_from_outside() {
    counters_grow_and_end_exact("network");
}

#[test]
fn messages_through_shared_memory_are_counted_as_well() {
    counters_grow_and_end_exact("shared");
}

#[test]
fn what_a_killed_process_leaves_is_removed() {
    let dir = fresh_dir("killed");
    let mut sender = Sender::start(&dir, &dir, "network");
    sender.wait();
    let pages = || fs::read_dir(&dir).unwrap().flatten().filter(|e| e.file_name() != "ready").count();
    assert_eq!((pages(), look(&dir).endpoints.len()), (2, 2));
    sender.child.kill().unwrap();
    sender.child.wait().unwrap();
    let listing = look(&dir);
    assert_eq!((listing.endpoints.len(), listing.removed, pages()), (0, 2, 0));
    assert!(listing.skipped.is_empty(), "{:?}", listing.skipped);
}

#[test]
fn the_next_endpoint_removes_what_is_left_over() {
    let dir = fresh_dir("next");
    let mut first = Sender::start(&dir, &dir, "network");
    first.wait();
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let pid = first.child.id().to_string();
    let left = |pid: &str| {
        fs::read_dir(&dir)
            .unwrap()
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with(pid))
            .count()
    };
    assert_eq!(left(&pid), 2);
    fs::remove_file(dir.join("ready")).unwrap();
    let mut second = Sender::start(&dir, &dir, "network");
    second.wait();
    assert_eq!((left(&pid), look(&dir).removed, look(&dir).endpoints.len()), (0, 0, 2));
}

#[test]
fn what_makes_no_sense_is_skipped_with_the_reason() {
    let dir = fresh_dir("garbage");
    let mut sender = Sender::start(&dir, &dir, "network");
    sender.wait();
    let mut pages: Vec<PathBuf> = look(&dir).endpoints.into_iter().map(|e| e.path).collect();
    let sound = fs::read(&pages[0]).unwrap();
    let write_at = |path: &Path, at: usize, bytes: &[u8]| {
        use std::os::unix::fs::FileExt;
        fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at as u64).unwrap();
    };
    let reason = |path: &Path| {
        let listing = look(&dir);
        assert_eq!(listing.endpoints.len(), 1, "the other one is still there");
        listing.skipped.into_iter().find(|(p, _)| p == path).unwrap_or_else(|| panic!("not skipped")).1
    };
    let page = pages.remove(0);
    for (at, bytes, why) in [
        (0, &[0xff; 8], "no page of counters"),
        (8, &7u64.to_ne_bytes(), "its layout is version 7; this program reads 2"),
        (16, &[0xff; 8], "length"),
        (32, &[0xff; 8], "process"),
        (72, &[0xff; 8], "text"),
        (80, &[0xff; 8], "number of peers"),
        (128, &[0xff; 8], "text"),
        (128, b"total\tx\t", "text"),
    ] {
        write_at(&page, at, bytes);
        assert!(reason(&page).contains(why), "{}", reason(&page));
        write_at(&page, at, &sound[at..at + 8]);
    }
    assert_eq!(look(&dir).endpoints.len(), 2, "it is as it was");
    // In the middle of writing for ever.
    write_at(&page, 24, &1u64.to_ne_bytes());
    assert_eq!(look(&dir).endpoints.len(), 2);
    // Steering characters do not get through.
    write_at(&page, 128, b"endpoint\t\x1b");
    assert!(look(&dir).endpoints.iter().any(|e| e.about[0].0.starts_with('?')), "{:?}", look(&dir).endpoints);

    let strange = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    strange("1-1", b"garbage");
    strange("1-2", &[0x55; 1 << 20]);
    strange("notes.txt", b"not ours");
    symlink("/etc/passwd", dir.join("1-3")).unwrap();
    fs::create_dir(dir.join("1-4")).unwrap();
    strange("1-5", b"");
    let listing = look(&dir);
    let mut skipped: Vec<_> =
        listing.skipped.iter().map(|(p, why)| (p.file_name().unwrap(), &why[..])).collect();
    skipped.sort();
    let expected = [
        ("1-1", "it is no page of counters"),
        ("1-2", "it is no page of counters"),
        ("1-3", "it is a symbolic link"),
        ("1-4", "it is no file of the directory's owner"),
    ];
    assert_eq!(skipped, expected.map(|(name, why)| (name.as_ref(), why)));
    assert!(dir.join("notes.txt").exists() && dir.join("1-1").exists() && dir.join("1-5").exists());

    // Cut short, which is why it is read and not mapped. Its owner dies of it when it writes; it only sleeps.
    fs::OpenOptions::new().write(true).open(&page).unwrap().set_len(100).unwrap();
    assert!(reason(&page).contains("cut short"), "{}", reason(&page));
}

#[test]
fn an_endpoint_works_where_no_page_can_be_made() {
    let dir = fresh_dir("nowhere");
    let open_to_all = dir.join("open");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
    let (mine, link) = (dir.join("mine"), dir.join("link"));
    fs::create_dir(&mine).unwrap();
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(&mine, &link).unwrap();
    // /proc takes no files from anybody, whoever runs the test.
    for stat in [open_to_all.clone(), link, PathBuf::from("/proc/counters"), PathBuf::from("/proc/self/fd")] {
        let _ = fs::remove_file(dir.join("ready"));
        let mut child = Sender::start(&dir, &stat, "network");
        child.wait();
        child.child.kill().unwrap();
        child.child.wait().unwrap();
        // The directory is for the next round.
        std::mem::forget(child);
        assert!(look(&stat).endpoints.is_empty());
    }
    assert_eq!(fs::read_dir(&open_to_all).unwrap().count() + fs::read_dir(&mine).unwrap().count(), 0);
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn layers_above_add_counters_and_an_endpoint_that_closes_takes_its_page_along() {
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    let shared_memory = SharedMemory::Never;
    let mut a = Endpoint::open(EndpointConfig { shared_memory, ..EndpointConfig::new(ALICE, bind) }).unwrap();
    let counters = a.counters().expect("this machine has /dev/shm or /tmp");
    let path = counters.path().to_owned();
    let group =
        counters.group("above", &[Label::count("sprouts", "Green ones."), Label::level("depth", "Now.")]);
    let of_peers = counters.peer_group("above", &[Label::level("window", "Segments.")]);
    // More than there is room for: it is not shown, and nothing breaks.
    let many = vec![Label::count("x", "y"); 1000];
    let too_many = counters.group("many", &many);
    counters.set(too_many, &vec![1; 1000]);
    a.send_to(BOB, a.local_addr(), a.alloc_copy(b"x").unwrap()).unwrap();
    let counters = a.counters_due().expect("due at first");
    counters.set(group, &[3, 4]);
    counters.set_peer(of_peers, BOB, &[17]);
    counters.set_peer(of_peers, PeerId::new(9, 9), &[1]);
    assert!(a.counters_due().is_none(), "once only");
    let deadline = Instant::now() + Duration::from_secs(10);
    while a.stats().drops.misaddressed == 0 {
        assert!(a.poll().is_none() && Instant::now() < deadline);
    }
    // The first calls may only prepare for sleep.
    while a.counters_due().is_none() {
        a.park(Some(Duration::from_millis(1))).unwrap();
        assert!(a.poll().is_none() && Instant::now() < deadline, "due again after it was shown");
    }
    let listing = list_in(&[path.parent().unwrap().to_owned()]);
    let snapshot = listing.endpoints.iter().find(|e| e.path == path).expect("it is there");
    assert_eq!((total(snapshot, "above", "sprouts"), total(snapshot, "above", "depth")), (3, 4));
    assert_eq!(total(snapshot, "cl drops", "misaddressed"), 1);
    assert_eq!(peer(snapshot, Some(BOB), "window"), Some(17));
    assert_eq!(peer(snapshot, Some(PeerId::new(9, 9)), "window"), None);
    drop(a);
    assert!(!path.exists());
    let never = EndpointConfig { counters: Counters::Never, ..EndpointConfig::new(ALICE, bind) };
    assert!(Endpoint::open(never).unwrap().counters().is_none());
}
