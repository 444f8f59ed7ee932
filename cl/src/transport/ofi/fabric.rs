//! libfabric's objects behind safe calls: one endpoint with its completion queue and address vector.
//!
//! What the provider may touch belongs to [`Fabric`] until it has reported: each operation under way keeps its
//! buffer and has a context, a piece of memory for the provider's own use whose address names the operation.
//! A completion that names none under way is turned away. On drop the endpoint is closed first, after which
//! the provider touches nothing; if it cannot be closed, the buffers are leaked, for a buffer lost is better
//! than one with two writers.
#![allow(unsafe_code)]

use super::abi::{self, *};
use super::info::{InfoList, Protocol, limits};
use super::library::Library;
use super::{INJECT_MAX, RECEIVE_AT};
use crate::pool::{Buf, Pool};
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull, null_mut};

/// Completions read at once.
const BATCH: usize = 32;
/// The longest address of a provider, in bytes; shm's, a name, is the longest known.
pub(super) const NAME_MAX: usize = 256;

/// What has come of an operation.
pub(super) enum Event {
    /// A datagram has arrived.
    Received(Buf),
    /// One could not be received, for an error (positive) of libfabric's.
    ReceiveFailed(c_int),
    /// The provider is done with a datagram to that party; it may have failed.
    Sent(SocketAddr, Result<(), c_int>),
    /// An error that belongs to no operation under way, as those of injected datagrams do.
    Stray(c_int),
}

/// An operation under way.
enum Operation {
    Receive(Buf),
    /// The buffer is kept until the provider has sent it.
    Send(SocketAddr, #[allow(dead_code)] Buf),
}

/// An object of libfabric's that begins with a `fid`, closed on drop.
struct Object<T>(NonNull<T>);

impl<T> Object<T> {
    /// Takes over what a call has put in place of the null pointer it was handed.
    fn made(object: *mut T, result: c_int, call: &str) -> Result<Object<T>, Failure> {
        match NonNull::new(object) {
            Some(object) if result == 0 => Ok(Object(object)),
            _ => Err(Failure { call: call.to_owned(), error: if result == 0 { libc::EIO } else { -result } }),
        }
    }

    fn ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    fn fid(&self) -> *mut Fid {
        self.ptr().cast()
    }

    fn control(&self, command: c_int, argument: *mut c_void) -> c_int {
        // SAFETY: the object is open, and begins with a fid whose table of calls has at least these; the
        // argument is what the command wants, by the callers below.
        unsafe {
            match (*(*self.fid()).ops).control {
                Some(control) => control(self.fid(), command, argument),
                None => -libc::ENOSYS,
            }
        }
    }

    fn bind<U>(&self, other: &Object<U>, flags: u64) -> Result<(), Failure> {
        // SAFETY: both objects are open; the table is as in `control`.
        let result = unsafe {
            match (*(*self.fid()).ops).bind {
                Some(bind) => bind(self.fid(), other.fid(), flags),
                None => -libc::ENOSYS,
            }
        };
        check(result, "fi_ep_bind")
    }

    /// Closes it. False if it would not be closed.
    fn close(&mut self) -> bool {
        // SAFETY: the object is open, and nobody uses it after this: it is dropped or forgotten.
        unsafe { (*(*self.fid()).ops).close.is_some_and(|close| close(self.fid()) == 0) }
    }
}

impl<T> Drop for Object<T> {
    fn drop(&mut self) {
        if !self.close() {
            tracing::warn!("libfabric does not close an object; it is lost");
        }
    }
}

/// A call of libfabric's that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub call: String,
    /// Positive.
    pub error: c_int,
}

fn check(result: c_int, call: &str) -> Result<(), Failure> {
    if result == 0 { Ok(()) } else { Err(Failure { call: call.to_owned(), error: -result }) }
}

/// What a data call returned; the error is positive.
fn checked(result: isize) -> Result<(), c_int> {
    if result >= 0 { Ok(()) } else { Err(c_int::try_from(-result).unwrap_or(libc::EIO)) }
}

