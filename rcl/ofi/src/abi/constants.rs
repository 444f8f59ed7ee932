//! Constants of `rdma/fabric.h` and its companions.

use std::ffi::c_int;

/// `FI_VERSION(major, minor)`.
pub(crate) const fn version(major: u32, minor: u32) -> u32 {
    (major << 16) | minor
}

// Capabilities.
pub(crate) const FI_MSG: u64 = 1 << 1;
pub(crate) const FI_RMA: u64 = 1 << 2;
pub(crate) const FI_TAGGED: u64 = 1 << 3;
pub(crate) const FI_READ: u64 = 1 << 8;
pub(crate) const FI_WRITE: u64 = 1 << 9;
pub(crate) const FI_RECV: u64 = 1 << 10;
pub(crate) const FI_SEND: u64 = 1 << 11;
pub(crate) const FI_REMOTE_READ: u64 = 1 << 12;
pub(crate) const FI_REMOTE_WRITE: u64 = 1 << 13;
pub(crate) const FI_MULTI_RECV: u64 = 1 << 16;
pub(crate) const FI_LOCAL_COMM: u64 = 1 << 51;
pub(crate) const FI_REMOTE_COMM: u64 = 1 << 52;
pub(crate) const FI_SOURCE: u64 = 1 << 57;
pub(crate) const FI_DIRECTED_RECV: u64 = 1 << 59;

// Flags of operations and of completions.
pub(crate) const FI_REMOTE_CQ_DATA: u64 = 1 << 17;
pub(crate) const FI_MORE: u64 = 1 << 18;
pub(crate) const FI_PEEK: u64 = 1 << 19;
pub(crate) const FI_COMPLETION: u64 = 1 << 24;
pub(crate) const FI_INJECT: u64 = 1 << 25;
pub(crate) const FI_INJECT_COMPLETE: u64 = 1 << 26;
pub(crate) const FI_TRANSMIT_COMPLETE: u64 = 1 << 27;
pub(crate) const FI_DELIVERY_COMPLETE: u64 = 1 << 28;
pub(crate) const FI_CLAIM: u64 = 1 << 59;
pub(crate) const FI_DISCARD: u64 = 1 << 58;
/// Of `fi_ep_bind`.
pub(crate) const FI_SELECTIVE_COMPLETION: u64 = 1 << 59;

// Orders.
pub(crate) const FI_ORDER_SAS: u64 = 1 << 8;
pub(crate) const FI_ORDER_ATOMIC_RAR: u64 = 1 << 36;
pub(crate) const FI_ORDER_ATOMIC_RAW: u64 = 1 << 37;
pub(crate) const FI_ORDER_ATOMIC_WAR: u64 = 1 << 38;
pub(crate) const FI_ORDER_ATOMIC_WAW: u64 = 1 << 39;

pub(crate) const FI_ADDR_UNSPEC: u64 = u64::MAX;
/// Sets apart values of a provider's own.
pub(crate) const FI_PROV_SPECIFIC: u32 = 1 << 31;

// Enumerations.
pub(crate) const FI_FORMAT_UNSPEC: u32 = 0;
pub(crate) const FI_EP_UNSPEC: c_int = 0;
pub(crate) const FI_EP_RDM: c_int = 3;
pub(crate) const FI_AV_UNSPEC: c_int = 0;
pub(crate) const FI_AV_TABLE: c_int = 2;
pub(crate) const FI_PROGRESS_UNSPEC: c_int = 0;
pub(crate) const FI_PROGRESS_MANUAL: c_int = 2;
pub(crate) const FI_THREAD_UNSPEC: c_int = 0;
pub(crate) const FI_THREAD_SAFE: c_int = 1;
pub(crate) const FI_RM_ENABLED: c_int = 2;
pub(crate) const FI_CQ_FORMAT_UNSPEC: c_int = 0;
pub(crate) const FI_CQ_FORMAT_CONTEXT: c_int = 1;
pub(crate) const FI_CQ_FORMAT_MSG: c_int = 2;
pub(crate) const FI_CQ_FORMAT_DATA: c_int = 3;
pub(crate) const FI_CQ_FORMAT_TAGGED: c_int = 4;
pub(crate) const FI_WAIT_NONE: c_int = 0;
pub(crate) const FI_WAIT_UNSPEC: c_int = 1;
pub(crate) const FI_OPT_ENDPOINT: c_int = 0;
pub(crate) const FI_OPT_MIN_MULTI_RECV: c_int = 0;
pub(crate) const FI_ENABLE: c_int = 6;

// Kinds of objects.
pub(crate) const FI_CLASS_FABRIC: usize = 1;
pub(crate) const FI_CLASS_DOMAIN: usize = 2;
pub(crate) const FI_CLASS_EP: usize = 3;
pub(crate) const FI_CLASS_AV: usize = 11;
pub(crate) const FI_CLASS_MR: usize = 12;
pub(crate) const FI_CLASS_CQ: usize = 14;
pub(crate) const FI_CLASS_CNTR: usize = 15;

// Errors: the system's, and libfabric's own.
pub(crate) const FI_EAGAIN: c_int = libc::EAGAIN;
pub(crate) const FI_EINVAL: c_int = libc::EINVAL;
pub(crate) const FI_EIO: c_int = libc::EIO;
pub(crate) const FI_ENOMEM: c_int = libc::ENOMEM;
pub(crate) const FI_ENOSYS: c_int = libc::ENOSYS;
pub(crate) const FI_ENOMSG: c_int = libc::ENOMSG;
pub(crate) const FI_ENODATA: c_int = libc::ENODATA;
pub(crate) const FI_EMSGSIZE: c_int = libc::EMSGSIZE;
pub(crate) const FI_EBUSY: c_int = libc::EBUSY;
pub(crate) const FI_EACCES: c_int = libc::EACCES;
pub(crate) const FI_ECANCELED: c_int = libc::ECANCELED;
pub(crate) const FI_ECONNRESET: c_int = libc::ECONNRESET;
pub(crate) const FI_ETIMEDOUT: c_int = libc::ETIMEDOUT;
pub(crate) const FI_ENOPROTOOPT: c_int = libc::ENOPROTOOPT;
pub(crate) const FI_EADDRNOTAVAIL: c_int = libc::EADDRNOTAVAIL;
pub(crate) const FI_EOTHER: c_int = 256;
pub(crate) const FI_ETOOSMALL: c_int = 257;
pub(crate) const FI_EAVAIL: c_int = 259;
pub(crate) const FI_EBADFLAGS: c_int = 260;
pub(crate) const FI_ETRUNC: c_int = 265;
pub(crate) const FI_ENOKEY: c_int = 266;
pub(crate) const FI_ENOCQ: c_int = 263;
pub(crate) const FI_ENOAV: c_int = 267;
