//! The network device that has a given address.
#![allow(unsafe_code)]

use super::frame::Mac;
use std::ffi::CStr;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// `ETHTOOL_GDRVINFO`: asks for the name of a device's driver.
const ETHTOOL_GET_DRIVER: u32 = 3;

/// A network device.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) index: u32,
    /// The largest packet, in bytes, without the Ethernet header.
    pub(super) mtu: usize,
    pub(super) mac: Mac,
    /// The name of its driver; empty if it does not tell.
    pub(super) driver: String,
}

/// The kernel's `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

impl Device {
    /// The device of this network namespace that has the address `ip`.
    ///
    /// # Errors
    /// For people: there is none, or it is no Ethernet device, or the system does not say.
    pub(super) fn with_address(ip: Ipv4Addr) -> io::Result<Device> {
        let name = name_of(ip)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no device has {ip}")))?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let mut request = request_for(&name);
        query(&socket, libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: the kernel has written this member.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        query(&socket, libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: the kernel has written this member.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        query(&socket, libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: the kernel has written this member.
        let hardware = unsafe { request.ifr_ifru.ifru_hwaddr };
        if hardware.sa_family != libc::ARPHRD_ETHER {
            let why = format!("{name}, which has {ip}, is no Ethernet device");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let mac = std::array::from_fn(|i| hardware.sa_data[i] as u8);
        Ok(Device {
            driver: driver_of(&socket, &name),
            name,
            index: index as u32,
            mtu: usize::try_from(mtu).unwrap_or(0),
            mac,
        })
    }
}

/// The name of the device that has the address `ip`.
fn name_of(ip: Ipv4Addr) -> io::Result<Option<String>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: the pointer is valid to write to.
    if unsafe { libc::getifaddrs(&mut list) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = None;
    let mut at = list;
    while !at.is_null() {
        // SAFETY: `at` is an entry of the list, which is freed only below.
        let entry = unsafe { &*at };
        // SAFETY: an address that is not null begins with its family, and is as long as that demands.
        let here = !entry.ifa_addr.is_null()
            && unsafe { (*entry.ifa_addr).sa_family } == libc::AF_INET as libc::sa_family_t
            && unsafe { (*entry.ifa_addr.cast::<libc::sockaddr_in>()).sin_addr.s_addr }
                == ip.to_bits().to_be();
        if here {
            // SAFETY: an entry's name is a C string.
            found = Some(unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy().into_owned());
            break;
        }
        at = entry.ifa_next;
    }
    // SAFETY: the list came from `getifaddrs` and is not used any more.
    unsafe { libc::freeifaddrs(list) };
    // An address may carry a label, "eth0:1".
    Ok(found.map(|name| name.split(':').next().unwrap_or_default().to_owned()))
}

fn request_for(name: &str) -> libc::ifreq {
    // SAFETY: a request of zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    request.ifr_name.iter_mut().zip(name.bytes().take(room)).for_each(|(to, from)| *to = from as _);
    request
}

fn query(socket: &UdpSocket, what: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the requests made here read and write an `ifreq`.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &raw mut *request) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn driver_of(socket: &UdpSocket, name: &str) -> String {
    let mut info = DriverInfo { command: ETHTOOL_GET_DRIVER, driver: [0; 32], rest: [0; 160] };
    let mut request = request_for(name);
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // The request points to `info`, which outlives the call and is as large as the kernel's structure.
    match query(socket, libc::SIOCETHTOOL, &mut request) {
        Ok(()) => String::from_utf8_lossy(info.driver.split(|&b| b == 0).next().unwrap_or(&[])).into_owned(),
        Err(_) => String::new(),
    }
}