/// One endpoint of a provider, with all that belongs to it.
pub(super) struct Fabric {
    // In the order in which they are closed; the first by hand.
    ep: ManuallyDrop<Object<Ep>>,
    cq: Object<Cq>,
    av: Object<Av>,
    mr: Option<Object<Mr>>,
    /// Held until the others are closed.
    _domain: Object<Domain>,
    fabric: Object<abi::Fabric>,
    _info: InfoList,
    library: &'static Library,
    /// One for each operation there may be, for the provider's use: it has this address.
    contexts: NonNull<[Context]>,
    /// What each context is used for.
    operations: Vec<Option<Operation>>,
    free: Vec<u32>,
    /// The pool keeps the memory that is registered.
    _pool: Pool,
    events: VecDeque<Event>,
    wait_fd: Option<RawFd>,
    inject_max: usize,
    name: Vec<u8>,
    protocol: Protocol,
}

// SAFETY: the objects are opened for the use by one thread at a time (FI_THREAD_DOMAIN), whichever it is; the
// contexts are theirs.
unsafe impl Send for Fabric {}

/// How an endpoint is to be.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// The longest datagram in bytes.
    pub datagram_max: usize,
    pub receives: usize,
    pub sends: usize,
    /// Register the buffers even if the provider does not ask for it.
    pub register: bool,
}

impl Fabric {
    /// Opens an endpoint as `info`, of which the first entry counts, describes it.
    pub(super) fn open(
        library: &'static Library,
        info: InfoList,
        wanted: Wanted,
        pool: &Pool,
    ) -> Result<Fabric, Failure> {
        let i = info.0.as_ptr();
        let limits = limits(&info);
        if limits.max_msg_size < wanted.datagram_max {
            return Err(Failure { call: "the size of a datagram".to_owned(), error: libc::EMSGSIZE });
        }
        let receives = wanted.receives.min(limits.rx_size.max(1));
        let sends = wanted.sends.min(limits.tx_size.max(1));
        // SAFETY: `i` is a whole description as `fi_getinfo` has made it; each call gets the objects that were
        // opened before it for the purpose, and attributes that outlive it. Calls that are absent from a table
        // are not made.
        unsafe {
            let mut fabric = null_mut();
            let result = (library.fabric)((*i).fabric_attr, &mut fabric, null_mut());
            let fabric = Object::made(fabric, result, "fi_fabric")?;

            let mut domain = null_mut();
            let open = (*(*fabric.ptr()).ops).domain;
            let result = open.map_or(-libc::ENOSYS, |open| open(fabric.ptr(), i, &mut domain, null_mut()));
            let domain = Object::made(domain, result, "fi_domain")?;

            let (cq, wait_fd) = open_cq(&domain, receives + sends)?;

            let mut attr = AvAttr {
                kind: (*(*i).domain_attr).av_type,
                rx_ctx_bits: 0,
                count: 0,
                ep_per_node: 0,
                name: ptr::null(),
                map_addr: null_mut(),
                flags: 0,
            };
            let mut av = null_mut();
            let open = (*(*domain.ptr()).ops).av_open;
            let result =
                open.map_or(-libc::ENOSYS, |open| open(domain.ptr(), &mut attr, &mut av, null_mut()));
            let av = Object::made(av, result, "fi_av_open")?;

            let mut ep = null_mut();
            let open = (*(*domain.ptr()).ops).endpoint;
            let result = open.map_or(-libc::ENOSYS, |open| open(domain.ptr(), i, &mut ep, null_mut()));
            let ep: Object<Ep> = Object::made(ep, result, "fi_endpoint")?;
            ep.bind(&av, 0)?;
            ep.bind(&cq, FI_SEND | FI_RECV)?;
            check(ep.control(FI_ENABLE, null_mut()), "fi_enable")?;

            let mr_mode = (*(*i).domain_attr).mr_mode;
            let mr = if mr_mode & FI_MR_LOCAL != 0 || wanted.register {
                let mr = register(&domain, pool)?;
                if mr_mode & FI_MR_ENDPOINT != 0 {
                    mr.bind(&ep, 0)?;
                    check(mr.control(FI_ENABLE, null_mut()), "fi_mr_enable")?;
                }
                Some(mr)
            } else {
                None
            };
            let name = name_of(&ep)?;
            let count = receives + sends;
            let contexts: Box<[Context]> =
                (0..count).map(|_| Context { internal: [null_mut(); 8] }).collect();
            Ok(Fabric {
                protocol: limits.protocol,
                inject_max: limits.inject_size.min(INJECT_MAX),
                ep: ManuallyDrop::new(ep),
                cq,
                av,
                mr,
                _domain: domain,
                fabric,
                _info: info,
                library,
                contexts: NonNull::from(Box::leak(contexts)),
                operations: (0..count).map(|_| None).collect(),
                free: (0..count as u32).rev().collect(),
                _pool: pool.clone(),
                events: VecDeque::new(),
                wait_fd,
                name,
            })
        }
    }

