//! What is written in `abi.rs` against the headers of libfabric, by means of a C compiler.

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
        TxAttr = "fi_tx_attr" { caps, mode, op_flags, msg_order, comp_order, inject_size, size }
        RxAttr = "fi_rx_attr" { caps, mode, op_flags, msg_order, comp_order, total_buffered_recv, size }
        EpAttr = "fi_ep_attr" { kind as "type", protocol, protocol_version, max_msg_size }
        DomainAttr = "fi_domain_attr" {
            domain, name, threading, control_progress, data_progress, resource_mgmt, av_type, mr_mode,
        }
        FabricAttr = "fi_fabric_attr" { fabric, name, prov_name }
        Info = "fi_info" {
            next, caps, mode, addr_format, src_addrlen, dest_addrlen, src_addr, dest_addr, handle, tx_attr,
            rx_attr, ep_attr, domain_attr, fabric_attr,
        }
        Fid = "fid" { fclass, context, ops }
        Ops = "fi_ops" { size, close, bind, control }
        Fabric = "fid_fabric" { fid, ops }
        OpsFabric = "fi_ops_fabric" { size, domain, passive_ep, eq_open, wait_open, trywait }
        Domain = "fid_domain" { fid, ops, mr }
        OpsDomain = "fi_ops_domain" { size, av_open, cq_open, endpoint }
        OpsMr = "fi_ops_mr" { size, reg }
        Mr = "fid_mr" { fid, mem_desc, key }
        AvAttr = "fi_av_attr" { kind as "type", rx_ctx_bits, count, ep_per_node, name, map_addr, flags }
        Av = "fid_av" { fid, ops }
        OpsAv = "fi_ops_av" { size, insert, insertsvc, insertsym, remove }
        CqAttr = "fi_cq_attr" { size, flags, format, wait_obj, signaling_vector, wait_cond, wait_set }
        Cq = "fid_cq" { fid, ops }
        OpsCq = "fi_ops_cq" { size, read, readfrom, readerr }
        CqMsgEntry = "fi_cq_msg_entry" { op_context, flags, len }
        CqErrEntry = "fi_cq_err_entry" {
            op_context, flags, len, buf, data, tag, olen, err, prov_errno, err_data, err_data_size,
        }
        Ep = "fid_ep" { fid, ops, cm, msg }
        OpsCm = "fi_ops_cm" { size, setname, getname }
        OpsMsg = "fi_ops_msg" { size, recv, recvv, recvmsg, send, sendv, sendmsg, inject }
        Context = "fi_context2" { internal }
    }
    constants! { all,
        FI_ADDR_UNSPEC, FI_MSG, FI_RECV, FI_SEND, FI_LOCAL_COMM, FI_REMOTE_COMM, FI_SOURCE, FI_CONTEXT,
        FI_CONTEXT2, FI_MR_LOCAL, FI_MR_VIRT_ADDR, FI_MR_ALLOCATED, FI_MR_PROV_KEY, FI_MR_ENDPOINT, FI_EP_RDM,
        FI_PROGRESS_MANUAL, FI_THREAD_DOMAIN, FI_RM_ENABLED, FI_CQ_FORMAT_MSG, FI_WAIT_NONE, FI_WAIT_FD,
        FI_SOCKADDR, FI_SOCKADDR_IN, FI_SOCKADDR_IN6, FI_ADDR_STR, FI_PROTO_SHM, FI_GETWAIT, FI_ENABLE, FI_EAVAIL,
    }
    all.push(("FI_VERSION(1, 9)".to_owned(), version(1, 9).into()));
    // These are allocated here, so they must be as large as libfabric believes.
    all.push(("sizeof(struct fi_av_attr)".to_owned(), size_of::<AvAttr>() as u64));
    all.push(("sizeof(struct fi_cq_attr)".to_owned(), size_of::<CqAttr>() as u64));
    all.push(("sizeof(struct fi_cq_msg_entry)".to_owned(), size_of::<CqMsgEntry>() as u64));
    all.push(("sizeof(struct fi_context2)".to_owned(), size_of::<Context>() as u64));
    let room = size_of::<CqErrEntry>();
    all.push((format!("sizeof(struct fi_cq_err_entry) <= {room}"), 1));
    all
}

#[test]
fn every_layout_and_constant_is_that_of_the_headers() {
    let expected = expected();
    let mut program = String::from("#include <stddef.h>\n#include <stdio.h>\n");
    for header in ["fabric", "fi_endpoint", "fi_domain", "fi_eq", "fi_cm", "fi_errno"] {
        program += &format!("#include <rdma/{header}.h>\n");
    }
    program += "int main(void) {\n";
    for (expression, _) in &expected {
        program += &format!("printf(\"%llu\\n\", (unsigned long long)({expression}));\n");
    }
    program += "return 0; }\n";
    let dir = std::env::temp_dir().join(format!("cl-ofi-abi-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (source, binary) = (dir.join("abi.c"), dir.join("abi"));
    std::fs::write(&source, program).unwrap();
    let compiled = Command::new("cc").arg(&source).arg("-o").arg(&binary).output();
    let compiled = compiled.expect("a C compiler is missing; on Debian: apt-get install gcc");
    let messages = String::from_utf8_lossy(&compiled.stderr);
    assert!(
        compiled.status.success(),
        "are the headers of libfabric there? On Debian: apt-get install libfabric-dev\n{messages}"
    );
    let output = Command::new(&binary).output().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<u64> = theirs.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(theirs.len(), expected.len());
    for ((expression, ours), theirs) in expected.iter().zip(theirs) {
        assert_eq!(*ours, theirs, "{expression}");
    }
}
