//! The examples of the front pages, as users run them: two processes, asleep while they wait for the ball.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

/// A process of an example, which ends with the test.
struct Player(Child);

impl Player {
    fn start(example: &str, pong: Option<&str>) -> Player {
        let mut directory = std::env::current_exe().expect("this test");
        directory.pop();
        directory.pop();
        let program: PathBuf = directory.join("examples").join(example);
        assert!(
            program.exists(),
            "{} is missing: cargo build --release -p cl -p rcl --examples",
            program.display()
        );
        let mut command = Command::new(program);
        command.args(pong).stdin(Stdio::null()).stdout(Stdio::piped());
        Player(command.spawn().expect("the example starts"))
    }

    /// The processor time it has used, in the kernel's hundredths of a second.
    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let after_name = stat.rsplit(')').next().expect("a name in parentheses");
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    fn wait(&mut self) {
        let start = Instant::now();
        while self.0.try_wait().expect("a child").is_none() {
            assert!(start.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Plays, and tells what ping and the end of pong say.
fn play(example: &str) -> (String, Player) {
    let mut pong = Player::start(example, None);
    let mut lines = BufReader::new(pong.0.stdout.take().expect("piped"));
    let mut first = String::new();
    lines.read_line(&mut first).expect("its address");
    let address = first.rsplit(' ').next().expect("a word").trim();
    // It waits, and does so asleep.
    std::thread::sleep(Duration::from_millis(300));
    assert!(pong.cpu_ticks() < 10, "{example}: {} hundredths of a second", pong.cpu_ticks());
    let mut ping = Player::start(example, Some(address));
    let said = std::io::read_to_string(ping.0.stdout.take().expect("piped")).expect("text");
    ping.wait();
    pong.0.stdout = Some(lines.into_inner());
    (said, pong)
}

#[test]
fn two_processes_throw_a_ball_by_cl() {
    let (said, _pong) = play("cl_ping_pong");
    assert_eq!(said, "pong\n".repeat(5));
}

#[test]
fn two_processes_throw_a_ball_by_rcl_and_part_gracefully() {
    let (said, mut pong) = play("rcl_ping_pong");
    assert_eq!(said, "pong\n".repeat(5) + "closed: Graceful\n");
    pong.wait();
    let last = std::io::read_to_string(pong.0.stdout.take().expect("piped")).expect("text");
    assert_eq!(last, "closed: Graceful\n");
}
