//! The binary interface of libfabric, as far as it is used: structures, tables of calls, constants.
//!
//! libfabric's own calls are inline functions over tables of function pointers, so these layouts are the
//! interface. They are those of its headers since version 1.9 (the symbol version `FABRIC_1.3`); later versions
//! only append to them. What libfabric allocates is therefore only ever used behind pointers, and defined here
//! up to the last field that is needed; what is allocated here is defined whole, with room for growth where
//! libfabric writes. `abi_test.rs` compares all of it with the headers by means of a C compiler.

use std::ffi::{c_char, c_int, c_void};

pub(super) type FiAddr = u64;

pub(super) const FI_ADDR_UNSPEC: FiAddr = u64::MAX;

// Capabilities and flags.
pub(super) const FI_MSG: u64 = 1 << 1;
pub(super) const FI_RECV: u64 = 1 << 10;
pub(super) const FI_SEND: u64 = 1 << 11;
pub(super) const FI_LOCAL_COMM: u64 = 1 << 51;
pub(super) const FI_REMOTE_COMM: u64 = 1 << 52;
pub(super) const FI_SOURCE: u64 = 1 << 57;
// Modes: what the provider asks of its user.
pub(super) const FI_CONTEXT: u64 = 1 << 59;
pub(super) const FI_CONTEXT2: u64 = 1 << 52;
// Memory registration.
pub(super) const FI_MR_LOCAL: c_int = 1 << 2;
pub(super) const FI_MR_VIRT_ADDR: c_int = 1 << 4;
pub(super) const FI_MR_ALLOCATED: c_int = 1 << 5;
pub(super) const FI_MR_PROV_KEY: c_int = 1 << 6;
pub(super) const FI_MR_ENDPOINT: c_int = 1 << 9;
// Enumerations.
pub(super) const FI_EP_RDM: c_int = 3;
pub(super) const FI_PROGRESS_MANUAL: c_int = 2;
pub(super) const FI_THREAD_DOMAIN: c_int = 3;
pub(super) const FI_RM_ENABLED: c_int = 2;
pub(super) const FI_CQ_FORMAT_MSG: c_int = 2;
pub(super) const FI_WAIT_NONE: c_int = 0;
pub(super) const FI_WAIT_FD: c_int = 3;
pub(super) const FI_SOCKADDR: u32 = 1;
pub(super) const FI_SOCKADDR_IN: u32 = 2;
pub(super) const FI_SOCKADDR_IN6: u32 = 3;
pub(super) const FI_ADDR_STR: u32 = 9;
pub(super) const FI_GETWAIT: c_int = 5;
pub(super) const FI_ENABLE: c_int = 6;
pub(super) const FI_PROTO_SHM: u32 = 16;
// Errors of libfabric's own beyond the system's.
pub(super) const FI_EAVAIL: c_int = 259;

/// `FI_VERSION(major, minor)`.
pub(super) const fn version(major: u32, minor: u32) -> u32 {
    (major << 16) | minor
}

#[repr(C)]
pub(super) struct TxAttr {
    pub caps: u64,
    pub mode: u64,
    pub op_flags: u64,
    pub msg_order: u64,
    pub comp_order: u64,
    pub inject_size: usize,
    pub size: usize,
}

#[repr(C)]
pub(super) struct RxAttr {
    pub caps: u64,
    pub mode: u64,
    pub op_flags: u64,
    pub msg_order: u64,
    pub comp_order: u64,
    pub total_buffered_recv: usize,
    pub size: usize,
}

#[repr(C)]
pub(super) struct EpAttr {
    pub kind: c_int,
    pub protocol: u32,
    pub protocol_version: u32,
    pub max_msg_size: usize,
}

#[repr(C)]
pub(super) struct DomainAttr {
    pub domain: *mut c_void,
    pub name: *mut c_char,
    pub threading: c_int,
    pub control_progress: c_int,
    pub data_progress: c_int,
    pub resource_mgmt: c_int,
    pub av_type: c_int,
    pub mr_mode: c_int,
}

#[repr(C)]
pub(super) struct FabricAttr {
    pub fabric: *mut c_void,
    pub name: *mut c_char,
    pub prov_name: *mut c_char,
}

#[repr(C)]
pub(super) struct Info {
    pub next: *mut Info,
    pub caps: u64,
    pub mode: u64,
    pub addr_format: u32,
    pub src_addrlen: usize,
    pub dest_addrlen: usize,
    pub src_addr: *mut c_void,
    pub dest_addr: *mut c_void,
    pub handle: *mut Fid,
    pub tx_attr: *mut TxAttr,
    pub rx_attr: *mut RxAttr,
    pub ep_attr: *mut EpAttr,
    pub domain_attr: *mut DomainAttr,
    pub fabric_attr: *mut FabricAttr,
}

/// What every object begins with.
#[repr(C)]
pub(super) struct Fid {
    pub fclass: usize,
    pub context: *mut c_void,
    pub ops: *mut Ops,
}

/// A call that is not used here, for its place in a table.
type Unused = Option<unsafe extern "C" fn()>;

#[repr(C)]
pub(super) struct Ops {
    pub size: usize,
    pub close: Option<unsafe extern "C" fn(*mut Fid) -> c_int>,
    pub bind: Option<unsafe extern "C" fn(*mut Fid, *mut Fid, u64) -> c_int>,
    pub control: Option<unsafe extern "C" fn(*mut Fid, c_int, *mut c_void) -> c_int>,
}

