//! Messages without a tag.

use super::{endpoint, guard, name_of, one, several, status};
use crate::abi::*;
use crate::engine::{Incoming, Outgoing, Probe};
use crate::memory::Area;
use std::ffi::{c_int, c_void};

pub(super) static OPS: OpsMsg = OpsMsg {
    size: size_of::<OpsMsg>(),
    recv,
    recvv,
    recvmsg,
    send,
    sendv,
    sendmsg,
    inject,
    senddata,
    injectdata,
};

/// Flags of one operation that are understood.
pub(super) const SEND_FLAGS: u64 = FI_COMPLETION
    | FI_INJECT
    | FI_INJECT_COMPLETE
    | FI_TRANSMIT_COMPLETE
    | FI_DELIVERY_COMPLETE
    | FI_REMOTE_CQ_DATA
    | FI_MORE;
pub(super) const RECEIVE_FLAGS: u64 =
    FI_COMPLETION | FI_MORE | FI_MULTI_RECV | FI_PEEK | FI_CLAIM | FI_DISCARD;

/// Which flags an operation has.
#[derive(Clone, Copy)]
pub(super) enum Flags {
    /// Those of the endpoint.
    Usual,
    /// These.
    Given(u64),
    /// The memory is not needed after the call, and nothing is told of success.
    Inject,
}

/// Sends a message.
///
/// # Safety
/// `ep` is an endpoint, and not closed.
pub(super) unsafe fn begin_send(
    ep: *mut Ep,
    area: Result<Area, c_int>,
    to: u64,
    tag: Option<u64>,
    data: Option<u64>,
    context: *mut c_void,
    flags: Flags,
) -> isize {
    guard(|| {
        // SAFETY: as the caller says.
        unsafe {
            endpoint::with(ep, |engine, shared, endpoint| {
                let (flags, is_silent) = match flags {
                    Flags::Usual => (endpoint.tx_flags, false),
                    Flags::Given(flags) if flags & !SEND_FLAGS != 0 => return -(FI_EBADFLAGS as isize),
                    Flags::Given(flags) => (flags, false),
                    Flags::Inject => (FI_INJECT, true),
                };
                let begun = area.and_then(|area| {
                    let context = name_of(context);
                    engine.send(shared, to, &Outgoing { area, tag, data, context, flags, is_silent })
                });
                status(begun)
            })
        }
    })
}

/// Posts a receive, probes, or takes what was probed for. `tag`: with the bits that are to be ignored.
///
/// # Safety
/// As [`begin_send`].
pub(super) unsafe fn begin_receive(
    ep: *mut Ep,
    area: Result<Area, c_int>,
    from: u64,
    tag: Option<(u64, u64)>,
    context: *mut c_void,
    flags: Flags,
) -> isize {
    guard(|| {
        // SAFETY: as the caller says.
        unsafe {
            endpoint::with(ep, |engine, shared, endpoint| {
                let flags = match flags {
                    Flags::Given(flags) if flags & !RECEIVE_FLAGS != 0 => return -(FI_EBADFLAGS as isize),
                    Flags::Given(flags) => flags,
                    // A receive with a tag takes one message, whatever the endpoint's flags say.
                    _ if tag.is_some() => endpoint.rx_flags & !FI_MULTI_RECV,
                    _ => endpoint.rx_flags,
                };
                let context = name_of(context);
                let begun = if flags & FI_PEEK != 0 {
                    engine.probe(shared, from, tag, Probe { context, flags })
                } else if flags & FI_CLAIM != 0 {
                    area.and_then(|area| engine.claim(shared, Incoming::new(area, context, flags)))
                } else if flags & FI_DISCARD != 0 {
                    Err(FI_EINVAL)
                } else {
                    area.and_then(|area| {
                        engine.receive(shared, from, tag, Incoming::new(area, context, flags))
                    })
                };
                status(begun)
            })
        }
    })
}

unsafe extern "C" fn recv(
    ep: *mut Ep,
    buf: *mut c_void,
    len: usize,
    _desc: *mut c_void,
    from: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_receive(ep, one(buf, len), from, None, context, Flags::Usual) }
}

unsafe extern "C" fn recvv(
    ep: *mut Ep,
    iov: *const Iovec,
    _desc: *mut *mut c_void,
    count: usize,
    from: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_receive(ep, several(iov, count), from, None, context, Flags::Usual) }
}

unsafe extern "C" fn recvmsg(ep: *mut Ep, msg: *const Msg, flags: u64) -> isize {
    // SAFETY: as libfabric promises.
    unsafe {
        let msg = &*msg;
        let area = several(msg.msg_iov, msg.iov_count);
        begin_receive(ep, area, msg.addr, None, msg.context, Flags::Given(flags))
    }
}

unsafe extern "C" fn send(
    ep: *mut Ep,
    buf: *const c_void,
    len: usize,
    _desc: *mut c_void,
    to: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_send(ep, one(buf, len), to, None, None, context, Flags::Usual) }
}

unsafe extern "C" fn sendv(
    ep: *mut Ep,
    iov: *const Iovec,
    _desc: *mut *mut c_void,
    count: usize,
    to: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_send(ep, several(iov, count), to, None, None, context, Flags::Usual) }
}

unsafe extern "C" fn sendmsg(ep: *mut Ep, msg: *const Msg, flags: u64) -> isize {
    // SAFETY: as libfabric promises.
    unsafe {
        let msg = &*msg;
        let data = (flags & FI_REMOTE_CQ_DATA != 0).then_some(msg.data);
        let area = several(msg.msg_iov, msg.iov_count);
        begin_send(ep, area, msg.addr, None, data, msg.context, Flags::Given(flags))
    }
}

unsafe extern "C" fn inject(ep: *mut Ep, buf: *const c_void, len: usize, to: u64) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_send(ep, one(buf, len), to, None, None, std::ptr::null_mut(), Flags::Inject) }
}

unsafe extern "C" fn senddata(
    ep: *mut Ep,
    buf: *const c_void,
    len: usize,
    _desc: *mut c_void,
    data: u64,
    to: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_send(ep, one(buf, len), to, None, Some(data), context, Flags::Usual) }
}

unsafe extern "C" fn injectdata(ep: *mut Ep, buf: *const c_void, len: usize, data: u64, to: u64) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_send(ep, one(buf, len), to, None, Some(data), std::ptr::null_mut(), Flags::Inject) }
}
