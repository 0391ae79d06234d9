//! Addresses in libp2p's form, and names turned into numbers.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p::{Multiaddr, multiaddr::Protocol};
use tokio::time::timeout;

use crate::address::{Address, Host, Transport};

/// A name server that takes longer than this fails the dial, which is tried again later anyway.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses that one name may stand for; a name server could answer with any number.
const RESOLVED_MAX: usize = 4;

pub(super) fn to_libp2p(ip: IpAddr, transport: Transport, port: u16) -> Multiaddr {
    let address = Multiaddr::from(ip);
    match transport {
        Transport::Tcp => address.with(Protocol::Tcp(port)),
        Transport::Quic => address.with(Protocol::Udp(port)).with(Protocol::QuicV1),
    }
}

/// The address in Floe's form; `None` if it is of a kind that Floe does not use.
pub(super) fn from_libp2p(address: &Multiaddr) -> Option<Address> {
    let without_peer = address.iter().take_while(|part| !matches!(part, Protocol::P2p(_)));
    without_peer.collect::<Multiaddr>().to_string().parse().ok()
}

/// The IP address at the start of an address.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

/// Turns addresses into ones that can be dialled; names that do not resolve are left out.
pub(super) async fn resolve(addresses: Vec<Address>) -> Vec<Multiaddr> {
    let mut resolved = Vec::new();
    for address in addresses {
        let (transport, port) = (address.transport(), address.port());
        match address.host() {
            Host::Ip(ip) => resolved.push(to_libp2p(*ip, transport, port)),
            Host::Dns(name) => resolved.extend(look_up(name, transport, port, |_| true).await),
            Host::Dns4(name) => resolved.extend(look_up(name, transport, port, SocketAddr::is_ipv4).await),
            Host::Dns6(name) => resolved.extend(look_up(name, transport, port, SocketAddr::is_ipv6).await),
        }
    }
    resolved
}

async fn look_up(
    name: &str,
    transport: Transport,
    port: u16,
    wanted: impl Fn(&SocketAddr) -> bool + Send,
) -> Vec<Multiaddr> {
    match timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name, port))).await {
        Ok(Ok(found)) => {
            let found = found.filter(|socket| wanted(socket)).take(RESOLVED_MAX);
            found.map(|socket| to_libp2p(socket.ip(), transport, port)).collect()
        }
        Ok(Err(error)) => {
            tracing::debug!(name, %error, "name does not resolve");
            Vec::new()
        }
        Err(_) => {
            tracing::debug!(name, "name server does not answer");
            Vec::new()
        }
    }
}

/// For [`crate::fuzz`]: the address of a peer as libp2p's protocols carry it.
#[cfg(feature = "fuzz")]
pub(crate) fn address_of_multiaddr(bytes: &[u8]) -> Option<Address> {
    let address = Multiaddr::try_from(bytes.to_vec()).ok()?;
    let _ = ip(&address);
    from_libp2p(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_translate_both_ways() {
        for text in ["/ip4/127.0.0.1/tcp/4001", "/ip6/::1/udp/4001/quic-v1"] {
            let address: Address = text.parse().unwrap();
            let resolved = resolve(vec![address.clone()]).await;
            assert_eq!(resolved[0].to_string(), text);
            let with_peer = resolved[0].clone().with(Protocol::P2p(libp2p::PeerId::random()));
            assert_eq!(from_libp2p(&with_peer), Some(address));
        }
        let names = resolve(vec!["/dns4/localhost/tcp/1".parse().unwrap()]).await;
        assert_eq!(names[0].to_string(), "/ip4/127.0.0.1/tcp/1");
        assert!(resolve(vec!["/dns/no-such-name.invalid/tcp/1".parse().unwrap()]).await.is_empty());
    }
}
