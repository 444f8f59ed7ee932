//! What the provider offers, and whether it is what somebody asks for: `fi_getinfo`.
//!
//! What is handed out is allocated as C does, for libfabric's core frees it, and copies it by sizes of its own: every
//! structure has room behind it, filled with zeros, for fields that later versions append.
#![expect(unsafe_code, reason = "structures that C hands over and takes")]

use crate::abi::*;
use crate::address::ADDRESS_LEN;
use crate::engine::{INJECT_MAX, MESSAGE_MAX, SENDINGS_MAX};
use crate::memory::PIECES_MAX;
use crate::settings::Settings;
use std::ffi::{CStr, c_char, c_int};

/// All that is offered beyond these is refused.
const CAPS: u64 = MAIN_CAPS | DIRECTIONS | FI_MULTI_RECV | FI_SOURCE | FI_DIRECTED_RECV | COMM;
const MAIN_CAPS: u64 = FI_MSG | FI_TAGGED | FI_RMA;
const DIRECTIONS: u64 = FI_SEND | FI_RECV | FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
const COMM: u64 = FI_LOCAL_COMM | FI_REMOTE_COMM;
const TX_CAPS: u64 = MAIN_CAPS | FI_SEND | FI_READ | FI_WRITE | COMM;
const RX_CAPS: u64 = MAIN_CAPS
    | FI_RECV
    | FI_REMOTE_READ
    | FI_REMOTE_WRITE
    | FI_MULTI_RECV
    | FI_SOURCE
    | FI_DIRECTED_RECV
    | COMM;
/// Messages of one sender are matched in order. Atomic operations are not offered, so any order of them is kept.
const ORDER: u64 =
    FI_ORDER_SAS | FI_ORDER_ATOMIC_RAR | FI_ORDER_ATOMIC_RAW | FI_ORDER_ATOMIC_WAR | FI_ORDER_ATOMIC_WAW;
const TX_OP_FLAGS: u64 =
    FI_COMPLETION | FI_INJECT | FI_INJECT_COMPLETE | FI_TRANSMIT_COMPLETE | FI_DELIVERY_COMPLETE;
const RX_OP_FLAGS: u64 = FI_COMPLETION | FI_MULTI_RECV;
/// `FI_TAG_GENERIC`: all 64 bits, to be used as one likes.
const TAG_FORMAT: u64 = 0xAAAA_AAAA_AAAA_AAAA;
const PROTOCOL: u32 = FI_PROV_SPECIFIC | u32::from_be_bytes(*b"\0RCL");
const PROTOCOL_VERSION: u32 = 1;
pub(crate) const NAME: &CStr = c"rcl";
/// Objects of a kind in a domain: no bound of ours, so a number that nobody exceeds.
const MANY: usize = 1 << 16;
/// Up to this version of the interface a memory mode is one of a few words.
const MR_SCALABLE: c_int = 2;
/// Room for fields of later versions behind each structure. From 1.9 to 2.5 there came 32 bytes.
const ROOM: usize = 256;

/// A structure of zeros with room behind it, allocated as C does; null if there is no memory.
fn zeroed<T>() -> *mut T {
    // SAFETY: `calloc` has no requirements.
    unsafe { libc::calloc(1, size_of::<T>() + ROOM).cast() }
}

/// Frees a description and all that belongs to it.
///
/// # Safety
/// It was made by [`allocate`], and nothing of it was replaced by what C has not allocated.
unsafe fn free(info: *mut Info) {
    // SAFETY: as the caller says; `free` takes null as well.
    unsafe {
        if let Some(info) = info.as_ref() {
            if let Some(domain) = info.domain_attr.as_ref() {
                libc::free(domain.name.cast());
            }
            if let Some(fabric) = info.fabric_attr.as_ref() {
                libc::free(fabric.name.cast());
            }
            libc::free(info.tx_attr.cast());
            libc::free(info.rx_attr.cast());
            libc::free(info.ep_attr.cast());
            libc::free(info.domain_attr.cast());
            libc::free(info.fabric_attr.cast());
        }
        libc::free(info.cast());
    }
}

/// A description of nothing, complete; `None` if there is no memory.
fn allocate() -> Option<*mut Info> {
    let info: *mut Info = zeroed();
    // SAFETY: what was allocated is of zeros, which all of its fields may be.
    unsafe {
        let it = info.as_mut()?;
        it.tx_attr = zeroed();
        it.rx_attr = zeroed();
        it.ep_attr = zeroed();
        it.domain_attr = zeroed();
        it.fabric_attr = zeroed();
        if let (Some(domain), Some(fabric)) = (it.domain_attr.as_mut(), it.fabric_attr.as_mut()) {
            domain.name = libc::strdup(NAME.as_ptr());
            fabric.name = libc::strdup(NAME.as_ptr());
            let parts = [it.tx_attr.is_null(), it.rx_attr.is_null(), it.ep_attr.is_null()];
            if parts == [false; 3] && !domain.name.is_null() && !fabric.name.is_null() {
                return Some(info);
            }
        }
        free(info);
    }
    None
}

