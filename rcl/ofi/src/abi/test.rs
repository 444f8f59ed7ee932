//! What is written in `abi` against the headers of libfabric, by means of a C compiler.

use super::*;
use std::mem::offset_of;
use std::process::Command;

/// The size of the field that `_field` reaches.
fn field_size<S, F>(_field: impl Fn(&S) -> &F) -> usize {
    size_of::<F>()
}

/// The expressions of C, each with the value it has here, of the place and size of fields.
macro_rules! fields {
    ($all:ident, $($ours:ident = $theirs:literal { $($field:ident $(as $name:literal)?),* $(,)? })*) => {$($({
        #[allow(unused_mut, unused_assignments)]
        let mut name = stringify!($field);
        $(name = $name;)?
        $all.push((format!("offsetof(struct {}, {name})", $theirs), offset_of!($ours, $field) as u64));
        $all.push((
            format!("sizeof(((struct {} *)0)->{name})", $theirs),
            field_size(|s: &$ours| &s.$field) as u64,
        ));
    })*)*};
}

macro_rules! constants {
    ($all:ident, $($name:ident),* $(,)?) => {$(
        $all.push((stringify!($name).to_owned(), $name as u64));
    )*};
}

fn expected() -> Vec<(String, u64)> {
    let mut all = Vec::new();
    fields! { all,
        TxAttr = "fi_tx_attr" {
            caps, mode, op_flags, msg_order, comp_order, inject_size, size, iov_limit, rma_iov_limit, tclass,
        }
        RxAttr = "fi_rx_attr" {
            caps, mode, op_flags, msg_order, comp_order, total_buffered_recv, size, iov_limit,
        }
        EpAttr = "fi_ep_attr" {
            kind as "type", protocol, protocol_version, max_msg_size, msg_prefix_size, max_order_raw_size,
            max_order_war_size, max_order_waw_size, mem_tag_format, tx_ctx_cnt, rx_ctx_cnt, auth_key_size, auth_key,
        }
        DomainAttr = "fi_domain_attr" {
            domain, name, threading, control_progress, data_progress, resource_mgmt, av_type, mr_mode,
            mr_key_size, cq_data_size, cq_cnt, ep_cnt, tx_ctx_cnt, rx_ctx_cnt, max_ep_tx_ctx, max_ep_rx_ctx,
            max_ep_stx_ctx, max_ep_srx_ctx, cntr_cnt, mr_iov_limit, caps, mode, auth_key, auth_key_size,
            max_err_data, mr_cnt, tclass,
        }
        FabricAttr = "fi_fabric_attr" { fabric, name, prov_name, prov_version, api_version }
        Info = "fi_info" {
            next, caps, mode, addr_format, src_addrlen, dest_addrlen, src_addr, dest_addr, handle, tx_attr,
            rx_attr, ep_attr, domain_attr, fabric_attr, nic,
        }
        AvAttr = "fi_av_attr" { kind as "type", rx_ctx_bits, count, ep_per_node, name, map_addr, flags }
        CqAttr = "fi_cq_attr" { size, flags, format, wait_obj, signaling_vector, wait_cond, wait_set }
        CntrAttr = "fi_cntr_attr" { events, wait_obj, wait_set, flags }
        CqTaggedEntry = "fi_cq_tagged_entry" { op_context, flags, len, buf, data, tag }
        CqErrEntry = "fi_cq_err_entry" {
            op_context, flags, len, buf, data, tag, olen, err, prov_errno, err_data, err_data_size,
        }
        Msg = "fi_msg" { msg_iov, desc, iov_count, addr, context, data }
        MsgTagged = "fi_msg_tagged" { msg_iov, desc, iov_count, addr, tag, ignore, context, data }
        RmaIov = "fi_rma_iov" { addr, len, key }
        MsgRma = "fi_msg_rma" { msg_iov, desc, iov_count, addr, rma_iov, rma_iov_count, context, data }
        MrAttr = "fi_mr_attr" { mr_iov, iov_count, access, offset, requested_key, context }
        Provider = "fi_provider" { version, fi_version, context, name, getinfo, fabric, cleanup }
        Fid = "fid" { fclass, context, ops }
        Ops = "fi_ops" { size, close, bind, control, ops_open, tostr, ops_set }
        Fabric = "fid_fabric" { fid, ops, api_version }
        OpsFabric = "fi_ops_fabric" { size, domain, passive_ep, eq_open, wait_open, trywait, domain2 }
        Domain = "fid_domain" { fid, ops, mr }
        OpsDomain = "fi_ops_domain" {
            size, av_open, cq_open, endpoint, scalable_ep, cntr_open, poll_open, stx_ctx, srx_ctx, query_atomic,
            query_collective, endpoint2,
        }
        OpsMr = "fi_ops_mr" { size, reg, regv, regattr }
        Mr = "fid_mr" { fid, mem_desc, key }
        Av = "fid_av" { fid, ops }
        OpsAv = "fi_ops_av" { size, insert, insertsvc, insertsym, remove, lookup, straddr, av_set }
        Cq = "fid_cq" { fid, ops }
        OpsCq = "fi_ops_cq" { size, read, readfrom, readerr, sread, sreadfrom, signal, strerror }
        Cntr = "fid_cntr" { fid, ops }
        OpsCntr = "fi_ops_cntr" { size, read, readerr, add, set, wait, adderr, seterr }
        Ep = "fid_ep" { fid, ops, cm, msg, rma, tagged, atomic, collective }
        OpsEp = "fi_ops_ep" { size, cancel, getopt, setopt, tx_ctx, rx_ctx, rx_size_left, tx_size_left }
        OpsCm = "fi_ops_cm" {
            size, setname, getname, getpeer, connect, listen, accept, reject, shutdown, join,
        }
        OpsMsg = "fi_ops_msg" {
            size, recv, recvv, recvmsg, send, sendv, sendmsg, inject, senddata, injectdata,
        }
        OpsTagged = "fi_ops_tagged" {
            size, recv, recvv, recvmsg, send, sendv, sendmsg, inject, senddata, injectdata,
        }
        OpsRma = "fi_ops_rma" {
            size, read, readv, readmsg, write, writev, writemsg, inject, writedata, injectdata,
        }
    }
    constants! { all,
        FI_MSG, FI_RMA, FI_TAGGED, FI_READ, FI_WRITE, FI_RECV, FI_SEND, FI_REMOTE_READ, FI_REMOTE_WRITE,
        FI_MULTI_RECV, FI_LOCAL_COMM, FI_REMOTE_COMM, FI_SOURCE, FI_DIRECTED_RECV, FI_REMOTE_CQ_DATA, FI_MORE,
        FI_PEEK, FI_COMPLETION, FI_INJECT, FI_INJECT_COMPLETE, FI_TRANSMIT_COMPLETE, FI_DELIVERY_COMPLETE,
        FI_CLAIM, FI_DISCARD, FI_SELECTIVE_COMPLETION, FI_ORDER_SAS, FI_ORDER_ATOMIC_RAR, FI_ORDER_ATOMIC_RAW,
        FI_ORDER_ATOMIC_WAR, FI_ORDER_ATOMIC_WAW, FI_ADDR_UNSPEC, FI_PROV_SPECIFIC, FI_FORMAT_UNSPEC, FI_EP_UNSPEC,
        FI_EP_RDM, FI_AV_UNSPEC, FI_AV_TABLE, FI_PROGRESS_UNSPEC, FI_PROGRESS_MANUAL, FI_THREAD_UNSPEC,
        FI_THREAD_SAFE, FI_RM_ENABLED, FI_CQ_FORMAT_UNSPEC, FI_CQ_FORMAT_CONTEXT, FI_CQ_FORMAT_MSG,
        FI_CQ_FORMAT_DATA, FI_CQ_FORMAT_TAGGED, FI_WAIT_NONE, FI_WAIT_UNSPEC, FI_OPT_ENDPOINT,
        FI_OPT_MIN_MULTI_RECV, FI_ENABLE, FI_CLASS_FABRIC, FI_CLASS_DOMAIN, FI_CLASS_EP, FI_CLASS_AV, FI_CLASS_MR,
        FI_CLASS_CQ, FI_CLASS_CNTR, FI_EAGAIN, FI_EINVAL, FI_ENOMEM, FI_ENOSYS, FI_ENOMSG, FI_ENODATA,
        FI_EMSGSIZE, FI_EBUSY, FI_EACCES, FI_ECANCELED, FI_ECONNRESET, FI_ETIMEDOUT, FI_ENOPROTOOPT,
        FI_EADDRNOTAVAIL, FI_EOTHER, FI_ETOOSMALL, FI_EAVAIL, FI_EBADFLAGS, FI_ETRUNC, FI_ENOKEY, FI_ENOCQ, FI_ENOAV, FI_EIO,
    }
    all.push(("FI_VERSION(2, 5)".to_owned(), version(2, 5).into()));
    // Callers step through arrays of these.
    all.push(("sizeof(struct fi_cq_tagged_entry)".to_owned(), size_of::<CqTaggedEntry>() as u64));
    all.push(("sizeof(struct fi_rma_iov)".to_owned(), size_of::<RmaIov>() as u64));
    // The shorter formats are beginnings of the longest.
    for (format, size) in [("", 8), ("msg_", 24), ("data_", 40)] {
        all.push((format!("sizeof(struct fi_cq_{format}entry)"), size));
    }
    for (format, field) in [("msg_", "len"), ("data_", "len"), ("data_", "data")] {
        let same = format!(
            "offsetof(struct fi_cq_{format}entry, {field}) == offsetof(struct fi_cq_tagged_entry, {field})"
        );
        all.push((same, 1));
    }
    all.push(("sizeof(struct fi_ops_atomic)".to_owned(), size_of::<OpsAtomic>() as u64));
    all
}

