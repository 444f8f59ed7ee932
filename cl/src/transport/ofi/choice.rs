//! Which of the endpoints that libfabric offers to open.
#![allow(unsafe_code)]

use super::abi::*;
use super::info::{InfoList, text};
use super::library::Library;
use crate::transport::provider::OfiProvider;
use std::ffi::CString;
use std::net::{IpAddr, SocketAddr};
use std::ptr::{self, NonNull, null_mut};

/// Endpoints tried, one of each provider, before we give up: there are about ten providers.
pub(super) const CANDIDATES_MAX: usize = 16;
/// Descriptions looked through: machines with many interfaces have some dozens.
const INFOS_MAX: usize = 1024;

/// The endpoints to try, the best first: one of each provider, or of the one that is wanted.
pub(super) fn candidates(
    library: &'static Library,
    provider: OfiProvider,
    bind: SocketAddr,
) -> Result<Vec<InfoList>, String> {
    let offered = get(library, provider.name(), None).map_err(|error| {
        let wanted =
            provider.name().map_or_else(|| "reaches other nodes".to_owned(), |p| format!("is {p:?}"));
        format!("no provider of libfabric {} {wanted}: {}", library.version_text(), library.error_text(error))
    })?;
    let mut seen: Vec<String> = Vec::new();
    let mut candidates = Vec::new();
    let mut at = offered.0.as_ptr();
    for _ in 0..INFOS_MAX {
        if at.is_null() || candidates.len() == CANDIDATES_MAX {
            break;
        }
        // SAFETY: `at` walks the list that `offered` owns, whose attributes libfabric has filled in.
        let (name, addr_format, mode, next) = unsafe {
            (text((*(*at).fabric_attr).prov_name).to_owned(), (*at).addr_format, (*at).mode, (*at).next)
        };
        let here = at;
        at = next;
        if seen.contains(&name) || mode & !(FI_CONTEXT | FI_CONTEXT2) != 0 {
            continue;
        }
        let by_ip = matches!(addr_format, FI_SOCKADDR | FI_SOCKADDR_IN | FI_SOCKADDR_IN6);
        let info = if by_ip && !bind.ip().is_unspecified() {
            // Of this provider, the one on the interface that has the address.
            get(library, Some(&name), Some(bind.ip())).ok()
        } else {
            // SAFETY: `here` is a whole description; the copy is ours.
            NonNull::new(unsafe { (library.dupinfo)(here) }).map(|copy| InfoList(copy, library))
        };
        if let Some(info) = info {
            seen.push(name);
            candidates.push(info);
        }
    }
    if candidates.is_empty() {
        return Err(format!("no provider of libfabric {} serves {}", library.version_text(), bind.ip()));
    }
    Ok(candidates)
}

/// The endpoints that `provider` (all, if none is named) offers, at `source` if that is said. The error is
/// positive.
fn get(library: &'static Library, provider: Option<&str>, source: Option<IpAddr>) -> Result<InfoList, i32> {
    // SAFETY: without a description to copy, this makes an empty one.
    let hints = NonNull::new(unsafe { (library.dupinfo)(ptr::null()) }).ok_or(libc::ENOMEM)?;
    let hints = InfoList(hints, library);
    let node = source.map(|ip| CString::new(ip.to_string()).expect("an address has no zero byte"));
    let mut found = null_mut();
    // SAFETY: an empty description has all its attributes; the provider's name is freed with it, by `free`. The
    // strings outlive the call.
    let result = unsafe {
        let h = hints.0.as_ptr();
        (*h).caps = FI_MSG;
        if provider.is_none() {
            // Not one that is good within a node only.
            (*h).caps |= FI_LOCAL_COMM | FI_REMOTE_COMM;
        }
        (*h).mode = FI_CONTEXT | FI_CONTEXT2;
        (*(*h).ep_attr).kind = FI_EP_RDM;
        let domain = (*h).domain_attr;
        (*domain).threading = FI_THREAD_DOMAIN;
        (*domain).control_progress = FI_PROGRESS_MANUAL;
        (*domain).data_progress = FI_PROGRESS_MANUAL;
        (*domain).resource_mgmt = FI_RM_ENABLED;
        (*domain).mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
        if let Some(name) = provider {
            let name = CString::new(name).map_err(|_| libc::EINVAL)?;
            (*(*h).fabric_attr).prov_name = libc::strdup(name.as_ptr());
        }
        let node = node.as_ref().map_or(ptr::null(), |node| node.as_ptr());
        let flags = if node.is_null() { 0 } else { FI_SOURCE };
        (library.getinfo)(library.version_wanted(), node, ptr::null(), flags, h, &mut found)
    };
    match NonNull::new(found) {
        Some(found) if result == 0 => Ok(InfoList(found, library)),
        _ => Err(if result == 0 { libc::ENODATA } else { -result }),
    }
}
