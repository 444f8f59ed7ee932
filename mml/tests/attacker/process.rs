//! The test's processes: it starts itself again, tells the parts what to do line by line, and reads what they say.

use crate::TEST;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Which part a process plays; unset in the test itself.
pub(crate) const PART_VARIABLE: &str = "GHIDRAH_TEST_PART";
const TOKEN_VARIABLE: &str = "GHIDRAH_TEST_TOKEN";
/// What a part says to the test begins with this; the test's harness prints on the same stream.
const MARK: &str = "@ ";
/// No part lives longer, whatever happens.
const LIFE_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Part {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Part {
    pub(crate) fn start(name: &'static str, token: u64) -> Part {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(PART_VARIABLE, name)
            .env(TOKEN_VARIABLE, token.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Part { name, child, input, output }
    }

    pub(crate) fn tell(&mut self, line: impl Display) {
        writeln!(self.input, "{line}").unwrap_or_else(|error| panic!("{} has ended: {error}", self.name));
    }

    /// What the part says next, which must begin with `what`.
    pub(crate) fn words(&mut self, what: &str) -> Vec<String> {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "{} has ended; {what}?", self.name);
            if let Some(said) = line.strip_prefix(MARK) {
                let mut words = said.split_whitespace().map(str::to_owned);
                assert_eq!(words.next().as_deref(), Some(what), "{} said {line}", self.name);
                return words.collect();
            }
            if line.starts_with("measured:") {
                print!("{}: {line}", self.name);
            }
        }
    }

    pub(crate) fn word(&mut self, what: &str) -> String {
        self.words(what).remove(0)
    }

    pub(crate) fn numbers(&mut self, what: &str) -> Vec<u64> {
        self.words(what).iter().map(|word| word.parse().unwrap()).collect()
    }

    pub(crate) fn number(&mut self, what: &str) -> u64 {
        self.numbers(what)[0]
    }

    pub(crate) fn end(&mut self) {
        self.tell("end");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}: {status}", self.name);
    }
}

/// A part that was not told to end ends with the test.
impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says something to the test.
pub(crate) fn say(what: impl Display) {
    println!("\n{MARK}{what}");
}

pub(crate) fn token() -> u64 {
    std::env::var(TOKEN_VARIABLE).unwrap().parse().unwrap()
}

/// What the test tells this part. The part ends if the test is gone.
pub(crate) fn commands() -> Receiver<Vec<String>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let words = line.unwrap().split_whitespace().map(str::to_owned).collect();
            if sender.send(words).is_err() {
                return;
            }
        }
        std::process::exit(1);
    });
    std::thread::spawn(|| {
        std::thread::sleep(LIFE_MAX);
        eprintln!("not done after {LIFE_MAX:?}");
        std::process::exit(1);
    });
    receiver
}

pub(crate) fn parsed<T: FromStr<Err: std::fmt::Debug>>(word: &str) -> T {
    word.parse().unwrap()
}
