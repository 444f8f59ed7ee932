//! Address vectors.

use super::{NOT_OFFERED, Object, domain, fid, guard, ops, put};
use crate::abi::*;
use crate::address::{ADDRESS_LEN, Address};
use crate::engine::AddressVector;
use std::ffi::{c_char, c_int, c_void};
use std::{ptr, slice};

static AV: OpsAv = OpsAv {
    size: size_of::<OpsAv>(),
    insert,
    insertsvc: NOT_OFFERED,
    insertsym: NOT_OFFERED,
    remove,
    lookup,
    straddr,
    av_set: NOT_OFFERED,
};
static OPS: Ops = ops(close);

pub(super) unsafe extern "C" fn open(
    of: *mut Domain,
    attr: *mut AvAttr,
    place: *mut *mut Av,
    context: *mut c_void,
) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises.
        let (domain, attr) = unsafe { (domain::inner(of), attr.as_ref()) };
        // Vectors that processes share, and results by event queues, are not offered.
        if attr.is_some_and(|attr| !attr.name.is_null() || attr.flags != 0 || attr.rx_ctx_bits != 0) {
            return -FI_ENOSYS;
        }
        let number = domain.lock().shared.vectors.insert(AddressVector::default());
        let av = Av { fid: fid(FI_CLASS_AV, context, &OPS), ops: &AV };
        // SAFETY: as libfabric promises.
        unsafe { put(place, Object::give(av, domain, number)) }
    })
}

unsafe extern "C" fn insert(
    av: *mut Av,
    addresses: *const c_void,
    count: usize,
    numbers: *mut u64,
    _flags: u64,
    _context: *mut c_void,
) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises: `count` addresses, each as long as ours are, which may lie anywhere.
        let (av, addresses) = unsafe {
            if count > 0 && addresses.is_null() {
                return -FI_EINVAL;
            }
            let addresses = match count {
                0 => &[],
                _ => slice::from_raw_parts(addresses.cast::<[u8; ADDRESS_LEN]>(), count),
            };
            (Object::<Av>::get(av), addresses)
        };
        let mut state = av.domain.lock();
        let vector = &mut state.shared.vectors[av.number];
        let mut known = 0;
        for (i, bytes) in addresses.iter().enumerate() {
            let number = Address::from_bytes(bytes).map(|address| vector.insert(address));
            known += c_int::from(number.is_some());
            if !numbers.is_null() {
                // SAFETY: as libfabric promises, there are as many places as addresses.
                unsafe { *numbers.add(i) = number.unwrap_or(FI_ADDR_UNSPEC) };
            }
        }
        known
    })
}

unsafe extern "C" fn remove(av: *mut Av, numbers: *mut u64, count: usize, _flags: u64) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises.
        let av = unsafe { Object::<Av>::get(av) };
        let mut state = av.domain.lock();
        let state = &mut *state;
        for i in 0..count {
            // SAFETY: as libfabric promises, there are so many.
            let number = unsafe { *numbers.add(i) };
            if !state.shared.vectors[av.number].remove(number) {
                return -FI_EINVAL;
            }
        }
        for (_, endpoint) in &mut state.endpoints {
            endpoint.forget_routes();
        }
        0
    })
}

unsafe extern "C" fn lookup(av: *mut Av, number: u64, place: *mut c_void, len: *mut usize) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises.
        let (av, len) = unsafe { (Object::<Av>::get(av), &mut *len) };
        let Some(address) = av.domain.lock().shared.vectors[av.number].get(number) else { return -FI_EINVAL };
        // SAFETY: as libfabric promises, there is room for `len` bytes.
        unsafe { copy(&address.to_bytes(), place, len) }
    })
}

/// Copies as much as there is room for; `len` is that room, and becomes the length.
///
/// # Safety
/// There is room for `len` bytes.
pub(super) unsafe fn copy(bytes: &[u8], place: *mut c_void, len: &mut usize) -> c_int {
    let room = std::mem::replace(len, bytes.len());
    if !place.is_null() {
        // SAFETY: as the caller says.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place.cast(), room.min(bytes.len())) };
    }
    if room < bytes.len() { -FI_ETOOSMALL } else { 0 }
}

unsafe extern "C" fn straddr(
    _: *mut Av,
    address: *const c_void,
    place: *mut c_char,
    len: *mut usize,
) -> *const c_char {
    guard(|| {
        // SAFETY: as libfabric promises.
        let (bytes, len) = unsafe { (&*address.cast::<[u8; ADDRESS_LEN]>(), &mut *len) };
        let mut text = Address::from_bytes(bytes).map_or_else(|| "no address".into(), |a| format!("{a:?}"));
        text.push('\0');
        if *len > 0 && !place.is_null() {
            let n = text.len().min(*len);
            // SAFETY: as libfabric promises, there is room for `len` bytes; the last one ends the text.
            unsafe {
                ptr::copy_nonoverlapping(text.as_ptr().cast(), place, n);
                *place.add(n - 1) = 0;
            }
        }
        *len = text.len();
    });
    place
}

unsafe extern "C" fn close(fid: *mut Fid) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises.
        let av = unsafe { Object::<Av>::get(fid) };
        let mut state = av.domain.lock();
        if state.endpoints.iter().any(|(_, endpoint)| endpoint.vector == Some(av.number)) {
            return -FI_EBUSY;
        }
        state.shared.vectors.remove(av.number);
        drop(state);
        // SAFETY: as libfabric promises; it came from `open`.
        drop(unsafe { Object::<Av>::take(fid) });
        0
    })
}
