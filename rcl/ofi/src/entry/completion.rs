//! Completion queues and counters.

use super::{NOT_OFFERED, Object, domain, fid, guard, ops, put};
use crate::abi::*;
use crate::domain::State;
use crate::queues::{Completion, Counter, Queue};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::time::{Duration, Instant};

/// Between two looks of a caller that waits, after it has looked without a pause for [`SPIN`].
const PAUSE: Duration = Duration::from_micros(100);
const SPIN: Duration = Duration::from_millis(1);

static CQ: OpsCq = OpsCq {
    size: size_of::<OpsCq>(),
    read,
    readfrom,
    readerr,
    sread,
    sreadfrom,
    signal: NOT_OFFERED,
    strerror,
};
static OPS_CQ: Ops = ops(close_queue);

static CNTR: OpsCntr =
    OpsCntr { size: size_of::<OpsCntr>(), read: count, readerr: errors, add, set, wait, adderr, seterr };
static OPS_CNTR: Ops = ops(close_counter);

pub(super) unsafe extern "C" fn open_queue(
    of: *mut Domain,
    attr: *mut CqAttr,
    place: *mut *mut Cq,
    context: *mut c_void,
) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises.
        let (domain, attr) = unsafe { (domain::inner(of), attr.as_ref()) };
        let format = match attr.map_or(FI_CQ_FORMAT_UNSPEC, |attr| attr.format) {
            FI_CQ_FORMAT_UNSPEC => FI_CQ_FORMAT_CONTEXT,
            format @ FI_CQ_FORMAT_CONTEXT..=FI_CQ_FORMAT_TAGGED => format,
            _ => return -FI_EINVAL,
        };
        if !matches!(attr.map_or(FI_WAIT_NONE, |attr| attr.wait_obj), FI_WAIT_NONE | FI_WAIT_UNSPEC) {
            return -FI_ENOSYS;
        }
        let number = domain.lock().shared.queues.queues.insert(Queue { format, ..Queue::default() });
        let cq = Cq { fid: fid(FI_CLASS_CQ, context, &OPS_CQ), ops: &CQ };
        // SAFETY: as libfabric promises.
        unsafe { put(place, Object::give(cq, domain, number)) }
    })
}

/// Puts up to `count` completions at `place`, and where they came from at `sources` unless that is null.
///
/// # Safety
/// There is room for so many, in the format of the queue.
unsafe fn take(
    state: &mut State,
    number: usize,
    place: *mut c_void,
    count: usize,
    sources: *mut u64,
) -> isize {
    if state.shared.queues.queues[number].entries.is_empty() {
        state.progress_queue(number);
    }
    let queue = &mut state.shared.queues.queues[number];
    let size = match queue.format {
        FI_CQ_FORMAT_CONTEXT => size_of::<*mut c_void>(),
        FI_CQ_FORMAT_MSG => std::mem::offset_of!(CqTaggedEntry, buf),
        FI_CQ_FORMAT_DATA => std::mem::offset_of!(CqTaggedEntry, tag),
        _ => size_of::<CqTaggedEntry>(),
    };
    let mut taken = 0;
    while taken < count {
        let Some(completion) = queue.entries.front() else { break };
        if completion.error != 0 {
            if taken == 0 {
                return -(FI_EAVAIL as isize);
            }
            break;
        }
        let Completion { context, flags, len, buf, data, tag, source, .. } = *completion;
        let (op_context, buf) =
            (ptr::with_exposed_provenance_mut(context), ptr::with_exposed_provenance_mut(buf));
        let entry = CqTaggedEntry { op_context, flags, len, buf, data, tag };
        // SAFETY: as the caller says; the shorter formats are beginnings of the longest.
        unsafe {
            ptr::copy_nonoverlapping(
                (&raw const entry).cast::<u8>(),
                place.cast::<u8>().add(taken * size),
                size,
            )
        };
        if !sources.is_null() {
            let vector = queue.endpoints.first().and_then(|&endpoint| state.endpoints[endpoint].vector);
            let vector = vector.and_then(|vector| state.shared.vectors.get(vector));
            let source = vector.zip(source).and_then(|(vector, source)| vector.number_of(source));
            // SAFETY: as the caller says.
            unsafe { *sources.add(taken) = source.unwrap_or(FI_ADDR_UNSPEC) };
        }
        queue.entries.pop_front();
        taken += 1;
    }
    if taken == 0 { -(FI_EAGAIN as isize) } else { taken as isize }
}

