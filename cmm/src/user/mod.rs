//! A user's link to the cluster: asks, listens, and prints what jobs write. It runs on a thread of its own;
//! the command line is plain code that waits for answers.

mod service;

use crate::config::Config;
use crate::daemon;
use crate::keys::Keyring;
use crate::layout::Layout;
use crate::manager::ManagerStatus;
use crate::output::Chunk;
use cl::runtime::{Mailbox, Running, RuntimeConfig};
use cl::{Counters, EndpointConfig, PoolConfig, SharedMemory, TransportChoice};
use cl_base::PeerId;
use cmm_core::api::{Answer, JobView, Op, Output};
use cmm_core::identity::{NodeId, Role};
use service::{Mail, Service};
use std::env;
use std::ffi::OsStr;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// What a user hears unasked.
#[derive(Debug)]
pub enum Heard {
    /// A piece of a job's output, from this agent. To be answered by [`User::consumed`].
    Output(PeerId, Chunk),
    /// A job of ours has changed.
    Job(Box<JobView>),
}

/// Why the cluster gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// No agent says who the managers are.
    #[error(
        "no node of the cluster in {0} answers; `ghidrah up --dir {0}` starts it, and its logs are in {0}/nodes"
    )]
    NoCluster(String),
    /// The managers are known, but they do not answer in time.
    #[error(
        "the managers did not answer within {0:?}: fewer than f+1 of them agree; `ghidrah status` shows who is there"
    )]
    NoAnswer(Duration),
    /// The request cannot be asked.
    #[error("{0}")]
    Unaskable(String),
}

/// Says whose key a command uses: a user's number.
pub const USER_VARIABLE: &str = "GHIDRAH_USER";

fn role_of(number: Option<&OsStr>) -> Result<Role, String> {
    let Some(number) = number else { return Ok(Role::User(0)) };
    let role = number.to_str().and_then(|text| text.parse().ok()).and_then(Role::of_user);
    role.ok_or_else(|| {
        format!("{USER_VARIABLE}={}: the number of a user is expected, as in 1 for user-1", number.display())
    })
}

/// A user who is connected to the cluster.
pub struct User {
    me: PeerId,
    address: SocketAddr,
    dir: String,
    /// `None` only while it is being dropped.
    running: Option<Running<Service>>,
    heard: Receiver<Heard>,
}

impl User {
    /// Connects as the user whose number [`USER_VARIABLE`] says, by default 0, with the key in the cluster's directory.
    ///
    /// # Errors
    /// A sentence that names the file that is missing or wrong, or the variable.
    pub fn connect(layout: &Layout) -> Result<User, String> {
        let config = Config::load(&layout.config()).map_err(|e| e.to_string())?;
        let role = role_of(env::var_os(USER_VARIABLE).as_deref())?;
        let keyring = Keyring::load(layout, role)?;
        let election = daemon::election(&config, &keyring)?;
        let random = mml::keys::entropy().map_err(|e| e.to_string())?;
        let instance = u32::from_le_bytes([random[0], random[1], random[2], random[3]]).max(1);
        let me = PeerId { principal: role.principal(), instance };
        let agent = daemon::address(&keyring, Role::Agent(config.node_ids()[0]))?;
        let bind = SocketAddr::new(local_address_towards(agent), 0);
        let mut endpoint = EndpointConfig::new(me, bind);
        endpoint.pool = PoolConfig::small();
        // A command that lives for milliseconds gains nothing from rings.
        endpoint.transport = TransportChoice::Mio;
        endpoint.shared_memory = SharedMemory::Never;
        endpoint.counters = Counters::Never;
        let (tell, heard) = mpsc::channel();
        let nodes = config.node_ids();
        let timeout = config.request_timeout();
        let service = Service::new(keyring, election, nodes, me, timeout, tell)?;
        let running =
            cl::runtime::spawn("ghidrah user", RuntimeConfig::new(Some(endpoint)), move |_| service)
                .map_err(|e| format!("cannot open {bind}: {e}"))?;
        let address = running.local_addr().expect("it has an endpoint");
        Ok(User { me, address, dir: layout.root().display().to_string(), running: Some(running), heard })
    }

    /// Where a job's output must go to be heard here.
    pub fn listener(&self) -> Output {
        Output::Stream { to: self.me, address: self.address.to_string() }
    }

    /// Has the group execute an operation.
    ///
    /// # Errors
    /// [`Unanswered`], if it does not within `patience`.
    pub fn ask(&self, op: Op, patience: Duration) -> Result<Answer, Unanswered> {
        let (tell, told) = mpsc::channel();
        self.mail(Mail::Ask(op, tell));
        match told.recv_timeout(patience) {
            Ok(answer) => answer.map_err(Unanswered::Unaskable),
            Err(_) if self.is_located(Duration::ZERO) => Err(Unanswered::NoAnswer(patience)),
            Err(_) => Err(Unanswered::NoCluster(self.dir.clone())),
        }
    }

    /// Waits until some agent has proved who the managers are; false if none has within `patience`.
    pub fn is_located(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let (tell, told) = mpsc::channel();
            self.mail(Mail::Located(tell));
            match told.recv() {
                Ok(true) => return true,
                Ok(false) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                _ => return false,
            }
        }
    }

    /// What each manager says of the group, those that answer within `patience` each.
    ///
    /// # Errors
    /// [`Unanswered::NoCluster`] if it is not known who they are.
    pub fn managers(&self, patience: Duration) -> Result<Vec<(NodeId, Option<ManagerStatus>)>, Unanswered> {
        if !self.is_located(patience) {
            return Err(Unanswered::NoCluster(self.dir.clone()));
        }
        let (tell, told) = mpsc::channel();
        self.mail(Mail::Status(patience, tell));
        told.recv().map_err(|_| Unanswered::NoAnswer(patience))
    }

    /// The next thing heard unasked, or `None` if nothing is within `patience`.
    pub fn hear(&self, patience: Duration) -> Option<Heard> {
        self.heard.recv_timeout(patience).ok()
    }

    /// A piece of output has been printed: its agent may send more.
    pub fn consumed(&self, from: PeerId, chunk: &Chunk) {
        self.mail(Mail::Consumed { to: from, attempt: chunk.attempt, bytes: chunk.bytes.len() as u64 });
    }

    fn mail(&self, mail: Mail) {
        let Some(running) = &self.running else { return };
        let mailbox: &Mailbox<Mail> = running.mailbox();
        let mut mail = mail;
        // Full only for a moment: its thread does nothing but empty it.
        while let Err(full) = mailbox.send(mail) {
            mail = full.0;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for User {
    /// Says goodbye to everybody: the cluster need not remember a command that has ended.
    fn drop(&mut self) {
        self.mail(Mail::Leave);
        if let Some(running) = self.running.take() {
            // It failed only if its thread did, which has said so.
            let _ = running.join();
        }
    }
}

/// The address of this machine from which `target` is reached.
fn local_address_towards(target: SocketAddr) -> std::net::IpAddr {
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    UdpSocket::bind(any)
        .and_then(|s| s.connect(target).and_then(|()| s.local_addr()))
        .map_or(target.ip(), |a| a.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_uses_the_key_of_the_user_who_is_named() {
        assert_eq!(role_of(None), Ok(Role::User(0)));
        assert_eq!(role_of(Some(OsStr::new("7"))), Ok(Role::User(7)));
        for wrong in ["", "user-1", "-1", "16777216"] {
            let why = role_of(Some(OsStr::new(wrong))).unwrap_err();
            assert!(why.contains("GHIDRAH_USER") && why.contains("user-1"), "{why}");
        }
    }
}