#[repr(C)]
pub(super) struct Fabric {
    pub fid: Fid,
    pub ops: *mut OpsFabric,
}

#[repr(C)]
pub(super) struct OpsFabric {
    pub size: usize,
    pub domain: Option<unsafe extern "C" fn(*mut Fabric, *mut Info, *mut *mut Domain, *mut c_void) -> c_int>,
    pub passive_ep: Unused,
    pub eq_open: Unused,
    pub wait_open: Unused,
    pub trywait: Option<unsafe extern "C" fn(*mut Fabric, *mut *mut Fid, c_int) -> c_int>,
}

#[repr(C)]
pub(super) struct Domain {
    pub fid: Fid,
    pub ops: *mut OpsDomain,
    pub mr: *mut OpsMr,
}

#[repr(C)]
pub(super) struct OpsDomain {
    pub size: usize,
    pub av_open: Option<unsafe extern "C" fn(*mut Domain, *mut AvAttr, *mut *mut Av, *mut c_void) -> c_int>,
    pub cq_open: Option<unsafe extern "C" fn(*mut Domain, *mut CqAttr, *mut *mut Cq, *mut c_void) -> c_int>,
    pub endpoint: Option<unsafe extern "C" fn(*mut Domain, *mut Info, *mut *mut Ep, *mut c_void) -> c_int>,
}

#[repr(C)]
pub(super) struct OpsMr {
    pub size: usize,
    #[allow(clippy::type_complexity)]
    pub reg: Option<
        unsafe extern "C" fn(
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
    >,
}

#[repr(C)]
pub(super) struct Mr {
    pub fid: Fid,
    pub mem_desc: *mut c_void,
    pub key: u64,
}

#[repr(C)]
pub(super) struct AvAttr {
    pub kind: c_int,
    pub rx_ctx_bits: c_int,
    pub count: usize,
    pub ep_per_node: usize,
    pub name: *const c_char,
    pub map_addr: *mut c_void,
    pub flags: u64,
}

#[repr(C)]
pub(super) struct Av {
    pub fid: Fid,
    pub ops: *mut OpsAv,
}

#[repr(C)]
pub(super) struct OpsAv {
    pub size: usize,
    pub insert:
        Option<unsafe extern "C" fn(*mut Av, *const c_void, usize, *mut FiAddr, u64, *mut c_void) -> c_int>,
    pub insertsvc: Unused,
    pub insertsym: Unused,
    pub remove: Option<unsafe extern "C" fn(*mut Av, *mut FiAddr, usize, u64) -> c_int>,
}

#[repr(C)]
pub(super) struct CqAttr {
    pub size: usize,
    pub flags: u64,
    pub format: c_int,
    pub wait_obj: c_int,
    pub signaling_vector: c_int,
    pub wait_cond: c_int,
    pub wait_set: *mut c_void,
}

#[repr(C)]
pub(super) struct Cq {
    pub fid: Fid,
    pub ops: *mut OpsCq,
}

#[repr(C)]
pub(super) struct OpsCq {
    pub size: usize,
    pub read: Option<unsafe extern "C" fn(*mut Cq, *mut c_void, usize) -> isize>,
    pub readfrom: Unused,
    pub readerr: Option<unsafe extern "C" fn(*mut Cq, *mut CqErrEntry, u64) -> isize>,
}

/// A completion, in the format `FI_CQ_FORMAT_MSG`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct CqMsgEntry {
    pub op_context: *mut c_void,
    pub flags: u64,
    pub len: usize,
}

#[repr(C)]
pub(super) struct CqErrEntry {
    pub op_context: *mut c_void,
    pub flags: u64,
    pub len: usize,
    pub buf: *mut c_void,
    pub data: u64,
    pub tag: u64,
    pub olen: usize,
    pub err: c_int,
    pub prov_errno: c_int,
    pub err_data: *mut c_void,
    pub err_data_size: usize,
    /// Version 1.20 appended eight bytes; none more are written to users of an older version, such as this one.
    pub reserve: [u64; 8],
}

#[repr(C)]
pub(super) struct Ep {
    pub fid: Fid,
    pub ops: *mut c_void,
    pub cm: *mut OpsCm,
    pub msg: *mut OpsMsg,
}

#[repr(C)]
pub(super) struct OpsCm {
    pub size: usize,
    pub setname: Unused,
    pub getname: Option<unsafe extern "C" fn(*mut Fid, *mut c_void, *mut usize) -> c_int>,
}

#[repr(C)]
pub(super) struct OpsMsg {
    pub size: usize,
    pub recv:
        Option<unsafe extern "C" fn(*mut Ep, *mut c_void, usize, *mut c_void, FiAddr, *mut c_void) -> isize>,
    pub recvv: Unused,
    pub recvmsg: Unused,
    pub send: Option<
        unsafe extern "C" fn(*mut Ep, *const c_void, usize, *mut c_void, FiAddr, *mut c_void) -> isize,
    >,
    pub sendv: Unused,
    pub sendmsg: Unused,
    pub inject: Option<unsafe extern "C" fn(*mut Ep, *const c_void, usize, FiAddr) -> isize>,
}

/// `struct fi_context2`: what a provider may ask to have for itself while an operation is under way.
#[repr(C)]
pub(super) struct Context {
    pub internal: [*mut c_void; 8],
}

#[cfg(test)]
#[path = "abi_test.rs"]
mod tests;
