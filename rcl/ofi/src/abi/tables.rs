//! Objects and their tables of calls. Every table names all calls that it had in version 1.17, for callers do not
//! look whether one is there; those not offered here are [`not_offered`].

use super::{
    AvAttr, CntrAttr, CqAttr, CqErrEntry, FI_ENOSYS, FabricAttr, Info, Iovec, MrAttr, Msg, MsgRma, MsgTagged,
};
use std::ffi::{c_char, c_int, c_void};

/// A call that is not offered. C's calling conventions let a function ignore arguments, and a caller that
/// expects an `int` finds it in the lower half.
pub(crate) type NotOffered = extern "C" fn() -> isize;

/// `-FI_ENOSYS`.
pub(crate) extern "C" fn not_offered() -> isize {
    -(FI_ENOSYS as isize)
}

/// `struct fi_provider`.
#[repr(C)]
pub(crate) struct Provider {
    pub version: u32,
    pub fi_version: u32,
    /// The core's own.
    pub context: [*mut c_void; 4],
    pub name: *const c_char,
    pub getinfo:
        unsafe extern "C" fn(u32, *const c_char, *const c_char, u64, *const Info, *mut *mut Info) -> c_int,
    pub fabric: unsafe extern "C" fn(*mut FabricAttr, *mut *mut Fabric, *mut c_void) -> c_int,
    pub cleanup: unsafe extern "C" fn(),
}

/// What every object begins with.
#[repr(C)]
pub(crate) struct Fid {
    pub fclass: usize,
    pub context: *mut c_void,
    pub ops: *const Ops,
}

#[repr(C)]
pub(crate) struct Ops {
    pub size: usize,
    pub close: unsafe extern "C" fn(*mut Fid) -> c_int,
    pub bind: unsafe extern "C" fn(*mut Fid, *mut Fid, u64) -> c_int,
    pub control: unsafe extern "C" fn(*mut Fid, c_int, *mut c_void) -> c_int,
    pub ops_open: NotOffered,
    pub tostr: NotOffered,
    pub ops_set: NotOffered,
}

#[repr(C)]
pub(crate) struct Fabric {
    pub fid: Fid,
    pub ops: *const OpsFabric,
    pub api_version: u32,
}

#[repr(C)]
pub(crate) struct OpsFabric {
    pub size: usize,
    pub domain: unsafe extern "C" fn(*mut Fabric, *mut Info, *mut *mut Domain, *mut c_void) -> c_int,
    pub passive_ep: NotOffered,
    pub eq_open: NotOffered,
    pub wait_open: NotOffered,
    pub trywait: NotOffered,
    pub domain2: NotOffered,
}

#[repr(C)]
pub(crate) struct Domain {
    pub fid: Fid,
    pub ops: *const OpsDomain,
    pub mr: *const OpsMr,
}

#[repr(C)]
pub(crate) struct OpsDomain {
    pub size: usize,
    pub av_open: unsafe extern "C" fn(*mut Domain, *mut AvAttr, *mut *mut Av, *mut c_void) -> c_int,
    pub cq_open: unsafe extern "C" fn(*mut Domain, *mut CqAttr, *mut *mut Cq, *mut c_void) -> c_int,
    pub endpoint: unsafe extern "C" fn(*mut Domain, *mut Info, *mut *mut Ep, *mut c_void) -> c_int,
    pub scalable_ep: NotOffered,
    pub cntr_open: unsafe extern "C" fn(*mut Domain, *mut CntrAttr, *mut *mut Cntr, *mut c_void) -> c_int,
    pub poll_open: NotOffered,
    pub stx_ctx: NotOffered,
    pub srx_ctx: NotOffered,
    pub query_atomic: NotOffered,
    pub query_collective: NotOffered,
    pub endpoint2: NotOffered,
}

