//! Commands with a deadline whose output is kept.

use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long any command may take if the test does not say otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; 128 plus the signal if one ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Finished {
    /// This command, which must have succeeded.
    ///
    /// # Panics
    /// With its whole output, if its exit code is not 0.
    #[track_caller]
    pub fn succeeded(self) -> Finished {
        self.ended_with(0)
    }

    /// This command, which must have ended with `code`.
    ///
    /// # Panics
    /// With its whole output, if it has not.
    #[track_caller]
    pub fn ended_with(self, code: i32) -> Finished {
        assert_eq!(self.code, code, "exit code; {self:#?}");
        self
    }

    /// This command, which must have failed with an error that has all of `words` in it and is no panic.
    ///
    /// # Panics
    /// With its whole output, if it has not.
    #[track_caller]
    pub fn failed_saying(self, words: &[&str]) -> Finished {
        assert_ne!(self.code, 0, "exit code; {self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in the error; {self:#?}");
        }
        self
    }

    /// This command, with all of `words` in its standard output.
    ///
    /// # Panics
    /// With its whole output, if one is missing.
    #[track_caller]
    pub fn saying(self, words: &[&str]) -> Finished {
        for word in words {
            assert!(self.stdout.contains(word), "{word:?} is not in the output; {self:#?}");
        }
        self
    }
}

/// A command that runs. It is killed if it is dropped.
#[derive(Debug)]
pub struct Started {
    line: String,
    child: Child,
    since: Instant,
    stdout: Capture,
    stderr: Capture,
}

#[derive(Debug)]
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    fn of(stream: Option<impl Read + Send + 'static>) -> Capture {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = bytes.clone();
        let reader = stream.map(|mut stream| {
            std::thread::spawn(move || {
                let mut buffer = [0; 1 << 16];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    kept.lock().expect("no writer panics").extend_from_slice(&buffer[..n]);
                }
            })
        });
        Capture { bytes, reader }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no writer panics")).into_owned()
    }

    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        self.so_far()
    }
}

impl Started {
    /// Starts a command without standard input.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn new(mut command: Command) -> Started {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Started::as_prepared(command)
    }

    /// Starts a command whose streams the caller has chosen; what is piped is kept.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn as_prepared(mut command: Command) -> Started {
        let line = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
        let stdout = Capture::of(child.stdout.take());
        let stderr = Capture::of(child.stderr.take());
        Started { line, child, since: Instant::now(), stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .unwrap_or_else(|e| panic!("{signal:?} to {}: {e}", self.line));
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until its standard output has `text` in it.
    ///
    /// # Panics
    /// If it has not within `patience`, or ends without.
    #[track_caller]
    pub fn wait_for_output(&mut self, text: &str, patience: Duration) {
        let started = Instant::now();
        while !self.stdout().contains(text) {
            let runs = self.is_running();
            assert!(
                runs && started.elapsed() < patience,
                "{text:?} does not come from {} (running: {runs}); stdout: {}\nstderr: {}",
                self.line,
                self.stdout(),
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it has ended, for a minute at most.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.finish_within(PATIENCE)
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it does not within `patience`.
    #[track_caller]
    pub fn finish_within(mut self, patience: Duration) -> Finished {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            if started.elapsed() >= patience {
                let (out, err) = (self.stdout(), self.stderr());
                panic!("{} has not ended within {patience:?}; stdout: {out}\nstderr: {err}", self.line);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let elapsed = self.since.elapsed();
        Finished { code: code(status), stdout: self.stdout.whole(), stderr: self.stderr.whole(), elapsed }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end, a minute at most.
///
/// # Panics
/// If it cannot be started or does not end.
#[track_caller]
pub fn run(command: Command) -> Finished {
    Started::new(command).finish()
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().expect("what has no code was ended by a signal"))
}