    /// The address of this endpoint, opaque.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The longest datagram that [`Fabric::inject`] takes, in bytes.
    pub(super) fn inject_max(&self) -> usize {
        self.inject_max
    }

    pub(super) fn library(&self) -> &'static Library {
        self.library
    }

    /// The descriptor that becomes readable when there are completions, if the provider has one.
    pub(super) fn wait_fd(&self) -> Option<RawFd> {
        self.wait_fd
    }

    /// True if the descriptor may be waited for: there is nothing to be read yet.
    pub(super) fn try_wait(&mut self) -> bool {
        if self.wait_fd.is_none() {
            return true;
        }
        let mut fids = [self.cq.fid()];
        // SAFETY: the fabric and the queue are open, and the array outlives the call.
        let result = unsafe {
            let try_wait = (*(*self.fabric.ptr()).ops).trywait;
            try_wait.map_or(0, |try_wait| try_wait(self.fabric.ptr(), fids.as_mut_ptr(), 1))
        };
        result != -libc::EAGAIN
    }

    /// Enters the address of a party. The bytes are the party's word: they are passed in room of their own,
    /// padded with zeroes, that holds more than any format of addresses wants to read.
    pub(super) fn insert(&mut self, name: &[u8]) -> Result<FiAddr, c_int> {
        let mut room = [0u64; (NAME_MAX + 64) / 8];
        let mut addr = FI_ADDR_UNSPEC;
        if name.len() > NAME_MAX {
            return Err(libc::EINVAL);
        }
        // SAFETY: the room is longer than the name, and both are plain bytes; the vector is open, and the
        // pointers outlive the call, which completes at once as no event queue is bound.
        let inserted = unsafe {
            ptr::copy_nonoverlapping(name.as_ptr(), room.as_mut_ptr().cast(), name.len());
            let insert = (*(*self.av.ptr()).ops).insert;
            insert.map_or(-libc::ENOSYS, |insert| {
                insert(self.av.ptr(), room.as_ptr().cast(), 1, &mut addr, 0, null_mut())
            })
        };
        match inserted {
            1 if addr != FI_ADDR_UNSPEC => Ok(addr),
            0 | 1 => Err(libc::EADDRNOTAVAIL),
            error => Err(-error),
        }
    }

    /// Forgets an address. Nothing must be under way to it.
    pub(super) fn remove(&mut self, mut addr: FiAddr) {
        // SAFETY: the vector is open, and the address came from it.
        let result = unsafe {
            let remove = (*(*self.av.ptr()).ops).remove;
            remove.map_or(-libc::ENOSYS, |remove| remove(self.av.ptr(), &mut addr, 1, 0))
        };
        if result != 0 {
            tracing::debug!(error = self.library.error_text(-result), "libfabric keeps an address");
        }
    }

    /// Sends `bytes`, which are the caller's again on return.
    pub(super) fn inject(&mut self, to: FiAddr, bytes: &[u8]) -> Result<(), c_int> {
        assert!(bytes.len() <= self.inject_max, "{} bytes injected", bytes.len());
        // SAFETY: the endpoint is enabled; the bytes are not needed after the call.
        let result = unsafe {
            let inject = (*(*self.ep.ptr()).msg).inject;
            inject.map_or(-(libc::ENOSYS as isize), |inject| {
                inject(self.ep.ptr(), bytes.as_ptr().cast(), bytes.len(), to)
            })
        };
        checked(result)
    }

    /// Sends the contents of `buf`, which is kept until they are sent. It is handed back if they cannot be now.
    pub(super) fn send(&mut self, to: FiAddr, party: SocketAddr, buf: Buf) -> Result<(), (Buf, c_int)> {
        let Some(id) = self.free.pop() else {
            return Err((buf, libc::EAGAIN));
        };
        let (at, len) = (buf.as_ptr(), buf.len());
        self.operations[id as usize] = Some(Operation::Send(party, buf));
        // SAFETY: the endpoint is enabled. The buffer is kept in `operations`, and the context in use, until
        // the completion; the memory is in the region registered, if one is.
        let result = unsafe {
            let send = (*(*self.ep.ptr()).msg).send;
            send.map_or(-(libc::ENOSYS as isize), |send| {
                send(self.ep.ptr(), at.cast(), len, self.descriptor(), to, self.context(id))
            })
        };
        checked(result).map_err(|error| (self.take_back(id), error))
    }

    /// Offers `buf` for a datagram of at most `len` bytes, which will be [`RECEIVE_AT`] the beginning of its slot.
    pub(super) fn receive(&mut self, mut buf: Buf, len: usize) -> Result<(), (Buf, c_int)> {
        let Some(id) = self.free.pop() else {
            return Err((buf, libc::EAGAIN));
        };
        let (slot, size) = buf.raw_slot();
        assert!(RECEIVE_AT + len <= size, "a datagram of {len} bytes does not fit the slot");
        self.operations[id as usize] = Some(Operation::Receive(buf));
        // SAFETY: as for `send`; the bytes lie within the slot, as was just asserted.
        let result = unsafe {
            let receive = (*(*self.ep.ptr()).msg).recv;
            receive.map_or(-(libc::ENOSYS as isize), |receive| {
                let at = slot.add(RECEIVE_AT).cast();
                receive(self.ep.ptr(), at, len, self.descriptor(), FI_ADDR_UNSPEC, self.context(id))
            })
        };
        checked(result).map_err(|error| (self.take_back(id), error))
    }

    /// What has happened next. Asking is what makes most providers do their work.
    pub(super) fn next(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.read();
        }
        self.events.pop_front()
    }

    fn read(&mut self) {
        let mut entries = [CqMsgEntry { op_context: null_mut(), flags: 0, len: 0 }; BATCH];
        // SAFETY: the queue is open and of the format of these entries, of which there are as many as said.
        let read = unsafe {
            let read = (*(*self.cq.ptr()).ops).read;
            read.map_or(-(libc::ENOSYS as isize), |read| {
                read(self.cq.ptr(), entries.as_mut_ptr().cast(), entries.len())
            })
        };
        if let Ok(count) = usize::try_from(read) {
            for entry in &entries[..count.min(BATCH)] {
                self.complete(entry.op_context, Ok(entry.len));
            }
        } else if read == -(FI_EAVAIL as isize) {
            self.read_error();
        }
        // Anything else: nothing now, or a queue that is broken for good, which the silence of all parties shows.
    }

    fn read_error(&mut self) {
        let mut entry = CqErrEntry {
            op_context: null_mut(),
            flags: 0,
            len: 0,
            buf: null_mut(),
            data: 0,
            tag: 0,
            olen: 0,
            err: 0,
            prov_errno: 0,
            // With a size of 0, no details are written.
            err_data: null_mut(),
            err_data_size: 0,
            reserve: [0; 8],
        };
        // SAFETY: the queue is open; the entry is whole and outlives the call.
        let read = unsafe {
            let read = (*(*self.cq.ptr()).ops).readerr;
            read.map_or(-(libc::ENOSYS as isize), |read| read(self.cq.ptr(), &mut entry, 0))
        };
        if read > 0 {
            self.complete(entry.op_context, Err(if entry.err > 0 { entry.err } else { libc::EIO }));
        }
    }

    fn complete(&mut self, context: *mut c_void, result: Result<usize, c_int>) {
        let operation = self.id_of(context).and_then(|id| {
            let operation = self.operations[id as usize].take()?;
            self.free.push(id);
            Some(operation)
        });
        self.events.push_back(match (operation, result) {
            (Some(Operation::Send(party, _)), result) => Event::Sent(party, result.map(drop)),
            (Some(Operation::Receive(mut buf)), Ok(len)) => {
                // The length is the provider's word.
                if len <= buf.raw_slot().1 - RECEIVE_AT {
                    buf.set_range(RECEIVE_AT, RECEIVE_AT + len);
                    Event::Received(buf)
                } else {
                    Event::ReceiveFailed(libc::EMSGSIZE)
                }
            }
            (Some(Operation::Receive(_)), Err(error)) => Event::ReceiveFailed(error),
            (None, Err(error)) => Event::Stray(error),
            // Of an injected datagram: some providers report these though they should not.
            (None, Ok(_)) => return,
        });
    }

    /// Which operation has the context at that address, if it is one of ours.
    fn id_of(&self, context: *mut c_void) -> Option<u32> {
        let offset = (context as usize).checked_sub(self.contexts.as_ptr().cast::<Context>() as usize)?;
        let id = offset / size_of::<Context>();
        (offset % size_of::<Context>() == 0 && id < self.operations.len()).then_some(id as u32)
    }

    fn context(&self, id: u32) -> *mut c_void {
        assert!((id as usize) < self.operations.len());
        // SAFETY: there are as many contexts as operations.
        unsafe { self.contexts.as_ptr().cast::<Context>().add(id as usize).cast() }
    }

    fn descriptor(&self) -> *mut c_void {
        // SAFETY: the region is registered as long as `self` lives.
        self.mr.as_ref().map_or(null_mut(), |mr| unsafe { (*mr.ptr()).mem_desc })
    }

    /// Ends an operation that the provider has not taken.
    fn take_back(&mut self, id: u32) -> Buf {
        self.free.push(id);
        match self.operations[id as usize].take() {
            Some(Operation::Receive(buf) | Operation::Send(_, buf)) => buf,
            None => unreachable!("an operation that was just entered"),
        }
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        // Closing is what ends the operations.
        if self.ep.close() {
            // SAFETY: the contexts were leaked from a box when this was made, and no operation is left.
            drop(unsafe { Box::from_raw(self.contexts.as_ptr()) });
        } else {
            tracing::error!("libfabric does not close its endpoint; its buffers are lost");
            std::mem::forget(std::mem::take(&mut self.operations));
        }
    }
}

