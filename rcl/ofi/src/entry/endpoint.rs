//! Endpoints: opening, binding, options, names.

use super::{NOT_OFFERED, Object, domain, fid, guard, message, name_of, ops, put, remote, tagged, vector};
use crate::abi::*;
use crate::domain::State;
use crate::engine::Engine;
use crate::queues::Bound;
use std::ffi::{c_int, c_void};
use std::ptr;

/// An endpoint as C holds it.
#[repr(C)]
pub(super) struct Endpoint {
    ep: Ep,
    /// The flags of operations that are begun without any.
    pub(super) tx_flags: u64,
    pub(super) rx_flags: u64,
}

static EP: OpsEp = OpsEp {
    size: size_of::<OpsEp>(),
    cancel,
    getopt,
    setopt,
    tx_ctx: NOT_OFFERED,
    rx_ctx: NOT_OFFERED,
    rx_size_left: NOT_OFFERED,
    tx_size_left: NOT_OFFERED,
};
static CM: OpsCm = OpsCm {
    size: size_of::<OpsCm>(),
    setname: NOT_OFFERED,
    getname,
    getpeer: NOT_OFFERED,
    connect: NOT_OFFERED,
    listen: NOT_OFFERED,
    accept: NOT_OFFERED,
    reject: NOT_OFFERED,
    shutdown: NOT_OFFERED,
    join: NOT_OFFERED,
};
static ATOMIC: OpsAtomic = OpsAtomic { size: size_of::<OpsAtomic>(), calls: [NOT_OFFERED; 13] };
static OPS: Ops = Ops { bind, control, ..ops(close) };

pub(super) unsafe extern "C" fn open(
    of: *mut Domain,
    info: *mut Info,
    place: *mut *mut Ep,
    context: *mut c_void,
) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises; the parts of a description are there or null.
        let (domain, caps, tx_flags, rx_flags) = unsafe {
            let info = &*info;
            let (tx, rx) = (info.tx_attr.as_ref(), info.rx_attr.as_ref());
            (domain::inner(of), info.caps, tx.map_or(0, |tx| tx.op_flags), rx.map_or(0, |rx| rx.op_flags))
        };
        let mut engine = match Engine::open(domain.settings.clone()) {
            Ok(engine) => engine,
            Err(error) => {
                eprintln!("rcl: {error}");
                return -FI_EADDRNOTAVAIL;
            }
        };
        engine.directed = caps & FI_DIRECTED_RECV != 0;
        let number = domain.lock().endpoints.insert(engine);
        let ep = Ep {
            fid: fid(FI_CLASS_EP, context, &OPS),
            ops: &EP,
            cm: &CM,
            msg: &message::OPS,
            rma: &remote::OPS,
            tagged: &tagged::OPS,
            atomic: &ATOMIC,
            collective: ptr::null(),
        };
        // SAFETY: as libfabric promises.
        unsafe { put(place, Object::give(Endpoint { ep, tx_flags, rx_flags }, domain, number)) }
    })
}

/// What is behind an endpoint of C's.
///
/// # Safety
/// It is one, and not closed.
pub(super) unsafe fn object<'a, T>(ep: *mut T) -> &'a Object<Endpoint> {
    // SAFETY: as the caller says.
    unsafe { Object::get(ep) }
}

/// Calls with the endpoint, and with what its domain shares.
///
/// # Safety
/// As [`object`].
pub(super) unsafe fn with<T, R>(
    ep: *mut T,
    call: impl FnOnce(&mut Engine, &mut crate::engine::Shared, &Endpoint) -> R,
) -> R {
    // SAFETY: as the caller says.
    let object = unsafe { object(ep) };
    let mut state = object.domain.lock();
    let State { endpoints, shared } = &mut *state;
    call(&mut endpoints[object.number], shared, &object.fid)
}

