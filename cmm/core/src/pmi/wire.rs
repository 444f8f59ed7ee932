//! PMI-1 on the wire: one line a request, `cmd=NAME key=value …`, and one line a reply.
//!
//! A spawn request is a block of lines from `mcmd=spawn` to `endcmd`. Values have no spaces, but for the
//! message of an abort, which is the rest of its line, and within a spawn block, which is skipped unread.

use std::fmt;

/// Longest line from a rank. MPICH's client never writes more than 1,024 bytes; twice that and some, because
/// the limits we announce (key and value) add up to more than its buffer.
pub const LINE_BYTES_MAX: usize = 4096;
/// Longest name of a key-value space, announced to clients.
pub const KVSNAME_BYTES_MAX: usize = 256;
/// Longest key, announced to clients.
pub const KEY_BYTES_MAX: usize = 64;
/// Longest value, announced to clients.
pub const VALUE_BYTES_MAX: usize = 1024;

/// Why a rank's line was refused. None of these comes from a correct client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// More than [`LINE_BYTES_MAX`] bytes, the end of line included.
    #[error("a line of over {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// A byte that is neither printable ASCII nor a space.
    #[error("a byte that is not printable ASCII")]
    NotText,
    /// Not of the form `cmd=NAME key=value …`.
    #[error("not of the form cmd=NAME key=value")]
    NotPairs,
    /// A key occurs twice.
    #[error("a key occurs twice")]
    Twice,
    /// The command needs a key that is missing, or whose value is no number where one is due.
    #[error("a key is missing or is no number")]
    Missing,
}

/// What a rank asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The first request: the protocol version the client speaks.
    Init {
        /// Major version.
        version: u32,
        /// Minor version.
        subversion: u32,
    },
    /// The longest names, keys and values.
    GetMaxes,
    /// Which of several programs started together this is.
    GetAppnum,
    /// The name of the job's key-value space.
    GetMyKvsname,
    /// How many ranks there could be.
    GetUniverseSize,
    /// Store a value, visible to others after the next barrier.
    Put {
        /// Name of the key-value space.
        kvsname: String,
        /// Key.
        key: String,
        /// Value.
        value: String,
    },
    /// Read a value.
    Get {
        /// Name of the key-value space.
        kvsname: String,
        /// Key.
        key: String,
    },
    /// Wait until all ranks have come here.
    BarrierIn {
        /// The barrier is among these ranks only (protocol version 1.2); `None`: all.
        group: Option<String>,
    },
    /// MPI is being left in good order.
    Finalize,
    /// End the whole job. There is no reply.
    Abort {
        /// The job's exit code.
        code: i32,
        /// What to tell the user; may be empty.
        message: String,
    },
    /// Make a port known under a name.
    PublishName,
    /// Take back a published name.
    UnpublishName,
    /// Ask for the port behind a name.
    LookupName,
    /// Start more processes: a whole spawn request has been read.
    Spawn,
    /// A command of no version we speak.
    Unknown {
        /// Its name.
        command: String,
    },
}