#[test]
fn every_layout_and_constant_is_that_of_the_headers() {
    let expected = expected();
    let mut program = String::from("#include <stddef.h>\n#include <stdio.h>\n");
    let headers = [
        "fabric",
        "fi_endpoint",
        "fi_domain",
        "fi_eq",
        "fi_cm",
        "fi_rma",
        "fi_tagged",
        "fi_atomic",
        "fi_errno",
        "providers/fi_prov",
    ];
    for header in headers {
        program += &format!("#include <rdma/{header}.h>\n");
    }
    program += "int main(void) {\n";
    for (expression, _) in &expected {
        program += &format!("printf(\"%llu\\n\", (unsigned long long)({expression}));\n");
    }
    program += "return 0; }\n";
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("abi.c"), dir.path().join("abi"));
    std::fs::write(&source, program).unwrap();
    let compiled = Command::new("cc").arg(&source).arg("-o").arg(&binary).output();
    let compiled = compiled.expect("a C compiler is missing; on Debian: apt-get install gcc");
    let messages = String::from_utf8_lossy(&compiled.stderr);
    assert!(
        compiled.status.success(),
        "are the headers of libfabric there? On Debian: apt-get install libfabric-dev\n{messages}"
    );
    let output = Command::new(&binary).output().unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<u64> = theirs.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(theirs.len(), expected.len());
    for ((expression, ours), theirs) in expected.iter().zip(theirs) {
        assert_eq!(*ours, theirs, "{expression}");
    }
}
