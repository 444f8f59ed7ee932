//! What can be measured: said before anything is.

use crate::case::{Case, Link, Pacing, Transport, Workload};
use crate::run::Place;
use cl::{FAULTS_VARIABLE, TRANSPORT_VARIABLE};
use std::net::UdpSocket;

/// Whether `case` can be measured by this program, wherever it runs.
///
/// # Errors
/// A sentence that says why not, and what to do instead.
pub fn case(case: &Case) -> Result<(), String> {
    let Case { workload, transport, link, pacing, senders, faults, .. } = *case;
    let no = |why: &str| Err(why.to_owned());
    if transport == Transport::Ofi && !cfg!(feature = "ofi") {
        return no("this program was built without libfabric: apt-get install libfabric1, and \
                   cargo build --release -p cmm --features ofi");
    }
    if workload == Workload::Incast && transport == Transport::Xdp && senders > 1 {
        return no(
            "incast over xdp cannot be measured: each sender is an endpoint of its own, and AF_XDP gives a \
                   device's queue to one; leave --transport xdp out",
        );
    }
    if workload == Workload::Incast && pacing == Pacing::Park && senders > 1 {
        return no("several senders on one thread cannot sleep: leave --park out");
    }
    if transport == Transport::Shm && link == Link::Veth {
        return no(
            "processes in two network namespaces share no memory: leave --veth or --transport shm out",
        );
    }
    if transport == Transport::Shm && faults.is_some() {
        return no(
            "faults happen to datagrams, and shared memory has none: leave --faults or --transport shm out",
        );
    }
    Ok(())
}

/// Whether `case` can be measured there.
///
/// # Errors
/// As [`case`].
pub fn at(case: &Case, place: &Place) -> Result<(), String> {
    self::case(case)?;
    // An address that can be bound is one of this host.
    let elsewhere = |remote: &std::net::SocketAddr| UdpSocket::bind((remote.ip(), 0)).is_err();
    if case.transport == Transport::Shm
        && let Some(remote) = place.remote.as_ref().filter(|remote| elsewhere(remote))
    {
        return Err(format!(
            "{remote} is another host, and memory is shared within one: leave --transport shm out"
        ));
    }
    Ok(())
}

/// Whether the processors that were chosen are there.
///
/// # Errors
/// If one is not: its number, and those that are.
pub fn processors(place: &Place) -> Result<(), String> {
    let processors = core_affinity::get_core_ids().unwrap_or_default();
    let ours = if place.remote.is_some() { 1 } else { 2 };
    for core in place.cores.iter().take(ours).flatten() {
        if !processors.iter().any(|p| p.id == *core) {
            let all: Vec<String> = processors.iter().map(|p| p.id.to_string()).collect();
            return Err(format!("processor {core} is not one that this process may use: {}", all.join(", ")));
        }
    }
    Ok(())
}

/// Whether the environment leaves the transport to `case`.
///
/// # Errors
/// If [`TRANSPORT_VARIABLE`] would put another in its place, and the figures under a wrong name.
pub fn in_environment(case: &Case) -> Result<(), String> {
    let Some(value) = std::env::var_os(TRANSPORT_VARIABLE) else { return Ok(()) };
    let value = value.to_string_lossy();
    // This is how a provider is chosen.
    if case.transport == Transport::Ofi && (value == "ofi" || value.starts_with("ofi:")) {
        return Ok(());
    }
    Err(format!("{TRANSPORT_VARIABLE}={value} would override --transport {}: unset it", case.transport))
}

/// The faults that the environment asks for.
///
/// # Errors
/// If [`FAULTS_VARIABLE`] does not describe faults.
pub fn faults_of_environment() -> Result<Option<cl::Injection>, String> {
    let Some(value) = std::env::var_os(FAULTS_VARIABLE) else { return Ok(None) };
    let value = value.to_string_lossy();
    let faults: cl::Injection =
        value.parse().map_err(|error| format!("{FAULTS_VARIABLE}={value}: {error}"))?;
    Ok(Some(faults).filter(|injection| !injection.faults.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Layer;
    use crate::run::Launcher;
    use crate::table;

    fn udp() -> Case {
        let mut cases = table::quick().subjects.into_iter().map(|subject| *subject.case());
        cases
            .find(|case| case.transport == Transport::Udp && case.layer == Layer::Cl)
            .expect("there are some")
    }

    fn refused(with: impl FnOnce(&mut Case)) -> String {
        let mut case = udp();
        with(&mut case);
        self::case(&case).expect_err("it cannot be measured")
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_the_reason() {
        assert_eq!(case(&udp()), Ok(()));
        let incast = |case: &mut Case| (case.workload, case.senders) = (Workload::Incast, 2);
        let why = refused(|case| {
            incast(case);
            case.transport = Transport::Xdp;
        });
        assert!(why.contains("AF_XDP gives a device's queue to one"), "{why}");
        let why = refused(|case| {
            incast(case);
            case.pacing = Pacing::Park;
        });
        assert!(why.contains("leave --park out"), "{why}");
        let why = refused(|case| (case.transport, case.link) = (Transport::Shm, Link::Veth));
        assert!(why.contains("leave --veth"), "{why}");
        let why = refused(|case| {
            case.transport = Transport::Shm;
            case.faults = Some("drop=1%".parse().unwrap());
        });
        assert!(why.contains("leave --faults"), "{why}");
    }

    #[cfg(not(feature = "ofi"))]
    #[test]
    fn without_libfabric_the_command_that_builds_it_is_said() {
        let why = refused(|case| case.transport = Transport::Ofi);
        assert!(why.contains("cargo build --release -p cmm --features ofi"), "{why}");
    }

    #[test]
    fn places_that_are_not_there() {
        let mut place = Place::here(Launcher { program: "/bin/false".into(), args: Vec::new() });
        assert_eq!((at(&udp(), &place), processors(&place)), (Ok(()), Ok(())));
        place.cores = [Some(0), Some(100_000)];
        assert!(processors(&place).unwrap_err().contains("processor 100000"));
        // TEST-NET-1 (RFC 5737): nobody's address.
        place.remote = Some("192.0.2.1:7000".parse().unwrap());
        assert_eq!(processors(&place), Ok(()), "the other host's processor is not looked at");
        let why = at(&Case { transport: Transport::Shm, ..udp() }, &place).unwrap_err();
        assert!(why.contains("another host"), "{why}");
    }
}
