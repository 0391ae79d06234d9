//! A way into a network: a peer, and where it listens.

use std::{fmt, str::FromStr};

use protocol::PeerId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use swarm::{Address, address::ParseAddressError};

/// What stands between the address and the identity.
const SEPARATOR: &str = "/p2p/";

/// An address together with the identity of the peer that listens there, without which nobody could tell whether it is
/// the one that was meant: `/dns/alpha.example/tcp/4100/p2p/<64 hexadecimal digits>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddress {
    /// Who listens.
    pub peer: PeerId,
    /// Where.
    pub address: Address,
}

/// Why a text is not the address of a known peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePeerAddressError {
    /// The text does not say who listens.
    #[error(
        "{text:?} does not say who listens there; expected an address and /p2p/ with the node's identity"
    )]
    NoPeer {
        /// The start of the text.
        text: String,
    },
    /// What follows `/p2p/` is no identity.
    #[error(
        "{text:?} names no node: behind /p2p/ come the 64 hexadecimal digits that `floe info --committee` shows"
    )]
    Peer {
        /// The start of the text.
        text: String,
    },
    /// What comes before is no address.
    #[error(transparent)]
    Address(#[from] ParseAddressError),
}

impl FromStr for PeerAddress {
    type Err = ParsePeerAddressError;

    fn from_str(text: &str) -> Result<Self, ParsePeerAddressError> {
        let shown = || text.chars().take(160).collect();
        let (address, peer) =
            text.rsplit_once(SEPARATOR).ok_or_else(|| ParsePeerAddressError::NoPeer { text: shown() })?;
        let peer = peer.parse().map_err(|_| ParsePeerAddressError::Peer { text: shown() })?;
        Ok(Self { peer, address: address.parse()? })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{SEPARATOR}{}", self.address, self.peer)
    }
}

impl Serialize for PeerAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_and_its_address_survive_their_text_form() {
        for address in ["/ip4/127.0.0.1/tcp/4100", "/dns/alpha.example/udp/4100/quic-v1"] {
            let text = format!("{address}/p2p/{}", "0a".repeat(32));
            let parsed: PeerAddress = text.parse().unwrap();
            assert_eq!((parsed.peer, parsed.to_string()), (PeerId([10; 32]), text));
            assert_eq!(parsed.address.to_string(), address);
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        let digits = "0a".repeat(32);
        for (text, words) in [
            ("/ip4/127.0.0.1/tcp/4100".to_owned(), "does not say who listens"),
            ("/ip4/127.0.0.1/tcp/4100/p2p/".to_owned(), "names no node"),
            ("/ip4/127.0.0.1/tcp/4100/p2p/12D3KooW".to_owned(), "names no node"),
            (format!("/ip4/127.0.0.1/p2p/{digits}"), "is not an address"),
            (format!("/p2p/{digits}"), "is not an address"),
        ] {
            let error = text.parse::<PeerAddress>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
