//! Registered memory.

use super::{Object, domain, fid, guard, one, ops, put, several};
use crate::abi::*;
use crate::engine::{Access, Region};
use crate::memory::Area;
use std::ffi::{c_int, c_void};
use std::ptr;

pub(super) static OPS_MR: OpsMr = OpsMr { size: size_of::<OpsMr>(), reg, regv, regattr };
/// Memory is registered with the domain, so there is nothing to bind it to; that is allowed nevertheless.
static OPS: Ops = Ops { bind, control, ..ops(close) };

/// # Safety
/// `of` is a domain, `place` one for a pointer.
unsafe fn register(
    of: *mut Fid,
    area: Result<Area, c_int>,
    access: u64,
    key: u64,
    place: *mut *mut Mr,
    context: *mut c_void,
) -> c_int {
    // SAFETY: as the caller says.
    let domain = unsafe { domain::inner(of) };
    let area = match area {
        Ok(area) => area,
        Err(error) => return -error,
    };
    let access = Access { read: access & FI_REMOTE_READ != 0, write: access & FI_REMOTE_WRITE != 0 };
    let regions = &mut domain.lock().shared.regions;
    if regions.contains_key(&key) {
        return -FI_ENOKEY;
    }
    regions.insert(key, Region { area, access });
    let mr = Mr { fid: fid(FI_CLASS_MR, context, &OPS), mem_desc: ptr::null_mut(), key };
    // SAFETY: as the caller says.
    unsafe { put(place, Object::give(mr, domain, 0)) }
}

unsafe extern "C" fn reg(
    of: *mut Fid,
    buf: *const c_void,
    len: usize,
    access: u64,
    _offset: u64,
    key: u64,
    _flags: u64,
    place: *mut *mut Mr,
    context: *mut c_void,
) -> c_int {
    // SAFETY: as libfabric promises, until the registration is closed.
    guard(|| unsafe { register(of, one(buf, len), access, key, place, context) })
}

unsafe extern "C" fn regv(
    of: *mut Fid,
    iov: *const Iovec,
    count: usize,
    access: u64,
    _offset: u64,
    key: u64,
    _flags: u64,
    place: *mut *mut Mr,
    context: *mut c_void,
) -> c_int {
    // SAFETY: as libfabric promises, until the registration is closed.
    guard(|| unsafe { register(of, several(iov, count), access, key, place, context) })
}

unsafe extern "C" fn regattr(of: *mut Fid, attr: *const MrAttr, _flags: u64, place: *mut *mut Mr) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises, until the registration is closed.
        unsafe {
            let attr = &*attr;
            let area = several(attr.mr_iov, attr.iov_count);
            register(of, area, attr.access, attr.requested_key, place, attr.context)
        }
    })
}

unsafe extern "C" fn bind(_: *mut Fid, _: *mut Fid, _: u64) -> c_int {
    0
}

unsafe extern "C" fn control(_: *mut Fid, command: c_int, _: *mut c_void) -> c_int {
    if command == FI_ENABLE { 0 } else { -FI_ENOSYS }
}

unsafe extern "C" fn close(fid: *mut Fid) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises; it came from `register`.
        let mr = unsafe { Object::<Mr>::take(fid) };
        mr.domain.lock().shared.regions.remove(&mr.fid.key);
        0
    })
}