#[repr(C)]
pub(crate) struct OpsMr {
    pub size: usize,
    pub reg: unsafe extern "C" fn(
        *mut Fid,
        *const c_void,
        usize,
        u64,
        u64,
        u64,
        u64,
        *mut *mut Mr,
        *mut c_void,
    ) -> c_int,
    pub regv: unsafe extern "C" fn(
        *mut Fid,
        *const Iovec,
        usize,
        u64,
        u64,
        u64,
        u64,
        *mut *mut Mr,
        *mut c_void,
    ) -> c_int,
    pub regattr: unsafe extern "C" fn(*mut Fid, *const MrAttr, u64, *mut *mut Mr) -> c_int,
}

#[repr(C)]
pub(crate) struct Mr {
    pub fid: Fid,
    pub mem_desc: *mut c_void,
    pub key: u64,
}

#[repr(C)]
pub(crate) struct Av {
    pub fid: Fid,
    pub ops: *const OpsAv,
}

#[repr(C)]
pub(crate) struct OpsAv {
    pub size: usize,
    pub insert: unsafe extern "C" fn(*mut Av, *const c_void, usize, *mut u64, u64, *mut c_void) -> c_int,
    pub insertsvc: NotOffered,
    pub insertsym: NotOffered,
    pub remove: unsafe extern "C" fn(*mut Av, *mut u64, usize, u64) -> c_int,
    pub lookup: unsafe extern "C" fn(*mut Av, u64, *mut c_void, *mut usize) -> c_int,
    pub straddr: unsafe extern "C" fn(*mut Av, *const c_void, *mut c_char, *mut usize) -> *const c_char,
    pub av_set: NotOffered,
}

#[repr(C)]
pub(crate) struct Cq {
    pub fid: Fid,
    pub ops: *const OpsCq,
}

#[repr(C)]
pub(crate) struct OpsCq {
    pub size: usize,
    pub read: unsafe extern "C" fn(*mut Cq, *mut c_void, usize) -> isize,
    pub readfrom: unsafe extern "C" fn(*mut Cq, *mut c_void, usize, *mut u64) -> isize,
    pub readerr: unsafe extern "C" fn(*mut Cq, *mut CqErrEntry, u64) -> isize,
    pub sread: unsafe extern "C" fn(*mut Cq, *mut c_void, usize, *const c_void, c_int) -> isize,
    pub sreadfrom: unsafe extern "C" fn(*mut Cq, *mut c_void, usize, *mut u64, *const c_void, c_int) -> isize,
    pub signal: NotOffered,
    pub strerror: unsafe extern "C" fn(*mut Cq, c_int, *const c_void, *mut c_char, usize) -> *const c_char,
}

#[repr(C)]
pub(crate) struct Cntr {
    pub fid: Fid,
    pub ops: *const OpsCntr,
}

#[repr(C)]
pub(crate) struct OpsCntr {
    pub size: usize,
    pub read: unsafe extern "C" fn(*mut Cntr) -> u64,
    pub readerr: unsafe extern "C" fn(*mut Cntr) -> u64,
    pub add: unsafe extern "C" fn(*mut Cntr, u64) -> c_int,
    pub set: unsafe extern "C" fn(*mut Cntr, u64) -> c_int,
    pub wait: unsafe extern "C" fn(*mut Cntr, u64, c_int) -> c_int,
    pub adderr: unsafe extern "C" fn(*mut Cntr, u64) -> c_int,
    pub seterr: unsafe extern "C" fn(*mut Cntr, u64) -> c_int,
}

#[repr(C)]
pub(crate) struct Ep {
    pub fid: Fid,
    pub ops: *const OpsEp,
    pub cm: *const OpsCm,
    pub msg: *const OpsMsg,
    pub rma: *const OpsRma,
    pub tagged: *const OpsTagged,
    pub atomic: *const OpsAtomic,
    pub collective: *const c_void,
}

#[repr(C)]
pub(crate) struct OpsEp {
    pub size: usize,
    pub cancel: unsafe extern "C" fn(*mut Fid, *mut c_void) -> isize,
    pub getopt: unsafe extern "C" fn(*mut Fid, c_int, c_int, *mut c_void, *mut usize) -> c_int,
    pub setopt: unsafe extern "C" fn(*mut Fid, c_int, c_int, *const c_void, usize) -> c_int,
    pub tx_ctx: NotOffered,
    pub rx_ctx: NotOffered,
    pub rx_size_left: NotOffered,
    pub tx_size_left: NotOffered,
}

