//! A replicated register of four processes on loopback, with keys generated for them:
//! `cargo run -p replication --example processes`. One of them is killed, and started again with its journal.

use replication::{Apply, Directory, MemberId, RestoreError, StateMachine};
use std::error::Error;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command};

/// Appends what it is told, and says all there is.
#[derive(Default)]
pub(crate) struct Log(Vec<u8>);

impl StateMachine for Log {
    fn apply(&mut self, _cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
        self.0.extend(op);
        self.0.clone()
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        self.0 = snapshot.to_vec();
        Ok(())
    }
}

/// The program of a member: `processes member DIR NUMBER`.
fn member(dir: &str, number: &str) -> Result<(), Box<dyn Error>> {
    let directory = Directory::open(dir)?;
    directory.host(MemberId(number.parse()?), Log::default())?.wait()?;
    Ok(())
}

pub(crate) fn start(directory: &Directory, number: u8) -> std::io::Result<Child> {
    let (program, number) = (std::env::current_exe()?, number.to_string());
    Command::new(program).arg("member").arg(directory.path()).arg(number).spawn()
}

/// A new group, on ports that are free now. A real one has its members' addresses, each on a machine of its own.
pub(crate) fn generate(path: PathBuf) -> Result<Directory, Box<dyn Error>> {
    let sockets = [(); 4].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a free port"));
    let addresses = sockets.map(|socket| socket.local_addr().expect("it is bound"));
    Ok(Directory::generate(path, &addresses, 1)?)
}

/// A group of four processes, or one of them.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, dir, number] = &arguments[..]
        && word == "member"
    {
        return member(dir, number);
    }
    let place = tempfile::tempdir()?;
    let directory = generate(place.path().join("group"))?;
    let mut members = (0..4).map(|number| start(&directory, number)).collect::<Result<Vec<_>, _>>()?;

    let log = directory.client(0)?;
    for letter in b'a'..=b'j' {
        if letter == b'd' {
            members[0].kill()?; // The primary, without warning (SIGKILL).
            members[0].wait()?;
        }
        if letter == b'g' {
            members[0] = start(&directory, 0)?;
        }
        println!("{}", String::from_utf8(log.submit([letter]).wait()?)?);
    }
    for member in &mut members {
        member.kill()?;
        member.wait()?;
    }
    Ok(())
}
