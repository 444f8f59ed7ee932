//! What libfabric says of an endpoint that it offers.
#![allow(unsafe_code)]

use super::abi::*;
use super::library::Library;
use std::ffi::CStr;
use std::ptr::NonNull;

/// What the parties of a conversation must have in common, and some limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub protocol: u32,
    pub version: u32,
    pub addr_format: u32,
}

/// The description of an endpoint to be.
pub(super) struct InfoList(pub(super) NonNull<Info>, pub(super) &'static Library);

impl InfoList {
    /// A copy of the first description.
    pub(super) fn copy(&self) -> Option<InfoList> {
        // SAFETY: the description is whole; the copy is ours.
        NonNull::new(unsafe { (self.1.dupinfo)(self.0.as_ptr()) }).map(|copy| InfoList(copy, self.1))
    }
}

impl Drop for InfoList {
    fn drop(&mut self) {
        // SAFETY: it came from `fi_getinfo` or `fi_dupinfo` and is nobody else's.
        unsafe { (self.1.freeinfo)(self.0.as_ptr()) }
    }
}

/// What an endpoint can do.
pub(super) struct Limits {
    pub max_msg_size: usize,
    pub inject_size: usize,
    pub rx_size: usize,
    pub tx_size: usize,
    pub protocol: Protocol,
}

/// The limits of the first description.
pub(super) fn limits(info: &InfoList) -> Limits {
    // SAFETY: libfabric fills in all attributes of what it offers.
    unsafe {
        let i = info.0.as_ptr();
        let (ep, tx, rx) = ((*i).ep_attr, (*i).tx_attr, (*i).rx_attr);
        Limits {
            max_msg_size: (*ep).max_msg_size,
            inject_size: (*tx).inject_size,
            rx_size: (*rx).size,
            tx_size: (*tx).size,
            protocol: Protocol {
                protocol: (*ep).protocol,
                version: (*ep).protocol_version,
                addr_format: (*i).addr_format,
            },
        }
    }
}

/// Provider and domain of the first description.
pub(super) fn describe(info: &InfoList) -> String {
    // SAFETY: as in `limits`; the names are C strings.
    unsafe {
        let i = info.0.as_ptr();
        let (fabric, domain) = ((*i).fabric_attr, (*i).domain_attr);
        format!("{} on {}", text((*fabric).prov_name), text((*domain).name))
    }
}

/// The text of a C string that libfabric owns, or nothing if the pointer is null.
///
/// # Safety
/// The pointer is null or that of a C string.
pub(super) unsafe fn text<'a>(at: *const std::ffi::c_char) -> &'a str {
    if at.is_null() {
        return "";
    }
    // SAFETY: as the caller has promised.
    unsafe { CStr::from_ptr(at) }.to_str().unwrap_or("?")
}