unsafe extern "C" fn read(cq: *mut Cq, place: *mut c_void, count: usize) -> isize {
    // SAFETY: as libfabric promises.
    unsafe { readfrom(cq, place, count, ptr::null_mut()) }
}

unsafe extern "C" fn readfrom(cq: *mut Cq, place: *mut c_void, count: usize, sources: *mut u64) -> isize {
    guard(|| {
        // SAFETY: as libfabric promises.
        unsafe {
            let cq = Object::<Cq>::get(cq);
            take(&mut cq.domain.lock(), cq.number, place, count, sources)
        }
    })
}

/// Calls until there is something, or `timeout` milliseconds have passed; a negative one is none.
fn until(timeout: c_int, mut call: impl FnMut() -> isize) -> isize {
    let start = Instant::now();
    let limit = u64::try_from(timeout).ok().map(Duration::from_millis);
    loop {
        let result = call();
        let passed = start.elapsed();
        if result != -(FI_EAGAIN as isize) || limit.is_some_and(|limit| passed >= limit) {
            return result;
        }
        if passed > SPIN {
            std::thread::sleep(PAUSE);
        }
    }
}

unsafe extern "C" fn sread(
    cq: *mut Cq,
    place: *mut c_void,
    count: usize,
    _condition: *const c_void,
    timeout: c_int,
) -> isize {
    // SAFETY: as libfabric promises.
    until(timeout, || unsafe { readfrom(cq, place, count, ptr::null_mut()) })
}

unsafe extern "C" fn sreadfrom(
    cq: *mut Cq,
    place: *mut c_void,
    count: usize,
    sources: *mut u64,
    _condition: *const c_void,
    timeout: c_int,
) -> isize {
    // SAFETY: as libfabric promises.
    until(timeout, || unsafe { readfrom(cq, place, count, sources) })
}

unsafe extern "C" fn readerr(cq: *mut Cq, place: *mut CqErrEntry, _flags: u64) -> isize {
    guard(|| {
        // SAFETY: as libfabric promises.
        let (cq, entry) = unsafe { (Object::<Cq>::get(cq), &mut *place) };
        let mut state = cq.domain.lock();
        let entries = &mut state.shared.queues.queues[cq.number].entries;
        let Some(completion) = entries.pop_front_if(|completion| completion.error != 0) else {
            return -(FI_EAGAIN as isize);
        };
        let Completion { context, flags, len, buf, data, tag, error, lost, .. } = completion;
        *entry = CqErrEntry {
            op_context: ptr::with_exposed_provenance_mut(context),
            flags,
            len,
            buf: ptr::with_exposed_provenance_mut(buf),
            data,
            tag,
            olen: lost,
            err: error,
            prov_errno: error,
            err_data: entry.err_data,
            err_data_size: 0,
        };
        1
    })
}

unsafe extern "C" fn strerror(
    _: *mut Cq,
    error: c_int,
    _data: *const c_void,
    place: *mut c_char,
    len: usize,
) -> *const c_char {
    let text = match error {
        FI_ECONNRESET => c"the connection with the peer has ended: its process is gone, or does not answer",
        FI_ETRUNC => c"the message is longer than the receive",
        FI_ECANCELED => c"the receive was cancelled",
        FI_ENOMSG => c"no such message waits",
        FI_ENOKEY => c"the peer has no memory registered by that key",
        FI_EACCES => c"the memory is not registered for that",
        FI_EIO => c"the memory of the peer's process could not be copied",
        _ => c"see the number of the error",
    };
    if !place.is_null() && len > 0 {
        let n = text.count_bytes().min(len - 1);
        // SAFETY: as libfabric promises, there is room for `len` bytes.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), place, n);
            *place.add(n) = 0;
        }
    }
    text.as_ptr()
}

