//! The program that picks our datagrams out of a device's arrivals, and how it gets into the kernel.
//!
//! It is written as instructions of the kernel's virtual machine, so that neither building nor running
//! needs a compiler for it. Whoever attaches it holds a link; the kernel detaches it when the
//! link's descriptor is closed, at the latest when the process dies.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

// Numbers of the kernel's interface, linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const PSEUDO_MAP_FD: u8 = 1;
const REDIRECT_MAP: i32 = 51;
const XDP_PASS: i32 = 2;

/// How a program is attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// In the driver.
    Native,
    /// Behind the driver, on any device.
    Generic,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Native => "native",
            Hook::Generic => "generic",
        })
    }
}

impl Hook {
    /// `XDP_FLAGS_DRV_MODE` or `XDP_FLAGS_SKB_MODE`.
    fn flags(self) -> u32 {
        match self {
            Hook::Native => 1 << 2,
            Hook::Generic => 1 << 1,
        }
    }
}

/// An attached program. Dropped, it is detached.
#[derive(Debug)]
pub(super) struct Program {
    // The link holds the program and the program the map, but the descriptors need not outlive us.
    _link: OwnedFd,
    _map: OwnedFd,
}

impl Program {
    /// Has the device hand frames with datagrams to `local`, of at most `frame_len_max` bytes and arriving
    /// in queue 0, to the AF_XDP socket; all else goes its usual way.
    pub(super) fn attach(
        device: u32,
        hook: Hook,
        socket: RawFd,
        local: SocketAddrV4,
        frame_len_max: usize,
    ) -> io::Result<Program> {
        let map = create_map()?;
        put_socket(&map, socket)?;
        let program = load(&instructions(map.as_raw_fd(), local, frame_len_max))?;
        Ok(Program { _link: link(&program, device, hook)?, _map: map })
    }
}

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination register in the low four bits, source register in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

/// Assembles the program; a jump to `pass` is written before it is known where that is.
#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    to_pass: Vec<usize>,
}

impl Assembler {
    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.code.push(instruction(code, to, from, offset, immediate));
    }

    /// `to = *(u8|u16|u32 *)(from + offset)`
    fn load(&mut self, bytes: usize, to: u8, from: u8, offset: i16) {
        let size = match bytes {
            1 => 0x10,
            2 => 0x08,
            _ => 0x00,
        };
        self.push(0x61 | size, to, from, offset, 0);
    }

    /// `to = from`
    fn copy(&mut self, to: u8, from: u8) {
        self.push(0xbf, to, from, 0, 0);
    }

    /// `to = value`
    fn set(&mut self, to: u8, value: i32) {
        self.push(0xb7, to, 0, 0, value);
    }

    /// `to += value`
    fn add(&mut self, to: u8, value: i32) {
        self.push(0x07, to, 0, 0, value);
    }

    /// `to &= value`
    fn and(&mut self, to: u8, value: i32) {
        self.push(0x57, to, 0, 0, value);
    }

    /// Passes if `a > b`.
    fn pass_if_greater(&mut self, a: u8, b: u8) {
        self.to_pass.push(self.code.len());
        self.push(0x2d, a, b, 0, 0);
    }

    /// Passes if `a <= b`.
    fn pass_if_not_greater(&mut self, a: u8, b: u8) {
        self.to_pass.push(self.code.len());
        self.push(0xbd, a, b, 0, 0);
    }

    /// Passes if the low 32 bits of `a` are not `value`.
    fn pass_unless(&mut self, a: u8, value: u32) {
        self.to_pass.push(self.code.len());
        self.push(0x56, a, 0, 0, value as i32);
    }

    fn load_map(&mut self, to: u8, map: RawFd) {
        self.push(0x18, to, PSEUDO_MAP_FD, 0, map);
        self.push(0, 0, 0, 0, 0);
    }

    fn call(&mut self, function: i32) {
        self.push(0x85, 0, 0, 0, function);
    }

    fn exit(&mut self) {
        self.push(0x95, 0, 0, 0, 0);
    }

    /// Ends the program with `pass`.
    fn finish(mut self) -> Vec<Instruction> {
        let pass = self.code.len();
        for &at in &self.to_pass {
            self.code[at].offset = (pass - at - 1) as i16;
        }
        self.set(0, XDP_PASS);
        self.exit();
        self.code
    }
}