#[repr(C)]
pub(crate) struct OpsCm {
    pub size: usize,
    pub setname: NotOffered,
    pub getname: unsafe extern "C" fn(*mut Fid, *mut c_void, *mut usize) -> c_int,
    pub getpeer: NotOffered,
    pub connect: NotOffered,
    pub listen: NotOffered,
    pub accept: NotOffered,
    pub reject: NotOffered,
    pub shutdown: NotOffered,
    pub join: NotOffered,
}

type Buf = *mut c_void;
type ConstBuf = *const c_void;
type Desc = *mut c_void;
type Context = *mut c_void;

#[repr(C)]
pub(crate) struct OpsMsg {
    pub size: usize,
    pub recv: unsafe extern "C" fn(*mut Ep, Buf, usize, Desc, u64, Context) -> isize,
    pub recvv: unsafe extern "C" fn(*mut Ep, *const Iovec, *mut Desc, usize, u64, Context) -> isize,
    pub recvmsg: unsafe extern "C" fn(*mut Ep, *const Msg, u64) -> isize,
    pub send: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, Desc, u64, Context) -> isize,
    pub sendv: unsafe extern "C" fn(*mut Ep, *const Iovec, *mut Desc, usize, u64, Context) -> isize,
    pub sendmsg: unsafe extern "C" fn(*mut Ep, *const Msg, u64) -> isize,
    pub inject: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, u64) -> isize,
    pub senddata: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, Desc, u64, u64, Context) -> isize,
    pub injectdata: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, u64, u64) -> isize,
}

#[repr(C)]
pub(crate) struct OpsTagged {
    pub size: usize,
    pub recv: unsafe extern "C" fn(*mut Ep, Buf, usize, Desc, u64, u64, u64, Context) -> isize,
    pub recvv: unsafe extern "C" fn(*mut Ep, *const Iovec, *mut Desc, usize, u64, u64, u64, Context) -> isize,
    pub recvmsg: unsafe extern "C" fn(*mut Ep, *const MsgTagged, u64) -> isize,
    pub send: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, Desc, u64, u64, Context) -> isize,
    pub sendv: unsafe extern "C" fn(*mut Ep, *const Iovec, *mut Desc, usize, u64, u64, Context) -> isize,
    pub sendmsg: unsafe extern "C" fn(*mut Ep, *const MsgTagged, u64) -> isize,
    pub inject: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, u64, u64) -> isize,
    pub senddata: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, Desc, u64, u64, u64, Context) -> isize,
    pub injectdata: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, u64, u64, u64) -> isize,
}

#[repr(C)]
pub(crate) struct OpsRma {
    pub size: usize,
    pub read: unsafe extern "C" fn(*mut Ep, Buf, usize, Desc, u64, u64, u64, Context) -> isize,
    pub readv: unsafe extern "C" fn(*mut Ep, *const Iovec, *mut Desc, usize, u64, u64, u64, Context) -> isize,
    pub readmsg: unsafe extern "C" fn(*mut Ep, *const MsgRma, u64) -> isize,
    pub write: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, Desc, u64, u64, u64, Context) -> isize,
    pub writev:
        unsafe extern "C" fn(*mut Ep, *const Iovec, *mut Desc, usize, u64, u64, u64, Context) -> isize,
    pub writemsg: unsafe extern "C" fn(*mut Ep, *const MsgRma, u64) -> isize,
    pub inject: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, u64, u64, u64) -> isize,
    pub writedata: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, Desc, u64, u64, u64, u64, Context) -> isize,
    pub injectdata: unsafe extern "C" fn(*mut Ep, ConstBuf, usize, u64, u64, u64, u64) -> isize,
}

/// `struct fi_ops_atomic`: thirteen calls, none of which is offered.
#[repr(C)]
pub(crate) struct OpsAtomic {
    pub size: usize,
    pub calls: [NotOffered; 13],
}
