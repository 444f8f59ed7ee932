//! Groups of processes on loopback. This test is a program of its own, because its processes are members, too.

#[path = "../examples/processes.rs"]
mod example;

use example::{Log, generate, start};
use replication::{Directory, Host, MemberId, StartError};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

fn main() {
    // Run as a member, this does not come back.
    example::main().unwrap();
    if std::env::args().nth(1).as_deref() != Some("member") {
        killed_members_neither_lose_nor_repeat_what_a_client_submits_meanwhile();
        what_is_missing_is_named();
        println!("test result: ok");
    }
}

/// Members are killed (SIGKILL) one after the other, primaries among them, with eight operations under way all the time.
fn killed_members_neither_lose_nor_repeat_what_a_client_submits_meanwhile() {
    const OPERATIONS: u8 = 120;
    let place = tempfile::tempdir().unwrap();
    let directory = generate(place.path().join("group")).unwrap();
    let mut members: Vec<_> = (0..4).map(|number| start(&directory, number).unwrap()).collect();
    // An impatient client: it asks again when a member has been dead for so long.
    let mut hasty = directory.clone();
    hasty.config.client_timeout = Duration::from_millis(250);
    let client = hasty.client(0).unwrap().with_deadline(Duration::from_secs(60));
    let next = AtomicU8::new(0);
    let done = AtomicU8::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let number @ ..OPERATIONS = next.fetch_add(1, Ordering::SeqCst) {
                    let log = client.submit([number]).wait().unwrap();
                    assert_eq!(log.last(), Some(&number), "its own result, and nothing after it");
                    done.fetch_add(1, Ordering::SeqCst);
                    // So that there is something left to submit when the last one is killed.
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
        for number in [0, 1, 2] {
            while done.load(Ordering::SeqCst) < OPERATIONS / 4 * (number + 1) {
                thread::sleep(Duration::from_millis(1));
            }
            let member = &mut members[usize::from(number)];
            member.kill().unwrap();
            member.wait().unwrap();
            *member = start(&directory, number).unwrap();
        }
    });
    let mut log = client.submit([OPERATIONS]).wait().unwrap();
    assert_eq!(log.pop(), Some(OPERATIONS));
    log.sort_unstable();
    assert_eq!(log, (0..OPERATIONS).collect::<Vec<_>>(), "each once");
    for mut member in members {
        member.kill().unwrap();
        member.wait().unwrap();
    }
}

fn what_is_missing_is_named() {
    let place = tempfile::tempdir().unwrap();
    let directory = generate(place.path().join("group")).unwrap();
    let fails = |directory: &Directory, member| {
        let Err(error) = directory.host(MemberId(member), Log::default()) else { panic!("it started") };
        error
    };
    let host: Host<Log> = directory.host(MemberId(0), Log::default()).unwrap();
    assert_eq!(host.status().unwrap().me, MemberId(0));
    assert_eq!(host.stop(), Ok(()));

    let error = fails(&directory, 4);
    assert!(matches!(error, StartError::KeyFile(_)), "{error}");
    let journal = directory.journal(MemberId(1));
    std::fs::write(&journal, b"what is this").unwrap();
    assert!(fails(&directory, 1).to_string().contains("member-1.journal is damaged"));
    std::fs::remove_file(&journal).unwrap();
    let error = fails(&directory, 1).to_string();
    assert!(error.contains("must not vote without its memory"), "{error}");
    let mut wrong = directory.clone();
    wrong.config.checkpoint_interval = 0;
    let error = fails(&wrong, 2);
    assert!(matches!(error, StartError::Config(_)), "{error}");
    // Somebody else's key under this member's name.
    let key = |name: &str| directory.path().join(name);
    std::fs::copy(key("member-3.key"), key("member-2.key")).unwrap();
    let error = fails(&directory, 2);
    assert!(matches!(error, StartError::Key(_)), "{error}");
    let error = Directory::generate(directory.path(), &["127.0.0.1:1".parse().unwrap()], 1).unwrap_err();
    assert!(error.to_string().contains("roster.toml") || error.to_string().contains(".key"), "{error}");
    let three = [1, 2, 3].map(|port| ([127, 0, 0, 1], port).into());
    let error = Directory::generate(place.path().join("three"), &three, 0).unwrap_err();
    assert!(error.to_string().contains("3f+1"), "{error}");
}
