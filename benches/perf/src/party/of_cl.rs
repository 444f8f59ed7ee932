use super::{Party, Refused, cl_config};
use crate::case::Case;
use cl::{Buf, Endpoint, Refusal, SendError};
use cl_base::PeerId;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

fn refused(error: SendError) -> Refused {
    if error.is_backpressure() {
        Refused::Later(error.buf)
    } else {
        Refused::Never(format!("message of {} bytes not sent: {}", error.buf.len(), error.reason))
    }
}

impl Party for Endpoint {
    const RELIABLE: bool = false;

    fn open(case: &Case, me: PeerId, bind: IpAddr) -> Result<Endpoint, String> {
        Endpoint::open(cl_config(case, me, bind)?).map_err(|error| error.to_string())
    }

    fn addr(&self) -> SocketAddr {
        self.local_addr()
    }

    fn meet(&mut self, peer: PeerId, addr: SocketAddr, _calling: bool) {
        self.resolve(peer, addr);
    }

    fn below(&self) -> &Endpoint {
        self
    }

    #[inline]
    fn alloc(&mut self, len: usize) -> Option<Buf> {
        Endpoint::alloc(self, len).ok()
    }

    #[inline]
    fn send(&mut self, to: PeerId, buf: Buf) -> Result<(), Refused> {
        Endpoint::send(self, to, buf).map_err(refused)
    }

    #[inline]
    fn queue(&mut self, to: PeerId, buf: Buf) -> Result<(), Refused> {
        Endpoint::queue(self, to, buf).map_err(refused)
    }

    #[inline]
    fn queue_copy(&mut self, to: PeerId, contents: &[u8]) -> Result<bool, String> {
        match Endpoint::queue_copy(self, to, contents) {
            Ok(()) => Ok(true),
            Err(Refusal::Backpressure) => Ok(false),
            Err(reason) => Err(format!("message of {} bytes not sent: {reason}", contents.len())),
        }
    }

    #[inline]
    fn queue_copies<'m>(
        &mut self,
        to: PeerId,
        messages: impl Iterator<Item = &'m [u8]>,
    ) -> Result<(u64, bool), String> {
        match Endpoint::queue_copies(self, to, messages) {
            (accepted, None) => Ok((accepted as u64, true)),
            (accepted, Some(Refusal::Backpressure)) => Ok((accepted as u64, false)),
            (_, Some(reason)) => Err(format!("message not sent: {reason}")),
        }
    }

    #[inline]
    fn drain(&mut self, max: usize, mut each: impl FnMut(PeerId, &[u8])) -> Result<usize, String> {
        Ok(Endpoint::drain(self, max, |message| each(message.from, message.contents)))
    }

    #[inline]
    fn flush(&mut self) {
        Endpoint::flush(self);
    }

    #[inline]
    fn poll(&mut self) -> Result<Option<(PeerId, Buf)>, String> {
        Ok(Endpoint::poll(self).map(|received| (received.from, received.buf)))
    }

    fn park(&mut self, limit: Duration) -> Result<(), String> {
        Endpoint::park(self, Some(limit)).map_err(|error| format!("cannot sleep: {error}"))
    }
}
