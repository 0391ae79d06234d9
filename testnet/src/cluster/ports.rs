//! Ports that nobody listens on, and that nobody will be given by chance.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    sync::{Mutex, PoisonError},
};

use node::cli::{Exit, Failure};

/// Where to look for ports: above those of well-known services.
const PORT_MIN: u16 = 10_000;
/// Where the system begins to hand out ports for outgoing connections, if it does not say.
const EPHEMERAL_DEFAULT: u16 = 32_768;

/// Ports that this process has given out. Nobody listens there before the node starts, or while it is down, and tests
/// run many networks at the same time.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Finds `count` free ports, consecutive ones from `base` on if it is given.
///
/// The ports lie below those that the system gives to outgoing connections: a node that is down must find its port
/// free when it comes back.
///
/// # Errors
///
/// If there are not enough.
pub(super) fn free_ports(count: u16, base: Option<u16>) -> Result<Vec<u16>, Failure> {
    // Held until all are found, so that none is found twice.
    let mut held = Vec::new();
    let mut ports = Vec::new();
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(base) = base {
        for port in (base..=u16::MAX).take(usize::from(count)) {
            let listener = bind(port)
                .map_err(|error| Failure::io(format!("cannot listen on 127.0.0.1, port {port}"), &error))?;
            held.push(listener);
            ports.push(port);
        }
    } else {
        for port in candidates()? {
            if ports.len() >= usize::from(count) {
                break;
            }
            if given.contains(&port) {
                continue;
            }
            if let Ok(listener) = bind(port) {
                held.push(listener);
                ports.push(port);
            }
        }
    }
    given.extend(&ports);
    if ports.len() < usize::from(count) {
        return Err(Failure::new(Exit::Io, format!("found {} of {count} free ports", ports.len())));
    }
    Ok(ports)
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

/// All ports that may be used, from a random one on: testnets that start at the same time look in different places.
fn candidates() -> Result<impl Iterator<Item = u16>, Failure> {
    let end = ephemeral_start().max(PORT_MIN + 1);
    let mut random = [0; 2];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::because(Exit::Io, "no random numbers from the system", &error))?;
    let start = PORT_MIN + u16::from_le_bytes(random) % (end - PORT_MIN);
    Ok((start..end).chain(PORT_MIN..start))
}

fn ephemeral_start() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|start| start.parse().ok()).unwrap_or(EPHEMERAL_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_distinct_and_not_for_outgoing_connections() {
        let ports = free_ports(50, None).unwrap();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 50);
        assert!(ports.iter().all(|port| *port < ephemeral_start().max(PORT_MIN + 1)));
    }

    #[test]
    fn a_port_in_use_is_named() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        let failure = free_ports(1, Some(port)).unwrap_err();
        assert!(failure.to_string().contains(&format!("port {port}")), "{failure}");
    }
}
