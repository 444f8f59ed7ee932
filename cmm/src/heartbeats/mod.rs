//! How heartbeats reach the managers: as datagrams that wait until the manager looks for them at the end of its period, because
//! waking it costs many times what a heartbeat costs; or in sessions, where it offers nothing else.
//!
//! A manager that gets heartbeats by a session answers with the port at which it looks for them ([`Inbox`]), and whether it has
//! found some of this sender there. Until it has, they go both ways, so that none is lost where the network does not let
//! them through. That holds for [`HOLDS`], then the next one goes by the session again. So a manager that was restarted
//! is found again, and a heartbeat in some seconds finds out that the session works.
//!
//! Datagrams that are not genuine take room, so somebody who floods the port can crowd out others'. The manager notices: it leaves the
//! socket alone for a while, full as it is, at no cost but the kernel's, and has its senders use their sessions.
//!
//! ```text
//! HeartbeatWay   port 2 (0: there is none) | found 1, little-endian
//! ```

mod inbox;
mod ways;

pub(crate) use inbox::Inbox;
pub(crate) use ways::Ways;

use std::time::Duration;

/// How long senders believe what a manager said of its port.
const HOLDS: Duration = Duration::from_secs(5);
