//! Several messages, each of which is a datagram, handed to the transport at once.

use super::Network;
use crate::counters::Tally;
use crate::endpoint::send_each::Parcel;
use crate::header::{Form, Geometry, HEADER_LEN};
use crate::message::Refusal;
use crate::transport::{self, DATAGRAMS_AT_ONCE, Datagram};
use std::io::IoSlice;
use std::net::SocketAddr;

impl Network {
    /// Sends some of `parcels`, at most [`DATAGRAMS_AT_ONCE`], each as a datagram to the address with it: how many, at
    /// least the first.
    pub(in crate::endpoint) fn transmit_each(
        &mut self,
        parcels: &[Parcel<'_>],
        to: &[SocketAddr],
        tally: &mut Tally,
    ) -> Result<usize, Refusal> {
        let mut headers = [[0; HEADER_LEN]; DATAGRAMS_AT_ONCE];
        let len_max = self.unfragmented_len_max();
        for ((parcel, header), ahead) in parcels.iter().zip(&mut headers).zip(0..) {
            let geometry = Geometry::for_message(parcel.len(), len_max).ok_or(Refusal::TooLong)?;
            assert!(geometry.count() == 1, "more than a datagram");
            let message = self.next_message.wrapping_add(ahead);
            *header = self.header(parcel.to, message, geometry, Form::Plain, 0);
        }
        let empty = IoSlice::new(&[]);
        let mut datagrams = [Datagram { to: to[0], parts: [empty; 3] }; DATAGRAMS_AT_ONCE];
        for (((parcel, to), header), datagram) in parcels.iter().zip(to).zip(&headers).zip(&mut datagrams) {
            let parts = [IoSlice::new(header), parcel.parts[0], parcel.parts[1]];
            *datagram = Datagram { to: *to, parts };
        }
        match self.transport.send_each(&datagrams[..parcels.len()]) {
            Ok(count) => {
                self.next_message = self.next_message.wrapping_add(count as u32);
                tally.stats.datagrams_sent += count as u64;
                tally.stats.bytes_sent +=
                    parcels[..count].iter().map(|parcel| parcel.len() as u64).sum::<u64>();
                Ok(count)
            }
            Err(error) if transport::is_transient(&error) => Err(Refusal::Backpressure),
            Err(error) => Err(Refusal::System(error.kind())),
        }
    }
}