/// The program. Fields of the frame are compared as they lie in memory.
fn instructions(map: RawFd, local: SocketAddrV4, frame_len_max: usize) -> Vec<Instruction> {
    let word = |bytes: [u8; 2]| u32::from(u16::from_ne_bytes(bytes));
    let mut asm = Assembler::default();
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index.
    asm.load(4, 2, 1, 0);
    asm.load(4, 3, 1, 4);
    asm.load(4, 7, 1, 16);
    // All headers are there, and the frame is no longer than a buffer of ours: what is longer was merged
    // from several, and the kernel will part them.
    asm.copy(4, 2);
    asm.add(4, 42);
    asm.pass_if_greater(4, 3);
    asm.copy(4, 2);
    asm.add(4, i32::try_from(frame_len_max).unwrap_or(i32::MAX).saturating_add(1));
    asm.pass_if_not_greater(4, 3);
    // IPv4 without options, no fragment, UDP, to us.
    asm.load(2, 5, 2, 12);
    asm.pass_unless(5, word([0x08, 0x00]));
    asm.load(1, 5, 2, 14);
    asm.pass_unless(5, 0x45);
    asm.load(2, 5, 2, 20);
    asm.and(5, word([0x3f, 0xff]) as i32);
    asm.pass_unless(5, 0);
    asm.load(1, 5, 2, 23);
    asm.pass_unless(5, 17);
    asm.load(4, 5, 2, 30);
    asm.pass_unless(5, u32::from_ne_bytes(local.ip().octets()));
    asm.load(2, 5, 2, 36);
    asm.pass_unless(5, word(local.port().to_be_bytes()));
    // return redirect_map(map, rx_queue_index, XDP_PASS)
    asm.load_map(1, map);
    asm.copy(2, 7);
    asm.set(3, XDP_PASS);
    asm.call(REDIRECT_MAP);
    asm.exit();
    asm.finish()
}

/// The arguments of `bpf(2)` for each command used here, the beginnings of `union bpf_attr`.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    device: u32,
    attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    device: u32,
    attach_type: u32,
    flags: u32,
}

/// Calls `bpf(2)`.
///
/// # Safety
/// `attributes` must be what the command wants, and the addresses in it valid for it.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the caller's promise; the kernel reads `size_of::<T>()` bytes.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc as RawFd) }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: called only with a descriptor that the kernel has just made for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A map from a queue's number to the AF_XDP socket of that queue.
fn create_map() -> io::Result<OwnedFd> {
    let attributes = MapCreate { map_type: MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, entries: 1 };
    // SAFETY: the structure is the command's, without addresses.
    unsafe { bpf(MAP_CREATE, &attributes) }.map(owned)
}

fn put_socket(map: &OwnedFd, socket: RawFd) -> io::Result<()> {
    let (queue, socket) = (0u32, socket as u32);
    let attributes = MapUpdate {
        map: map.as_raw_fd() as u32,
        _padding: 0,
        key: (&raw const queue) as u64,
        value: (&raw const socket) as u64,
        flags: 0,
    };
    // SAFETY: the structure is the command's; key and value are of the map's sizes and outlive the call.
    unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.map(drop)
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attributes = ProgLoad {
        program_type: PROG_TYPE_XDP,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        attach_type: ATTACH_TYPE_XDP,
        ..ProgLoad::default()
    };
    attributes.name[..11].copy_from_slice(b"ghidrah_cl\0");
    // SAFETY: the structure is the command's; the instructions and the license outlive the call.
    unsafe { bpf(PROG_LOAD, &attributes) }.map(owned)
}

fn link(program: &OwnedFd, device: u32, hook: Hook) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: program.as_raw_fd() as u32,
        device,
        attach_type: ATTACH_TYPE_XDP,
        flags: hook.flags(),
    };
    // SAFETY: the structure is the command's, without addresses.
    unsafe { bpf(LINK_CREATE, &attributes) }.map(owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn every_jump_leads_to_the_end_that_passes() {
        let local = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 7);
        let code = instructions(3, local, 1514);
        let end = code.len() - 2;
        assert_eq!(code[end], instruction(0xb7, 0, 0, 0, XDP_PASS));
        let jumps = code.iter().enumerate().filter(|(_, i)| matches!(i.code, 0x2d | 0xbd | 0x56));
        let targets: Vec<usize> = jumps.map(|(at, i)| at + 1 + i.offset as usize).collect();
        assert_eq!(targets, vec![end; 8]);
    }
}
