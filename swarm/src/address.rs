//! Where a peer listens.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that a host name may have. Source: RFC 1035, section 2.3.4.
const NAME_BYTES_MAX: usize = 253;

/// An address that a node can listen on or dial, written as a multiaddress.
///
/// The forms are `/ip4/192.0.2.1/tcp/4001`, `/ip6/2001:db8::1/udp/4001/quic-v1` and, only to dial,
/// `/dns/example.org/tcp/4001` (also `dns4` and `dns6`). The identity of the peer is never part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: Host,
    transport: Transport,
    port: u16,
}

/// The machine an address names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A name that any address family may answer.
    Dns(String),
    /// A name that only an IPv4 address may answer.
    Dns4(String),
    /// A name that only an IPv6 address may answer.
    Dns6(String),
}

/// How bytes travel to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, with encryption and multiplexing above it.
    Tcp,
    /// QUIC version 1.
    Quic,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an address; expected the form /ip4/192.0.2.1/tcp/4001, /ip6/2001:db8::1/udp/4001/quic-v1 or /dns/example.org/tcp/4001"
)]
pub struct ParseAddressError {
    /// The start of the text.
    text: String,
}

impl Address {
    /// Returns the address of a socket.
    #[must_use]
    pub const fn new(ip: IpAddr, transport: Transport, port: u16) -> Self {
        Self { host: Host::Ip(ip), transport, port }
    }

    /// The machine.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// How bytes travel.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// The port; 0 lets the system choose one to listen on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The IP address, unless the host is a name.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match &self.host {
            Host::Ip(ip) => Some(*ip),
            Host::Dns(_) | Host::Dns4(_) | Host::Dns6(_) => None,
        }
    }
}

fn parse(text: &str) -> Option<Address> {
    let mut parts = text.strip_prefix('/')?.split('/');
    let host = match (parts.next()?, parts.next()?) {
        ("ip4", ip) => Host::Ip(IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?)),
        ("ip6", ip) => Host::Ip(IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?)),
        ("dns", name) => Host::Dns(check_name(name)?),
        ("dns4", name) => Host::Dns4(check_name(name)?),
        ("dns6", name) => Host::Dns6(check_name(name)?),
        _ => return None,
    };
    let (protocol, port) = (parts.next()?, parts.next()?);
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None; // `u16::from_str` would take a plus sign
    }
    let port = port.parse().ok()?;
    let transport = match (protocol, parts.next(), parts.next()) {
        ("tcp", None, None) => Transport::Tcp,
        ("udp", Some("quic-v1"), None) => Transport::Quic,
        _ => return None,
    };
    Some(Address { host, transport, port })
}

fn check_name(name: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    (fits && name.bytes().all(allowed)).then(|| name.to_ascii_lowercase())
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        parse(text).ok_or_else(|| ParseAddressError { text: text.chars().take(80).collect() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V4(ip)) => write!(f, "/ip4/{ip}")?,
            Host::Ip(IpAddr::V6(ip)) => write!(f, "/ip6/{ip}")?,
            Host::Dns(name) => write!(f, "/dns/{name}")?,
            Host::Dns4(name) => write!(f, "/dns4/{name}")?,
            Host::Dns6(name) => write!(f, "/dns6/{name}")?,
        }
        match self.transport {
            Transport::Tcp => write!(f, "/tcp/{}", self.port),
            Transport::Quic => write!(f, "/udp/{}/quic-v1", self.port),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text_form() {
        for text in [
            "/ip4/127.0.0.1/tcp/4001",
            "/ip4/0.0.0.0/udp/0/quic-v1",
            "/ip6/2001:db8::1/udp/4001/quic-v1",
            "/dns/node-1.example.org/tcp/65535",
            "/dns4/localhost/tcp/1",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_not_an_address() {
        for text in [
            "",
            "/",
            "127.0.0.1:4001",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/tcp/65536",
            "/ip4/127.0.0.1/tcp/+1",
            "/ip4/127.0.0.1/udp/4001",
            "/ip4/127.0.0.1/tcp/4001/p2p/x",
            "/ip4/127.0.0.1/tcp/4001/",
            "/ip4/2001:db8::1/tcp/4001",
            "/dns//tcp/4001",
            "/dns/é/tcp/4001",
            "/unix/tmp/tcp/4001",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