/// True if `asked` is nothing or within what there is.
fn within(asked: usize, there: usize) -> bool {
    asked <= there
}

fn subset(asked: u64, there: u64) -> bool {
    asked & !there == 0
}

/// What is asked for, as far as given.
struct Asked<'a> {
    info: &'a Info,
    tx: Option<&'a TxAttr>,
    rx: Option<&'a RxAttr>,
    ep: Option<&'a EpAttr>,
    domain: Option<&'a DomainAttr>,
    fabric: Option<&'a FabricAttr>,
}

impl Asked<'_> {
    /// Why it cannot be had, as a word for the log.
    fn refusal(&self) -> Option<&'static str> {
        let info = self.info;
        let of_info = [
            (subset(info.caps, CAPS), "capabilities"),
            (info.addr_format == FI_FORMAT_UNSPEC, "a format of addresses"),
            (info.handle.is_null(), "a passive endpoint"),
        ];
        let of_tx = self.tx.map(|tx| {
            [
                (subset(tx.caps, CAPS), "capabilities of sending"),
                (subset(tx.op_flags, TX_OP_FLAGS), "flags of sending"),
                (subset(tx.msg_order, ORDER), "an order of sending"),
                (tx.comp_order == 0, "an order of completions"),
                (within(tx.inject_size, INJECT_MAX), "longer injected messages"),
                (within(tx.size, SENDINGS_MAX), "more operations at once"),
                (within(tx.iov_limit.max(tx.rma_iov_limit), PIECES_MAX), "more pieces of memory"),
            ]
        });
        let of_rx = self.rx.map(|rx| {
            [
                (subset(rx.caps, CAPS), "capabilities of receiving"),
                (subset(rx.op_flags, RX_OP_FLAGS), "flags of receiving"),
                (subset(rx.msg_order, ORDER), "an order of receiving"),
                (rx.comp_order == 0, "an order of completions"),
                (within(rx.size, MANY), "more receives at once"),
                (within(rx.iov_limit, PIECES_MAX), "more pieces of memory"),
            ]
        });
        let of_ep = self.ep.map(|ep| {
            [
                (matches!(ep.kind, FI_EP_UNSPEC | FI_EP_RDM), "a type of endpoint"),
                (matches!(ep.protocol, 0 | PROTOCOL), "a protocol"),
                (within(ep.max_msg_size, MESSAGE_MAX), "longer messages"),
                (
                    ep.max_order_raw_size.max(ep.max_order_war_size).max(ep.max_order_waw_size) == 0,
                    "ordered data",
                ),
                (within(ep.tx_ctx_cnt.max(ep.rx_ctx_cnt), 1), "scalable endpoints"),
                (ep.auth_key_size == 0, "authorization keys"),
            ]
        });
        let of_domain = self.domain.map(|domain| {
            [
                (subset(domain.caps, COMM), "capabilities of domains"),
                (progress(domain.control_progress) && progress(domain.data_progress), "automatic progress"),
                (within(domain.cq_data_size, 8) && within(domain.mr_key_size, 8), "longer numbers"),
                (within(domain.max_ep_tx_ctx.max(domain.max_ep_rx_ctx), 1), "scalable endpoints"),
                (within(domain.mr_iov_limit, PIECES_MAX), "more pieces of memory"),
                (domain.auth_key_size == 0, "authorization keys"),
                (is_ours(domain.name), "a domain of another name"),
            ]
        });
        let of_fabric = self.fabric.map(|fabric| [(is_ours(fabric.name), "a fabric of another name")]);
        let all = of_info
            .into_iter()
            .chain(of_tx.into_iter().flatten())
            .chain(of_rx.into_iter().flatten())
            .chain(of_ep.into_iter().flatten())
            .chain(of_domain.into_iter().flatten())
            .chain(of_fabric.into_iter().flatten());
        all.into_iter().find(|(is_so, _)| !is_so).map(|(_, what)| what)
    }
}

fn progress(asked: c_int) -> bool {
    matches!(asked, FI_PROGRESS_UNSPEC | FI_PROGRESS_MANUAL)
}

fn is_ours(name: *const c_char) -> bool {
    // SAFETY: what is not null is a string.
    name.is_null() || unsafe { CStr::from_ptr(name) } == NAME
}

