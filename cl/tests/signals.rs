//! Signals arrive as events, and children start with none of them blocked.

use cl::Received;
use cl::runtime::{Core, Interest, Readiness, RuntimeConfig, Service, Signal, Signals, Token, run};
use std::process::{Child, Command};

struct Parent {
    signals: Signals,
    child: Option<Child>,
    caught: Vec<Signal>,
}

impl Service for Parent {
    type Mail = ();

    fn start(&mut self, cx: &mut Core<()>) {
        cx.register(&self.signals, Interest::READABLE).unwrap();
        // The child would never end if its SIGTERM were blocked.
        let mut sleeper = Command::new("sleep");
        sleeper.arg("1000");
        let child = Signals::unblock_in(&mut sleeper).spawn().unwrap();
        kill(child.id());
        self.child = Some(child);
    }

    fn on_message(&mut self, _cx: &mut Core<()>, _received: Received) {}

    fn on_ready(&mut self, cx: &mut Core<()>, _token: Token, readiness: Readiness) {
        assert!(readiness.readable);
        while let Some(signal) = self.signals.next().unwrap() {
            self.caught.push(signal);
            match signal {
                // The helper that sends the signal is a child, too, so this comes more than once.
                Signal::Child => {
                    if self.child.as_mut().is_some_and(|c| c.try_wait().unwrap().is_some()) {
                        self.child = None;
                        kill(std::process::id());
                    }
                }
                _ => {
                    cx.stop();
                    return;
                }
            }
        }
    }
}

/// Sends SIGTERM.
fn kill(pid: u32) {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("kill -TERM {pid}")]);
    assert!(shell.status().unwrap().success());
}

fn main() {
    let signals = Signals::new(&[Signal::Terminate, Signal::Child]).unwrap();
    let parent = Parent { signals, child: None, caught: Vec::new() };
    let parent = run(parent, RuntimeConfig::new(None)).unwrap();
    assert!(parent.caught.contains(&Signal::Child), "{:?}", parent.caught);
    assert_eq!(parent.caught.last(), Some(&Signal::Terminate));
    println!("signals: ok");
}