/// The `key=value` pairs of a line.
struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Pairs<'a> {
    /// Splits a line. `message` takes the rest of the line with its spaces.
    fn parse(mut line: &'a str) -> Result<Pairs<'a>, WireError> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        loop {
            line = line.trim_start_matches(' ');
            if line.is_empty() {
                return Ok(Pairs(pairs));
            }
            let (key, rest) = line.split_once('=').ok_or(WireError::NotPairs)?;
            if key.is_empty() || key.contains(' ') {
                return Err(WireError::NotPairs);
            }
            let value_end = if key == "message" { rest.len() } else { rest.find(' ').unwrap_or(rest.len()) };
            if pairs.iter().any(|(k, _)| *k == key) {
                return Err(WireError::Twice);
            }
            pairs.push((key, &rest[..value_end]));
            line = &rest[value_end..];
        }
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    fn text(&self, key: &str) -> Result<String, WireError> {
        self.get(key).map(str::to_owned).ok_or(WireError::Missing)
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T, WireError> {
        self.get(key).and_then(|v| v.parse().ok()).ok_or(WireError::Missing)
    }
}

impl Request {
    /// Reads a line without its end.
    fn parse(line: &str) -> Result<Request, WireError> {
        let pairs = Pairs::parse(line)?;
        let Some(("cmd", command)) = pairs.0.first() else { return Err(WireError::NotPairs) };
        Ok(match *command {
            "init" => Request::Init {
                version: pairs.number("pmi_version")?,
                subversion: pairs.number("pmi_subversion")?,
            },
            "get_maxes" => Request::GetMaxes,
            "get_appnum" => Request::GetAppnum,
            "get_my_kvsname" => Request::GetMyKvsname,
            "get_universe_size" => Request::GetUniverseSize,
            "put" => Request::Put {
                kvsname: pairs.text("kvsname")?,
                key: pairs.text("key")?,
                value: pairs.text("value")?,
            },
            "get" => Request::Get { kvsname: pairs.text("kvsname")?, key: pairs.text("key")? },
            "barrier_in" => Request::BarrierIn { group: pairs.get("group").map(str::to_owned) },
            "finalize" => Request::Finalize,
            "abort" => Request::Abort {
                code: pairs.number("exitcode")?,
                message: pairs.get("message").unwrap_or_default().to_owned(),
            },
            "publish_name" => Request::PublishName,
            "unpublish_name" => Request::UnpublishName,
            "lookup_name" => Request::LookupName,
            other => Request::Unknown { command: other.to_owned() },
        })
    }
}

/// Where the reader is in a spawn request of one or several blocks.
#[derive(Clone, Copy, Debug, Default)]
struct SpawnBlocks {
    inside: bool,
    total: u32,
    so_far: u32,
}

/// Turns the bytes of a rank's socket into requests, however they are cut.
///
/// After an error the stream cannot be trusted any more: the reader stays empty.
#[derive(Debug, Default)]
pub struct RequestReader {
    buffer: Vec<u8>,
    spawn: SpawnBlocks,
    broken: bool,
}

impl RequestReader {
    /// Takes `bytes` as they came and returns the requests they complete, in order; an error is the last.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Result<Request, WireError>> {
        let mut requests = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if self.broken {
                break;
            }
            let result = match piece.strip_suffix(b"\n") {
                _ if self.buffer.len() + piece.len() > LINE_BYTES_MAX => Err(WireError::TooLong),
                Some(end) => {
                    self.buffer.extend_from_slice(end);
                    let line = std::mem::take(&mut self.buffer);
                    self.line(&line)
                }
                None => {
                    self.buffer.extend_from_slice(piece);
                    Ok(None)
                }
            };
            if result.is_err() {
                self.broken = true;
                self.buffer = Vec::new();
            }
            requests.extend(result.transpose());
        }
        requests
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Request>, WireError> {
        let printable = |b: &u8| *b == b' ' || b.is_ascii_graphic();
        if self.spawn.inside {
            return Ok(self.spawn_line(line));
        }
        if !line.iter().all(printable) {
            return Err(WireError::NotText);
        }
        let text = std::str::from_utf8(line).map_err(|_| WireError::NotText)?;
        match text.trim_end_matches(' ') {
            "mcmd=spawn" => {
                self.spawn.inside = true;
                Ok(None)
            }
            text => Request::parse(text).map(Some),
        }
    }

    /// Skips a line of a spawn block. The client waits for a reply only after the last block.
    fn spawn_line(&mut self, line: &[u8]) -> Option<Request> {
        let number = |prefix: &[u8]| -> Option<u32> {
            std::str::from_utf8(line.strip_prefix(prefix)?).ok()?.trim_end().parse().ok()
        };
        if let Some(n) = number(b"totspawns=") {
            self.spawn.total = n;
        } else if let Some(n) = number(b"spawnssofar=") {
            self.spawn.so_far = n;
        } else if line == b"endcmd" {
            let SpawnBlocks { total, so_far, .. } = std::mem::take(&mut self.spawn);
            return (so_far >= total).then_some(Request::Spawn);
        }
        None
    }
}

/// What a rank is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// To [`Request::Init`]: version 1.1 is spoken.
    Init,
    /// To [`Request::GetMaxes`].
    Maxes,
    /// To [`Request::GetAppnum`]: there is one program, number 0.
    Appnum,
    /// To [`Request::GetMyKvsname`].
    Kvsname(&'a str),
    /// To [`Request::GetUniverseSize`].
    UniverseSize(u32),
    /// To [`Request::Put`].
    PutDone,
    /// To [`Request::Get`]: the value.
    Value(&'a str),
    /// To [`Request::BarrierIn`], once all have come.
    BarrierOut,
    /// To [`Request::Finalize`].
    FinalizeAck,
    /// To any request: refused.
    Refused {
        /// The name of the reply that the client waits for.
        reply: &'a str,
        /// Why, without spaces.
        reason: &'a str,
    },
}

impl fmt::Display for Reply<'_> {
    /// The line without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Init => f.write_str("cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1"),
            Reply::Maxes => write!(
                f,
                "cmd=maxes rc=0 kvsname_max={KVSNAME_BYTES_MAX} keylen_max={KEY_BYTES_MAX} \
                 vallen_max={VALUE_BYTES_MAX}"
            ),
            Reply::Appnum => f.write_str("cmd=appnum rc=0 appnum=0"),
            Reply::Kvsname(name) => write!(f, "cmd=my_kvsname rc=0 kvsname={name}"),
            Reply::UniverseSize(size) => write!(f, "cmd=universe_size rc=0 size={size}"),
            Reply::PutDone => f.write_str("cmd=put_result rc=0"),
            Reply::Value(value) => write!(f, "cmd=get_result rc=0 found=TRUE value={value}"),
            Reply::BarrierOut => f.write_str("cmd=barrier_out rc=0"),
            Reply::FinalizeAck => f.write_str("cmd=finalize_ack rc=0"),
            Reply::Refused { reply, reason } => write!(f, "cmd={reply} rc=-1 msg={reason}"),
        }
    }
}