unsafe extern "C" fn bind(ep: *mut Fid, other: *mut Fid, flags: u64) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises: every object begins with a `fid` that says what it is.
        let (object, fclass) = unsafe { (object(ep), (*other).fclass) };
        let mut state = object.domain.lock();
        let State { endpoints, shared } = &mut *state;
        let engine = &mut endpoints[object.number];
        if engine.enabled {
            return -FI_EBUSY;
        }
        let selective = flags & FI_SELECTIVE_COMPLETION != 0;
        let bindings = &mut engine.bindings;
        let kinds = [
            (FI_SEND, &mut bindings.send),
            (FI_RECV, &mut bindings.receive),
            (FI_READ, &mut bindings.read),
            (FI_WRITE, &mut bindings.write),
        ];
        match fclass {
            FI_CLASS_CQ => {
                // SAFETY: it is a queue of this provider's.
                let queue = unsafe { Object::<Cq>::get(other) }.number;
                for (kind, bound) in kinds {
                    // What reads and writes completes where what sends does.
                    let kind = if kind & (FI_READ | FI_WRITE) != 0 { FI_SEND } else { kind };
                    if flags & kind != 0 {
                        *bound = Bound { queue: Some(queue), selective, ..*bound };
                    }
                }
                let endpoints = &mut shared.queues.queues[queue].endpoints;
                if !endpoints.contains(&object.number) {
                    endpoints.push(object.number);
                }
            }
            FI_CLASS_CNTR => {
                // SAFETY: it is a counter of this provider's.
                let counter = unsafe { Object::<Cntr>::get(other) }.number;
                for (kind, bound) in kinds {
                    if flags & kind != 0 {
                        bound.counter = Some(counter);
                    }
                }
                let endpoints = &mut shared.queues.counters[counter].endpoints;
                if !endpoints.contains(&object.number) {
                    endpoints.push(object.number);
                }
            }
            FI_CLASS_AV => {
                // SAFETY: it is a vector of this provider's.
                engine.vector = Some(unsafe { Object::<Av>::get(other) }.number);
            }
            _ => return -FI_EINVAL,
        }
        0
    })
}

unsafe extern "C" fn control(ep: *mut Fid, command: c_int, _: *mut c_void) -> c_int {
    guard(|| {
        if command != FI_ENABLE {
            return -FI_ENOSYS;
        }
        // SAFETY: as libfabric promises.
        unsafe {
            with(ep, |engine, _, _| {
                let bindings = &engine.bindings;
                if bindings.send.queue.is_none() && bindings.receive.queue.is_none() {
                    return -FI_ENOCQ;
                }
                if engine.vector.is_none() {
                    return -FI_ENOAV;
                }
                engine.enabled = true;
                0
            })
        }
    })
}

unsafe extern "C" fn getname(ep: *mut Fid, place: *mut c_void, len: *mut usize) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises: there is room for `len` bytes.
        unsafe {
            let address = with(ep, |engine, _, _| engine.address());
            vector::copy(&address.to_bytes(), place, &mut *len)
        }
    })
}

unsafe extern "C" fn cancel(ep: *mut Fid, context: *mut c_void) -> isize {
    guard(|| {
        // SAFETY: as libfabric promises.
        unsafe { with(ep, |engine, shared, _| engine.cancel(shared, name_of(context))) };
        0
    })
}

unsafe extern "C" fn getopt(
    ep: *mut Fid,
    level: c_int,
    option: c_int,
    place: *mut c_void,
    len: *mut usize,
) -> c_int {
    guard(|| {
        if (level, option) != (FI_OPT_ENDPOINT, FI_OPT_MIN_MULTI_RECV) {
            return -FI_ENOPROTOOPT;
        }
        // SAFETY: as libfabric promises: there is room for `len` bytes.
        unsafe {
            let min = with(ep, |engine, _, _| engine.min_multi_recv);
            vector::copy(&min.to_ne_bytes(), place, &mut *len)
        }
    })
}

unsafe extern "C" fn setopt(
    ep: *mut Fid,
    level: c_int,
    option: c_int,
    value: *const c_void,
    len: usize,
) -> c_int {
    guard(|| {
        if (level, option) != (FI_OPT_ENDPOINT, FI_OPT_MIN_MULTI_RECV) {
            return -FI_ENOPROTOOPT;
        }
        if len != size_of::<usize>() || value.is_null() {
            return -FI_EINVAL;
        }
        // SAFETY: as libfabric promises: there are `len` bytes.
        unsafe {
            let min = ptr::read_unaligned(value.cast::<usize>());
            with(ep, |engine, _, _| engine.min_multi_recv = min);
        }
        0
    })
}

unsafe extern "C" fn close(ep: *mut Fid) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises; it came from `open`.
        let object = unsafe { Object::<Endpoint>::take(ep) };
        let mut state = object.domain.lock();
        let State { endpoints, shared } = &mut *state;
        for (_, queue) in &mut shared.queues.queues {
            queue.endpoints.retain(|&endpoint| endpoint != object.number);
        }
        for (_, counter) in &mut shared.queues.counters {
            counter.endpoints.retain(|&endpoint| endpoint != object.number);
        }
        endpoints.remove(object.number).close(shared);
        0
    })
}
