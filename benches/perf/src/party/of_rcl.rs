use super::{Party, Refused, cl_config};
use crate::case::Case;
use cl::Buf;
use cl_base::PeerId;
use rcl::{Endpoint, EndpointConfig, Event, Refusal, SendError};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

fn refused(error: SendError) -> Refused {
    match error.reason {
        Refusal::Backpressure => Refused::Later(error.buf),
        reason => Refused::Never(format!("message of {} bytes not sent: {reason}", error.buf.len())),
    }
}

impl Party for Endpoint {
    const RELIABLE: bool = true;

    fn open(case: &Case, me: PeerId, bind: IpAddr) -> Result<Endpoint, String> {
        let cl = cl_config(case, me, bind)?;
        let config = EndpointConfig { cl, ..EndpointConfig::new(me, SocketAddr::new(bind, 0)) };
        Endpoint::open(config).map_err(|error| error.to_string())
    }

    fn addr(&self) -> SocketAddr {
        self.local_addr()
    }

    fn meet(&mut self, peer: PeerId, addr: SocketAddr, calling: bool) {
        if calling {
            self.connect(peer, addr);
        }
    }

    fn below(&self) -> &cl::Endpoint {
        self.cl()
    }

    #[inline]
    fn alloc(&mut self, len: usize) -> Option<Buf> {
        Endpoint::alloc(self, len).ok()
    }

    #[inline]
    fn send(&mut self, to: PeerId, buf: Buf) -> Result<(), Refused> {
        Endpoint::send(self, to, buf).map_err(refused)?;
        Endpoint::flush(self);
        Ok(())
    }

    #[inline]
    fn queue(&mut self, to: PeerId, buf: Buf) -> Result<(), Refused> {
        Endpoint::send(self, to, buf).map_err(refused)
    }

    #[inline]
    fn flush(&mut self) {
        Endpoint::flush(self);
    }

    #[inline]
    fn poll(&mut self) -> Result<Option<(PeerId, Buf)>, String> {
        loop {
            match Endpoint::poll(self) {
                Some(Event::Message { from, buf }) => return Ok(Some((from, buf))),
                Some(Event::Closed(peer, reason)) => {
                    return Err(format!("the connection to {peer} has ended: {reason}"));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    fn park(&mut self, limit: Duration) -> Result<(), String> {
        Endpoint::park(self, Some(limit)).map_err(|error| format!("cannot sleep: {error}"))
    }
}
