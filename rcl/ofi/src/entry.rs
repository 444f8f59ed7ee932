//! The functions that C calls, and the objects that it holds.
//!
//! Each takes apart what it was given, locks the domain, calls what does the work, and makes a number of the result. libfabric
//! promises its providers what every C library is promised: pointers lead to what they should, objects are not used after they
//! were closed, memory that was handed over stays until the operation is complete. The `SAFETY` comments say "as libfabric
//! promises" for that. Nothing that panics gets beyond [`guard`].
#![expect(unsafe_code, reason = "the interface of C")]

mod completion;
mod domain;
mod endpoint;
mod memory;
mod message;
mod provider;
mod remote;
mod tagged;
mod vector;

use crate::abi::{FI_EINVAL, FI_EOTHER, Fid, Iovec, NotOffered, Ops, not_offered};
use crate::domain::Domain;
use crate::memory::Area;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

/// An object of a domain as C holds it. `F` is libfabric's structure, which C casts it to.
#[repr(C)]
struct Object<F> {
    fid: F,
    domain: Arc<Domain>,
    /// Which one of its kind it is.
    number: usize,
}

impl<F> Object<F> {
    /// Gives an object to C.
    fn give<S>(fid: F, domain: &Arc<Domain>, number: usize) -> *mut S {
        Box::into_raw(Box::new(Object { fid, domain: domain.clone(), number })).cast()
    }

    /// # Safety
    /// C has it from [`Object::give`] with this `F`, and has not closed it.
    unsafe fn get<'a, S>(object: *mut S) -> &'a Object<F> {
        // SAFETY: as the caller says.
        unsafe { &*object.cast() }
    }

    /// Takes an object back from C.
    ///
    /// # Safety
    /// As [`Object::get`], and it is not used again.
    unsafe fn take<S>(object: *mut S) -> Box<Object<F>> {
        // SAFETY: as the caller says.
        unsafe { Box::from_raw(object.cast()) }
    }
}

fn fid(fclass: usize, context: *mut c_void, ops: &'static Ops) -> Fid {
    Fid { fclass, context, ops }
}

/// Runs what a call does. A panic is a fault of ours; the caller gets an error and the process goes on.
fn guard<T: Failed>(call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(T::FAILED)
}

/// What a call returns when it has failed in a way that it did not expect to.
trait Failed {
    const FAILED: Self;
}

impl Failed for c_int {
    const FAILED: c_int = -FI_EOTHER;
}

impl Failed for isize {
    const FAILED: isize = -(FI_EOTHER as isize);
}

impl Failed for u64 {
    const FAILED: u64 = 0;
}

impl Failed for () {
    const FAILED: () = ();
}

/// libfabric's number for the result of what was begun.
fn status(begun: Result<(), c_int>) -> isize {
    begun.map_or_else(|error| -(error as isize), |()| 0)
}

/// One piece of memory that C hands over.
///
/// # Safety
/// As [`Area::new`].
unsafe fn one(buf: *const c_void, len: usize) -> Result<Area, c_int> {
    let iovec = Iovec { iov_base: buf.cast_mut(), iov_len: len };
    // SAFETY: one description; the memory is as the caller says.
    unsafe { Area::new(&iovec, 1) }.ok_or(FI_EINVAL)
}

/// Several.
///
/// # Safety
/// As [`Area::new`].
unsafe fn several(iov: *const Iovec, count: usize) -> Result<Area, c_int> {
    // SAFETY: as the caller says.
    unsafe { Area::new(iov, count) }.ok_or(FI_EINVAL)
}

fn name_of(context: *mut c_void) -> usize {
    context.expose_provenance()
}

/// The table of an object that is only closed.
const fn ops(close: unsafe extern "C" fn(*mut Fid) -> c_int) -> Ops {
    Ops {
        size: size_of::<Ops>(),
        close,
        bind: not_bound,
        control: not_controlled,
        ops_open: not_offered,
        tostr: not_offered,
        ops_set: not_offered,
    }
}

unsafe extern "C" fn not_bound(_: *mut Fid, _: *mut Fid, _: u64) -> c_int {
    -FI_EINVAL
}

unsafe extern "C" fn not_controlled(_: *mut Fid, _: c_int, _: *mut c_void) -> c_int {
    -crate::abi::FI_ENOSYS
}

const NOT_OFFERED: NotOffered = not_offered;

/// Hands an object to C at `place`.
///
/// # Safety
/// `place` is one for a pointer.
unsafe fn put<T>(place: *mut *mut T, object: *mut T) -> c_int {
    // SAFETY: as the caller says.
    unsafe { ptr::write(place, object) };
    0
}
