//! Messages with a tag.

use super::message::{Flags, begin_receive, begin_send};
use super::{one, several};
use crate::abi::*;
use std::ffi::c_void;

pub(super) static OPS: OpsTagged = OpsTagged {
    size: size_of::<OpsTagged>(),
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

unsafe extern "C" fn recv(
    ep: *mut Ep,
    buf: *mut c_void,
    len: usize,
    _desc: *mut c_void,
    from: u64,
    tag: u64,
    ignore: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_receive(ep, one(buf, len), from, Some((tag, ignore)), context, Flags::Usual) }
}

unsafe extern "C" fn recvv(
    ep: *mut Ep,
    iov: *const Iovec,
    _desc: *mut *mut c_void,
    count: usize,
    from: u64,
    tag: u64,
    ignore: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_receive(ep, several(iov, count), from, Some((tag, ignore)), context, Flags::Usual) }
}

unsafe extern "C" fn recvmsg(ep: *mut Ep, msg: *const MsgTagged, flags: u64) -> isize {
    // SAFETY: as libfabric promises.
    unsafe {
        let msg = &*msg;
        let (area, tag) = (several(msg.msg_iov, msg.iov_count), Some((msg.tag, msg.ignore)));
        begin_receive(ep, area, msg.addr, tag, msg.context, Flags::Given(flags))
    }
}

unsafe extern "C" fn send(
    ep: *mut Ep,
    buf: *const c_void,
    len: usize,
    _desc: *mut c_void,
    to: u64,
    tag: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_send(ep, one(buf, len), to, Some(tag), None, context, Flags::Usual) }
}

unsafe extern "C" fn sendv(
    ep: *mut Ep,
    iov: *const Iovec,
    _desc: *mut *mut c_void,
    count: usize,
    to: u64,
    tag: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_send(ep, several(iov, count), to, Some(tag), None, context, Flags::Usual) }
}

unsafe extern "C" fn sendmsg(ep: *mut Ep, msg: *const MsgTagged, flags: u64) -> isize {
    // SAFETY: as libfabric promises.
    unsafe {
        let msg = &*msg;
        let data = (flags & FI_REMOTE_CQ_DATA != 0).then_some(msg.data);
        let area = several(msg.msg_iov, msg.iov_count);
        begin_send(ep, area, msg.addr, Some(msg.tag), data, msg.context, Flags::Given(flags))
    }
}

unsafe extern "C" fn inject(ep: *mut Ep, buf: *const c_void, len: usize, to: u64, tag: u64) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_send(ep, one(buf, len), to, Some(tag), None, std::ptr::null_mut(), Flags::Inject) }
}

unsafe extern "C" fn senddata(
    ep: *mut Ep,
    buf: *const c_void,
    len: usize,
    _desc: *mut c_void,
    data: u64,
    to: u64,
    tag: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_send(ep, one(buf, len), to, Some(tag), Some(data), context, Flags::Usual) }
}

unsafe extern "C" fn injectdata(
    ep: *mut Ep,
    buf: *const c_void,
    len: usize,
    data: u64,
    to: u64,
    tag: u64,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_send(ep, one(buf, len), to, Some(tag), Some(data), std::ptr::null_mut(), Flags::Inject) }
}