/// `fi_getinfo` of the provider: a description of what is offered, or why not.
///
/// # Safety
/// The arguments are as libfabric's core hands them over.
pub(crate) unsafe fn getinfo(
    version: u32,
    node: *const c_char,
    flags: u64,
    hints: *const Info,
    info: *mut *mut Info,
) -> c_int {
    // SAFETY: pointers within the structure are null or lead to what they say.
    let asked = unsafe {
        hints.as_ref().map(|info| Asked {
            info,
            tx: info.tx_attr.as_ref(),
            rx: info.rx_attr.as_ref(),
            ep: info.ep_attr.as_ref(),
            domain: info.domain_attr.as_ref(),
            fabric: info.fabric_attr.as_ref(),
        })
    };
    // The address of an endpoint is more than a host's name: it must be told by its owner.
    let to_elsewhere = !node.is_null() && flags & FI_SOURCE == 0;
    let refusal =
        if to_elsewhere { Some("a destination by name") } else { asked.as_ref().and_then(Asked::refusal) };
    if let Some(what) = refusal {
        tracing::debug!("not offered: {what}");
        return -FI_ENODATA;
    }
    if let Err(error) = Settings::from_environment() {
        // Whoever has set this wants to know why nothing works; there is no other way to tell.
        eprintln!("rcl: {error}");
        return -FI_ENODATA;
    }
    let Some(offer) = allocate() else { return -FI_ENOMEM };
    // SAFETY: it was just allocated, complete.
    unsafe { fill(&mut *offer, version, asked.as_ref()) };
    // SAFETY: there is a place for the result.
    unsafe { *info = offer };
    0
}

/// # Safety
/// `info` is as [`allocate`] makes it.
unsafe fn fill(info: &mut Info, version: u32, asked: Option<&Asked<'_>>) {
    let caps = match asked.map_or(0, |asked| asked.info.caps) {
        0 => CAPS,
        // Who asks for a kind of operation and no direction gets all of them.
        caps if caps & DIRECTIONS == 0 => caps | DIRECTIONS | COMM,
        caps => caps | COMM,
    };
    info.caps = caps;
    let domain_asked = asked.and_then(|asked| asked.domain);
    // SAFETY: as the caller says.
    let (tx, rx, ep, domain) =
        unsafe { (&mut *info.tx_attr, &mut *info.rx_attr, &mut *info.ep_attr, &mut *info.domain_attr) };

    tx.caps = caps & TX_CAPS;
    tx.op_flags = asked.and_then(|asked| asked.tx).map_or(0, |tx| tx.op_flags);
    tx.msg_order = ORDER;
    tx.inject_size = INJECT_MAX;
    tx.size = SENDINGS_MAX;
    tx.iov_limit = PIECES_MAX;
    tx.rma_iov_limit = 1;

    rx.caps = caps & RX_CAPS;
    rx.op_flags = asked.and_then(|asked| asked.rx).map_or(0, |rx| rx.op_flags);
    rx.msg_order = ORDER;
    rx.size = MANY;
    rx.iov_limit = PIECES_MAX;

    ep.kind = FI_EP_RDM;
    ep.protocol = PROTOCOL;
    ep.protocol_version = PROTOCOL_VERSION;
    ep.max_msg_size = MESSAGE_MAX;
    ep.mem_tag_format = match asked.and_then(|asked| asked.ep).map_or(0, |ep| ep.mem_tag_format) {
        0 => TAG_FORMAT,
        format => format,
    };
    ep.tx_ctx_cnt = 1;
    ep.rx_ctx_cnt = 1;

    domain.threading = match domain_asked.map_or(FI_THREAD_UNSPEC, |domain| domain.threading) {
        FI_THREAD_UNSPEC => FI_THREAD_SAFE,
        threading => threading,
    };
    domain.control_progress = FI_PROGRESS_MANUAL;
    domain.data_progress = FI_PROGRESS_MANUAL;
    domain.resource_mgmt = FI_RM_ENABLED;
    domain.av_type = match domain_asked.map_or(FI_AV_UNSPEC, |domain| domain.av_type) {
        FI_AV_UNSPEC => FI_AV_TABLE,
        kind => kind,
    };
    domain.mr_mode = if version < self::version(1, 5) { MR_SCALABLE } else { 0 };
    domain.mr_key_size = 8;
    domain.cq_data_size = 8;
    domain.cq_cnt = MANY;
    domain.ep_cnt = MANY;
    domain.tx_ctx_cnt = MANY;
    domain.rx_ctx_cnt = MANY;
    domain.max_ep_tx_ctx = 1;
    domain.max_ep_rx_ctx = 1;
    domain.cntr_cnt = MANY;
    domain.mr_iov_limit = PIECES_MAX;
    domain.caps = COMM;
    domain.mr_cnt = MANY;
    const { assert!(ADDRESS_LEN <= 64, "MPICH keeps addresses of up to 64 bytes") };
}
