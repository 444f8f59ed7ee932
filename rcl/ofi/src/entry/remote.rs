//! Reading and writing the memory of peers.

use super::message::{Flags, SEND_FLAGS};
use super::{endpoint, guard, name_of, one, several, status};
use crate::abi::*;
use crate::engine::{Copying, Remote};
use crate::memory::Area;
use std::ffi::{c_int, c_void};

/// Remote completion data are not offered with writes: the peer's application would have to be told.
pub(super) static OPS: OpsRma = OpsRma {
    size: size_of::<OpsRma>(),
    read,
    readv,
    readmsg,
    write,
    writev,
    writemsg,
    inject,
    writedata,
    injectdata,
};

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Read,
    Write,
}

/// # Safety
/// `ep` is an endpoint, and not closed.
unsafe fn begin(
    ep: *mut Ep,
    way: Way,
    area: Result<Area, c_int>,
    peer: u64,
    remote: Remote,
    context: *mut c_void,
    flags: Flags,
) -> isize {
    guard(|| {
        // SAFETY: as the caller says.
        unsafe {
            endpoint::with(ep, |engine, shared, endpoint| {
                let (flags, is_silent) = match flags {
                    Flags::Usual => (endpoint.tx_flags, false),
                    Flags::Given(flags) if flags & !SEND_FLAGS != 0 || flags & FI_REMOTE_CQ_DATA != 0 => {
                        return -(FI_EBADFLAGS as isize);
                    }
                    Flags::Given(flags) => (flags, false),
                    Flags::Inject => (FI_INJECT, true),
                };
                let begun = area.and_then(|area| {
                    let copying = Copying { area, remote, context: name_of(context), flags, is_silent };
                    match way {
                        Way::Read => engine.read(shared, peer, &copying),
                        Way::Write => engine.write(shared, peer, &copying),
                    }
                });
                status(begun)
            })
        }
    })
}

/// # Safety
/// As [`begin`], and `msg` is as libfabric promises.
unsafe fn begin_msg(ep: *mut Ep, way: Way, msg: *const MsgRma, flags: u64) -> isize {
    // SAFETY: as the caller says.
    unsafe {
        let msg = &*msg;
        if msg.rma_iov_count != 1 {
            return -(FI_EINVAL as isize);
        }
        let there = &*msg.rma_iov;
        let area = several(msg.msg_iov, msg.iov_count)
            .and_then(|area| if area.len() == there.len { Ok(area) } else { Err(FI_EINVAL) });
        let remote = Remote { key: there.key, offset: there.addr };
        begin(ep, way, area, msg.addr, remote, msg.context, Flags::Given(flags))
    }
}

unsafe extern "C" fn read(
    ep: *mut Ep,
    buf: *mut c_void,
    len: usize,
    _desc: *mut c_void,
    peer: u64,
    offset: u64,
    key: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin(ep, Way::Read, one(buf, len), peer, Remote { key, offset }, context, Flags::Usual) }
}

unsafe extern "C" fn readv(
    ep: *mut Ep,
    iov: *const Iovec,
    _desc: *mut *mut c_void,
    count: usize,
    peer: u64,
    offset: u64,
    key: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin(ep, Way::Read, several(iov, count), peer, Remote { key, offset }, context, Flags::Usual) }
}

unsafe extern "C" fn readmsg(ep: *mut Ep, msg: *const MsgRma, flags: u64) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_msg(ep, Way::Read, msg, flags) }
}

unsafe extern "C" fn write(
    ep: *mut Ep,
    buf: *const c_void,
    len: usize,
    _desc: *mut c_void,
    peer: u64,
    offset: u64,
    key: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin(ep, Way::Write, one(buf, len), peer, Remote { key, offset }, context, Flags::Usual) }
}

unsafe extern "C" fn writev(
    ep: *mut Ep,
    iov: *const Iovec,
    _desc: *mut *mut c_void,
    count: usize,
    peer: u64,
    offset: u64,
    key: u64,
    context: *mut c_void,
) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin(ep, Way::Write, several(iov, count), peer, Remote { key, offset }, context, Flags::Usual) }
}

unsafe extern "C" fn writemsg(ep: *mut Ep, msg: *const MsgRma, flags: u64) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { begin_msg(ep, Way::Write, msg, flags) }
}

unsafe extern "C" fn inject(
    ep: *mut Ep,
    buf: *const c_void,
    len: usize,
    peer: u64,
    offset: u64,
    key: u64,
) -> isize {
    let nothing = std::ptr::null_mut();
    // SAFETY: as libfabric promises.
    unsafe { begin(ep, Way::Write, one(buf, len), peer, Remote { key, offset }, nothing, Flags::Inject) }
}

unsafe extern "C" fn writedata(
    _: *mut Ep,
    _: *const c_void,
    _: usize,
    _: *mut c_void,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
    _: *mut c_void,
) -> isize {
    -(FI_ENOSYS as isize)
}

unsafe extern "C" fn injectdata(
    _: *mut Ep,
    _: *const c_void,
    _: usize,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
) -> isize {
    -(FI_ENOSYS as isize)
}