/// A completion queue, with a descriptor to wait on if the provider has such.
fn open_cq(domain: &Object<Domain>, size: usize) -> Result<(Object<Cq>, Option<RawFd>), Failure> {
    let open = |wait_obj| {
        let mut attr = CqAttr {
            size,
            flags: 0,
            format: FI_CQ_FORMAT_MSG,
            wait_obj,
            signaling_vector: 0,
            wait_cond: 0,
            wait_set: null_mut(),
        };
        let mut cq = null_mut();
        // SAFETY: the domain is open, and the attributes outlive the call.
        let result = unsafe {
            let open = (*(*domain.ptr()).ops).cq_open;
            open.map_or(-libc::ENOSYS, |open| open(domain.ptr(), &mut attr, &mut cq, null_mut()))
        };
        Object::made(cq, result, "fi_cq_open")
    };
    if let Ok(cq) = open(FI_WAIT_FD) {
        let mut fd: c_int = -1;
        if cq.control(FI_GETWAIT, (&raw mut fd).cast()) == 0 && fd >= 0 {
            return Ok((cq, Some(fd)));
        }
    }
    Ok((open(FI_WAIT_NONE)?, None))
}

/// Registers the memory of all buffers.
fn register(domain: &Object<Domain>, pool: &Pool) -> Result<Object<Mr>, Failure> {
    let (start, len) = pool.arena();
    let mut mr = null_mut();
    // SAFETY: the domain is open; the memory is the pool's, which `Fabric` keeps longer than the region.
    let result = unsafe {
        let register = (*(*domain.ptr()).mr).reg;
        register.map_or(-libc::ENOSYS, |register| {
            register(domain.fid(), start.cast(), len, FI_SEND | FI_RECV, 0, 0, 0, &mut mr, null_mut())
        })
    };
    Object::made(mr, result, "fi_mr_reg")
}

/// The address of an enabled endpoint.
fn name_of(ep: &Object<Ep>) -> Result<Vec<u8>, Failure> {
    let mut name = vec![0u8; NAME_MAX];
    let mut len = name.len();
    // SAFETY: the endpoint is open, and there is as much room as said.
    let result = unsafe {
        let cm = (*ep.ptr()).cm;
        let getname = if cm.is_null() { None } else { (*cm).getname };
        getname.map_or(-libc::ENOSYS, |getname| getname(ep.fid(), name.as_mut_ptr().cast(), &mut len))
    };
    check(result, "fi_getname")?;
    if len == 0 || len > NAME_MAX {
        return Err(Failure { call: "fi_getname".to_owned(), error: libc::EMSGSIZE });
    }
    name.truncate(len);
    Ok(name)
}