impl Reply<'_> {
    /// The bytes to write to the rank's socket.
    pub fn encode(&self) -> Vec<u8> {
        format!("{self}\n").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Result<Request, WireError>> {
        RequestReader::default().read(bytes)
    }

    #[test]
    fn requests_are_recognised_however_the_stream_is_cut() {
        let stream = b"cmd=init pmi_version=1 pmi_subversion=1\ncmd=get kvsname=k key=a\ncmd=barrier_in\n";
        let whole = read(stream);
        assert_eq!(whole[0], Ok(Request::Init { version: 1, subversion: 1 }));
        assert_eq!(whole[1], Ok(Request::Get { kvsname: "k".into(), key: "a".into() }));
        assert_eq!(whole[2], Ok(Request::BarrierIn { group: None }));
        for cut in 1..stream.len() {
            let mut reader = RequestReader::default();
            let mut pieces = reader.read(&stream[..cut]);
            pieces.extend(reader.read(&stream[cut..]));
            assert_eq!(pieces, whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_value_may_contain_equals_signs_and_an_abort_message_spaces() {
        assert_eq!(
            read(b"cmd=put kvsname=k key=a value=x=y[2]#$\n"),
            [Ok(Request::Put { kvsname: "k".into(), key: "a".into(), value: "x=y[2]#$".into() })]
        );
        assert_eq!(
            read(b"cmd=abort exitcode=7 message=called MPI_Abort(comm, 7) = end\n"),
            [Ok(Request::Abort { code: 7, message: "called MPI_Abort(comm, 7) = end".into() })]
        );
        assert_eq!(
            read(b"cmd=abort exitcode=-1\n"),
            [Ok(Request::Abort { code: -1, message: String::new() })]
        );
    }

    #[test]
    fn malformed_lines_are_refused_by_reason_and_end_the_stream() {
        let long = [&[b'a'; LINE_BYTES_MAX][..], b"\n"].concat();
        for (line, reason) in [
            (&long[..], WireError::TooLong),
            (&long[..LINE_BYTES_MAX - 1], WireError::NotPairs),
            (b"cmd=put kvsname=k key=a value=\xff\n", WireError::NotText),
            (b"cmd=get\tkvsname=k\n", WireError::NotText),
            (b"\n", WireError::NotPairs),
            (b"hello world\n", WireError::NotPairs),
            (b"key=a cmd=get\n", WireError::NotPairs),
            (b"cmd=get =a\n", WireError::NotPairs),
            (b"cmd=get key=a key=b kvsname=k\n", WireError::Twice),
            (b"cmd=get kvsname=k\n", WireError::Missing),
            (b"cmd=init pmi_version=one pmi_subversion=1\n", WireError::Missing),
            (b"cmd=abort exitcode=99999999999\n", WireError::Missing),
        ] {
            let mut reader = RequestReader::default();
            let mut results = reader.read(line);
            results.extend(reader.read(b"\n"));
            assert_eq!(results.last(), Some(&Err(reason)), "{:?}", String::from_utf8_lossy(line));
            assert_eq!(reader.read(b"cmd=finalize\n"), [], "the stream goes on after {reason}");
        }
    }

    #[test]
    fn a_spawn_request_is_one_request_after_its_last_block() {
        // As MPICH 5.0.2 writes it, with a second block added.
        let block = |n: u32| {
            format!(
                "mcmd=spawn\nnprocs=2\nexecname=/usr/bin/python\ntotspawns=2\nspawnssofar={n}\nargcnt=1\n\
                 arg1=x y\npreput_num=1\npreput_key_0=PARENT_ROOT_PORT_NAME\n\
                 preput_val_0=tag#0$connentry#766D000200AAA57F[2]01[8]$\ninfo_num=0\nendcmd\n"
            )
        };
        let mut reader = RequestReader::default();
        assert_eq!(reader.read(block(1).as_bytes()), []);
        assert_eq!(reader.read(block(2).as_bytes()), [Ok(Request::Spawn)]);
        assert_eq!(reader.read(b"cmd=finalize\n"), [Ok(Request::Finalize)]);
    }

    #[test]
    fn unknown_commands_keep_their_name() {
        assert_eq!(read(b"cmd=dance\n"), [Ok(Request::Unknown { command: "dance".into() })]);
    }

    #[test]
    fn replies_are_single_lines() {
        assert_eq!(Reply::Value("x").encode(), b"cmd=get_result rc=0 found=TRUE value=x\n");
        assert_eq!(Reply::Maxes.encode(), b"cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024\n");
        assert_eq!(
            Reply::Refused { reply: "spawn_result", reason: "not_supported" }.encode(),
            b"cmd=spawn_result rc=-1 msg=not_supported\n"
        );
    }
}