unsafe extern "C" fn close_queue(fid: *mut Fid) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises.
        let cq = unsafe { Object::<Cq>::get(fid) };
        let mut state = cq.domain.lock();
        if !state.shared.queues.queues[cq.number].endpoints.is_empty() {
            return -FI_EBUSY;
        }
        state.shared.queues.queues.remove(cq.number);
        drop(state);
        // SAFETY: as libfabric promises; it came from `open_queue`.
        drop(unsafe { Object::<Cq>::take(fid) });
        0
    })
}

pub(super) unsafe extern "C" fn open_counter(
    of: *mut Domain,
    attr: *mut CntrAttr,
    place: *mut *mut Cntr,
    context: *mut c_void,
) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises.
        let (domain, attr) = unsafe { (domain::inner(of), attr.as_ref()) };
        if !matches!(attr.map_or(FI_WAIT_NONE, |attr| attr.wait_obj), FI_WAIT_NONE | FI_WAIT_UNSPEC) {
            return -FI_ENOSYS;
        }
        let number = domain.lock().shared.queues.counters.insert(Counter::default());
        let cntr = Cntr { fid: fid(FI_CLASS_CNTR, context, &OPS_CNTR), ops: &CNTR };
        // SAFETY: as libfabric promises.
        unsafe { put(place, Object::give(cntr, domain, number)) }
    })
}

/// # Safety
/// It is a counter, and not closed.
unsafe fn with<T>(cntr: *mut Cntr, drives: bool, call: impl FnOnce(&mut Counter) -> T) -> T {
    // SAFETY: as the caller says.
    let cntr = unsafe { Object::<Cntr>::get(cntr) };
    let mut state = cntr.domain.lock();
    if drives {
        state.progress_counter(cntr.number);
    }
    call(&mut state.shared.queues.counters[cntr.number])
}

unsafe extern "C" fn count(cntr: *mut Cntr) -> u64 {
    // SAFETY: as libfabric promises.
    guard(|| unsafe { with(cntr, true, |counter| counter.value) })
}

unsafe extern "C" fn errors(cntr: *mut Cntr) -> u64 {
    // SAFETY: as libfabric promises.
    guard(|| unsafe { with(cntr, false, |counter| counter.errors) })
}

unsafe extern "C" fn add(cntr: *mut Cntr, value: u64) -> c_int {
    // SAFETY: as libfabric promises.
    guard(|| unsafe { with(cntr, false, |counter| counter.value = counter.value.wrapping_add(value)) });
    0
}

unsafe extern "C" fn set(cntr: *mut Cntr, value: u64) -> c_int {
    // SAFETY: as libfabric promises.
    guard(|| unsafe { with(cntr, false, |counter| counter.value = value) });
    0
}

unsafe extern "C" fn adderr(cntr: *mut Cntr, value: u64) -> c_int {
    // SAFETY: as libfabric promises.
    guard(|| unsafe { with(cntr, false, |counter| counter.errors = counter.errors.wrapping_add(value)) });
    0
}

unsafe extern "C" fn seterr(cntr: *mut Cntr, value: u64) -> c_int {
    // SAFETY: as libfabric promises.
    guard(|| unsafe { with(cntr, false, |counter| counter.errors = value) });
    0
}

unsafe extern "C" fn wait(cntr: *mut Cntr, threshold: u64, timeout: c_int) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises.
        let errors = unsafe { with(cntr, false, |counter| counter.errors) };
        let result = until(timeout, || {
            // SAFETY: as libfabric promises.
            let (value, now) = unsafe { with(cntr, true, |counter| (counter.value, counter.errors)) };
            match () {
                () if value >= threshold => 0,
                () if now != errors => -(FI_EAVAIL as isize),
                () => -(FI_EAGAIN as isize),
            }
        });
        if result == -(FI_EAGAIN as isize) { -FI_ETIMEDOUT } else { result as c_int }
    })
}

unsafe extern "C" fn close_counter(fid: *mut Fid) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises.
        let cntr = unsafe { Object::<Cntr>::get(fid) };
        let mut state = cntr.domain.lock();
        if !state.shared.queues.counters[cntr.number].endpoints.is_empty() {
            return -FI_EBUSY;
        }
        state.shared.queues.counters.remove(cntr.number);
        drop(state);
        // SAFETY: as libfabric promises; it came from `open_counter`.
        drop(unsafe { Object::<Cntr>::take(fid) });
        0
    })
}
